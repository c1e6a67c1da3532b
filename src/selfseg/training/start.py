"""What a run begins from: the backbone's initial weights, and what is found in its images before the first step."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfseg.data.reading.ahead import map_images, spread_points
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.skipping import SkipLog
from selfseg.data.regions import ObjectMasks
from selfseg.errors import EmptyCollection
from selfseg.methods import Method
from selfseg.models.embedder import Embedder
from selfseg.storage.remote.places import fetched, not_cached, of_training, written
from selfseg.storage.remote.urls import as_url
from selfseg.training.recipe import Recipe, change_each

POINTS = 200_000
"""Places that a pyramid is fitted on; of 472 channels 380 MB."""


def begin(method: Method, init: str | None, images: ImageCollection, skips: SkipLog, seed: int, progress: bool) -> str:
    """Give a new run its start.

    Args:
        method: on its device.
        init: the word of `selfseg.models.start`; None = random weights.
        images: of the run.
        skips: where those go that can't be read.
        seed: of the drawn places.
        progress: whether to show a bar on stderr.

    Returns:
        A sentence on it; "" for random weights.

    Raises:
        CheckpointError: if the weights can't be had, or are another network's.
        TooManyBadImages: see `SkipLog`.
    """
    loaded = method.load_backbone(init or "random")
    sentence = "" if init is None else f"initial weights: {loaded}"
    if method.embedder.config.decoder == "pyramid":
        samples = draw_stages(method.embedder, images, skips, seed, progress=progress)
        method.fit_start(samples)
        sentence += f"; the pyramid was fitted on {len(samples[0]):,} places"
    return sentence.removeprefix("; ")


@torch.no_grad()
def draw_stages(
    embedder: Embedder,
    images: ImageCollection,
    skips: SkipLog,
    seed: int,
    points: int = POINTS,
    progress: bool = False,
) -> list[Tensor]:
    """The stages of a pyramid at places drawn from a collection; a pure function of (seed, image index).

    Args:
        embedder: with a pyramid; on its device.
        images: the collection.
        skips: where those go that can't be read.
        seed: of the draws.
        points: about how many places, as many of each image; of more than points / 64 images so many are drawn.
        progress: whether to show a bar on stderr.

    Returns:
        (N, C_i) float32 on the CPU for each used stage: of a coarser one the cell that the place lies in.

    Raises:
        EmptyCollection: if no image could be read.
        TooManyBadImages: see `SkipLog`.
    """
    chosen, each = spread_points(len(images), points, seed)
    training = embedder.training
    embedder.eval()
    found: list[list[Tensor]] = [[] for _ in embedder.config.stages]
    prepared = map_images(images, chosen.tolist(), lambda _, image: embedder.prepare(image), skips, "start", progress)
    with closing(prepared):
        for index, image in prepared:
            batch = torch.from_numpy(image).permute(2, 0, 1)[None].to(embedder.mean.device).float() / 255
            stages = embedder.pyramid_stages(batch)
            height, width = stages[0].shape[2:]
            rng = np.random.default_rng((seed, index))
            places = np.sort(rng.choice(height * width, min(each, height * width), replace=False))
            y, x = np.divmod(places, width)
            for kept, stage in zip(found, stages, strict=True):
                rows = torch.from_numpy(y * stage.shape[2] // height).to(stage.device)
                columns = torch.from_numpy(x * stage.shape[3] // width).to(stage.device)
                kept.append(stage[0][:, rows, columns].T.cpu())  # the drawn places alone leave a GPU
    embedder.train(training)
    if not found[0]:
        raise EmptyCollection(f"none of the {len(chosen)} images in {images.root} could be read")
    return [torch.cat(found.pop(0)) for _ in embedder.config.stages]  # one stage at a time is there twice


@contextmanager
def placed(recipe: Recipe[Any]) -> Iterator[Recipe[Any]]:
    """A recipe whose run and masks are local folders: itself if they are, or with folders in the place of URLs.

    What is written into the run is uploaded as it appears (`selfseg.storage.remote`). The processes that Fabric starts
    for a run on several devices work in the folder of the first one, which alone fetches and uploads.

    Args:
        recipe: of the run; its images stay where they are.
    """
    with ExitStack() as held:

        def fetch(masks: ObjectMasks) -> ObjectMasks:
            if as_url(masks.folder) is None:
                return masks
            return replace(masks, folder=Path(held.enter_context(fetched(masks.folder))))

        if as_url(recipe.out) is not None:
            first = int(os.environ.get("LOCAL_RANK") or 0) == 0 and int(os.environ.get("NODE_RANK") or 0) == 0
            recipe = replace(recipe, out=held.enter_context(written(recipe.out, of_training, not_cached, first)))
        yield change_each(recipe, ObjectMasks, fetch)
