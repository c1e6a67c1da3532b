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
- As probabilities add up to 1, only C - 1 classes are filtered; the last is what is missing from the kernel's sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfseg.errors import ConfigError

ALGORITHM_VERSION = 1
"""Raised whenever the same input and configuration would give other probabilities."""

_CUT = 4  # deviations at which the smoothness kernel ends; what is left out is below 3e-4 of its middle
_D = 5  # dimensions of the appearance kernel
_FIELD, _LOW = 12, 3  # bits of a packed coordinate, and of the remainder


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


def refine(probabilities: Tensor, image: NDArray[np.uint8] | Tensor, config: CRFConfig | None = None) -> Tensor:
    """Mean field of a fully connected CRF on probabilities.

    On a CPU compiled kernels do the work, in one thread; elsewhere torch operations, with the same result up to
    rounding. The CUDA path has not been run on a GPU yet.

    Against the exact sums over all pairs of pixels (crops of photographs, 72 x 56 pixels, five classes, the default
    parameters), 0.3 to 2 % of the pixels get another class, where the CRF changes 6 to 34 %; probabilities differ by
    0.01 on average, and near a tie by up to 1. The lattice is the cause: with `appearance_weight=0` they are equal.

    Args:
        probabilities: (C, H, W) or (B, C, H, W) float in [0, 1], adding up to 1 over C; any device.
        image: (H, W, 3), for a batch (B, H, W, 3), uint8 RGB in [0, 255], the same pixels.
        config: parameters.

    Returns:
        Refined probabilities, float32, of the shape and on the device of `probabilities`.

    Raises:
        ConfigError: for other shapes and types, probabilities that are not finite, outside of [0, 1] or don't add up
            to 1, and parameters that are too small for the image's size.

    Example:
        >>> image = np.zeros((8, 8, 3), np.uint8)
        >>> image[:, 4:] = 200
        >>> fair = torch.full((2, 8, 8), 0.5)
        >>> fair[:, 2, 2] = torch.tensor([0.99, 0.01])
        >>> refined = refine(fair, image)
        >>> bool(refined[0, 7, 0] > 0.6), round(float(refined[0, 7, 7]), 2)
        (True, 0.5)
    """
    config = config or CRFConfig()
    _check(probabilities, image, "probabilities")
    low, high = float(probabilities.min()), float(probabilities.max())
    if low < -1e-3 or high > 1 + 1e-3:
        raise ConfigError(f"probabilities must lie in [0, 1], not [{low:g}, {high:g}]; use refine_logits for logits")
    error = float((probabilities.sum(-3, dtype=torch.float32) - 1).abs().max())
    if error > 1e-2:
        raise ConfigError(f"probabilities must add up to 1 over the classes; they are off by up to {error:g}")
    return _refine(probabilities.detach().float().clamp(config.floor, 1).log(), image, config)


