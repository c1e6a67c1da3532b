"""Refining class probabilities by a fully connected CRF: pixels that are near and alike in colour agree on a class.

After Kraehenbuehl & Koltun, "Efficient inference in fully connected CRFs with Gaussian edge potentials", NeurIPS 2011
(https://arxiv.org/abs/1210.5644). With unary scores u = log p, Potts compatibility and two kernels, a round of mean
field is (their algorithm 1)

    q_i(c) <- softmax_c( u_i(c) + sum_m w_m sum_j k_m(i, j) / sqrt(n_i n_j) * q_j(c) ),    n_i = sum_j k_m(i, j)

    smoothness  k(i, j) = exp(-|p_i - p_j|^2 / 2 sxy^2)
    appearance  k(i, j) = exp(-|p_i - p_j|^2 / 2 sxy^2 - |I_i - I_j|^2 / 2 srgb^2)

with p in pixels and I in RGB of 0 to 255. Sums over j are filters, never N x N numbers:

- The smoothness kernel is separable and small: an exact Gaussian, cut off at 4 deviations.
- The appearance kernel lives in five dimensions and is narrow in colour, so that a grid would be nearly empty: the
  permutohedral lattice of Adams, Baek & Davis, "Fast high-dimensional filtering using the permutohedral lattice",
  Eurographics 2010, keeps only the vertices that pixels touch. It is an approximation, see `refine`.

What is not as in the paper, and why:

- k / sqrt(n_i n_j), the symmetric normalisation of the authors' later program, which the field's parameters are for.
- The sum has j = i, as in that program (the paper leaves it out).

Of measured channels (`selfseg.ops.levels`) |I_i - I_j|^2 is the sum over all C of them, times 3 / C: a change of all
channels counts as much as one of red, green and blue together. The lattice has 2 + C dimensions then. Void pixels send
nothing, receive nothing and keep their probabilities.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfseg.errors import ConfigError
from selfseg.ops.kernels.crf_lattice import HALF, D
from selfseg.ops.levels import measured

ALGORITHM_VERSION = 1
"""Raised whenever the same input and configuration would give other probabilities."""

MOST_CLASSES = 512  # OpenCV's most channels

_HELD = 1 << 31  # bytes that a GPU takes for a batch, about: a pixel of C classes takes 500 + 50 C
_CUT = 4  # deviations at which the smoothness kernel ends; what is left out is below 4e-4 of its middle


@dataclass(frozen=True)
class CRFConfig:
    """Parameters of the CRF; the defaults are MaskContrast's, which came from DeepLab's.

    Attributes:
        iterations: rounds of mean field.
        smooth_xy: deviation of the smoothness kernel, in pixels of the image ("sxy").
        smooth_weight: how much it counts ("compat"); 0 leaves it out.
        appearance_xy: deviation in position of the appearance kernel, in pixels.
        appearance_rgb: its deviation in colour, in units of 8-bit RGB ("srgb").
        appearance_weight: how much it counts; 0 leaves it out.
        floor: probabilities below it count as it: an exact 0 would rule a class out for good.
    """

    iterations: int = 10
    smooth_xy: float = 1.0
    smooth_weight: float = 3.0
    appearance_xy: float = 67.0
    appearance_rgb: float = 3.0
    appearance_weight: float = 4.0
    floor: float = 1e-5

    def __post_init__(self) -> None:
        if isinstance(self.iterations, bool) or not isinstance(self.iterations, int) or self.iterations < 1:
            raise ConfigError(f"iterations must be a whole number of at least 1, not {self.iterations!r}")
        for name in ("smooth_xy", "appearance_xy", "appearance_rgb"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"{name} must be a number above 0, not {value!r}; a weight of 0 leaves a kernel out")
        for name in ("smooth_weight", "appearance_weight"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise ConfigError(f"{name} must be a number of at least 0, not {value!r}")
        if not 0 < self.floor <= 0.1:
            raise ConfigError(f"floor must be above 0 and at most 0.1, not {self.floor!r}")


def refine(
    probabilities: Tensor, image: NDArray[np.uint8] | Tensor, config: CRFConfig | None = None, rgb: bool = True
) -> Tensor:
    """Mean field of a fully connected CRF on probabilities.

    On a CPU compiled kernels do the work, in one thread and image by image; elsewhere torch operations on the whole
    batch, with the same result up to rounding: probabilities differ by less than 1e-3. What an image of a batch gets
    there is what it gets alone up to 1e-5. The CUDA path has not been run on a GPU yet.

    Against the exact sums over all pairs of pixels (crops of photographs, 72 x 56 pixels, five classes of noise, the
    default parameters), 1.3 to 1.7 % of the pixels get another class, where the CRF changes 34 to 39 %; probabilities
    differ by 0.005 to 0.007 on average. The lattice is the cause, and the authors' own program is as far away (1.2 to
    2.3 %). With `appearance_weight=0` they are equal up to the cut.

    Args:
        probabilities: (C, H, W) or (B, C, H, W) float in [0, 1], adding up to 1 over C; any device.
        image: (H, W, 3), for a batch (B, H, W, 3), uint8 RGB in [0, 255], the same pixels; or (..., H, W, C) levels.
        config: parameters.
        rgb: whether the image is a photograph; False for levels of measured channels.

    Returns:
        Refined probabilities, float32, of the shape and on the device of `probabilities`.

    Raises:
        ConfigError: for other shapes and types, probabilities that are not finite, outside of [0, 1] or don't add up
            to 1, and parameters that are too small for the image's size.

    Example:
        >>> image = np.zeros((8, 8, 3), np.uint8)
        >>> image[:, 4:] = 200
        >>> left = torch.full((8, 8), 0.3)
        >>> left[:, :4] = 0.7
        >>> left[2, 2] = 0.3  # one pixel is wrong
        >>> refined = refine(torch.stack([left, 1 - left]), image)
        >>> bool((refined[0, :, :4] > 0.5).all()), bool((refined[0, :, 4:] < 0.5).all())
        (True, True)
    """
    config = config or CRFConfig()
    _check(probabilities, image, "probabilities", rgb)
    probabilities = probabilities.detach()
    low, high = float(probabilities.min()), float(probabilities.max())
    if low < -1e-3 or high > 1 + 1e-3:
        raise ConfigError(f"probabilities must lie in [0, 1], not [{low:g}, {high:g}]; use refine_logits for logits")
    error = float((probabilities.sum(-3, dtype=torch.float32) - 1).abs().max())
    if error > 1e-2:
        raise ConfigError(f"probabilities must add up to 1 over the classes; they are off by up to {error:g}")
    return _refine(probabilities.float().clamp(config.floor, 1).log(), image, config, rgb)


def refine_logits(
    logits: Tensor, image: NDArray[np.uint8] | Tensor, config: CRFConfig | None = None, rgb: bool = True
) -> Tensor:
    """`refine` on softmax(logits).

    Args:
        logits: (C, H, W) or (B, C, H, W) float, finite; any device.
        image: as in `refine`.
        config: parameters.
        rgb: as in `refine`.

    Returns:
        Refined probabilities, float32, of the shape and on the device of `logits`.

    Raises:
        ConfigError: for other shapes and types, logits that are not finite, and parameters that are too small for the
            image's size.

    Example:
        >>> refine_logits(torch.zeros(3, 4, 6), np.zeros((4, 6, 3), np.uint8)).shape
        torch.Size([3, 4, 6])
    """
    config = config or CRFConfig()
    _check(logits, image, "logits", rgb)
    unary = F.log_softmax(logits.detach().float(), dim=-3).clamp(min=math.log(config.floor))
    return _refine(unary, image, config, rgb)


def _check(scores: Tensor, image: NDArray[np.uint8] | Tensor, name: str, rgb: bool) -> None:
    if not isinstance(scores, Tensor) or scores.ndim not in (3, 4) or not scores.is_floating_point():
        what = f"{scores.dtype} {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
        raise ConfigError(f"{name} must be a (C, H, W) or (B, C, H, W) float tensor, not {what}")
    if scores.shape[-3] > MOST_CLASSES:
        raise ConfigError(f"a CRF of {scores.shape[-3]} classes; there may be {MOST_CLASSES}")
    if scores.numel() == 0:
        raise ConfigError(f"{name} of shape {tuple(scores.shape)} hold nothing to refine")
    shape = tuple(getattr(image, "shape", ()))
    channels = 3 if rgb else max(1, shape[-1] if shape else 1)
    expected = (*scores.shape[:-3], *scores.shape[-2:], channels)
    if not isinstance(image, np.ndarray | Tensor) or str(image.dtype) not in ("uint8", "torch.uint8"):
        what = str(image.dtype) if isinstance(image, np.ndarray | Tensor) else type(image).__name__
        raise ConfigError(f"image must be uint8 RGB in [0, 255], not {what}")
    if shape != expected:
        raise ConfigError(f"{name} of shape {tuple(scores.shape)} need an image of {expected}, not {shape}")
    if not bool(torch.isfinite(scores).all()):
        bad = int((~torch.isfinite(scores)).sum())
        raise ConfigError(f"{bad} of {scores.numel()} {name} are not finite")


def _refine(unary: Tensor, image: NDArray[np.uint8] | Tensor, config: CRFConfig, rgb: bool) -> Tensor:
    """(..., C, H, W) log probabilities to probabilities: a GPU's images all at once, a CPU's one by one."""
    _check_range(config, unary.shape[-2], unary.shape[-1], 3 if rgb else image.shape[-1])
    pixels = torch.from_numpy(np.ascontiguousarray(image)) if isinstance(image, np.ndarray) else image
    pixels = pixels.to(unary.device)
    with torch.no_grad():
        if unary.ndim == 3:
            return _mean_field(unary, pixels, config, rgb=rgb)
        if unary.device.type == "cpu":
            pairs = zip(unary, pixels, strict=True)
            return torch.stack([_mean_field(scores, one, config, rgb=rgb) for scores, one in pairs])
        classes, height, width = unary.shape[1:]
        count = max(1, _HELD // (height * width * (500 + 50 * classes)))
        parts = zip(torch.split(unary, count), torch.split(pixels, count), strict=True)
        return torch.cat([_mean_field_together(scores, some, config, rgb) for scores, some in parts])


def _mean_field_together(unary: Tensor, images: Tensor, config: CRFConfig, rgb: bool = True) -> Tensor:
    """`_mean_field` of a batch by torch operations: (B, C, H, W) and (B, H, W, 3) to (B, C, H, W).

    The images become one, below each other in the list of pixels, with vertices of the lattice of their own.
    """
    kernels = importlib.import_module("selfseg.ops.kernels.crf_torch")
    batch, classes, height, width = unary.shape
    base = unary.permute(0, 2, 3, 1).reshape(-1, classes).contiguous()  # (B N, C)
    counted = torch.ones_like(base[:, :1])
    if not rgb:
        counted = (images != 0).any(3).reshape(-1, 1).to(base)
    pairwise: list[_Normalised] = []
    if config.smooth_weight:
        smooth = partial(kernels.gaussian, size=(height, width), taps=_taps(config.smooth_xy, max(height, width)))
        pairwise.append(_Normalised(smooth, config.smooth_weight, counted))
    if config.appearance_weight:
        points = torch.cat([_points(one, config) for one in images])
        pairwise.append(_Normalised(kernels.Lattice(points, batch), config.appearance_weight, counted))
    values = _iterate(base, pairwise, config.iterations)
    return values.view(batch, height, width, classes).permute(0, 3, 1, 2).contiguous()


def _mean_field(
    unary: Tensor, image: Tensor, config: CRFConfig, kernels: ModuleType | None = None, rgb: bool = True
) -> Tensor:
    """(C, H, W) log probabilities and (H, W, 3) to (C, H, W); by the `kernels` for the device if not given."""
    if kernels is None:
        kernels = importlib.import_module(
            "selfseg.ops.kernels.crf_" + ("cpu" if unary.device.type == "cpu" else "torch")
        )
    classes, height, width = unary.shape
    base = unary.permute(1, 2, 0).reshape(-1, classes).contiguous()  # (N, C)
    there = None if rgb else measured(image.cpu().numpy())
    counted = torch.ones_like(base[:, :1])
    if there is not None:
        counted = torch.from_numpy(there).to(base).view(-1, 1)
    pairwise: list[_Normalised] = []
    if config.smooth_weight:
        smooth = partial(kernels.gaussian, size=(height, width), taps=_taps(config.smooth_xy, max(height, width)))
        pairwise.append(_Normalised(smooth, config.smooth_weight, counted))
    if config.appearance_weight:
        appearance = kernels.Lattice(_points(image, config))
        pairwise.append(_Normalised(appearance, config.appearance_weight, counted))
    values = _iterate(base, pairwise, config.iterations)
    return values.T.reshape(classes, height, width).contiguous()


def _iterate(base: Tensor, pairwise: Sequence[_Normalised], iterations: int) -> Tensor:
    """Rounds of mean field: (N, C) log probabilities to probabilities."""
    values = _softmax(base.clone())
    for _ in range(iterations):
        scores = base.clone()
        for kernel in pairwise:
            scores += kernel(values)
        values = _softmax(scores)
    return values


class _Normalised:
    """w k(i, j) / sqrt(n_i n_j) as a function of (N, C) values, for a filter that sums k(i, j) times values over j.

    Of `counted` (N, 1), 1 or 0, those with 0 are left out of all sums, and get 0.
    """

    def __init__(self, sums: Callable[[Tensor], Tensor], weight: float, counted: Tensor) -> None:
        self.sums = sums
        self.scale = math.sqrt(weight) / sums(counted).sqrt()  # (N, 1)
        self.scale[counted == 0] = 0

    def __call__(self, values: Tensor) -> Tensor:
        return self.sums(values * self.scale).mul_(self.scale)


def _softmax(scores: Tensor) -> Tensor:
    """Over the classes of (N, C), in place: torch's own is up to five times as slow for few classes on a CPU."""
    scores.sub_(scores.amax(1, keepdim=True)).exp_()
    return scores.div_(scores.sum(1, keepdim=True))


