"""The report in a real browser: it opens without a request or an error, sorts, prints and can be read by everyone."""

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.report.page import render
from tests.report.facts import facts

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: `make browser` installs it"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="Playwright is not installed"),
]

WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
TEXT_CONTRAST = """
() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (colour) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = rgba(colour).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (rgba(colour)[3] === 255) return colour;
    }
    return "white";
  };
  const faint = [];
  for (const node of document.body.querySelectorAll("*:not(script)")) {
    if (![...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim())) continue;
    const [one, other] = [getComputedStyle(node).color, behind(node)].map(light);
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) faint.push(`${node.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return faint;
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(facts()), encoding="utf-8")
    return path.as_uri()


class Opened:
    """The report opened in a window of its own; what it says on the console and asks of the network is kept."""

    def __init__(self, browser: Any, address: str, device: str = "desktop", scheme: str = "light") -> None:
        width, height = WIDTHS[device]
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.page = context.new_page()
        self.said: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    opened = Opened(browser, address).page
    yield opened
    opened.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", WIDTHS)
def test_opens_without_errors_requests_or_broken_pictures(browser: Any, address: str, device: str, scheme: str) -> None:
    opened = Opened(browser, address, device, scheme)
    page = opened.page
    assert opened.said == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [address]
    pictures = page.evaluate("[...document.images].map((image) => image.complete && image.naturalWidth > 0)")
    assert len(pictures) >= 5
    assert all(pictures)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    assert page.evaluate(TEXT_CONTRAST) == []
    page.context.close()


def test_loads_nothing_even_if_told_to(browser: Any, address: str) -> None:
    opened = Opened(browser, address)
    tried = """() => new Promise((done) => {
      addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
      document.body.append(Object.assign(new Image(), { src: "http://127.0.0.1:9/picture.png" }));
    })"""
    assert opened.page.evaluate(tried) == "img-src"
    evil = "<p onclick='document.title = 1' id=evil>x</p>"
    opened.page.evaluate("(text) => document.body.insertAdjacentHTML('beforeend', text)", evil)
    opened.page.click("#evil")
    assert opened.page.title() == "chorus version 3: weighted"
    opened.page.context.close()


def column(page: Any, table: Any, number: int) -> list[str]:
    cells = table.locator(f"tbody tr > :nth-child({number})")
    return [text.strip() for text in cells.all_inner_texts()]


def test_tables_sort_by_pointer_and_keyboard_with_unknown_values_last(page: Any) -> None:
    table = page.locator("section", has=page.locator("#strategies")).locator("table").first
    head = table.locator("thead th").nth(1)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, table, 1) == ["weighted", "uniform", "best", "average", "vote"]
    assert page.locator("#sorted").inner_text().endswith("sorted by choose\xa0↓, ascending")
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, table, 1) == ["average", "best", "uniform", "weighted", "vote"]
    table.locator("thead th").first.get_by_role("button").focus()
    page.keyboard.press("Space")
    assert column(page, table, 1) == ["average", "best", "uniform", "vote", "weighted"]
    assert head.get_attribute("aria-sort") is None
    assert page.locator("table.sortable thead tr:last-child > th:not(:has(button))").count() == 0


def test_numbers_sort_as_numbers(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")
    table = page.locator("section", has=page.locator("#classes")).locator("table")
    table.locator("thead th", has_text="covered").nth(1).get_by_role("button").click()
    covered = column(page, table, 5)
    assert covered[0] == "80.0 %", "where higher is better the highest comes first"
    assert covered[-1] == "–"
    assert covered[:-1] == sorted(covered[:-1], key=lambda text: -float(text[:-2]))


def test_can_be_read_without_eyes(page: Any) -> None:
    assert page.evaluate("[...document.querySelectorAll('table')].every((table) => table.caption?.textContent)")
    assert page.locator("th:not([scope])").count() == 0
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    assert page.locator("svg:not([aria-hidden])").count() == 0, "charts are decoration: their numbers are text"
    for role in ("banner", "navigation", "main"):
        assert page.get_by_role(role).count() == 1
    assert page.locator("h1").count() == 1
    assert page.locator("main section:not([aria-labelledby])").count() == 0
    targets = page.evaluate("[...document.querySelectorAll('a[href^=\"#\"]')].map((a) => a.getAttribute('href'))")
    assert len(targets) > 10
    assert all(page.locator(target).count() == 1 for target in targets)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"


def test_prints_unfolded(page: Any) -> None:
    folded = page.locator("details:not([open])").count()
    assert folded > 5
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.emulate_media(media="print")
    assert not page.get_by_role("navigation").is_visible()
    assert page.pdf()[:4] == b"%PDF"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() == folded