def refine_logits(logits: Tensor, image: NDArray[np.uint8] | Tensor, config: CRFConfig | None = None) -> Tensor:
    """`refine` on softmax(logits).

    Args:
        logits: (C, H, W) or (B, C, H, W) float, finite; any device.
        image: as in `refine`.
        config: parameters.

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
    _check(logits, image, "logits")
    unary = F.log_softmax(logits.detach().float(), dim=-3).clamp(min=math.log(config.floor))
    return _refine(unary, image, config)


def _check(scores: Tensor, image: NDArray[np.uint8] | Tensor, name: str) -> None:
    if not isinstance(scores, Tensor) or scores.ndim not in (3, 4) or not scores.is_floating_point():
        what = f"{scores.dtype} {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
        raise ConfigError(f"{name} must be a (C, H, W) or (B, C, H, W) float tensor, not {what}")
    if scores.numel() == 0:
        raise ConfigError(f"{name} of shape {tuple(scores.shape)} hold nothing to refine")
    expected = (*scores.shape[:-3], *scores.shape[-2:], 3)
    if not isinstance(image, np.ndarray | Tensor) or str(image.dtype) not in ("uint8", "torch.uint8"):
        what = str(image.dtype) if isinstance(image, np.ndarray | Tensor) else type(image).__name__
        raise ConfigError(f"image must be uint8 RGB in [0, 255], not {what}")
    if tuple(image.shape) != expected:
        raise ConfigError(
            f"{name} of shape {tuple(scores.shape)} need an image of {expected}, not {tuple(image.shape)}"
        )
    if not bool(torch.isfinite(scores).all()):
        bad = int((~torch.isfinite(scores)).sum())
        raise ConfigError(f"{bad} of {scores.numel()} {name} are not finite")


def _refine(unary: Tensor, image: NDArray[np.uint8] | Tensor, config: CRFConfig) -> Tensor:
    """Each image of a batch by itself: (..., C, H, W) log probabilities to probabilities."""
    _check_range(config, *unary.shape[-2:])
    one = _on_cpu if unary.device.type == "cpu" else _by_torch
    pixels = torch.from_numpy(np.ascontiguousarray(image)) if isinstance(image, np.ndarray) else image
    if unary.ndim == 3:
        return one(unary, pixels, config)
    return torch.stack([one(scores, picture, config) for scores, picture in zip(unary, pixels, strict=True)])


def _check_range(config: CRFConfig, height: int, width: int) -> None:
    """Lattice coordinates are packed into 12 bits each."""
    if config.appearance_weight == 0:
        return
    half = [width / 2 / config.appearance_xy, height / 2 / config.appearance_xy, *[127.5 / config.appearance_rgb] * 3]
    reach = [size * factor for size, factor in zip(half, _lattice_scale(), strict=True)]
    farthest = max(sum(reach[i:]) + (i * reach[i - 1] if i else 0) for i in range(_D + 1)) / (_D + 1)
    if farthest + 2 > 2 ** (_FIELD - 1):
        raise ConfigError(
            f"appearance_xy={config.appearance_xy:g} and appearance_rgb={config.appearance_rgb:g} are too small for "
            f"{width}x{height} pixels; {farthest / 2 ** (_FIELD - 1) * 1.01:.2g} times as large would do"
        )


def _lattice_scale() -> NDArray[np.float64]:
    """What features in deviations are multiplied by, so that splat, blur and slice are a Gaussian of deviation 1."""
    i = np.arange(_D)
    scale: NDArray[np.float64] = (_D + 1) * math.sqrt(2 / 3) / np.sqrt((i + 1) * (i + 2))
    return scale


def _taps(config: CRFConfig, longest: int) -> NDArray[np.float64]:
    """The Gaussian of the smoothness kernel from its middle on, (radius + 1)."""
    radius = min(math.ceil(_CUT * config.smooth_xy), longest - 1)
    return np.exp(-0.5 * (np.arange(radius + 1) / config.smooth_xy) ** 2)


def _inverse_root(length: int, taps: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / sqrt of the taps' sum at each place of a line, (length)."""
    both = np.concatenate([taps[:0:-1], taps])
    sums: NDArray[np.float64] = np.convolve(np.ones(length), both)[len(taps) - 1 :][:length]
    return 1 / np.sqrt(sums)


def _band(length: int, taps: NDArray[np.float64]) -> NDArray[np.float64]:
    """The smoothness kernel along a line as a matrix (length, length), normalised."""
    apart = np.abs(np.arange(length)[:, None] - np.arange(length))
    root = _inverse_root(length, taps)
    kernel: NDArray[np.float64] = np.append(taps, 0)[np.minimum(apart, len(taps))]
    return kernel * root * root[:, None]


def _by_torch(unary: Tensor, image: Tensor, config: CRFConfig) -> Tensor:
    """`_on_cpu` in torch operations, on the device of `unary`."""
    from selfseg.ops._crf_torch import mean_field

    taps = _taps(config, max(unary.shape[1:]))
    down, across = (torch.from_numpy(_band(length, taps)) for length in unary.shape[1:])
    return mean_field(unary, image, config, torch.from_numpy(_lattice_scale()), (down, across))


def _on_cpu(unary: Tensor, image: Tensor, config: CRFConfig) -> Tensor:
    """One image: (C, H, W) log probabilities and (H, W, 3) to (C, H, W)."""
    classes, height, width = unary.shape
    pixels = height * width
    if classes == 1:
        return torch.ones_like(unary)
    # Two classes are one score, the first's lead over the second, and one value; more are one of each per class.
    from selfseg.ops import _crf_cpu as cpu

    step = 1 if classes == 2 else classes
    base = (unary[:1] - unary[1:] if step == 1 else unary).permute(1, 2, 0).reshape(pixels, step).contiguous()
    # The kernels read whole vectors, up to 7 numbers beyond what they use.
    values = torch.zeros(pixels * step + 8)[: pixels * step].view(pixels, step)
    scores = torch.empty(pixels, step)

    def normalise(given: Tensor) -> None:
        if step == 1:
            torch.sigmoid(given, out=values)
        else:
            cpu.softmax(given.numpy(), _flat(values))

    normalise(base)
    kernels: list[_Smoothness | _Appearance] = []
    if config.smooth_weight:
        kernels.append(_Smoothness(height, width, step, config))
    if config.appearance_weight:
        kernels.append(_Appearance(image.cpu().numpy(), step, config))
    if step == 1:  # the lead's sum is 2 K q - K 1, of which the last part stays
        base = base - sum(kernel.total for kernel in kernels)
    for _ in range(config.iterations):
        scores.copy_(base)
        for kernel in kernels:
            kernel.add(values, scores)
        normalise(scores)
    out = values.view(height, width, step).permute(2, 0, 1)
    return torch.cat([out, 1 - out]) if step == 1 else out.contiguous()


