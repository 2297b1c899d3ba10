"""Reading `params.yaml`: one clear message for each wrong key."""

from collections.abc import Hashable, Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.errors import ChorusError
from pipeline.params.family import Family
from pipeline.params.redaction import holds_credentials
from pipeline.params.sections import Params
from pipeline.params.student import Student

RECIPES: dict[str, type[Family]] = {"families": Family, "students": Student}  # sections whose keys are names
MOST_DIGITS = 30  # of a number that a message writes out


def _explain(item: Any) -> str:
    """One pydantic error as `key = value: what is allowed`."""
    where = key_of(item["loc"])
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        return f"{where}: unknown key; allowed here: {', '.join(_allowed_keys(item['loc'][:-1]))}"
    if item["type"] == "missing":
        return f"{where}: missing"
    if item["type"] in ("float_type", "int_type") and (number := _written_out(item["input"])):
        message = f"YAML takes this for text; write {number}"
    value = "" if isinstance(item["input"], dict | BaseModel) else f" = {item['input']!r}"
    if item["type"] == "model_type":
        return f"{where}{value}: a section of keys is wanted here: {', '.join(_allowed_keys(item['loc']))}"
    return f"{where}{value}: {message}" if where else message


def _written_out(value: Any) -> str | None:
    """Return the number in a text without an exponent, None where there is none: `1e-3` is text to YAML."""
    try:
        number = Decimal(value) if isinstance(value, str) else None
    except InvalidOperation:
        return None
    sensible = number is not None and number.is_finite() and abs(number.adjusted()) < MOST_DIGITS
    return f"{number:f}" if sensible else None


def key_of(location: tuple[Any, ...]) -> str:
    """Return a location as a key of the file: what pydantic adds to tell the members of a union apart is left out."""
    own = [str(part) for part in location if part != "[key]"]
    added = next((i for i, part in enumerate(own) if i and ("[" in part or part.startswith("constrained-"))), len(own))
    return ".".join(own[:added])


def _allowed_keys(location: tuple[Any, ...]) -> list[str]:
    """Keys of the section at `location`."""
    model: Any = Params
    for part in location:
        if isinstance(part, int):
            continue  # the place in a list, whose entries are the model already
        if part in RECIPES:
            model = RECIPES[part]
        elif model not in RECIPES.values() or part in model.model_fields:
            fields = {field.alias or name: field for name, field in model.model_fields.items()}
            model = fields[part].annotation
            model = next((kind for kind in get_args(model) if hasattr(kind, "model_fields")), model)
    return [field.alias or name for name, field in model.model_fields.items()]


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML keeps the last of two equal keys silently; here that is an error, for it loses a family."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, Hashable):
                raise ChorusError(f"params.yaml: a list or a section stands where a key is wanted (line {line})")
            if key in seen:
                raise ChorusError(f"params.yaml: the key '{key}' stands twice (line {line})")
            seen.add(key)
        return super().construct_mapping(node, deep)


def _credentials(value: Any, key: str = "") -> Iterator[str]:
    """Yield the keys whose texts are addresses with credentials inside."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _credentials(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _credentials(inner, key)
    elif isinstance(value, str) and holds_credentials(value):
        yield key


def parse_params(text: str) -> Params:
    """Validate the text of a `params.yaml`; raises `ChorusError` naming each wrong key, its value and the remedy."""
    try:
        content = yaml.load(text, _UniqueKeyLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a thirteenth month, for instance
        raise ChorusError(f"params.yaml is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise ChorusError("params.yaml holds no keys; README.md has a table of them")
    if secret := next(_credentials(content), None):
        raise ChorusError(
            f"params.yaml: {secret} holds a password or a key, and this file is committed and copied into reports: "
            "keep it in an environment variable or in .dvc/config.local"
        )
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors()]
        raise ChorusError("params.yaml: " + "\n             ".join(lines)) from None


def read_params(path: Path) -> Params:
    """Read and validate `params.yaml`."""
    try:
        return parse_params(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ChorusError(f"{path} is missing; run in the project's folder") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ChorusError(f"{path} cannot be read: {error}") from None


def missing_sections(path: Path) -> list[str]:
    """Return the sections that `params.yaml` leaves out: DVC reads the file too, and knows none of the defaults.

    No stage reads `flow`, so DVC does without it.
    """
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    names = [field.alias or name for name, field in Params.model_fields.items() if name != "flow"]
    missing = [name for name in names if name not in content]
    return missing + ["racing.rungs"] * ("rungs" not in content.get("racing", {"rungs": None}))
