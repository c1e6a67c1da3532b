"""Mutual information between two maps of soft assignments, and between a map and its neighbourhood.

X. Ji, J. Henriques, A. Vedaldi: "Invariant Information Clustering for Unsupervised Image Classification and
Segmentation", ICCV 2019, section 3.3.

Letters: B images, K clusters of the first map and L of the second, h w cells, T the largest displacement in cells.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def displaced_joint(first: Tensor, second: Tensor, displacement: int) -> Tensor:
    """How often cluster k of the first map meets cluster l of the second, for every displacement between them.

    Args:
        first: (B, K, h, w) non-negative; a cell of zeros takes no part.
        second: (B, L, h, w) non-negative, of the same cells.
        displacement: T, in cells, less than h and w.

    Returns:
        (2 T + 1, 2 T + 1, K, L) sums over images and cells u of first[u] second[u + t]^T, not normalised; entry
        (T + y, T + x) is that of t = (y, x). Cells that t moves out of the map take no part.

    Example:
        >>> left, right = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 1.0]]]])
        >>> displaced_joint(left, right, 1)[1].flatten().tolist()  # t = (0, -1), (0, 0), (0, 1)
        [0.0, 0.0, 1.0]
    """
    # A convolution whose channels are the images: output (K, L, y, x) is the sum of padded first times moved second.
    meets = F.conv2d(first.transpose(0, 1), second.transpose(0, 1), padding=displacement)
    # A kernel that lies y further down pairs first[u + y] with second[u]: the displacement of second is -y.
    return meets.flip(2, 3).permute(2, 3, 0, 1)


def mutual_information(joint: Tensor) -> Tensor:
    """The mutual information of the two variables of joint distributions, in nats.

    Args:
        joint: (..., K, L) non-negative float; each is normalised to a sum of 1. All zeros have an information of 0.

    Returns:
        (...) in [0, log min(K, L)], up to rounding.

    Example:
        >>> mutual_information(torch.eye(4)), mutual_information(torch.ones(4, 4))  # log 4, independent
        (tensor(1.3863), tensor(0.))
    """
    tiny = torch.finfo(joint.dtype).tiny
    total = joint.sum((-2, -1), keepdim=True)
    share = joint / torch.where(total > 0, total, 1)
    rows, columns = share.sum(-1, keepdim=True), share.sum(-2, keepdim=True)
    # 0 log 0 is 0, with a finite gradient.
    logarithm = share.clamp(min=tiny).log() - rows.clamp(min=tiny).log() - columns.clamp(min=tiny).log()
    return (share * logarithm).sum((-2, -1))