class _Smoothness:
    """The weighted, normalised smoothness kernel. `total` (N, 1): its sum over j."""

    def __init__(self, height: int, width: int, step: int, config: CRFConfig) -> None:
        self.taps = _taps(config, max(height, width)).astype(np.float32)
        down, across = (_inverse_root(length, self.taps) for length in (height, width))
        self.down = (down * math.sqrt(config.smooth_weight)).astype(np.float32)
        self.step, self.across = step, np.repeat(across, step).astype(np.float32)
        self.work = np.empty(height * width * step, np.float32)
        self.total = torch.zeros(height * width, 1)
        if step == 1:
            self.add(torch.ones(height * width, 1), self.total)
            self.total /= 2

    def add(self, values: Tensor, scores: Tensor) -> None:
        """To scores (N, step), for values (N, step); twice if the one score is a lead."""
        from selfseg.ops import _crf_cpu as cpu

        gain = np.float32(2 if self.step == 1 else 1)
        cpu.smooth(_flat(values), _flat(scores), self.step, self.taps, self.across, self.down, gain, self.work)


class _Appearance:
    """The weighted, normalised appearance kernel on the lattice. `total` (N, 1): its sum over j."""

    def __init__(self, image: NDArray[np.uint8], step: int, config: CRFConfig) -> None:
        from selfseg.ops import _crf_cpu as cpu

        pixels = image.shape[0] * image.shape[1]
        self.vertex, self.share = np.empty((_D + 1) * pixels, np.int32), np.empty((_D + 1) * pixels, np.float32)
        deviations = np.array([config.appearance_xy] * 2 + [config.appearance_rgb] * 3)
        scale = (_lattice_scale() / deviations).astype(np.float32)
        image = np.require(image, requirements=["C", "W"])
        room, count = max(64, pixels), -1
        while count < 0:  # photographs have about as many vertices as pixels, at most there are 6 times as many
            room *= 2
            keys = np.empty(room, np.int64)
            table = np.full((2 << (room - 1).bit_length(), 2), -1, np.int64)
            count = cpu.locate(image, scale, keys, table, self.vertex, self.share)
        work = np.empty((2, count), np.int32)
        self.chains, self.starts = np.empty(9 * count + 1, np.int32), np.empty(_D + 2, np.int64)
        cpu.link(keys, count, table, *work, self.chains, self.starts)

        self.step, self.count = 1, count
        self.fields, self.kernels = 1, cpu.kernels(1)
        self.lattice = np.empty(count + 1, np.float32)
        self.scale = np.ones(pixels, np.float32)
        self.total = torch.zeros(pixels, 1)
        ones, norm = torch.ones(pixels, 1), torch.zeros(pixels, 1)
        self.add(ones, norm)
        self.scale = (math.sqrt(config.appearance_weight) / np.sqrt(_flat(norm) / 2)).astype(np.float32)
        self.add(ones, self.total)
        self.total /= 2
        if step > 1:
            vector = 8 if (step - 1) % 8 == 0 or (step - 1) % 8 > 4 else 4
            self.step, self.kernels = step, cpu.kernels(vector)
            self.fields = -(-(step - 1) // vector) * vector
            self.lattice = np.empty((count + 1) * self.fields, np.float32)

    def add(self, values: Tensor, scores: Tensor) -> None:
        """To scores (N, step), for values (N, step); twice if the one score is a lead."""
        splat, blur, slice_ = self.kernels
        splat(_flat(values), self.step, self.scale, self.vertex, self.share, self.lattice, self.fields)
        blur(self.lattice, self.fields, self.chains, self.starts)
        total = _flat(self.total)
        slice_(self.lattice, self.fields, self.vertex, self.share, self.scale, total, self.step, _flat(scores))


def _flat(values: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = values.view(-1).numpy()
    return array
