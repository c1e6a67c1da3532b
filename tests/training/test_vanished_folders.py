"""A folder that vanishes as a whole and comes back changes nothing; a file that is missing is skipped as ever."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from selfseg.errors import DataError, StorageError
from selfseg.training import loop
from selfseg.training.log import read_log
from selfseg.training.loop import train
from tiny import assert_same_state, maskcontrast, masks_of, vice


@contextmanager
def away(folder: Path, seconds: float) -> Iterator[None]:
    """The folder is away from now on, for so long."""
    elsewhere = folder.with_name(f"{folder.name}-away")
    folder.rename(elsewhere)
    timer = threading.Timer(seconds, elsewhere.rename, [folder])
    timer.start()
    yield
    timer.join()


def train_with(recipe: Any, folders: list[Path], step: int, seconds: float, patch: pytest.MonkeyPatch) -> None:
    """Train; folders vanish within a step and are back later."""
    original = loop.take_step

    def take_step(fabric: Any, *rest: Any) -> Any:
        result = original(fabric, *rest)
        if rest[4] == step:
            for folder in folders:
                context = away(folder, seconds)
                context.__enter__()
                entered.append(context)
        return result

    entered: list[Any] = []
    patch.setattr(loop, "take_step", take_step)
    try:
        train(recipe, progress=False)
    finally:
        for context in entered:
            context.__exit__(None, None, None)
    assert len(entered) == len(folders)


@pytest.mark.slow
def test_vanished_images_and_run_change_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = {"checkpoint_every": 2, "steps": 4, "cache": False}
    train(vice(photos, tmp_path / "straight", **settings), progress=False)
    for number, step in enumerate((1, 2)):  # before a checkpoint is written, and before images are read
        run = tmp_path / f"run{number}"
        with monkeypatch.context() as patch:
            train_with(vice(photos, run, **settings), [photos, run], step, 0.5, patch)
        assert_same_state(tmp_path / "straight", run)
        losses = [[line["loss"] for line in read_log(path)] for path in (tmp_path / "straight", run)]
        assert losses[0] == losses[1]
        assert not (run / "skipped.jsonl").exists()
        told = " ".join(capfd.readouterr().err.split())
        assert f"{run} is back after" in told


@pytest.mark.slow
def test_vanished_masks_and_regions_change_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for make, folder in ((maskcontrast, masks_of(photos)), (vice, tmp_path / "vice" / "vanished")):
        straight, run = tmp_path / make.__name__ / "straight", tmp_path / make.__name__ / "vanished"
        train(make(photos, straight, steps=3), progress=False)
        with monkeypatch.context() as patch:
            train_with(make(photos, run, steps=3, log_every=3), [folder], 0, 0.3, patch)
        assert_same_state(straight, run)
        assert f"{folder} is back after" in " ".join(capfd.readouterr().err.split())


@pytest.mark.slow
def test_a_folder_that_stays_away_stops_the_run(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, folder, error in (("a", photos, DataError), ("b", tmp_path / "b", StorageError)):
        recipe = vice(photos, tmp_path / name, wait_folder=0.2, cache=False)
        with monkeypatch.context() as patch, pytest.raises(error, match=r"can't be reached any more, for 0\.2 s"):
            train_with(recipe, [folder], 0, 0.6, patch)


def test_a_missing_image_is_skipped_at_once(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = loop.make_loader

    def remove_then_load(*args: Any) -> Any:
        (photos / "photo1.jpg").unlink(missing_ok=True)
        return original(*args)

    monkeypatch.setattr(loop, "make_loader", remove_then_load)
    run = train(vice(photos, tmp_path / "run", steps=4), progress=False)
    assert '"photo1", "reason": "missing"' in (run / "skipped.jsonl").read_text()
