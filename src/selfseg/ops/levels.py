"""Images of measured levels: (H, W, C) uint8 of any number of channels C, in which 0 in all channels means void.

A collection's reader maps what was measured to the levels 1 to 255 in every channel. Where nothing was measured (no
data, masked, not a number) the level is 0 in all channels. Photographs are other images: (H, W, 3) RGB, whose black is
a colour. What treats the two differently takes an argument `rgb`, since three measured channels are no colours either.

OpenCV leaves out the last axis of images of one channel, and its INTER_AREA takes four channels at most; `resize`,
`flip` and `with_channels` hide both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from selfseg.errors import ConfigError

Levels = NDArray[np.uint8]

SPAN = 254
"""From the lowest measured level, 1, to the highest, 255."""

_MOST = 4  # channels that OpenCV's INTER_AREA takes


def check_image(image: Any, rgb: bool = True) -> None:
    """Refuse what is no image.

    Args:
        image: must be (H, W, 3) uint8, or (H, W, C) uint8 with `rgb` False.
        rgb: whether it is a photograph.

    Raises:
        ConfigError: with the shape and dtype.
    """
    good = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3
    if good and (image.shape[2] == 3 if rgb else image.shape[2] >= 1):
        return
    what = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
    wanted = "an (H, W, 3) uint8 RGB array" if rgb else "an (H, W, C) uint8 array of levels"
    hint = "; measured channels need rgb=False" if rgb and good else ""
    raise ConfigError(f"image must be {wanted}, not {what}{hint}")


def measured(image: Levels) -> NDArray[np.bool_] | None:
    """Where something was measured.

    Args:
        image: (H, W, C) uint8 levels.

    Returns:
        (H, W) bool, False where all channels are 0; None where there is no such pixel.

    Example:
        >>> measured(np.array([[[0, 7], [0, 0]]], np.uint8)).tolist()
        [[True, False]]
        >>> measured(np.ones((2, 2, 5), np.uint8)) is None
        True
    """
    where: NDArray[np.bool_] = image[..., 0] != 0
    for channel in range(1, image.shape[2]):
        if where.all():
            return None
        where |= image[..., channel] != 0
    return None if where.all() else where


def mark_void(values: NDArray[Any], image: Levels, void: int) -> NDArray[Any]:
    """A map of an image in which a value stands wherever nothing was measured.

    Args:
        values: (H, W) unsigned integers.
        image: (H, W, C) uint8 levels.
        void: the value.

    Returns:
        (H, W) of the same type, or of the next that holds `void`; `values` itself where no pixel is void.

    Example:
        >>> image = np.array([[[0], [7]]], np.uint8)
        >>> mark_void(np.array([[3, 3]], np.uint8), image, 255)
        array([[255,   3]], dtype=uint8)
    """
    where = measured(image)
    if where is None:
        return values
    kind = np.result_type(values, np.min_scalar_type(void))
    return np.where(where, values.astype(kind, copy=False), kind.type(void))


def with_channels(result: Any, like: NDArray[Any]) -> Any:
    """What OpenCV made of an image, with its axis of channels: (H, W) becomes (H, W, 1) where `like` is (h, w, 1)."""
    return result[..., None] if like.ndim == 3 and result.ndim == 2 else result


def resize(image: NDArray[Any], size: tuple[int, int], interpolation: int) -> Any:
    """`cv2.resize` for any number of channels; void is a level as any other, see `among_measured`.

    Args:
        image: (H, W, C) or (H, W), uint8 or float32.
        size: (width, height).
        interpolation: OpenCV's.

    Returns:
        (height, width, C) or (height, width).
    """
    if interpolation == cv2.INTER_AREA and image.ndim == 3 and image.shape[2] > _MOST:
        parts = [
            with_channels(resized, part)
            for first in range(0, image.shape[2], _MOST)
            for part in [np.ascontiguousarray(image[..., first : first + _MOST])]
            for resized in [cv2.resize(part, size, interpolation=interpolation)]
        ]
        return np.concatenate(parts, axis=2)
    return with_channels(cv2.resize(image, size, interpolation=interpolation), image)


def flip(image: NDArray[Any]) -> Any:
    """Mirrored left to right: (H, W, C) to the same, contiguous."""
    return with_channels(cv2.flip(image, 1), image)


def among_measured(image: Levels, change: Callable[[NDArray[Any]], Any], stay: bool = False) -> Levels:
    """A resizing or a blur in which measured pixels mix with measured ones only.

    Where void pixels are near, the others' weights add up to 1 without them (normalised convolution, Knutsson & Westin,
    CVPR 1993).

    Args:
        image: (H, W, C) uint8 levels.
        change: linear, and keeps a plain image as it is; takes (H, W, C) uint8 and float32.
        stay: whether a pixel remains measured or void as it is, as under a blur. Otherwise it is measured where
            measured pixels have at least half of the weight.

    Returns:
        What `change` gives, uint8: 0 in all channels where void, levels of at least 1 elsewhere.

    Example:
        >>> image = np.zeros((4, 4, 1), np.uint8)
        >>> image[:, :3] = 200
        >>> half = among_measured(image, lambda each: resize(each, (2, 2), cv2.INTER_AREA))
        >>> half[..., 0].tolist()
        [[200, 200], [200, 200]]
    """
    where = measured(image)
    if where is None:
        plain: Levels = np.maximum(change(image), np.uint8(1))
        return plain
    share = change(where[..., None].astype(np.float32))
    changed = change(image.astype(np.float32))
    kept = where[..., None] if stay else share >= 0.5 - 1e-6
    level = np.rint(changed / np.maximum(share, np.float32(1e-6)))
    result: Levels = np.where(kept, np.clip(level, 1, 255), 0).astype(np.uint8)
    return result


def fill_void(image: Levels) -> Levels:
    """Void pixels get the levels of the nearest measured one, for what can't leave pixels out.

    So an area without data goes on as what is beside it, with no edge of its own.

    Args:
        image: (H, W, C) uint8 levels.

    Returns:
        (H, W, C) uint8 without a void pixel; `image` itself where there is none.

    Example:
        >>> fill_void(np.array([[[7], [0], [0], [9]]], np.uint8)).ravel().tolist()
        [7, 7, 9, 9]
    """
    where = measured(image)
    if where is None:
        return image
    if not where.any():
        return np.ones_like(image)
    filled: Levels = image.reshape(-1, image.shape[2])[nearest_measured(where)].reshape(image.shape)
    return filled


def nearest_measured(where: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The nearest pixel where something was measured.

    Args:
        where: (H, W) bool, True somewhere.

    Returns:
        (H * W,) int64: of each pixel, row by row, the place of the nearest True one, which may be itself.

    Example:
        >>> nearest_measured(np.array([[False, True, True, False]])).tolist()
        [1, 1, 2, 2]
    """
    _, nearest = cv2.distanceTransformWithLabels(
        (~where).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    # Every measured pixel has a label of its own.
    place = np.zeros(int(nearest.max()) + 1, np.int64)
    there = np.flatnonzero(where)
    place[nearest.ravel()[there]] = there
    found: NDArray[np.int64] = place[nearest.ravel()]
    return found


def colour_like(image: Levels) -> NDArray[np.float32]:
    """Measured levels on the scale of CIELAB: lengths mean about what they do there.

    A change over the whole range in all channels is 100, as from black to white in L; so every channel is scaled by
    100 / (254 sqrt(C)).

    Args:
        image: (H, W, C) uint8.

    Returns:
        (H, W, C) float32.
    """
    return image.astype(np.float32) * level_scale(image.shape[2])


def level_scale(channels: int) -> np.float32:
    """What a level of one of `channels` channels counts in units of CIELAB, see `colour_like`.

    Example:
        >>> round(254 * float(level_scale(1)), 3), round(254 * float(level_scale(4)), 3)
        (100.0, 50.0)
    """
    return np.float32(100 / (SPAN * np.sqrt(channels)))
