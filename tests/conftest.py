"""What the tests share: small drawn images, and the process settings that keep warnings-as-errors usable."""

from __future__ import annotations

import os

# ruff: noqa: E402
# Before torch, numba and OpenCV are imported: several test processes share a few cores, and nothing may be downloaded.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tiny import masks_of

cv2.setNumThreads(1)
# A suite that nohup or a script starts in the background ignores these, and so would the commands that it tries.
for _number in (signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)
os.fsync = lambda handle: None  # a test can't cut the power, and waiting for the disk takes more than some tests do


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` are skipped where there is no GPU."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu") is not None:
                item.add_marker(pytest.mark.skip(reason="there is no NVIDIA GPU"))


CLASSES = ("sky", "ground", "ball", "house")


def draw_scene(seed: int, width: int = 120, height: int = 90) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A scene with sky, textured ground, a ball and a house, each of its own colour and texture.

    Returns:
        The image (H, W, 3) uint8 RGB, and its label (H, W) uint8 over `CLASSES`, 255 on a one-pixel frame.
    """
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    horizon = int(height * random.uniform(0.4, 0.6))
    label = np.where(rows < horizon, 0, 1).astype(np.uint8)
    left, top = int(width * random.uniform(0.05, 0.3)), int(horizon - height * random.uniform(0.15, 0.3))
    house = (columns >= left) & (columns < left + width // 4) & (rows >= top) & (rows < horizon + height // 10)
    label[house] = 3
    centre = (width * random.uniform(0.6, 0.85), height * random.uniform(0.6, 0.8))
    label[np.hypot(columns - centre[0], rows - centre[1]) < height * 0.15] = 2
    colours = np.array([[110, 160, 220], [90, 130, 60], [210, 60, 40], [170, 140, 110]], np.float32)
    image = colours[label] + random.uniform(-12, 12, 3)
    image += np.where(label == 0, -0.4 * rows, 0)[:, :, None]  # the sky brightens towards the horizon
    image += np.where(label == 1, 14 * np.sin(columns / 2 + rows / 3), 0)[:, :, None]
    image += np.where(label == 3, 18 * ((rows // 4 + columns // 8) % 2), 0)[:, :, None]
    image += random.normal(0, 4, image.shape)
    label[[0, -1]] = 255
    label[:, [0, -1]] = 255
    return np.clip(image, 0, 255).astype(np.uint8), label


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of six JPEGs of 120x90 pixels; beside it `tiny.masks_of` it, masks of their houses (1) and balls (2)."""
    folder = tmp_path / "photos"
    folder.mkdir()
    masks_of(folder).mkdir()
    for seed in range(6):
        image, label = draw_scene(seed)
        Image.fromarray(image).save(folder / f"photo{seed}.jpg", quality=92)
        objects = np.select([label == 3, label == 2], [1, 2], 0).astype(np.uint8)
        Image.fromarray(objects).save(masks_of(folder) / f"photo{seed}.png")
    return folder


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """ROOT/{train,val}/{images,labels} and ROOT/classes.txt: six and four scenes, the classes of `CLASSES`."""
    root = tmp_path / "labelled"
    for split, seeds in (("train", range(6)), ("val", range(6, 10))):
        (root / split / "images").mkdir(parents=True)
        (root / split / "labels").mkdir()
        for seed in seeds:
            image, label = draw_scene(seed)
            Image.fromarray(image).save(root / split / "images" / f"scene{seed}.jpg", quality=92)
            Image.fromarray(label).save(root / split / "labels" / f"scene{seed}.png")
    lines = [f"{index} {name}" for index, name in enumerate(CLASSES)] + ["255 void"]
    (root / "classes.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The development data beside the repository; skips where it is not there."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the development data is not beside the repository")
    return folder
