"""The report: one file, escaped, saying what the judges say."""

import dataclasses
import html
import re
from html.parser import HTMLParser

import pytest

from pipeline.fusion import choice
from pipeline.report import certainty, charts, tables
from pipeline.report.page import distance_chart, learning_curves, render
from tests.report.facts import facts, intervals, metrics, recipe, strategies

VOID = {"meta", "img", "link", "br", "hr", "input", "rect", "line", "path"}


class Balanced(HTMLParser):
    """Fails on a tag that is closed without being open; collects addresses and tags."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page() -> str:
    return render(facts())


def section_of(page: str, place: str) -> str:
    return page.split(f'<h2 id="{place}">')[1].split("</section>")[0]


def test_page_is_whole_and_loads_nothing(page: str) -> None:
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert parser.tags.isdisjoint({"link", "iframe", "object"})
    assert page.count("<script") == 1
    assert parser.addresses
    asked = [address for address in parser.addresses if not address.startswith(("data:image/png;base64,", "#"))]
    assert sorted(asked) == sorted(facts().links.values()), "links, which nobody has to follow"
    assert page.count("http://") + page.count("https://") == len(asked)
    assert "url(" not in page


def test_page_says_what_the_files_say(page: str) -> None:
    for arm in metrics()["arms"]:
        assert f'<th scope="row">{arm["name"]}</th>' in page
    for words in (
        "version 3",
        "Both judges find the fusion nearer",
        "no candidate has a discriminator",
        "Students of the fusion",
        "it is 20% farther away",
        "at most 10 % farther away",
        "loss_g exploded to 3.1e+04",
        "46.0 %",
        "899",
        "classifies 98.1 % of val rightly",
        "359 of the validation split against the 270 here",
    ):
        assert words in page
    assert metrics()["warnings"][0] in page
    assert page.count('class="lines"') == 2 * 4, "two losses of four families"


def test_page_tells_the_race_and_is_silent_without_one(page: str) -> None:
    assert "The race for the budget" in page
    assert "gains now: 4.25 if 1 goes on, 3.75 if 2 go on." in " ".join(page.split())
    fixed = {name: value for name, value in facts().race[0].items() if name != "foretold"}
    assert "foretold" not in render(dataclasses.replace(facts(), race=[fixed]))
    assert "Before rung 2" in page
    assert "without it the best mixture is farther away by 0.2, which is the least" in page
    assert '<th scope="row">mlp</th><td colspan="7">out</td><td class="text">no candidate in rung 1</td>' in page
    assert "Siblings in dcgan stay candidates" in page
    assert "race" not in render(dataclasses.replace(facts(), race=[], siblings=[]))


def test_page_says_how_sure_the_distances_are(page: str) -> None:
    assert "With 95 % intervals: nearer by every judge." in page
    assert "difference -1.41, 95 % interval -1.71 to -1.12</p>" in page
    assert "<h3>fd16_selfsup-b</h3>" in page
    (row,) = re.findall(
        r"<tr class=\"strategy\"><th scope=\"row\">best</th>.*?</tr>", section_of(page, "intervals"), re.DOTALL
    )[:1]
    assert "<td>0.129</td><td>-0.165 to 0.423</td>" in row
    assert "within the noise" in row


def test_page_without_intervals_says_that_images_are_too_few() -> None:
    judged = metrics()
    for arm in judged["intervals"]["arms"]:
        arm["distances"], arm["differences"] = {}, {}
    page = render(dataclasses.replace(facts(), metrics=judged))
    assert "fd16_classifier-b has no interval: that takes 5 images a dimension on each side." in page
    assert "too few to tell whether that is noise" in page


def test_sentence_of_what_is_beyond_the_noise() -> None:
    judged = metrics()
    shipped = next(arm for arm in judged["intervals"]["arms"] if arm["name"] == "weighted")["differences"]
    one, other = shipped["fd16_classifier-b"], shipped["fd16_selfsup-b"]
    other["beyond_noise"] = False
    told = "With 95 % intervals: nearer by fd16_classifier-b; within the noise by fd16_selfsup-b."
    assert certainty.sentence(judged) == told
    one["beyond_noise"] = False
    assert certainty.sentence(judged) == "With 95 % intervals: within the noise by every judge."
    one |= {"beyond_noise": True, "value": 0.4}
    assert certainty.sentence(judged).startswith("With 95 % intervals: farther by fd16_classifier-b;")


def test_page_says_what_classifiers_tell_apart_and_learn(page: str) -> None:
    assert "Can a classifier tell them apart?" in page
    assert "87.4 % <small>85.3 to 89.3</small></td><td>&lt; 0.001</td><td>540</td>" in page
    assert '<tr class="floor"><th scope="row">real images</th><td>49.3 %' in page
    assert "Can it learn the classes from them?" in page
    assert '<th scope="row">dcgan/r0</th>\n<td colspan="3" class="text">it cannot be asked for a class</td>' in page
    judged = metrics()
    skipped = [{"name": "weighted", "kind": "strategy", "skipped": "the images have no classes"}]
    judged["classifiers"]["classification"] = {"rows": skipped}
    other = render(dataclasses.replace(facts(), metrics=judged))
    assert "Can it learn the classes from them?" not in other
    assert "does not apply:\nweighted: the images have no classes." in other


def test_page_says_at_the_top_how_the_candidate_compares_with_the_champion(page: str) -> None:
    def header(page: str) -> str:
        return page.split("</header>")[0]

    told = "Against the champion: by all judges together 0.02 nearer than version 2."
    assert told in header(page)
    assert "Compared with the champion, version 2, which was measured again for it." in section_of(page, "gate")
    gate = facts().gate
    for champion in (None, {**gate["champion"], "itself": True}):
        other = render(dataclasses.replace(facts(), gate={**gate, "champion": champion}))
        assert "Against the champion" not in other
    # A candidate that draws nothing is asked about its costs alone.
    rules = [rule for rule in gate["rules"] if rule["name"] in ("smoke", "megabytes")]
    idle = render(dataclasses.replace(facts(), gate={**gate, "comparison": [], "rules": rules}))
    assert "Against the champion" not in idle
    assert "measured again" not in section_of(idle, "gate")
    assert "Nothing was compared with the champion, version 2." in section_of(idle, "gate")


def test_text_from_outside_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    made = facts()
    judged = metrics()
    judged["warnings"] = [evil]
    judged["classes"]["names"][0] = evil
    page = render(
        dataclasses.replace(
            made,
            metrics=judged,
            manifest={**made.manifest, "source": evil, "classes": [evil, *made.manifest["classes"][1:]]},
            quarantine=[(evil, evil)],
            lineage={evil: evil},
            details={evil: {evil: evil}},
            pictures={f'"{evil}': b""},
            histories={evil: made.histories["mlp/r0"]},
        )
    )
    assert evil not in page
    assert page.count("&lt;script&gt;") >= 12


def test_secrets_are_taken_out_before_anything_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = """p<a>&s"s'w"""
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", secret)
    made, judged = facts(), {**metrics(), "warnings": [f"it said {secret}."]}
    failed = dict.fromkeys(made.failed, (f"with {secret}", 1.0, 1))
    page = render(dataclasses.replace(made, metrics=judged, failed=failed, lineage={"commit": secret}))
    assert "it said ***." in page
    assert "with ***" in page
    assert secret not in html.unescape(page)


