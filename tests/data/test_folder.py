"""One's own folder of images, as people have them."""

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.data import folder
from pipeline.data.raw import RawWriter, read_raw, read_rejected
from pipeline.errors import ChorusError
from tests.data.make_messy_folder import draw, encoded

PNG = encoded(draw(np.random.default_rng(0)), "PNG")


def fill(root: Path, *names: str, content: bytes = PNG) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "images"
    path.mkdir()
    return path


def ingest(root: Path) -> tuple[list[str] | None, list[tuple[str, str | None]], dict[str, str]]:
    """Return the classes, the images' names and labels, and the rejected files with their reasons."""
    raw_folder = root.parent / "raw"
    with RawWriter(raw_folder) as raw:
        classes = folder.ingest_folder(root, raw)
        raw.finish("folder", classes)
    return classes, [(image.id, image.label) for image in read_raw(raw_folder)], dict(read_rejected(raw_folder))


def test_flat(root: Path) -> None:
    fill(root, "b.png", "a.png", "C.PNG")
    assert ingest(root) == (None, [("C.PNG", None), ("a.png", None), ("b.png", None)], {})


def test_class_folders_are_walked_to_the_bottom(root: Path) -> None:
    fill(root, "dog/2.png", "cat/1.png", "cat/more/deep/3.png")
    classes, images, rejected = ingest(root)
    assert classes == ["cat", "dog"]
    assert images == [("cat/1.png", "cat"), ("cat/more/deep/3.png", "cat"), ("dog/2.png", "dog")]
    assert not rejected


def test_a_single_sub_folder_makes_no_classes(root: Path) -> None:
    fill(root, "images/1.png", "images/2.png")
    assert ingest(root)[0] is None


def test_both_at_once_is_refused(root: Path) -> None:
    fill(root, "loose.png", "cat/1.png")
    with pytest.raises(ChorusError, match=r"both directly \('loose\.png'\) and in sub-folders \('cat/1\.png'\)"):
        ingest(root)


def test_a_note_beside_class_folders_is_no_image(root: Path) -> None:
    fill(root, "cat/1.png", "dog/1.png")
    fill(root, "README.txt", content=b"my animals")
    classes, images, rejected = ingest(root)
    assert classes == ["cat", "dog"]
    assert len(images) == 2
    assert rejected == {"README.txt": "not a PNG, JPEG, WebP, BMP or GIF file"}


def test_hidden_files_are_passed_over(root: Path) -> None:
    fill(root, "a.png", ".DS_Store", ".cache/b.png", "._a.png")
    assert ingest(root) == (None, [("a.png", None)], {})


def test_images_are_known_by_content_or_by_name(root: Path) -> None:
    fill(root, "no-extension", "wrong.txt")
    fill(root, "promised.png", content=b"something else")
    assert [name for name, _ in ingest(root)[1]] == ["no-extension", "promised.png", "wrong.txt"]


def test_a_file_too_large_is_not_read(root: Path) -> None:
    fill(root, "a.png")
    with (root / "huge.png").open("wb") as file:
        file.write(PNG)
        file.truncate(3 * 2**30)  # a sparse file: 3 GiB that take no room
    _, images, rejected = ingest(root)
    assert [name for name, _ in images] == ["a.png"]
    assert rejected == {"huge.png": "3,072 MiB on disk; files of up to 64 MiB are taken"}


def test_links(root: Path) -> None:
    fill(root, "a.png")
    fill(root.parent, "outside/secret.png")
    (root / "inside.png").symlink_to("a.png")
    (root / "outside.png").symlink_to(root.parent / "outside" / "secret.png")
    (root / "nowhere.png").symlink_to("gone.png")
    (root / "folder").symlink_to(root.parent / "outside")
    (root / "loop").symlink_to(root)
    (root / "itself.png").symlink_to("itself.png")
    _, images, rejected = ingest(root)
    assert [name for name, _ in images] == ["a.png", "inside.png"]
    assert rejected == {
        "outside.png": "a link that leaves the folder; such links are not followed",
        "nowhere.png": "a link that leads nowhere",
        "folder": "a link that leaves the folder; such links are not followed",
        "loop": "a link to a folder; such links are not followed",
        "itself.png": "a link that leads nowhere",
    }


def test_the_folder_itself_may_be_a_link(root: Path) -> None:
    fill(root, "a.png")
    (root / "inside.png").symlink_to("a.png")
    link = root.parent / "link"
    link.symlink_to(root)
    assert len(ingest(link)[1]) == 2


def test_pipes_are_not_waited_for(root: Path) -> None:
    fill(root, "a.png")
    os.mkfifo(root / "pipe.png")
    assert ingest(root)[2] == {"pipe.png": "not a regular file"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_rejected(root: Path) -> None:
    fill(root, "cat/1.png", "dog/1.png", "dog/secret.png", "closed/1.png")
    (root / "dog/secret.png").chmod(0)
    (root / "closed").chmod(0)
    try:
        rejected = ingest(root)[2]
    finally:
        (root / "closed").chmod(0o700)
    assert rejected == {
        "closed": "cannot be read: Permission denied",
        "dog/secret.png": "cannot be read: Permission denied",
    }


def test_odd_names_survive(root: Path) -> None:
    names = ["two\nlines.png", "quote\"'.png", "ünï.png", os.fsdecode(b"latin-\xe9.png"), "-rf.png", "💡.png"]
    fill(root, *names)
    assert sorted(name for name, _ in ingest(root)[1]) == sorted(names)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ChorusError, match="there is no folder"):
        ingest(tmp_path / "missing")


def test_no_image(root: Path) -> None:
    fill(root, "notes.txt", content=b"nothing here")
    with pytest.raises(ChorusError, match="holds no image"):
        ingest(root)


def test_the_order_does_not_depend_on_the_file_system(root: Path, tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(50)]
    fill(root, *names)
    fill(tmp_path / "again" / "images", *reversed(names))
    assert ingest(root) == ingest(tmp_path / "again" / "images")
