"""Maps of what stands out from networks that look at several images at once, as a GPU likes it.

What a processor is better at is done in threads meanwhile: reading, superpixels, the algebra of a few hundred of them,
cleaning and writing. What takes a GPU are the network and the CRF, each with images of one size together.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from selfseg.collection.batching.room import Batching
from selfseg.collection.batching.together import together
from selfseg.collection.streaming import Fetched
from selfseg.data.reading.ahead import Skips, Versions, in_threads, map_beside, pixels_of
from selfseg.data.reading.images import ImageCollection
from selfseg.masks.edges import at_full_size, at_small_size, sharpen_together
from selfseg.masks.priors.scene import Array
from selfseg.threads import usable_cores

Image = NDArray[np.uint8]
P = TypeVar("P")
F = TypeVar("F")


class Finder(Protocol[P, F]):
    """What finds objects, in one image or in several at once.

    Attributes:
        device: where its network is.
    """

    device: torch.device

    def __call__(self, image: Image, /) -> Array:
        """(H, W, 3) uint8 RGB, or (H, W, C) levels, to (H, W) float32 in [0, 1]; several threads may call it."""
        ...

    def prepare(self, image: Image, /) -> P:
        """What can be done of an image before the network; several threads may call it, as `coarse`."""
        ...

    def pixels(self, prepared: P, /) -> Image:
        """What the network sees of it, (h, w, 3) uint8 RGB or (h, w, C) levels."""
        ...

    def see(self, pixels: Sequence[Image], /) -> Sequence[F]:
        """What the network finds in several of one size, for each; a GPU may still be at work."""
        ...

    def coarse(self, prepared: P, found: F, /) -> Array | None:
        """What stands out, (h, w) float32 in [0, 1] of the whole image, before the CRF; None = nothing does."""
        ...


class Looked(NamedTuple, Generic[P, F]):
    """An image, and what a network has found in it.

    Attributes:
        number: of the image in its collection.
        image: (H, W, 3) uint8 RGB, or (H, W, C) levels.
        prepared: what was made of it before.
        found: by the network.
    """

    number: int
    image: Image
    prepared: P
    found: F


class Mapped(NamedTuple):
    """An image with its map, on the way from a GPU.

    Attributes:
        number: of the image in its collection.
        image: (H, W, 3) uint8 RGB, or (H, W, C) levels.
        values: the map at the working size; None = nothing stands out.
    """

    number: int
    image: Image
    values: Fetched | None

    def saliency(self, rgb: bool) -> Array:
        """The map, (H, W) float32 in [0, 1]; any thread may ask, and waits for a GPU."""
        if self.values is None:
            return np.zeros(self.image.shape[:2], np.float32)
        return at_full_size(self.values.numpy(), self.image, rgb)


def look_together(
    find: Finder[P, F],
    images: ImageCollection,
    indices: Sequence[int],
    log: Skips,
    what: str,
    progress: bool,
    batch: Batching,
    versions: Versions | None = None,
) -> Generator[Looked[P, F], None, None]:
    """What a network finds in images, which it looks at together; in order.

    Args:
        find: the network, and what is done before it.
        images: the collection.
        indices: of those that are wanted.
        log: where those go that can't be read.
        what: for the progress bar.
        progress: whether to show one on stderr.
        batch: how many are looked at together.
        versions: see `selfseg.data.reading.ahead.in_threads`.
    """
    read = in_threads(
        images,
        indices,
        lambda i, image: (i, image, find.prepare(image)),
        lambda one: pixels_of(one[1]),
        log,
        what,
        progress,
        usable_cores(),
        versions,
    )
    with closing(read):
        stream = together(
            find.see,
            (one for _, one in read),
            lambda one: find.pixels(one[2]),
            lambda pixels: pixels.shape,
            lambda one: pixels_of(one[1]),
            batch.room(find.device),
        )
        for (number, image, prepared), found in stream:
            yield Looked(number, image, prepared, found)


def map_together(
    find: Finder[Any, Any],
    images: ImageCollection,
    log: Skips,
    progress: bool,
    batch: Batching,
    versions: Versions | None = None,
) -> Generator[Mapped, None, None]:
    """The maps of a collection, in order: network and CRF look at images together. Within `one_thread_each`.

    Args:
        find: makes the maps.
        images: the collection.
        log: where those go that can't be read.
        progress: whether to show a bar on stderr.
        batch: how many are looked at together.
        versions: see `selfseg.data.reading.ahead.in_threads`.
    """
    rgb = images.rgb

    def coarse(one: Looked[Any, Any]) -> tuple[Looked[Any, Any], bool, tuple[Array, Image]]:
        values = find.coarse(one.prepared, one.found)
        empty = values is None
        values = np.zeros(one.image.shape[:2], np.float32) if values is None else values
        return one._replace(prepared=None, found=None), empty, at_small_size(values, one.image, rgb)

    looked = look_together(find, images, range(len(images)), log, "masks", progress, batch, versions)
    with closing(looked), closing(map_beside(coarse, looked, usable_cores())) as mapped:
        stream = together(
            lambda some: sharpen_together(some, find.device, rgb),
            mapped,
            lambda one: one[2],
            lambda pair: pair[1].shape,
            lambda one: pixels_of(one[0].image),
            batch.room(find.device),
        )
        for (one, empty, _), values in stream:
            yield Mapped(one.number, one.image, None if empty else values)