def test_page_without_judges_floors_curves_or_classes() -> None:
    judged = {**metrics(), "headline": [], "floor": {}, "warnings": []}
    made = facts()
    manifest = {**made.manifest, "classes": None}
    page = render(dataclasses.replace(made, metrics=judged, histories={}, manifest=manifest, quarantine=[]))
    assert "Learning curves" not in page
    assert "Read with care" not in page


@pytest.mark.parametrize(
    ("distances", "words"),
    [
        ((1.0, 1.0), "Both judges find the fusion nearer"),
        ((1.0, 9.0), "The judges disagree: 1 of 2"),
        ((9.0, 9.0), "No judge finds"),
    ],
)
def test_verdict(distances: tuple[float, float], words: str) -> None:
    judged = metrics()
    for name, distance in zip(judged["headline"], distances, strict=True):
        tables.arm(judged, "weighted", "strategy")["metrics"][name] = distance
        tables.arm(judged, "dcgan/r0", "member")["metrics"][name] = 5.0
    assert tables.verdict(judged, recipe(), strategies()).startswith(words)


def test_verdict_on_a_single_member() -> None:
    judged, alone = {**metrics(), "winner": "best"}, {"kind": "candidate", "id": "vae/r0/000200000"}
    judged["shipped"] = {"kind": "strategy", "name": "best"}
    entrant = choice.Entrant("best", 1.0, 1.0, None)
    chosen = {"winner": "best", "strategies": [{"name": "best", "why": choice.verdict(entrant, entrant, [entrant])}]}
    sentence = tables.verdict(judged, alone, chosen)
    assert "No mixture did better on the validation images than one member alone: vae/r0/000200000" in sentence
    named = {"winner": "best", "strategies": [{"name": "best", "why": "fusion.strategy names the winner"}]}
    assert tables.verdict(judged, alone, named).startswith("No judge finds the strategy best nearer")


