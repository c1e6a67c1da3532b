"""Checkpoints: safetensors + JSON in a folder that appears in one rename, with a marker of completeness.

checkpoints/step_00000500/{state.safetensors, state.json, COMPLETE}. A kill at any moment leaves the older checkpoints
whole and at most a `.tmp-*` folder that the next start removes. Nothing is unpickled.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from selfseg.errors import CheckpointError
from selfseg.storage.files import make_folder, put_in_place, read_json, storage_errors, write_json
from selfseg.storage.leftovers import sweep, temporary_prefix
from selfseg.storage.tensors import read_tensors

FORMAT = 1
_FILES = ("state.safetensors", "state.json")


@dataclass(frozen=True)
class Checkpoint:
    """What was read.

    Attributes:
        step: steps done.
        model: the method's state dict.
        optimizer: the optimiser's state by parameter number, as in its state dict.
        meta: whatever the trainer stored beside (recipe hash, names hash, ...).
    """

    step: int
    model: dict[str, Tensor]
    optimizer: dict[int, dict[str, Any]]
    meta: dict[str, Any]

    def restore(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Put the state into a model and its optimiser, where they are.

        Raises:
            CheckpointError: if they are not what it was saved from.
        """
        try:
            model.load_state_dict(self.model)
            state = optimizer.state_dict()
            state["state"] = self.optimizer
            optimizer.load_state_dict(state)
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint of step {self.step} does not fit its settings: {error}") from error


def save_checkpoint(
    folder: Path, step: int, model: dict[str, Tensor], optimizer: Optimizer, meta: dict[str, Any], keep: int
) -> Path:
    """Write the state of a run after `step` steps, atomically, and remove all but the newest `keep`.

    Raises:
        StorageError: if the disk is full; older checkpoints are untouched.
    """
    tensors = {f"model.{key}": value.detach().cpu().contiguous() for key, value in model.items()}
    scalars: dict[str, Any] = {}
    for number, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            name = f"optimizer.{number}.{key}"
            if isinstance(value, Tensor):
                tensors[name] = value.detach().cpu().contiguous()
            else:
                scalars[name] = value
    target = folder / f"step_{step:08d}"
    temporary = folder / f"{temporary_prefix()}step_{step:08d}"
    with storage_errors(target):
        make_folder(folder)
        sweep(folder)
        make_folder(temporary)
        try:
            save_file(tensors, temporary / "state.safetensors")
            write_json(temporary / "state.json", {"format": FORMAT, "step": step, "scalars": scalars, "meta": meta})
            for name in _FILES:
                _sync(temporary / name)
            sizes = {name: (temporary / name).stat().st_size for name in _FILES}
            write_json(temporary / "COMPLETE", sizes)
            _sync(temporary / "COMPLETE")
            put_in_place((temporary, target))
            _sync(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    # A newer one than this could not be read, or this run would have gone on from there.
    complete = [path for path in _newest_first(folder) if path.name <= target.name and _is_complete(path)]
    for old in complete[keep:]:
        _remove(old)
    return target


def load_newest(folder: Path) -> Checkpoint | None:
    """The newest complete checkpoint, or None when none was ever completed.

    Raises:
        CheckpointError: if there are checkpoints and none of them is complete and readable.
    """
    found = _newest_first(folder)
    problems = []
    for path in found:
        if not _is_complete(path):
            problems.append(f"{path.name}: incomplete")
            continue
        try:
            return load_checkpoint(path)
        except CheckpointError as error:
            problems.append(str(error))
    if found:
        raise CheckpointError(
            f"no usable checkpoint in {folder} ({'; '.join(problems)}); restore one from a copy, or remove the folder "
            "to start from step 0"
        )
    return None


def complete_checkpoints(folder: Path) -> list[Path]:
    """The folders of all complete checkpoints, the oldest first."""
    return [path for path in reversed(_newest_first(folder)) if _is_complete(path)]


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed save left behind: temporary folders and files (safetensors' own are `.tmpXXXXXX`)."""
    for path in folder.glob(".tmp*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _remove(checkpoint: Path) -> None:
    # Renamed first: a kill while it is being deleted must not leave a folder that looks like a checkpoint.
    doomed = checkpoint.with_name(f"{temporary_prefix()}doomed-{checkpoint.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    os.rename(checkpoint, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step_*"), reverse=True)


def _is_complete(path: Path) -> bool:
    try:
        sizes = read_json(path / "COMPLETE")
        return all((path / name).stat().st_size == sizes[name] for name in _FILES)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def load_checkpoint(path: Path) -> Checkpoint:
    """One checkpoint's folder.

    Raises:
        CheckpointError: if it is damaged or of another format.
    """
    try:
        content = read_json(path / "state.json")
        tensors = read_tensors(path / "state.safetensors", finite=False)
        if content["format"] != FORMAT:
            raise CheckpointError(f"{path} has format {content['format']}, this version reads {FORMAT}")
        optimizer: dict[int, dict[str, Any]] = {}
        model = {}
        for name, value in {**tensors, **content["scalars"]}.items():
            kind, _, rest = name.partition(".")
            if kind == "model":
                model[rest] = value
            else:
                number, _, key = rest.partition(".")
                optimizer.setdefault(int(number), {})[key] = value
        step = content["step"]
        if type(step) is not int or step < 0 or f"step_{step:08d}" != path.name:
            raise CheckpointError(f"{path} says that it is of step {step!r:.40}: it was renamed or changed")
        return Checkpoint(step, model, optimizer, dict(content["meta"]))
    except CheckpointError:
        raise
    except Exception as error:  # damaged or foreign: json, safetensors and key errors all mean this
        raise CheckpointError(f"can't read the checkpoint {path}: {type(error).__name__}: {error}") from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
