"""The modules of Chorus that sampling needs, copied under a package name of their own.

`pipeline` is a common name, and two versions may carry different code. So the copy is named after its own hash: it
hides no package of the user's, none hides it, and each version runs the code that it was registered with.
"""

import ast
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.files import write_text

ROOT = Path(__file__).parents[1]
PACKAGE = "pipeline"
ENTRY = f"{PACKAGE}.recipes"
OWN_IMPORT = re.compile(rf"^(\s*(?:from|import)\s+){PACKAGE}(?=[.\s])", re.MULTILINE)


def module_file(module: str) -> Path | None:
    """Return the file of one of our modules by its dotted name, or None where the name is no module."""
    path = ROOT.joinpath(*module.split(".")[1:])
    if path.is_dir():
        return path / "__init__.py"
    path = path.with_suffix(".py")
    return path if path.is_file() else None


def imported(source: str) -> Iterator[str]:
    """Yield the dotted names of our own modules (and of what may be names inside them) that a source imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == PACKAGE)


def sampling_modules() -> dict[str, str]:
    """Return the source of each module that loading and sampling import, by dotted name, parents included.

    All architectures are taken, composites too: they are imported by name, which no import statement shows.
    """
    todo = [ENTRY, *(f"{PACKAGE}.models.{path.stem}" for path in (ROOT / "models").glob("*[!_].py"))]
    found: dict[str, str] = {}
    while todo:
        name = todo.pop()
        file = module_file(name)
        if file is None or name in found:
            continue
        found[name] = file.read_text(encoding="utf-8")
        parts = name.split(".")
        todo += [".".join(parts[:end]) for end in range(1, len(parts))]
        todo += imported(found[name])
    return dict(sorted(found.items()))


def package_name() -> str:
    """Return the name of the package that the modules make, which their sources decide: `chorus_code_0123456789ab`."""
    parts = [part for pair in sampling_modules().items() for part in pair]
    return f"chorus_code_{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:12]}"


def write_sampling_code(folder: Path) -> str:
    """Write the modules as a package below `folder` and return its name."""
    package = package_name()
    for name, source in sampling_modules().items():
        file = module_file(name)
        assert file is not None
        write_text(folder / package / file.relative_to(ROOT), OWN_IMPORT.sub(rf"\g<1>{package}", source))
    return package
