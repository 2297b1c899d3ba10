import json

import numpy as np
import pytest

from pipeline.errors import ChorusError
from pipeline.files import read_json, remove_tree, replacing, tree_hash, write_array, write_json, write_text


def test_a_failure_leaves_the_old_file_and_no_temporary_one(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_refuses_nan_and_round_trips(tmp_path):
    write_json(tmp_path / "deep" / "a.json", {"b": 1, "a": "ß"})
    assert read_json(tmp_path / "deep" / "a.json") == {"b": 1, "a": "ß"}
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "n.json", {"x": float("nan")})
    assert not (tmp_path / "n.json").exists()


def test_damaged_and_missing_json_are_named(tmp_path):
    with pytest.raises(ChorusError, match=r"a\.json is missing"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ChorusError, match="not JSON"):
        read_json(tmp_path / "a.json")


def test_arrays_are_not_pickled(tmp_path):
    write_array(tmp_path / "a.npy", np.arange(3))
    assert np.load(tmp_path / "a.npy", allow_pickle=False).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="allow_pickle"):
        write_array(tmp_path / "b.npy", np.array([{}], dtype=object))


def test_a_tree_hash_follows_names_and_content_only(tmp_path):
    for root in ("x", "y"):
        (tmp_path / root / "sub").mkdir(parents=True)
        (tmp_path / root / "sub" / "f").write_text(json.dumps(1))
    (tmp_path / "y" / ".gitignore").write_text("/sub")
    assert tree_hash(tmp_path / "x") == tree_hash(tmp_path / "y")
    (tmp_path / "y" / "sub" / "f").rename(tmp_path / "y" / "sub" / "g")
    assert tree_hash(tmp_path / "x") != tree_hash(tmp_path / "y")


def test_a_folder_is_removed_at_once_and_what_a_kill_left_of_it_with_it(tmp_path):
    folder, left = tmp_path / "a", tmp_path / ".a.removed"
    for path in (folder / "b" / "c", left / "b"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    remove_tree(folder)
    remove_tree(folder)
    assert list(tmp_path.iterdir()) == []
