import errno
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from selfseg.errors import CheckpointError, StorageError
from selfseg.storage import checkpoint as module
from selfseg.storage.checkpoint import load_newest, remove_leftovers, save_checkpoint


def _trained(steps: int = 2) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(steps):
        model(torch.randn(5, 4)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def _save(folder: Path, step: int, keep: int = 2) -> nn.Module:
    model, optimizer = _trained(step)
    save_checkpoint(folder, step, model.state_dict(), optimizer, {"note": step}, keep)
    return model


def test_what_is_saved_is_read_back_exactly(tmp_path: Path) -> None:
    model, optimizer = _trained()
    save_checkpoint(tmp_path, 7, model.state_dict(), optimizer, {"note": "hello"}, keep=2)
    loaded = load_newest(tmp_path)
    assert loaded is not None
    assert loaded.step == 7
    assert loaded.meta == {"note": "hello"}
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.model[key], value)
    for number, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            assert torch.equal(loaded.optimizer[number][key], value)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        _save(tmp_path, step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000003", "step_00000004"]


def test_nothing_saved_is_none(tmp_path: Path) -> None:
    assert load_newest(tmp_path) is None
    assert load_newest(tmp_path / "absent") is None


@pytest.mark.parametrize("damage", ["no marker", "cut short", "garbage", "no json"])
def test_a_damaged_checkpoint_is_passed_over_and_alone_is_an_error(tmp_path: Path, damage: str) -> None:
    def spoil(step: int) -> None:
        folder = tmp_path / f"step_{step:08d}"
        state = folder / "state.safetensors"
        if damage == "no marker":
            (folder / "COMPLETE").unlink()
        elif damage == "cut short":
            state.write_bytes(state.read_bytes()[:-10])
        elif damage == "garbage":
            state.write_bytes(b"\x80\x04" * (state.stat().st_size // 2) + b"x" * (state.stat().st_size % 2))
        else:
            (folder / "state.json").unlink()

    _save(tmp_path, 1)
    _save(tmp_path, 2)
    spoil(2)
    loaded = load_newest(tmp_path)
    assert loaded is not None
    assert loaded.step == 1
    spoil(1)
    with pytest.raises(CheckpointError, match="no usable checkpoint"):
        load_newest(tmp_path)


def test_a_full_disk_is_an_error_and_older_checkpoints_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path, 1)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(StorageError, match="no space left"):
        _save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]


_KILLED_SAVES = """
import os, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import torch
from torch import nn
from selfseg.storage import checkpoint as c
from selfseg.storage import files
torch.set_num_threads(1)
folder = Path(sys.argv[1])
model = nn.Linear(64, 64)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

def save(step):
    with torch.no_grad():
        model.weight.fill_(step)
    c.save_checkpoint(folder, step, model.state_dict(), optimizer, {}, keep=1)

save(1)
saved, points = 1, 0
for point in range(1000):
    child = os.fork()
    if child == 0:
        calls, opened = 0, os.open
        def counted(function):
            def wrapper(*args, **kwargs):
                global calls
                if function is opened and not args[1] & (os.O_WRONLY | os.O_RDWR):
                    return function(*args, **kwargs)  # reading changes nothing
                if calls == point:
                    os._exit(9)  # at once, like kill -9: no clean-up code runs
                calls += 1
                return function(*args, **kwargs)
            return wrapper
        for name in ("open", "fsync", "rename", "replace", "close", "unlink", "rmdir", "mkdir", "chmod"):
            setattr(os, name, counted(getattr(os, name)))
        c.save_file = counted(c.save_file)
        save(saved + 1)
        os._exit(0)
    finished = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    points += 1
    loaded = c.load_newest(folder)
    assert loaded is not None and loaded.step in (saved, saved + 1), loaded
    assert (loaded.model["weight"] == loaded.step).all()
    c.remove_leftovers(folder)
    saved = loaded.step
    if finished:
        break
sys.stdout.write(f"{points}")
"""


@pytest.mark.slow
def test_a_kill_at_any_point_of_a_save_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _KILLED_SAVES, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 15


def test_leftovers_are_removed_and_checkpoints_are_not(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    (tmp_path / ".tmp-step_00000002-77").mkdir()
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]
