"""What the tests of networks that learn masks share: drawn balls with their masks, and trainings of seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selfseg.masks.networks.learning import NetworkConfig

TINY = NetworkConfig(
    backbone="test_resnet",
    size=48,
    width=8,
    batch_size=4,
    lr=5e-3,
    priors=("mbd",),
    rounds=1,
    round_steps=30,
    steps=30,
    boundary_steps=40,
    precision="32-true",  # of which the default's bfloat16 takes a multiple on most processors
)


def ball(seed: int, size: tuple[int, int] = (60, 80)) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A red ball on green, (*size, 3) uint8, and where it is."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    place = (size[1] * random.uniform(0.35, 0.65), size[0] * random.uniform(0.35, 0.65))
    inside = np.hypot(columns - place[0], rows - place[1]) < size[0] * random.uniform(0.2, 0.3)
    image = np.where(inside[..., None], (210, 60, 40), (90, 130, 110)) + random.normal(0, 6, (*size, 3))
    return np.clip(image, 0, 255).astype(np.uint8), inside


def draw_balls(folder: Path, seeds: range, size: tuple[int, int] = (60, 80)) -> Path:
    """Write FOLDER with an image of a ball for each seed, and FOLDER-masks beside; returns the folder."""
    masks = folder.with_name(f"{folder.name}-masks")
    for path in (folder, masks):
        path.mkdir()
    for seed in seeds:
        image, inside = ball(seed, size)
        Image.fromarray(image).save(folder / f"{seed}.png")
        Image.fromarray(inside).save(masks / f"{seed}.png")
    return folder
