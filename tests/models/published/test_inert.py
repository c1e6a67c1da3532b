"""Torch's files read as data: tensors come out as torch reads them, and nothing that a file names is run."""

import argparse
import io
import os
import pickle
import sys
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from selfseg.errors import CheckpointError
from selfseg.models.published.files import open_weights, read_weights
from selfseg.models.published.inert import Malformed, Thing, read_inert

FORMATS = [
    *({"pickle_protocol": protocol} for protocol in (2, 3, 4, 5)),
    {"_use_new_zipfile_serialization": False},
    {"_use_new_zipfile_serialization": False, "pickle_protocol": 4},
]
in_every_format = pytest.mark.parametrize("how", FORMATS, ids=str)


class AttrDict(dict[str, Any]):
    """As configurations of several projects are: a dictionary of a class of their own."""


class Settings:
    """An object with attributes, one of which is a tensor."""

    def __init__(self) -> None:
        self.rate, self.hidden = 0.1, torch.ones(2)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return super().__reduce_ex__(2)


def content() -> dict[str, Any]:
    base = torch.arange(24.0).view(4, 6)
    return {
        "base": base,
        "view": base[1:3, ::2].t(),
        "parameter": nn.Parameter(torch.randn(3, generator=torch.Generator().manual_seed(0))),
        "kinds": {
            str(dtype): torch.ones(2, dtype=dtype)
            for dtype in (torch.bfloat16, torch.float16, torch.float64, torch.bool, torch.int8, torch.complex64)
        },
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "ordered": OrderedDict([("a", torch.zeros(1)), ("b", torch.ones(1))]),
        "default": defaultdict(list, {"c": torch.zeros(2)}),
        "config": AttrDict(deep=AttrDict(t=torch.full((2,), 3.0)), name="x"),
        "plain": [1, -1, 2**70, 0.5, "text", b"bytes", None, True, (1, 2, 3, 4), {"k": (5,)}, {1, 2}, frozenset({3})],
        "optimizer": {"state": {0: {"momentum": torch.ones(2)}}},
    }


def flat(value: Any, prefix: str = "") -> dict[str, Tensor]:
    if isinstance(value, Tensor):
        return {prefix: value}
    inside = value.items if isinstance(value, Thing) else value
    found: dict[str, Tensor] = {}
    if isinstance(inside, dict):
        for key, each in inside.items():
            found |= flat(each, f"{prefix}.{key}")
    return found


@in_every_format
def test_tensors_are_those_that_torch_reads(how: dict[str, Any], tmp_path: Path) -> None:
    torch.save({**content(), "object": Settings()}, tmp_path / "file.pth", **how)
    found, things = read_inert(tmp_path / "file.pth")
    wanted, got = flat(content()), flat(found)
    assert got.keys() == wanted.keys()
    for key, value in wanted.items():
        assert got[key].dtype == value.dtype, key
        assert torch.equal(got[key], value), key
    assert found["plain"][:8] == content()["plain"][:8]
    assert [*found["plain"][8]] == [1, 2, 3, 4]
    assert {name.rpartition(".")[2] for name in things} >= {"Settings", "AttrDict"}