def _taps(deviation: float, longest: int) -> NDArray[np.float64]:
    """The Gaussian of the smoothness kernel, (2 r + 1) with its middle at r."""
    radius = min(math.ceil(_CUT * deviation), longest - 1)
    return np.exp(-0.5 * (np.arange(-radius, radius + 1) / deviation) ** 2)


def _points(image: Tensor, config: CRFConfig) -> Tensor:
    """The pixels (H, W, C) in the space of the appearance kernel's lattice, (N, D) float32, with the middle at 0.

    D is 2 + C, but at least 5: one or two channels lie in a plane of that space.
    """
    height, width, channels = image.shape
    y = (torch.arange(height, device=image.device) - 0.5 * height).expand(width, height).T
    x = (torch.arange(width, device=image.device) - 0.5 * width).expand(height, width)
    colours = image.float() - 127.5
    if channels != 3:
        colours = F.pad(colours * math.sqrt(3 / channels), (0, max(0, 3 - channels)))
    features = torch.cat([torch.stack([x, y], 2), colours], 2).reshape(height * width, -1)
    return features * torch.from_numpy(_factors(config, features.shape[1])).to(features)


def _factors(config: CRFConfig, dimensions: int = D) -> NDArray[np.float64]:
    """From pixels and 8-bit colours to the space in which splat, blur and slice are a Gaussian of deviation 1.

    Adams et al., section 3.1: the lattice's own blur has a deviation of (D + 1) sqrt(2 / 3).
    """
    i = np.arange(dimensions)
    deviations = np.array([config.appearance_xy] * 2 + [config.appearance_rgb] * (dimensions - 2))
    factors: NDArray[np.float64] = (dimensions + 1) * math.sqrt(2 / 3) / np.sqrt((i + 1) * (i + 2)) / deviations
    return factors


def _check_range(config: CRFConfig, height: int, width: int, channels: int = 3) -> None:
    """Lattice coordinates must fit into `FIELD` bits, where there are five."""
    if config.appearance_weight == 0 or channels > 3:
        return
    level = 127.5 * math.sqrt(3 / channels)
    reach = np.array([width / 2, height / 2] + [level] * channels + [0.0] * (3 - channels)) * _factors(config)
    farthest = max(sum(reach[i:]) + (i * reach[i - 1] if i else 0) for i in range(D + 1)) / (D + 1)
    if farthest + 2 > HALF:
        raise ConfigError(
            f"appearance_xy={config.appearance_xy:g} and appearance_rgb={config.appearance_rgb:g} are too small for "
            f"{width}x{height} pixels; {farthest / HALF * 1.01:.2g} times as large would do"
        )
