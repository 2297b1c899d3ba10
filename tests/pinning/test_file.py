"""Pins in the text of params.yaml: everything else keeps its bytes."""

import difflib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ChorusError
from pipeline.params import WarmStart, parse_params
from pipeline.pinning.file import write_pins

TEXT = """\
# What is trained
data: {source: digits, watch: x,   size: 8}

families:
  # the old one
  a:   # a comment, with warm_start: champion in it
    kimg: 1
    warm_start: champion        # follows it
    architecture: mlp
  'b':
    architecture: dcgan   # ü
    warm_start: "b/r0"
    kimg: 2
  c: {architecture: vae, warm_start: ./models/x.safetensors, kimg: 3}
  d:
    architecture: mlp
    kimg: 1
    warm_start:
      version: null   # none yet
      # what it is
      content: null
      source: candidate
seed: 3  # last
"""
HASHES = {family: f"{number:064x}" for number, family in enumerate("abcd", 10)}


def pins(text: str = TEXT, **changed: str | None) -> dict[str, WarmStart]:
    families = parse_params(text).families
    found = {name: family.warm_start for name, family in families.items() if family.warm_start}
    return {
        name: pin.model_copy(update={"version": "3" if pin.kind == "alias" else None, "content": HASHES[name]})
        for name, pin in found.items()
    }


def test_only_the_warm_starts_change() -> None:
    written = write_pins(TEXT, pins())
    assert {n: f.warm_start for n, f in parse_params(written).families.items()} == pins()
    changed = [line for line in difflib.ndiff(TEXT.splitlines(), written.splitlines()) if line.startswith("+ ")]
    assert changed == [
        f'+     warm_start: {{source: "champion", version: "3", content: "{HASHES["a"]}"}}        # follows it',
        f'+     warm_start: {{source: "b/r0", version: null, content: "{HASHES["b"]}"}}',
        f'+   c: {{architecture: vae, warm_start: {{source: "./models/x.safetensors", version: null, '
        f'content: "{HASHES["c"]}"}}, kimg: 3}}',
        '+       version: "3"   # none yet',
        f'+       content: "{HASHES["d"]}"',
    ]


def test_the_same_pins_again_change_nothing_and_new_ones_replace_them() -> None:
    written = write_pins(TEXT, pins())
    assert write_pins(written, pins()) == written
    assert write_pins(written, {}) == written
    newer = {"a": pins()["a"].model_copy(update={"version": "12", "content": HASHES["d"]})}
    again = write_pins(written, newer)
    assert again == written.replace('"3"', '"12"', 1).replace(HASHES["a"], HASHES["d"])


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (" {{source: champion, version: , content: }}", ' {{source: champion, version: "3" , content: "{hash}" }}'),
        (
            "\n      version:  # none\n      content:\n      source: champion",
            '\n      version: "3"  # none\n      content: "{hash}"\n      source: champion',
        ),
        (" >-\n      champion", ' {{source: "champion", version: "3", content: "{hash}"}}'),
    ],
)
def test_empty_values_and_blocks_are_replaced(value: str, written: str) -> None:
    start = "data: {source: digits, watch: x, size: 8}\nfamilies:\n  a:\n    warm_start:"
    end = "\n    architecture: mlp\n    kimg: 1\n"
    pin = WarmStart(source="champion", version="3", content=HASHES["a"])
    found = write_pins(start + value.format() + end, {"a": pin})
    assert found == start + written.format(hash=HASHES["a"]) + end


@pytest.mark.parametrize(
    "text",
    [
        "base: &base {warm_start: champion}\nfamilies: {a: {<<: *base, architecture: mlp, kimg: 1}}",
        "seed: &w champion\nfamilies: {a: {warm_start: *w, architecture: mlp, kimg: 1}}",
    ],
)
def test_a_source_from_elsewhere_in_the_file_is_refused(text: str) -> None:
    pin = WarmStart(source="champion", version="1", content=HASHES["a"])
    with pytest.raises(ChorusError, match="through an anchor or a merge"):
        write_pins(text, {"a": pin})


def test_families_that_share_one_recipe_share_its_pin() -> None:
    text = (
        "data: {source: digits, watch: x, size: 8}\n"
        "families:\n  a: &a {architecture: mlp, kimg: 1, warm_start: champion}\n  b: *a\n"
    )
    same = WarmStart(source="champion", version="1", content=HASHES["a"])
    written = write_pins(text, {"a": same, "b": same})
    assert {f.warm_start for f in parse_params(written).families.values()} == {same}
    with pytest.raises(ChorusError):
        write_pins(text, {"a": same, "b": same.model_copy(update={"version": "2"})})


@given(
    st.from_regex(r"(\./|~/|/)[^\n\r\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\ufeff\ufffe\uffff]*", fullmatch=True),
    st.sampled_from(sorted(HASHES.values())),
)
def test_any_path_survives(source: str, content: str) -> None:
    plain = yaml.safe_dump({"families": {"a": {"architecture": "mlp", "kimg": 1, "warm_start": source}}}, width=10**6)
    text = "data: {source: digits, watch: x, size: 8}\n" + plain
    written = write_pins(text, {"a": WarmStart(source=source, version=None, content=content)})
    assert parse_params(written).families["a"].warm_start == WarmStart(source=source, version=None, content=content)
