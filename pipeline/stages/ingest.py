"""Stage `ingest`: take a snapshot of the source into `data/raw`."""

import shutil
from pathlib import Path

from pipeline.data.folder import ingest_folder
from pipeline.data.raw import RawWriter
from pipeline.data.sources import DEFAULT_ROOT, ingest_named
from pipeline.errors import ChorusError
from pipeline.project import Project


def run(project: Project) -> None:
    """Read `data.source` and write shards, `index.jsonl`, `rejected.jsonl` and, last, `source.json`."""
    data = project.params.data
    root = project.root / (data.root or DEFAULT_ROOT).expanduser()
    _check_apart(root, project.raw, walked=data.source == "folder")
    if project.raw.exists():
        shutil.rmtree(project.raw)
    with RawWriter(project.raw) as raw:
        if data.source == "folder":
            _say_what_is_watched(root, project.root / Path(data.watch).expanduser())
            classes = ingest_folder(root, raw)
        else:
            classes = ingest_named(data.source, root, raw)
        raw.finish(data.source, classes)
    of = "" if classes is None else f" of {len(classes)} classes"
    rejected = f"; {raw.rejected:,} files were not taken" if raw.rejected else ""
    print(f"ingest: {raw.images:,} images{of} from {data.source}{rejected}", flush=True)


def _check_apart(root: Path, raw: Path, walked: bool) -> None:
    """Refuse a source that lies in our own output, which is emptied before it is written, or is walked and holds it."""
    source, output = root.resolve(), raw.resolve()
    if source.is_relative_to(output) or (walked and output.is_relative_to(source)):
        raise ChorusError(f"data.root: {str(root)!r} and {str(raw)!r} lie in each other; keep your images elsewhere")


def _say_what_is_watched(root: Path, watch: Path) -> None:
    if watch.resolve() != root.resolve():
        print(f"ingest: data.watch is {watch}, so changes in {root} are noticed when that changes", flush=True)
