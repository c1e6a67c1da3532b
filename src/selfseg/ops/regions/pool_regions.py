"""From pixels to regions: which regions all views share, and the mean vector of each.

No Python loop over images, views or regions: a table gives every (image, id) its row, and one index_add pools all
views at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from selfseg.ops.kernels.with_triton import by_triton
from selfseg.ops.phases import in_phase


@dataclass(frozen=True)
class CommonRegions:
    """The regions that exist in every view, as rows.

    Attributes:
        row: (V, B, H, W) int64: the row of each pixel's region, -1 where its region is not in every view.
        image: (I,) int64: the image (0..B-1) of each row; rows are image-major, ids ascending.
        id: (I,) int64: the region id of each row.
        count: I.
    """

    row: Tensor
    image: Tensor
    id: Tensor
    count: int


@in_phase("regions")
def common_regions(regions: Tensor) -> CommonRegions:
    """Find the regions that every view shows.

    Args:
        regions: (V, B, H, W) int64 ids of the source images, equal across views, any id >= 0 (0 is legal); -1 = none.

    Returns:
        The rows; with no common region, `count` is 0.

    Example:
        >>> regions = torch.tensor([[[[5, 7]]], [[[7, -1]]]])  # id 5 is in the first view only
        >>> common_regions(regions).row.tolist(), common_regions(regions).id.tolist()
        ([[[[-1, 0]]], [[[0, -1]]]], [7])
    """
    views, images = regions.shape[:2]
    per_image = max(int(regions.max()) + 1, 1) if regions.numel() else 1
    # key 0 is "none", so that no mask over all pixels is needed: ids are shifted by one within each image.
    stride = per_image + 1
    offset = torch.arange(images, device=regions.device).mul_(stride).view(1, images, 1, 1)
    key = (regions + 1).add_(offset)
    table_size = images * stride
    view_offset = torch.arange(views, device=regions.device).mul_(table_size).view(views, 1, 1, 1)
    present = torch.zeros(views * table_size, dtype=torch.bool, device=regions.device)
    present[(key + view_offset).flatten()] = True
    common = present.view(views, table_size).all(0)
    common[::stride] = False
    kept = common.nonzero().squeeze(1)
    row_of_key = torch.full((table_size,), -1, dtype=torch.int64, device=regions.device)
    row_of_key[kept] = torch.arange(kept.numel(), device=regions.device)
    return CommonRegions(
        row=row_of_key[key.flatten()].view_as(regions),
        image=kept // stride,
        id=kept % stride - 1,
        count=kept.numel(),
    )


class _PoolMean(torch.autograd.Function):
    """Mean of pixel vectors per row; pixels with row -1 count nowhere. Keeps only indices for the backward pass."""

    @staticmethod
    def forward(context: Any, vectors: Tensor, row: Tensor, rows: int) -> Tensor:
        # One extra row takes the pixels that count nowhere: cheaper than selecting the others first.
        target = torch.where(row < 0, rows, row)
        pixels = torch.bincount(target, minlength=rows + 1)
        counts = pixels.clamp(min=1).float().unsqueeze(1)
        context.save_for_backward(target, counts)
        context.dtype = vectors.dtype
        if by_triton(vectors.device):  # index_add on a GPU adds in another order each time
            from selfseg.ops.kernels.group_sums_cuda import group_sums

            total: Tensor = group_sums(vectors, row, pixels[:rows])
            return total.float() / counts[:rows]
        sums = vectors.new_zeros((rows + 1, vectors.shape[1]), dtype=torch.promote_types(vectors.dtype, torch.float32))
        sums.index_add_(0, target, vectors.to(sums.dtype))
        return (sums / counts)[:rows]

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Any:
        target, counts = context.saved_tensors
        gradient = torch.zeros((counts.shape[0], gradients[0].shape[1]), dtype=context.dtype, device=target.device)
        gradient[:-1] = gradients[0] / counts[:-1]
        return gradient.index_select(0, target), None, None


@in_phase("regions")
def pool_regions(embedding: Tensor, row: Tensor, rows: int) -> Tensor:
    """The mean vector of each region.

    Args:
        embedding: (B, D, h, w) float, any memory format; channels_last needs no copy.
        row: (B, h, w) int64, the row of each pixel, -1 = none.
        rows: I, the number of rows.

    Returns:
        (I, D) float32 or float64 means, zero for a row without pixels. The gradient has the embedding's dtype.

    Example:
        >>> embedding = torch.tensor([[[[1.0, 3.0, 9.0]]]])
        >>> pool_regions(embedding, torch.tensor([[[0, 0, -1]]]), rows=2).tolist()
        [[2.0], [0.0]]
    """
    vectors = embedding.permute(0, 2, 3, 1).reshape(-1, embedding.shape[1])
    pooled: Tensor = _PoolMean.apply(vectors, row.flatten(), rows)
    return pooled
