"""What an evaluation measures: anything that turns an image into a vector per cell.

Letters: D dimensions, H W pixels, h w cells; cell (0, 0) covers the image's top left corner and the grid of cells
spans the image, so that a bilinear resize (align_corners=False) takes one to the other.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfseg.collection.clusters import add_position
from selfseg.data.reading.images import resize_short_side
from selfseg.models.embedder import Embedder, Looks

Extract = Callable[[NDArray[np.uint8]], Tensor]
"""A feature extractor: (H, W, 3) uint8 RGB to (D, h, w) float32. `Embedder.embed` is one."""
Resolution = int | Literal["native"] | None
"""The short side in px that images are resized to; "native" = as they are; None = as whoever looks at them does."""


def short_side(resolution: Resolution, own: int | None = None) -> int | None:
    """The short side in px that images are resized to, None = as they are, where the extractor's is `own`.

    Example:
        >>> short_side(None, 320), short_side(480, 320), short_side("native", 320)
        (320, 480, None)
    """
    return own if resolution is None else None if resolution == "native" else resolution


@dataclass(frozen=True)
class Batched:
    """An extractor in two steps: what is each image's own, and what images of one size can share.

    Attributes:
        prepare: (H, W, 3) uint8 RGB to the same at the size that it is looked at; called in several threads at once.
        extract: B prepared images of one size to (B, D, h, w) float32 on `device`.
        device: where that happens. On a GPU images are extracted together, on a CPU one by one, and then it gives what
            `Extractor.extract` gives, to the bit.
    """

    prepare: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
    extract: Callable[[Sequence[NDArray[np.uint8]]], Tensor]
    device: torch.device


@dataclass(frozen=True)
class Extractor:
    """A feature extractor and what is known about it.

    Attributes:
        name: what results call it.
        extract: (H, W, 3) uint8 RGB array to a (D, h, w) float32 tensor.
        normalised: whether each cell's vector has unit length. Then k-means runs on the sphere, else in Euclid's
            space.
        resolution: the short side that images are resized to, or "native"; for the record.
        trivial: whether it is a baseline that learned nothing.
        prototypes: (K, D) float, the method's own, for the protocol `prototypes`; None = it has none, and that
            protocol leaves it out.
        protocols: what it is measured by, of the protocols that are asked for; None = all that it can be.
        options: settings of its own, recorded with each result.
        batched: how a pass over many images may extract them; None = one by one, by `extract`.
    """

    name: str
    extract: Extract
    normalised: bool = False
    resolution: int | str = "native"
    trivial: bool = False
    prototypes: Tensor | None = field(default=None, repr=False, compare=False)
    protocols: tuple[str, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    batched: Batched | None = field(default=None, repr=False, compare=False)


def embedder_extractor(
    embedder: Embedder, resolution: Resolution = None, name: str = "embedder", looks: Looks | None = None
) -> Extractor:
    """An embedder as the evaluation sees it.

    Args:
        embedder: stays on its device and in its mode.
        resolution: short side in px that images are resized to instead of the embedder's own, or "native".
        name: what results call it.
        looks: how often each image is looked at; the embedder's own if None.
    """
    embedder = copy.copy(embedder)  # shares the weights; only the attributes are its own
    embedder.resolution = short_side(resolution, embedder.resolution)
    embedder.looks = looks or embedder.looks
    options: dict[str, Any] = {"start": embedder.start} if embedder.start else {}
    if embedder.looks != Looks():
        options |= {"scales": embedder.looks.scales, "flip": embedder.looks.flip, "looks": embedder.looks.name}
    return Extractor(
        name=name,
        extract=embedder.embed,
        normalised=embedder.normalised,
        resolution=embedder.resolution or "native",
        options=options,
        batched=Batched(embedder.prepare, embedder.embed_prepared, embedder.mean.device),
    )


def backbone_extractor(embedder: Embedder, resolution: Resolution = None) -> Extractor:
    """What an embedder's backbone gives before its decoder: the last stage, which is what transfer begins from.

    Args:
        embedder: shares its backbone, on its device.
        resolution: short side in px that images are resized to instead of the embedder's own, or "native".
    """
    bare = (
        Embedder(replace(embedder.config, decoder="none", centred=False, saliency=False))
        .eval()
        .to(embedder.mean.device)
    )
    bare.backbone = embedder.backbone
    bare.mean, bare.std = embedder.mean, embedder.std
    return embedder_extractor(bare, resolution, name="backbone")


def features_extractor(embedder: Embedder, resolution: Resolution = None) -> Extractor:
    """What an embedder's heads share: the decoder's features, before the last linear map and not normalised.

    Args:
        embedder: stays on its device.
        resolution: short side in px that images are resized to instead of the embedder's own, or "native".
    """
    side = short_side(resolution, embedder.resolution)

    @torch.no_grad()
    def extract(image: NDArray[np.uint8]) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].to(embedder.mean.device)
        return embedder.features(pixels.float() / 255)[0].float().cpu()

    return Extractor("decoder features", resized(extract, side), resolution=side or "native")


def positioned(extractor: Extractor, weight: float) -> Extractor:
    """An extractor of unit vectors with the pixel's place in the image appended, see `add_position`."""
    batched = extractor.batched
    if batched is not None:
        extract = batched.extract
        batched = replace(
            batched, extract=lambda images: torch.stack([add_position(one, weight) for one in extract(images)])
        )
    return replace(
        extractor,
        name=positioned_name(extractor.name),
        extract=lambda image: add_position(extractor.extract(image), weight),
        normalised=True,
        options={**extractor.options, "position": weight},
        batched=batched,
    )


def positioned_name(name: str) -> str:
    """What results call `positioned` of an extractor."""
    return f"{name} + position"


def colour(image: NDArray[np.uint8]) -> Tensor:
    """Raw RGB: (H, W, 3) uint8 to (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


def colour_and_position(image: NDArray[np.uint8]) -> Tensor:
    """Raw RGB in [0, 1] and the pixel's centre (x, y) in [0, 1]: (H, W, 3) uint8 to (5, H, W) float32."""
    height, width = image.shape[:2]
    x = ((torch.arange(width) + 0.5) / width).expand(height, width)
    y = ((torch.arange(height) + 0.5) / height)[:, None].expand(height, width)
    return torch.cat([colour(image), x[None], y[None]])


def resized(extract: Extract, resolution: int | None) -> Extract:
    """The extractor on images whose short side was resized to `resolution` px (None: as they are)."""
    if resolution is None:
        return extract
    return lambda image: extract(resize_short_side(image, resolution))
