"""What saliency networks minimise: F-measure, BCE, SSIM and IoU of a predicted map and its target.

    f_measure   T. Nguyen et al., "DeepUSPS: Deep Robust Unsupervised Saliency Prediction With Self-Supervision",
                NeurIPS 2019, equation 1: 1 - F, image by image, with soft counts and beta^2 = 0.3
    boundary    X. Qin et al., "BASNet: Boundary-Aware Salient Object Detection", CVPR 2019, section 3.4: the sum over
                all outputs of BCE + SSIM + IoU

Letters in shapes: B images, T targets of each, K outputs of a network, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from selfseg.errors import ConfigError
from selfseg.masks.quality import BETA_SQUARED

WINDOW = 11
"""Side of SSIM's window in pixels; its Gaussian has a deviation of 1.5 (Z. Wang et al., 2004)."""

_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2


def f_measure_loss(probabilities: Tensor, targets: Tensor, beta_squared: float = BETA_SQUARED) -> Tensor:
    """1 - F of each image and target; the mean over all targets that have an object.

    With soft counts precision is sum(s g) / sum(s) and recall sum(s g) / sum(g), so that
    F = (1 + beta^2) sum(s g) / (sum(s) + beta^2 sum(g)).

    Args:
        probabilities: (B, H, W) float in [0, 1], the prediction s.
        targets: (B, T, H, W) float in [0, 1]; one without any object (all 0) counts nowhere.
        beta_squared: weight of precision against recall; a small one punishes what is found in the wrong place.

    Returns:
        Scalar in [0, 1]; 0, with a gradient of 0, if no target has an object.

    Example:
        >>> found = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
        >>> truth = torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]])
        >>> round(float(f_measure_loss(found, truth)), 4)  # precision 1/2, recall 1
        0.4348
    """
    s = probabilities.float().flatten(1)[:, None]  # (B, 1, HW)
    g = targets.float().flatten(2)  # (B, T, HW)
    size = g.sum(2)
    f = (1 + beta_squared) * (s * g).sum(2) / (s.sum(2) + beta_squared * size).clamp(min=1e-6)
    has = (size > 0).float()
    return ((1 - f) * has).sum() / has.sum().clamp(min=1)


def cross_entropy_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """BCE of each image and target; the mean over all targets that have an object.

    Args:
        logits: (B, H, W) float.
        targets: (B, T, H, W) float in [0, 1]; one without any object (all 0) counts nowhere.

    Returns:
        Scalar; 0, with a gradient of 0, if no target has an object.
    """
    wide = logits.float()[:, None].expand_as(targets)
    each = F.binary_cross_entropy_with_logits(wide, targets.float(), reduction="none").mean((2, 3))  # (B, T)
    has = (targets.flatten(2).sum(2) > 0).float()
    return (each * has).sum() / has.sum().clamp(min=1)


def iou_loss(probabilities: Tensor, target: Tensor) -> Tensor:
    """1 - soft intersection over union, image by image; the mean over images.

    Args:
        probabilities: (..., H, W) float in [0, 1].
        target: (..., H, W) float in [0, 1].

    Returns:
        Scalar in [0, 1].

    Example:
        >>> float(iou_loss(torch.tensor([[[0.5, 1.0]]]), torch.tensor([[[1.0, 0.0]]])))  # 0.5 / (1.5 + 1 - 0.5)
        0.75
    """
    s, g = probabilities.float(), target.float()
    both = (s * g).sum((-2, -1))
    union = s.sum((-2, -1)) + g.sum((-2, -1)) - both
    return (1 - both / union.clamp(min=1e-6)).mean()


def ssim_loss(probabilities: Tensor, target: Tensor) -> Tensor:
    """1 - structural similarity: of the means, variances and the covariance in an 11 x 11 Gaussian window.

    Only windows that lie inside of the map count; padding would add edges that are not there.

    Args:
        probabilities: (K, B, H, W) float in [0, 1].
        target: (B, H, W) float in [0, 1].

    Returns:
        (K,) in [0, 2], the mean over windows and images of each output.

    Raises:
        ConfigError: if a side is below 11 px.
    """
    if min(target.shape[-2:]) < WINDOW:
        raise ConfigError(f"SSIM needs maps of at least {WINDOW} px a side, not {tuple(target.shape[-2:])}")
    x, y = probabilities.float(), target.float()
    mean_x, mean_xx, mean_xy = _smooth(x), _smooth(x * x), _smooth(x * y)
    mean_y, mean_yy = _smooth(y), _smooth(y * y)  # the same for all outputs
    variances = mean_xx - mean_x**2 + mean_yy - mean_y**2
    alike = (2 * mean_x * mean_y + _C1) * (2 * (mean_xy - mean_x * mean_y) + _C2)
    ssim = alike / ((mean_x**2 + mean_y**2 + _C1) * (variances + _C2))
    loss: Tensor = 1 - ssim.mean((1, 2, 3))
    return loss


def _smooth(maps: Tensor) -> Tensor:
    """(..., H, W) to the Gaussian mean of each whole window, (..., H - 10, W - 10).

    As two products with band matrices, which on a CPU take a tenth of the time of convolutions with one channel.
    """
    down, across = (_band(length, maps) for length in maps.shape[-2:])
    return down @ maps @ across.T


def _band(length: int, like: Tensor) -> Tensor:
    """(length - 10, length): row i has the window's weights from i on."""
    place = torch.arange(length, device=like.device, dtype=like.dtype)
    apart = place - (place[: length - WINDOW + 1, None] + WINDOW // 2)
    weights = torch.exp(-(apart**2) / (2 * _SIGMA**2)) * (apart.abs() <= WINDOW // 2)
    return weights / weights.sum(1, keepdim=True)


def boundary_loss(outputs: Sequence[Tensor], target: Tensor) -> Tensor:
    """BCE + SSIM + IoU, summed over a network's outputs (deep supervision).

    Args:
        outputs: K tensors of logits, (B, H, W).
        target: (B, H, W) float in [0, 1].

    Returns:
        Scalar.

    Raises:
        ConfigError: as `ssim_loss`.
    """
    logits = torch.stack(list(outputs)).float()  # (K, B, H, W)
    probabilities = logits.sigmoid()
    wide = target.float().expand_as(logits)
    cross = F.binary_cross_entropy_with_logits(logits, wide) * len(outputs)
    overlap = iou_loss(probabilities, wide) * len(outputs)
    return cross + overlap + ssim_loss(probabilities, target).sum()
