"""Drawing pixels from a collection: what `selfseg cluster` groups.

Letters in shapes: D embedding dimension, h w embedding cells, N points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from selfseg.collection.batching.room import AUTO, Batching
from selfseg.collection.clusters import add_position
from selfseg.collection.opening import load_known, require_same, whole_images
from selfseg.collection.streaming import Embedded, Looked, map_embedded, to_device
from selfseg.data.reading.ahead import spread_points
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.skipping import SkipLog
from selfseg.errors import EmptyCollection
from selfseg.models.embedder import Embedder, Looks
from selfseg.threads import usable_cores
from selfseg.workers.gathering import SkipList, Skipped, gather
from selfseg.workers.hiring import hire
from selfseg.workers.plan import HERE, Shard, Where, cut


def look_twice(embedder: Embedder, before: Embedder) -> Callable[[Tensor], Tensor]:
    """A look that finds what an embedder sees and what it saw before its training, at little more than one's cost.

    Args:
        embedder: one that has a `before_training`.
        before: that one.

    Returns:
        A function of (B, 3, H, W) float in [0, 1]: (B, 2 D, h, w) float32, the embedder's D first.
    """

    def look(image: Tensor) -> Tensor:
        if embedder.looks != Looks():
            return torch.cat([embedder.look(image), before.look(image)], dim=1)
        features = embedder.features(image)
        return torch.cat([F.normalize(one.decoder.project(features).float(), dim=1) for one in (embedder, before)], 1)

    return look


def draw_pixels(
    job: Drawing,
    work: Drawer,
    collection: ImageCollection,
    log: SkipLog,
    where: Where = HERE,
) -> tuple[list[Tensor], Tensor]:
    """Embeddings of pixels drawn from a collection; a pure function of (seed, image index).

    Args:
        job: what is drawn.
        work: its drawer in this process.
        collection: the images.
        log: of those that can't be used.
        where: the images are looked at.

    Returns:
        (N, D) float32 on the embedder's device, (N, D + 4) with a position above 0 (`add_position`), once or twice: as
        of now, and as of before the training; and (N,) int64 on the CPU: the image that each is of. N is at most about
        `job.points`, less where images have fewer cells.

    Raises:
        EmptyCollection: if no image could be read.
    """
    chosen, _ = spread_points(len(collection), job.points, job.seed)
    whole = whole_images(collection, log, chosen.tolist())
    with hire(where, "cluster", job.progress, job.device) as workers:
        shards = cut(collection, whole, where)
        with closing(gather(workers, job, shards, collection.names, log, work)) as found:
            drawn = sorted(found, key=lambda one: one[0])
    if not drawn:
        raise EmptyCollection(f"none of the {len(chosen)} images in {collection.root} could be read")
    device = work.embedder.mean.device
    samples = [
        torch.cat([torch.as_tensor(one).to(device) for one in kind])
        for kind in zip(*(kept for _, kept in drawn), strict=True)
    ]
    return samples, torch.cat([torch.full((len(kinds[0]),), i) for i, kinds in drawn])


@dataclass(frozen=True)
class Drawing:
    """The job of `cluster`: draw pixels.

    Attributes:
        run: the trained run.
        looks: how often each image is looked at; once if None.
        device: see `selfseg.collection.opening.load`.
        images: in the whole collection.
        seed: of the draw.
        points: to draw in all, about.
        position: how much a pixel's place in its image has a say.
        before: whether pixels are also seen as of before the training, where that can be told.
        progress: whether to show a progress bar on stderr.
        batch: how many images a GPU looks at together.
        made_by: the embedder, see `selfseg.collection.opening.load_known`.
    """

    run: Path
    looks: Looks | None
    device: str
    images: int
    seed: int
    points: int
    position: float
    before: bool
    progress: bool
    batch: Batching = AUTO
    made_by: str = ""

    def open(self) -> Drawer:
        """Load the network."""
        embedder, made_by = load_known(self.run, self.device, self.looks)
        require_same(self.run, self.made_by, made_by)
        return Drawer(self, embedder)


class Drawer:
    """Draws pixels of a shard: for each image its number, and (n, D) of what is wanted of them.

    Args:
        job: what is drawn.
        embedder: which looks.
        here: whether the values stay in this process, and on their device.
    """

    def __init__(self, job: Drawing, embedder: Embedder, here: bool = False) -> None:
        self.job, self.embedder, self.here = job, embedder, here
        self.before = embedder.before_training() if job.before else None

    def __call__(self, shard: Shard[ImageCollection]) -> Iterator[tuple[int, list[Any]] | Skipped]:
        """Of each image its number in the collection, and its pixels (n, D) of each kind."""
        job, embedder, before, skips = self.job, self.embedder, self.before, SkipList()
        _, per_image = spread_points(job.images, job.points, job.seed)
        kinds = 1 if before is None else 2

        def draw(one: Embedded) -> list[Tensor]:
            cells = one.embedding.shape[1] * one.embedding.shape[2]
            key = (job.seed, shard.indices[one.number])
            drawn = np.random.default_rng(key).choice(cells, min(per_image, cells), replace=False)
            found = []
            for each in one.embedding.chunk(kinds):
                vectors = add_position(each, job.position).flatten(1)  # (D, h w)
                found.append(vectors[:, to_device(np.sort(drawn), vectors.device)].T.contiguous())
            return found

        def keep(one: Looked, found: list[Tensor]) -> tuple[int, list[Any]]:
            kept = found if self.here else [each.cpu().numpy() for each in found]
            return shard.indices[one.number], kept

        look = None if before is None else look_twice(embedder, before)
        stream = map_embedded(
            embedder,
            shard.images,
            range(len(shard)),
            draw,
            keep,
            skips,
            "cluster",
            job.progress and shard.alone,
            threads=max(2, usable_cores()),  # nothing is written meanwhile
            look=look,
            batch=job.batch,
        )
        yield from skips.among(stream)