@pytest.mark.parametrize("name", ["soup/a/000200000", "dcgan/r0/000200000"])
def test_verdict_on_one_network_that_another_strategy_gave(name: str) -> None:
    chosen = {"winner": "weighted", "strategies": [{"name": "weighted", "why": tables.CHOSEN}]}
    sentence = tables.verdict(metrics(), {"kind": "candidate", "id": name}, chosen)
    assert sentence.startswith("Both judges find the strategy weighted nearer")


def test_verdict_on_a_student() -> None:
    judged = metrics()
    judged["arms"].append({"name": "small", "kind": "student", "cost": 1.0, "metrics": judged["arms"][0]["metrics"]})
    judged["shipped"] = {"kind": "student", "name": "small"}
    judged["intervals"] = intervals(judged["arms"])
    sentence = tables.verdict(judged, {"kind": "candidate", "id": "small/student/000200000"}, strategies())
    assert "the student small" in sentence
    bars, ends = distance_chart(judged, "fd16_selfsup")
    assert [bar.label for bar in bars if bar.kind == "winner"] == ["small"]
    assert ends is None, "what takes decisions has no intervals"


def test_headline_gain() -> None:
    assert tables.Headline("fd", shipped=3.0, member=4.0, floor=None).gain == pytest.approx(0.25)


def test_columns_put_judges_first_and_know_inception() -> None:
    judged = metrics()
    for arm in judged["arms"]:
        arm["metrics"]["fid"] = 1.0
    columns = tables.columns(judged)
    assert list(dict.fromkeys(c.extractor for c in columns)) == [
        "classifier-b",
        "selfsup-b",
        "classifier",
        "inception-v3-compat",
        "selection",
        "selfsup",
    ]
    assert {c.extractor for c in columns if c.judge} == {"classifier-b", "selfsup-b"}
    best = tables.best_values(judged)
    assert best["fd_classifier"] == min(arm["metrics"]["fd_classifier"] for arm in judged["arms"])
    assert best["recall_selfsup"] == max(arm["metrics"]["recall_selfsup"] for arm in judged["arms"])


def test_shares_of_nested_recipes() -> None:
    a, b = ({"kind": "candidate", "id": f"{name}/r0/1"} for name in "ab")
    inner = {"kind": "mixture", "weights": [0.5, 0.5], "parts": [a, b]}
    outer = {"kind": "mixture", "weights": [0.4, 0.6, 0.0], "parts": [a, inner, {"kind": "candidate", "id": "c/r0/1"}]}
    assert tables.shares(outer) == [("a/r0/1", pytest.approx(0.7)), ("b/r0/1", pytest.approx(0.3))]
    assert tables.shares({"kind": "vote", "source": outer, "critics": [], "draws": 4}) == tables.shares(outer)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((None, "–"), (float("nan"), "–"), (2000, "2,000"), (1234.5, "1,234"), (12.34, "12.3"), (1.234, "1.23")),
        *((0.1234, "0.123"), (0.0023, "0.0023"), (-0.0031, "-0.0031"), (3e-7, "3e-07"), (0.0, "0")),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert tables.number(value) == text


