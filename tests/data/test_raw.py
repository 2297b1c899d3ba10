"""The raw snapshot gives back what was put in, and is there as a whole or not at all."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.raw import RawImage, RawWriter, read_facts, read_raw, read_rejected
from pipeline.errors import ChorusError

NAMES = st.one_of(st.text(min_size=1), st.binary(min_size=1).map(lambda name: name.decode(errors="surrogateescape")))
IMAGES = st.lists(st.builds(RawImage, NAMES, st.none() | NAMES, st.binary(max_size=60)), max_size=12)


@given(images=IMAGES, rejected=st.lists(st.tuples(NAMES, st.text()), max_size=3))
def test_round_trip(
    images: list[RawImage], rejected: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("raw")
    with RawWriter(folder, shard_bytes=100) as raw:
        for image in images:
            raw.add(image)
        for name, reason in rejected:
            raw.reject(name, reason)
        raw.finish("folder", None)
    assert list(read_raw(folder)) == images
    assert list(read_rejected(folder)) == rejected
    facts = read_facts(folder)
    assert (facts.images, facts.rejected, facts.classes) == (len(images), len(rejected), None)
    assert all(shard.stat().st_size <= 100 for shard in folder.glob("shard-*"))


def test_raw_pixels_keep_their_shape(tmp_path: Path) -> None:
    image = RawImage("train/0", "cat", bytes(12), (2, 2, 3))
    with RawWriter(tmp_path) as raw:
        raw.add(image)
        raw.finish("cifar10", ["cat"])
    assert list(read_raw(tmp_path)) == [image]
    assert read_facts(tmp_path).classes == ("cat",)


def test_an_interrupted_snapshot_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    def interrupted() -> None:
        with RawWriter(tmp_path, shard_bytes=10) as raw:
            for number in range(3):
                raw.add(RawImage(str(number), None, bytes(8)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    # Shards that were full are whole; what was being written is gone.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shard-00000.bin", "shard-00001.bin"]
    with pytest.raises(ChorusError, match=r"source\.json is missing"):
        read_facts(tmp_path)


def test_a_damaged_snapshot_is_named(tmp_path: Path) -> None:
    with RawWriter(tmp_path) as raw:
        raw.add(RawImage("a", None, b"12345678"))
        raw.add(RawImage("b", None, b"12345678"))
        raw.finish("folder", None)
    index = (tmp_path / "index.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "index.jsonl").write_text(index[0])
    with pytest.raises(ChorusError, match="lists 1 of its 2 images"):
        list(read_raw(tmp_path))
    shard = tmp_path / "shard-00000.bin"
    shard.write_bytes(b"1234")
    with pytest.raises(ChorusError, match=r"shard-00000\.bin is shorter than its index says"):
        list(read_raw(tmp_path))
    shard.unlink()
    with pytest.raises(ChorusError, match=r"shard-00000\.bin cannot be read"):
        list(read_raw(tmp_path))
    (tmp_path / "index.jsonl").write_text("{broken\n")
    with pytest.raises(ChorusError, match=r"index\.jsonl cannot be read"):
        list(read_raw(tmp_path))
