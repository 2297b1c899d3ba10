"""The README says what the code does."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from pipeline.params import Family, Params, Student, parse_params

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
ROWS = dict(re.findall(r"^\| `([\w.]+)` \| ([^|]*) \|", README, re.MULTILINE))


def keys():
    for name, field in Params.model_fields.items():
        key = field.alias or name
        if key == "families":
            yield from ((inner, value) for inner, value in Family.model_fields.items())
        elif key == "students":
            own = set(Student.model_fields) - set(Family.model_fields)
            yield from ((f"students.{inner}", Student.model_fields[inner]) for inner in own)
        elif hasattr(field.annotation, "model_fields"):
            yield from ((f"{key}.{inner}", value) for inner, value in field.annotation.model_fields.items())
        else:
            yield key, field


def test_the_table_names_every_parameter_and_no_other():
    assert set(ROWS) == {key for key, _ in keys()}


@pytest.mark.parametrize(("key", "field"), list(keys()))
def test_defaults_in_the_table_are_those_of_the_code(key, field):
    told = ROWS[key].strip()
    if key in ("loss", "kl_weight", "sample_noise", "fusion.strategies"):
        return  # what stands there is what an absent value comes to, or a summary
    if field.is_required():
        assert told == "required"
    elif isinstance(section := field.default, BaseModel):
        assert type(section).model_validate(yaml.safe_load(told)) == section
    else:
        default = field.get_default(call_default_factory=True)
        assert yaml.safe_load(told) == (list(default) if isinstance(default, tuple) else default)


def test_the_file_in_the_repository_is_valid():
    assert parse_params((ROOT / "params.yaml").read_text())


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_links_lead_somewhere(link):
    assert link.startswith("http") or (ROOT / link).exists()


def test_commands_of_make_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make ([a-z-]+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