def test_bars_are_proportional_and_cut_beyond_the_end() -> None:
    made = charts.bars(
        [("a", 1.0, "member"), ("b", 2.0, "member"), ("c", 100.0, "member"), ("d", -1.0, "x")], floor=0.5
    )
    widths = [float(re.search(r'width="([\d.]+)"', bar.svg).group(1)) for bar in made]  # type: ignore[union-attr]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.02)
    assert widths[2] == 100
    assert widths[3] == 0
    assert [bar.cut for bar in made] == [False, False, True, False]
    assert charts.bars([]) == []


def test_intervals_lie_on_one_scale_and_far_ones_are_cut() -> None:
    def row(name: str, value: float, half: float) -> charts.Span:
        return charts.Span(name, "member", value, value - half, value + half, value + 0.5, "")

    made, ends = charts.spans([row("a", 1.0, 2.0), row("b", 2.0, 1.0), row("c", 90.0, 3.0)], reference=2.0)
    assert ends == (-1.0, 3.0)
    assert [bar.cut for bar in made] == [False, False, True]
    places = [[float(x) for x in re.findall(r'(?:x[12]="|M)([\d.]+)', bar.svg)] for bar in made]
    # The reference twice, low, high, what was measured, the value; the scale has four units.
    assert places[0] == [75, 75, 0, 100, 62.5, 50]
    assert places[1] == [75, 75, 50, 100, 87.5, 75]
    assert places[2] == [75, 75, 100, 100, 100, 100]


def test_one_interval_alone_has_a_scale() -> None:
    made, ends = charts.spans([charts.Span("a", "member", 0.0, 0.0, 0.0, 0.0, "")], reference=0.0)
    assert len(made) == 1
    assert ends[0] < ends[1]


def test_learning_curves_lay_replicas_over_each_other() -> None:
    rows = [{"nimg": 1000, "loss": 2.0}, {"nimg": 3000, "loss": 1.0, "kl": 5.0}]
    longer = [*rows, {"nimg": 5000, "loss": 0.5, "kl": float("nan")}]
    (curve,) = learning_curves({"a/r0": rows, "a/r1": longer, "b/r0": []})
    assert (curve.family, curve.kimg, [name for name, _ in curve.members]) == ("a", 5.0, ["r0", "r1"])
    assert [(plot.name, plot.low, plot.high) for plot in curve.plots] == [("loss", 0.5, 2.0), ("kl", 5.0, 5.0)]
    assert curve.plots[0].svg.count("<path") == 2


def test_lines_leave_gaps() -> None:
    svg = charts.lines([[(0, 0.0), (1, 1.0), (2, float("nan")), (3, 2.0)]])
    assert svg.count("M") == 2
    assert charts.lines([[(0, float("nan"))]]) == ""


def test_page_shows_the_least_covered_class_first_and_empty_ones_last(page: str) -> None:
    section = section_of(page, "classes")
    assert re.findall(r'<tr><th scope="row">(\d)</th>', section) == ["8", "7", "6", "5", "4", "3", "2", "1", "0", "9"]
    assert '<tr><th scope="row">9</th><td>0</td><td>–</td><td>10.0 %</td>' in section
    assert "87.5 %" in section
    unlabelled = {**metrics(), "classes": None}
    assert "Which classes are covered?" not in render(dataclasses.replace(facts(), metrics=unlabelled))


def test_page_without_a_judge_that_knows_the_classes() -> None:
    judged = metrics()
    for row in judged["classes"]["rows"]:
        row["share"] = None
    assert "<td>90.0 %</td><td>–</td>" in render(dataclasses.replace(facts(), metrics=judged))


def test_page_shows_the_likeliest_copies(page: str) -> None:
    section = section_of(page, "copies")
    shares = "<td>76.8 % <small>± 2.2</small></td><td>77.8 % <small>± 6.0</small></td><td>76.9 %</td>"
    assert f'<th scope="row">real images</th>{shares}<td>41.0 %</td><td>1.004</td>' in section
    assert '<td>–</td><td class="text">more often than by chance' in section
    assert section.count("no more often than by chance") == 2
    assert section.count("data:image/png;base64,") == 2
