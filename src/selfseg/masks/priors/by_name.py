"""Hand-crafted saliency priors: what stands out in a photograph, from the image alone.

    rbd        connection with the frame, optimised          `selfseg.masks.priors.background`
    mbd        minimum barrier distance to the frame         `selfseg.masks.priors.barrier`
    ranking    manifold ranking from the four sides          `selfseg.masks.priors.ranking`
    contrast   colour contrast with all other regions        `selfseg.masks.priors.contrast`
    markov     absorbed time of a random walk                `selfseg.masks.priors.markov`
    mean       the mean of the five, with more contrast

Each takes an (H, W, 3) uint8 RGB image of any size from 1 x 1 and gives an (H, W) float32 map in [0, 1]; the same image
always gives the same map, and one in which nothing stands out gives zeros. Larger images are looked at with a longer
side of 400 px. Drawn frames and bars are left out first (`picture_inside`). All but `contrast` hold what is at the
frame for background: an object that is cut off there is lost.

Of measured channels, (H, W, C) levels with `rgb` False, see `selfseg.masks.priors.scene`; void pixels have 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from selfseg.errors import ConfigError
from selfseg.masks.priors import background, barrier, markov, ranking
from selfseg.masks.priors import contrast as region_contrast
from selfseg.masks.priors.scene import Array, Scene, enhance, look_at, map_to_size, picture_inside, shrink
from selfseg.ops.levels import fill_void, measured

Prior = Literal["rbd", "mbd", "ranking", "contrast", "markov", "mean"]
"""The names of the priors."""

VERSION = 1
"""Raised whenever the same image would get another map, so that masks made before are made anew."""

_OF_SUPERPIXELS: dict[str, Callable[[Scene], Array]] = {
    "rbd": background.rbd,
    "ranking": ranking.ranking,
    "contrast": region_contrast.contrast,
    "markov": markov.markov,
}


def saliency(image: NDArray[np.uint8], prior: Prior = "mean", rgb: bool = True) -> Array:
    """What stands out in an image.

    Args:
        image: (H, W, 3) uint8 RGB in [0, 255], any size from 1 x 1; or (H, W, C) levels.
        prior: which of those at the top of this module.
        rgb: whether the image is a photograph; False for levels.

    Returns:
        (H, W) float32 in [0, 1]; from 0.5 on a pixel is rather of an object.

    Raises:
        ConfigError: for another array or an unknown prior.

    Example:
        >>> image = np.full((60, 80, 3), 90, np.uint8)
        >>> image[20:40, 30:50] = (220, 60, 30)
        >>> found = saliency(image, "rbd") > 0.5
        >>> bool(found[30, 40]), bool(found[5, 5])
        (True, False)
    """
    return all_priors(image, (check_prior(prior),), rgb)[prior]


def all_priors(
    image: NDArray[np.uint8], which: tuple[Prior, ...] = get_args(Prior), rgb: bool = True
) -> dict[Prior, Array]:
    """Several priors of one image, whose superpixels are made once.

    Args:
        image: as for `saliency`.
        which: their names.
        rgb: as for `saliency`.

    Returns:
        By name (H, W) float32 maps.
    """
    whole = shrink(image, rgb=rgb)
    there = None if rgb else measured(whole)
    whole = whole if there is None else fill_void(whole)
    inside = picture_inside(whole)
    small = np.ascontiguousarray(whole[inside])
    single = [name for name in get_args(Prior) if name != "mean" and (name in which or "mean" in which)]
    scene = look_at(small, rgb=rgb) if set(single) & set(_OF_SUPERPIXELS) else None
    maps: dict[str, Array] = {}
    for name in single:
        if scene is None or name == "mbd":
            maps[name] = barrier.mbd(small, rgb)
        elif scene.is_plain:  # ranks and walks would tell how far the frame is
            maps[name] = np.zeros(small.shape[:2], np.float32)
        else:
            maps[name] = _OF_SUPERPIXELS[name](scene)
    if "mean" in which:
        # Enhanced as each of them is: the mean is nowhere near 0 or 1 where they disagree (MAE .15 to .11 on bags).
        maps["mean"] = enhance(np.mean([maps[name] for name in single], axis=0, dtype=np.float32))
    found: dict[Prior, Array] = {}
    for name in which:
        values = np.zeros(whole.shape[:2], np.float32)
        values[inside] = maps[name]
        if there is not None:
            values[~there] = 0
        found[name] = map_to_size(values, *image.shape[:2])
    return found


def check_prior(prior: str) -> Prior:
    """The prior of that name; raises ConfigError with the names that there are."""
    for known in get_args(Prior):
        if prior == known:
            return known  # type: ignore[no-any-return]
    raise ConfigError(f"no saliency prior {prior!r}; there are {', '.join(get_args(Prior))}")
