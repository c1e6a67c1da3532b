"""Images, masks, small recipes and batches that several parts measure with."""

from __future__ import annotations

import os
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from gpu_parts.harness import Job
from selfseg.data.loader import ViewDataset, collate
from selfseg.data.reading.listing import list_images
from selfseg.data.regions import RegionCache
from selfseg.training.recipe import Recipe, recipes
from selfseg.types import Batch

# What a tiny run makes of a recipe, wherever a setting of that name is.
_TINY = {"backbone": "resnet10t", "size": 64, "small_size": 32, "short_side": 64, "resolution": 64}
_TINY |= {"hidden": 64, "predictor_hidden": 64}


def draw(folder: Path) -> Path:
    """Drawn stand-ins for the real images, in their layout, for a machine that has none; returns the folder.

    Coloured shapes on textured ground: two classes' worth of labels, the same for the same place in the list.
    """
    for kind, count in (("photographs", 8), ("camvid/train/images", 6), ("camvid/val/images", 3)):
        images = folder / kind
        images.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            rng = np.random.default_rng([len(kind), number])
            image = rng.integers(60, 120, (96, 128, 3)).astype(np.uint8)
            image[40:] += np.uint8(70)
            label = np.zeros((96, 128), np.uint8)
            label[40:] = 1
            centre = (int(rng.integers(30, 98)), int(rng.integers(30, 66)))
            cv2.circle(image, centre, 20, [int(value) for value in rng.integers(0, 256, 3)], -1)
            cv2.circle(label, centre, 20, 2, -1)
            cv2.imwrite(str(images / f"{number}.jpg"), image)
            if kind.startswith("camvid"):
                labels = images.parent / "labels"
                labels.mkdir(exist_ok=True)
                cv2.imwrite(str(labels / f"{number}.png"), label)
    (folder / "camvid" / "classes.txt").write_text("0 sky\n1 ground\n2 ball\n255 void\n", encoding="utf-8")
    return folder


def ellipses(images: Path, out: Path) -> Path:
    """A mask for each image, an ellipse in its middle: what is measured doesn't depend on what they show."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(images.iterdir()):
        if path.suffix.lower() != ".jpg":
            continue
        height, width = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape[:2]
        mask = np.zeros((height, width), np.uint8)
        cv2.ellipse(mask, (width // 2, height // 2), (width // 3, height // 3), 0, 0, 360, 1, -1)
        cv2.imwrite(str(out / f"{path.stem}.png"), mask)
    return out


def copies(images: Path, out: Path, count: int, suffix: str = ".jpg") -> Path:
    """A folder of `count` images: links to those of `images`, in turn."""
    out.mkdir(parents=True, exist_ok=True)
    originals = sorted(path for path in images.iterdir() if path.suffix.lower() == suffix)
    for number in range(count):
        original = originals[number % len(originals)]
        target = out / f"{number:05d}{suffix}"
        if not target.exists():
            os.link(original, target) if original.stat().st_dev == out.stat().st_dev else target.symlink_to(original)
    return out


def small(name: str, job: Job, out: Path, **changes: Any) -> Recipe[Any]:
    """A `*_small` recipe on the photographs, in float32 and without loader processes unless told otherwise."""
    images = changes.pop("images", job.images / "photographs")
    extra = {}
    if name.startswith("maskcontrast"):
        extra["masks"] = ellipses(images, job.work / f"masks_{images.name}")
    recipe = recipes()[name](images, out, **extra)
    if job.tiny:
        recipe = replace(recipe, method=shrink(recipe.method))
    return replace(recipe, **{"precision": "32-true", "workers": 0, "accelerator": job.device.type, **changes})


def shrink(config: Any) -> Any:
    """A configuration with small networks and views; see `_TINY`."""
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    changed = {name: _TINY[name] for name, value in values.items() if name in _TINY and value is not None}
    changed |= {
        name: shrink(values[name]) for name in ("embedder", "views") if name in values and is_dataclass(values[name])
    }
    return replace(config, **changed)


@lru_cache(maxsize=4)
def batch(recipe: Recipe[Any], count: int) -> Batch:
    """The first `count` images' views of epoch 0, as the loader would give them."""
    plan = recipe.build_method().views()
    dataset = ViewDataset(list_images(recipe.images), plan, recipe.seed, RegionCache(None, plan.regions))
    return collate([dataset[0, index] for index in range(count)])


def state(run: Path, step: int) -> tuple[dict[str, Tensor], Any]:
    """Everything of a checkpoint: tensors by name, and the scaler's state."""
    from selfseg.storage.checkpoint import load_checkpoint

    loaded = load_checkpoint(run / "checkpoints" / f"step_{step:08d}")
    tensors = dict(loaded.model)
    for number, values in loaded.optimizer.items():
        tensors |= {f"optimizer.{number}.{key}": value for key, value in values.items() if isinstance(value, Tensor)}
    return tensors, loaded.meta.get("scaler")
