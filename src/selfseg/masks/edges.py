"""Coarse saliency maps brought to the edges of their photograph by a fully connected CRF."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from selfseg.collection.streaming import Fetched, to_device
from selfseg.masks.priors.scene import Array, map_to_size, shrink
from selfseg.ops.crf import CRFConfig, refine
from selfseg.ops.levels import measured

VERSION = 1
"""Raised whenever the same map would come out otherwise."""

_REACH = 0.15  # of the appearance kernel: 67 px, the usual value, in an image of some 450 px
_COLOURS = 5.0


def sharpen(saliency: Array, image: NDArray[np.uint8], rgb: bool = True) -> Array:
    """A map refined by a CRF: its edges go where the photograph's are.

    The kernels' reach is a share of the image's longer side, so that a map means the same at every size.

    Args:
        saliency: (H, W) float32 in [0, 1].
        image: (H, W, 3) uint8 RGB, or (H, W, C) levels, the same pixels.
        rgb: whether the image is a photograph; False for levels.

    Returns:
        (H, W) float32 in [0, 1].

    Example:
        >>> image = np.zeros((32, 32, 3), np.uint8)
        >>> image[8:24, 8:24] = (220, 60, 30)
        >>> coarse = np.full((32, 32), 0.2, np.float32)
        >>> coarse[6:22, 6:22] = 0.8  # off by 2 px
        >>> truth = image[..., 0] > 0
        >>> wrong = [int(((each > 0.5) != truth).sum()) for each in (coarse, sharpen(coarse, image))]
        >>> wrong[0], wrong[1] < 10
        (120, True)
    """
    both = torch.from_numpy(np.stack([1 - saliency, saliency]))
    refined: Array = refine(both, image, _crf_of(saliency.shape), rgb)[1].numpy()
    return refined


def sharpen_together(
    maps: Sequence[tuple[Array, NDArray[np.uint8]]], device: torch.device, rgb: bool = True
) -> list[Fetched]:
    """`sharpen` of several maps of one size, on a device; the same up to 1e-3.

    Args:
        maps: (H, W) float32 in [0, 1] and (H, W, 3) uint8 RGB, or (H, W, C) levels, each.
        device: where they are refined.
        rgb: whether the images are photographs.

    Returns:
        For each (H, W) float32 in [0, 1].
    """
    saliency = np.stack([each for each, _ in maps])
    both = to_device(np.stack([1 - saliency, saliency], axis=1), device)
    images = to_device(np.stack([image for _, image in maps]), device)
    refined = refine(both, images, _crf_of(saliency.shape[1:]), rgb)
    return Fetched(refined[:, 1].contiguous()).rows()


def _crf_of(size: tuple[int, ...]) -> CRFConfig:
    return CRFConfig(appearance_xy=max(1.0, _REACH * max(size)), appearance_rgb=_COLOURS)


def to_image(saliency: Array, image: NDArray[np.uint8], sharp: bool = True, rgb: bool = True) -> Array:
    """A coarse map at its image's size.

    Args:
        saliency: (h, w) float32 in [0, 1], of the whole image, in whatever proportions.
        image: (H, W, 3) uint8 RGB, or (H, W, C) levels.
        sharp: whether to refine it by `sharpen`, where the image's longer side has at most 400 px.
        rgb: whether the image is a photograph; False for levels.

    Returns:
        (H, W) float32 in [0, 1]; 0 where void.
    """
    values, small = at_small_size(saliency, image, rgb)
    return at_full_size(sharpen(values, small, rgb) if sharp else values, image, rgb)


def at_small_size(saliency: Array, image: NDArray[np.uint8], rgb: bool) -> tuple[Array, NDArray[np.uint8]]:
    """A map (h, w), and its image (H, W, C), both with a longer side of at most 400 px."""
    small = shrink(image, rgb=rgb)
    return map_to_size(saliency, *small.shape[:2]), small


def at_full_size(values: Array, image: NDArray[np.uint8], rgb: bool) -> Array:
    """A map (h, w) at its image's size (H, W), 0 where void."""
    found = map_to_size(values, *image.shape[:2])
    there = None if rgb else measured(image)
    return found if there is None else found * there
