"""Stage `prepare`: decode, check, resize and split `data/raw` into the arrays of `data/prepared`."""

import shutil
from contextlib import ExitStack
from pathlib import Path

from pipeline.data.dataset import SPLITS, load_split, read_manifest
from pipeline.data.decode import BadImageError, decode, from_pixels, to_array
from pipeline.data.manifest import write_manifest
from pipeline.data.preview import preview
from pipeline.data.progress import with_progress
from pipeline.data.quarantine import Quarantine, printable, quarantine
from pipeline.data.raw import RawFacts, read_facts, read_raw, read_rejected
from pipeline.data.split_writer import SplitWriter
from pipeline.data.splits import pixel_hash, split_of
from pipeline.errors import ChorusError
from pipeline.files import replacing
from pipeline.params import Data
from pipeline.project import Project


def run(project: Project) -> None:
    """Write the four splits, their `manifest.json`, `quarantine.jsonl` and `preview.png`.

    Raises `ChorusError` where more than `data.max_bad_fraction` of the images are bad (their list is left to be read)
    and where a split stays empty.
    """
    data, raw, prepared = project.params.data, project.raw, project.prepared
    facts = read_facts(raw)
    if facts.source != data.source:
        raise ChorusError(f"{raw} holds '{facts.source}', data.source is '{data.source}'; run `dvc repro`")
    if prepared.exists():
        shutil.rmtree(prepared)
    bad_list = prepared / "quarantine.jsonl"
    with quarantine(bad_list) as bad:
        for name, reason in read_rejected(raw):
            bad.add(name, reason)
        counts, duplicates = _write_splits(raw, prepared, facts, data, bad)
    bad.check(facts.images + facts.rejected, data.max_bad_fraction, bad_list)
    _check_filled(counts)
    write_manifest(
        prepared,
        source=data.source,
        size=data.size,
        channels=data.channels,
        classes=facts.classes and [printable(name) for name in facts.classes],
        duplicates=duplicates,
        quarantined=bad.count,
    )
    with replacing(prepared / "preview.png") as temporary:
        preview(load_split(prepared, "train"), read_manifest(prepared)["classes"]).save(temporary, format="PNG")
    found = ", ".join(f"{split} {count:,}" for split, count in counts.items())
    print(f"prepare: {found} images; {duplicates:,} duplicates and {bad.count:,} bad ones left out", flush=True)


def _write_splits(
    raw: Path, prepared: Path, facts: RawFacts, data: Data, bad: Quarantine
) -> tuple[dict[str, int], int]:
    """Write each image's pixels and label to its split.

    Returns the number of images of each split and that of duplicates: of images with the same pixels the first counts,
    whatever the classes of the others. Memory holds one image at a time, and a hash of each.
    """
    labels = {name: number for number, name in enumerate(facts.classes or ())}
    seen: set[bytes] = set()
    duplicates = 0
    with ExitStack() as files:
        shape = (data.channels, data.size, data.size)
        writers = {
            split: files.enter_context(SplitWriter(prepared, split, shape, labelled=bool(labels))) for split in SPLITS
        }
        for image in with_progress(read_raw(raw), "prepare", facts.images):
            try:
                decoded = from_pixels(image.data, image.shape) if image.shape else decode(image.data, data.max_pixels)
            except BadImageError as error:
                bad.add(image.id, str(error))
                continue
            digest = pixel_hash(decoded)
            if digest in seen:
                duplicates += 1
                continue
            seen.add(digest)
            label = labels[image.label] if labels and image.label is not None else 0
            writers[split_of(digest, data.splits)].add(digest, to_array(decoded, data.size, data.channels), label)
        for writer in writers.values():
            writer.finish()
        return {split: len(writer) for split, writer in writers.items()}, duplicates


def _check_filled(counts: dict[str, int]) -> None:
    empty = [split for split, count in counts.items() if not count]
    if empty:
        found = ", ".join(f"{split} {count}" for split, count in counts.items())
        raise ChorusError(f"too few images for four splits: {found}; add images, or raise data.splits.{empty[0]}")
