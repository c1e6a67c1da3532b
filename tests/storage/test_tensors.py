"""Tensors and what is said of them: one unit, and nothing that can't be."""

import json
import os
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from selfseg.storage.files import write_json
from selfseg.storage.tensors import (
    check_matrix,
    is_described,
    read_described,
    read_tensors,
    write_described,
    write_tensors,
)


def test_a_json_that_a_kill_left_behind_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "k5.safetensors"
    write_described(path, {"rows": torch.zeros(2, 3)}, {"of": "old"})
    old = path.with_suffix(".json").read_bytes()
    assert json.loads(old)["of"] == "old"
    write_described(path, {"rows": torch.ones(2, 3)}, {"of": "new"})
    path.with_suffix(".json").write_bytes(old)  # killed between the two
    for _ in range(2):
        tensors, about = read_described(path)
        assert (float(tensors["rows"].sum()), about) == (6.0, {"of": "new"})
        assert is_described(path)
        path.with_suffix(".json").unlink(missing_ok=True)  # as when the first one is killed


def test_what_was_changed_by_hand_is_told(tmp_path: Path) -> None:
    path = tmp_path / "k5.safetensors"
    beside = write_described(path, {"rows": torch.zeros(2, 3)}, {"position": 0.0})
    write_json(beside, {**json.loads(beside.read_text()), "position": 1.0})
    with pytest.raises(ValueError, match=r"k5.json was changed"):
        read_described(path)
    write_described(path, {"rows": torch.zeros(2, 3)}, {})
    content = bytearray(path.read_bytes())
    content[-4:] = struct.pack("<f", 2.0)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not those that its header tells of"):
        read_described(path)


def test_files_of_older_versions_have_no_header(tmp_path: Path) -> None:
    path = tmp_path / "k5.safetensors"
    save_file({"rows": torch.ones(1, 1)}, path)
    assert not is_described(path)
    write_json(path.with_suffix(".json"), {"of": "old"})
    assert is_described(path)
    assert read_described(path)[1] == {"of": "old"}


def test_values_shapes_and_kinds_are_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for value in (float("nan"), float("inf")):
        write_tensors(path, {"fine": torch.ones(2), "weight": torch.tensor([1.0, value])})
        with pytest.raises(ValueError, match=r"x.safetensors holds values in 'weight' that are no finite numbers"):
            read_tensors(path)
        assert len(read_tensors(path, finite=False)) == 2
    for wrong in (torch.ones(3), torch.ones(0, 3), torch.ones(2, 4), torch.ones(2, 3, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"rows is .* not float \(any, 3\)"):
            check_matrix(wrong, "rows", None, 3)
    assert check_matrix(torch.ones(2, 3).double(), "rows", 2, 3).dtype == torch.float32
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="is no file"):
        read_tensors(path)
