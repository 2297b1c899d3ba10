"""What none of our code does: unpickle, run what it reads, or listen to the network."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.data.quarantine import printable
from pipeline.errors import ChorusError
from pipeline.models._base import architecture

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("pipeline", "flows", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
# Calls that make objects or run code out of what they are given.
FORBIDDEN = re.compile(
    r"(?:(?:c?[Pp]ickle|cloudpickle|dill|joblib|marshal|shelve)\.(?:loads?|open|Unpickler)"
    r"|(?:pd|pandas)\.read_pickle|yaml\.(?:unsafe_load|full_load|unsafe_load_all|load_all)"
    r"|os\.(?:system|popen)|eval|exec|tempfile\.mktemp|(?:tarfile|zipfile|shutil)\.\w*unpack\w*|.*\.extractall)"
)


def confined(name: str, keywords: dict[str, str]) -> bool:
    """Whether a call unpacks an archive by the rules of PEP 706: nothing outside of the folder, no devices."""
    return name.endswith(".extractall") and keywords.get("filter") == "'data'"


def unsafe_calls(source: str) -> Iterator[str]:
    """Yield the calls of a source that could run what they read."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name, keywords = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
        given = [ast.unparse(argument) for argument in node.args]
        wrong = (
            (FORBIDDEN.fullmatch(name) and not confined(name, keywords))
            or (name == "torch.load" and keywords.get("weights_only") != "True")
            or (name in ("np.load", "numpy.load") and keywords.get("allow_pickle", "False") != "False")
            or (name == "yaml.load" and given[1:] != ["_UniqueKeyLoader"])
            or keywords.get("shell") == "True"
        )
        if wrong:
            yield ast.unparse(node)


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "pickle.loads(data)",
        "joblib.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, yaml.Loader)",
        "yaml.unsafe_load(text)",
        "subprocess.run(text, shell=True)",
        "eval(text)",
        "archive.extractall(folder)",
        "archive.extractall(folder, filter='fully_trusted')",
    ],
)
def test_unsafe_calls_are_recognised(source: str) -> None:
    assert list(unsafe_calls(source)) == [source]


def test_an_archive_may_be_unpacked_into_its_folder_alone() -> None:
    assert not list(unsafe_calls("archive.extractall(folder, filter='data')"))


def test_no_source_unpickles_or_runs_what_it_reads() -> None:
    found = {path.relative_to(ROOT).as_posix(): list(unsafe_calls(path.read_text())) for path in SOURCES}
    assert {name: calls for name, calls in found.items() if calls} == {}


def test_no_server_is_opened_to_the_network() -> None:
    others = [ROOT / "Makefile", ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / ".ci").iterdir()]
    for path in [*SOURCES, *others]:
        text = path.read_text()
        assert "0.0.0.0" not in text, path
        for server in re.findall(r"^.*\bmlflow (?:ui|server|models serve).*$", text, re.MULTILINE):
            assert "--host 127.0.0.1" in server or "`" in server, f"{path}: {server}"


@pytest.mark.parametrize("name", ["../mlp", "mlp.x", "..os", "os", "_base", "", "mlp;x"])
def test_a_foreign_architecture_is_refused(name: str) -> None:
    with pytest.raises(ChorusError, match="there is no architecture"):
        architecture(name)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("café/猫.png", "café/猫.png"),
        ("caf\udce9.png", r"caf\xe9.png"),
        ("a\x1b[2J\r\n.png", r"a\x1b[2J\r\n.png"),
        ("gnp.\u202eexe", r"gnp.\u202eexe"),
    ],
)
def test_names_show_and_do_nothing_else(name: str, shown: str) -> None:
    assert printable(name) == shown
