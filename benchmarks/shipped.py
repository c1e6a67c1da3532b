"""What benchmarks run on where nothing is given: photographs inside of installed packages, and drawn labelled scenes.

The development data beside the project is taken where it is there; published figures name what they were measured on.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2

ROOT = Path(__file__).resolve().parents[1]
CAMVID = ROOT.parent / "shared" / "data" / "camvid"
BUILD = ROOT / "build" / "benchmarks"


def photographs() -> Path:
    """A folder of photographs: CamVid's for training, or the ten that `make demo` takes."""
    if (CAMVID / "train" / "images").is_dir():
        return CAMVID / "train" / "images"
    sys.path.insert(0, str(ROOT / "examples"))
    from demo import copy_photographs

    return copy_photographs(BUILD / "photographs")


def labelled() -> Path:
    """A labelled folder with train and val: CamVid, or twenty drawn scenes of four classes."""
    if CAMVID.is_dir():
        return CAMVID
    sys.path.insert(0, str(ROOT / "tests"))
    from conftest import CLASSES, draw_scene

    root = BUILD / "scenes"
    for split, seeds in (("train", range(10)), ("val", range(10, 20))):
        for kind in ("images", "labels"):
            (root / split / kind).mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            image, label = draw_scene(seed)
            cv2.imwrite(str(root / split / "images" / f"scene{seed:02d}.jpg"), image[:, :, ::-1])
            cv2.imwrite(str(root / split / "labels" / f"scene{seed:02d}.png"), label)
    lines = [f"{index} {name}\n" for index, name in enumerate(CLASSES)]
    (root / "classes.txt").write_text("".join(lines) + "255 void\n", encoding="utf-8")
    return root
