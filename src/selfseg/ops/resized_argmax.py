"""The best of n scores at every pixel of an image whose scores lie on a coarser grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_SCORES = {"cpu": 1 << 20, "cuda": 1 << 27}  # held at a time: 4 MB stay in a core's cache, 512 MB fit on any card


def resized_argmax(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize scores bilinearly (align_corners=False), then take the largest.

    Rows first, then columns, in bands: equal to one bilinear resize, but never H x W x n scores at a time. Nothing here
    waits for a GPU.

    Args:
        scores: (h, w, n) float.
        size: (H, W) of the result.

    Returns:
        (H, W) int64 in [0, n).

    Example:
        >>> resized_argmax(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), (1, 6)).tolist()
        [[0, 0, 0, 1, 1, 1]]
    """
    h, (height, width) = len(scores), size
    y = ((torch.arange(height, device=scores.device) + 0.5) * (h / height) - 0.5).clamp(0, h - 1)
    top = y.floor().long()
    return resized_rows_argmax(scores, top, y - top, width)


def resized_rows_argmax(scores: Tensor, top: Tensor, share: Tensor, width: int) -> Tensor:
    """`resized_argmax` of some rows of the result.

    Args:
        scores: (h, w, n) float.
        top: (R,) int64, for each row of the result the row of cells above it.
        share: (R,) how far below that row it lies, in [0, 1).
        width: W of the result.

    Returns:
        (R, W) int64 in [0, n).
    """
    h, outputs = len(scores), scores.shape[2]
    bottom, share = (top + 1).clamp(max=h - 1), share.to(scores)[:, None, None]
    result = torch.empty(len(top), width, dtype=torch.int64, device=scores.device)
    rows = max(1, _SCORES.get(scores.device.type, 1 << 20) // (outputs * width))
    for start in range(0, len(top), rows):
        part = slice(start, start + rows)
        band = torch.lerp(scores[top[part]], scores[bottom[part]], share[part])  # (rows, w, n)
        wide = band[None].permute(0, 3, 1, 2)  # channels last in memory, which is fast
        wide = F.interpolate(wide, (len(band), width), mode="bilinear", align_corners=False)
        result[part] = wide[0].max(0).indices
    return result