class Command:
    """What a hostile file would do on opening."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class State:
    """The same through the state of an object."""

    def __init__(self, command: Any) -> None:
        self.command = command


@in_every_format
def test_nothing_of_a_hostile_file_is_run(how: dict[str, Any], tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    touch = f"open({str(mark)!r}, 'w').close()"
    commands: dict[Any, Any] = {
        "system": Command(os.system, f"touch {mark}"),
        "exec": Command(exec, touch),
        "eval": [Command(eval, touch)],
        "in a tuple": (Command(print, "x"),),
        "state": State(Command(os.makedirs, str(mark.with_name("folder")), 0o777, True)),
        "method": Command(mark.write_text, "x"),
        "import": Command(__import__, "this"),
    }
    torch.save({"state_dict": {"a": torch.ones(2)}, **commands}, tmp_path / "bad.pth", **how)
    sys.modules.pop("this", None)
    file = open_weights(tmp_path / "bad.pth")
    assert not mark.exists()
    assert not mark.with_name("folder").exists()
    assert "this" not in sys.modules
    assert list(file.tensors) == ["state_dict.a"]
    assert torch.equal(file.tensors["state_dict.a"], torch.ones(2))
    assert {name.rpartition(".")[2] for name in file.left_out} >= {"system", "exec", "eval", "makedirs", "getattr"}
    assert "not opened: " in file.about
    torch.load(tmp_path / "bad.pth", weights_only=False)
    assert mark.exists(), "the file is one that does harm to whoever trusts it"


def raw(data: bytes) -> io.BytesIO:
    """A zip archive as torch's with these bytes for its pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", data)
    return buffer


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n(S'touch MARK'\ntR.",  # a call
        b"(S'touch MARK'\nios\nsystem\n.",  # an instance of old
        b"(cos\nsystem\nS'touch MARK'\no.",
        b"\x80\x02cos\nsystem\n(X\x0a\x00\x00\x00touch MARK\x85\x81.",  # a new object, with a stack that is off
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0atouch MARK\x85R.",
        b"\x80\x02}cos\nsystem\nb.",  # a state
        b"\x80\x02\x82\x01.",  # an extension
    ],
)
def test_no_instruction_of_a_pickle_calls_anything(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw.pth").write_bytes(raw(data).getvalue())
    with pytest.raises(CheckpointError):
        read_weights(tmp_path / "raw.pth")
    assert not (tmp_path / "MARK").exists()


def test_a_container_that_holds_itself_comes_to_an_end(tmp_path: Path) -> None:
    circle: dict[str, Any] = {"a": torch.ones(1), "object": Settings()}
    circle["again"] = circle
    torch.save(circle, tmp_path / "circle.pth")
    with pytest.raises(CheckpointError, match="holds itself at"):
        read_weights(tmp_path / "circle.pth")


@pytest.mark.parametrize("how", [{}, {"_use_new_zipfile_serialization": False}])
def test_a_damaged_file_says_so(how: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    torch.save({"a": torch.ones(1000), "object": Settings()}, path, **how)
    whole = path.read_bytes()
    for length in (0, 3, 100, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"can't read weights from .*damaged"):
            read_weights(path)


def test_numbers_outside_of_a_storage_are_refused(tmp_path: Path) -> None:
    """A view that reaches beyond its numbers would read memory that is none of its business."""
    data = (
        b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\n"
        b"FloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQK\x00K\x64\x85K\x01\x85\x89}tRs."
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/data/0", bytes(16))
    (tmp_path / "far.pth").write_bytes(buffer.getvalue())
    with pytest.raises(Malformed, match="out of bounds"):
        read_inert(tmp_path / "far.pth")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(Malformed, match=r"a pickle that torch\.save did not write"):
        read_inert(tmp_path / "plain.pkl")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("photo.txt", "none")
    with pytest.raises(Malformed, match=r"it holds no data\.pkl"):
        read_inert(tmp_path / "photos.zip")
    torch.save([torch.ones(1), Settings()], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds a list instead of named tensors"):
        read_weights(tmp_path / "list.pth")
    torch.save({"args": Settings()}, tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="holds no tensors; its keys: args"):
        read_weights(tmp_path / "none.pth")


def test_what_a_file_holds_is_told_in_a_line(tmp_path: Path) -> None:
    layers = {f"layer{n}.{part}": torch.zeros(1) for n in range(1, 5) for part in ("weight", "bias")}
    torch.save(
        {
            "model": {
                f"module.{net}.{key}": value for net in ("encoder_q", "encoder_k") for key, value in layers.items()
            },
            "optimizer": {"state": {n: {"m": torch.zeros(1)} for n in range(30)}},
            "args": argparse.Namespace(lr=0.1),
            "epoch": 5,
            "scheduler": Settings(),
        },
        tmp_path / "file.pth",
    )
    about = open_weights(tmp_path / "file.pth").about
    assert about == (
        "the file holds model.module.encoder_k (8 tensors), model.module.encoder_q (8 tensors), optimizer.state "
        f"(30 tensors), and without tensors args, epoch, scheduler; not opened: {__name__}.Settings"
    )
