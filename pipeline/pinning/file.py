"""Pins written into the text of `params.yaml`, of which nothing else changes: no comment, no order, no space."""

import json
from collections.abc import Mapping

import yaml

from pipeline.errors import ChorusError
from pipeline.params import WarmStart, parse_params

Edit = tuple[int, int, str]  # characters from, up to, and what takes their place


def write_pins(text: str, pins: Mapping[str, WarmStart]) -> str:
    """Return the text of a `params.yaml` with the families' warm starts as `pins` says.

    A plain source becomes a mapping in its place; of a mapping, version and content are replaced. Raises `ChorusError`
    where a family has its `warm_start` from elsewhere in the file, where another family may share it.
    """
    families = _entries(_entries(yaml.compose(text, yaml.SafeLoader))["families"])
    edits: set[Edit] = set()
    for family, pin in pins.items():
        node = _entries(families[family]).get("warm_start")
        # An alias stands where its anchor does.
        if node is None or not families[family].start_mark.index <= node.start_mark.index:
            raise _elsewhere(family)
        edits.update(_edits(node, pin))
    changed = text
    for start, end, replacement in sorted(edits, reverse=True):
        if start == end:  # of an empty value, whose place is right behind the colon
            replacement = f" {replacement}"
        elif text[end - 1] == "\n":  # of a block, which ends with its line
            replacement += "\n"
        changed = changed[:start] + replacement + changed[end:]
    written = parse_params(changed).families
    for family, pin in pins.items():
        if written[family].warm_start != pin:
            raise _elsewhere(family)
    return changed


def _edits(node: yaml.Node, pin: WarmStart) -> list[Edit]:
    """What to replace so that a `warm_start` says the pin."""
    if isinstance(node, yaml.MappingNode):
        inside = _entries(node)
        values = {"version": pin.version, "content": pin.content}
        return [(*_span(inside[name]), json.dumps(value)) for name, value in values.items()]
    source, version, content = (
        json.dumps(value, ensure_ascii=False) for value in (pin.source, pin.version, pin.content)
    )
    return [(*_span(node), f"{{source: {source}, version: {version}, content: {content}}}")]


def _span(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.index, node.end_mark.index


def _entries(node: yaml.Node | None) -> dict[str, yaml.Node]:
    """Nodes of a mapping's values by their keys; nothing for what is no mapping."""
    return {key.value: value for key, value in node.value} if isinstance(node, yaml.MappingNode) else {}


def _elsewhere(family: str) -> ChorusError:
    return ChorusError(
        f"params.yaml: families.{family} has its warm_start through an anchor or a merge; write it below the family"
    )
