"""Pixels against objects: each object's vector, each pixel's contrast with all of them, and what a pixel weighs.

W. Van Gansbeke, S. Vandenhende, S. Georgoulis, L. Van Gool: "Unsupervised Semantic Segmentation by Contrasting Object
Mask Proposals", ICCV 2021 (arXiv 2102.06191), equations 2 and 3 and algorithm 1.

No (pixels x keys) matrix is kept. The gradient of a pixel's loss is known when its softmax is, so it is computed right
there, a few pixels at a time that fit into the cache, and only it is kept: as many numbers as the pixels have.

Letters: B images, D dimension, h w pixels of the grid that is contrasted, P pixels that are contrasted, N objects, M
keys.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from selfseg.ops.kernels.with_triton import by_triton
from selfseg.ops.phases import in_phase

_EPSILON = 1e-12  # the least length that a vector is divided by, as in torch.nn.functional.normalize
_CHUNK = {"cpu": 2**18, "cuda": 2**25}  # logits at a time: on a CPU they stay in the cache


@in_phase("regions")
@torch.no_grad()
def object_vectors(embedding: Tensor, row: Tensor, rows: int) -> Tensor:
    """The vector of each object: the normalised sum of its pixels' normalised vectors (eq. 2; algorithm 1).

    Args:
        embedding: (B, D, h, w) float, of any length; channels_last needs no copy.
        row: (B, h, w) int64, the row of each pixel's object, -1 = none.
        rows: N.

    Returns:
        (N, D), unit length, without gradient; zero for a row without pixels.

    Example:
        >>> embedding = torch.tensor([[[[3.0, 0.0, 5.0]], [[0.0, 4.0, 5.0]]]])
        >>> object_vectors(embedding, torch.tensor([[[0, 0, -1]]]), rows=2)
        tensor([[0.7071, 0.7071],
                [0.0000, 0.0000]])
    """
    flat = row.flatten()
    place = (flat >= 0).nonzero().squeeze(1)
    own = flat[place]
    pixels = F.normalize(_pixels(embedding).index_select(0, place), dim=1)  # (P, D)
    if by_triton(pixels.device):  # index_add on a GPU adds in another order each time
        from selfseg.ops.kernels.group_sums_cuda import group_sums

        sums = group_sums(pixels, own, torch.bincount(own, minlength=rows)).to(pixels.dtype)
    else:
        sums = pixels.new_zeros(rows, pixels.shape[1]).index_add_(0, own, pixels)
    return F.normalize(sums, dim=1)


def contrast_pixels(embedding: Tensor, target: Tensor, keys: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """How well each pixel finds its own object among all keys (eq. 3, InfoNCE).

    Args:
        embedding: (B, D, h, w) float, of any length: pixels are normalised here. channels_last needs no copy.
        target: (B, h, w) int64, the key of each pixel's own object; -1 = the pixel is not contrasted.
        keys: (M, D) unit length; no gradient flows to them.
        temperature: tau of the softmax over keys.

    Returns:
        loss (P,) of the contrasted pixels in raster order, -log softmax of the own key, and found (P,) bool, whether
        no key is nearer than it. The loss has a gradient once; a pixel of length zero has one of zero.

    Example:
        >>> embedding = torch.tensor([[[[2.0, 0.0]], [[0.0, 3.0]]]], requires_grad=True)
        >>> loss, found = contrast_pixels(embedding, torch.tensor([[[0, -1]]]), torch.eye(2), temperature=1.0)
        >>> loss.detach().round(decimals=3), found
        (tensor([0.3130]), tensor([True]))
    """
    loss, found = _ContrastPixels.apply(embedding, target, keys, temperature)
    return loss, found


class _ContrastPixels(torch.autograd.Function):
    """The loss with its gradient computed on the way; keeps the gradient (P, D) and the pixels' places (P,)."""

    @staticmethod
    def forward(
        context: Any, embedding: Tensor, target: Tensor, keys: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        flat = target.flatten()
        place = (flat >= 0).nonzero().squeeze(1)
        own = flat[place]  # (P,)
        pixels = _pixels(embedding).index_select(0, place)  # (P, D)
        lengths = pixels.norm(dim=1, keepdim=True)
        pixels.div_(lengths.clamp(min=_EPSILON))
        scaled = keys.detach().to(pixels.dtype) / temperature  # (M, D)
        loss = pixels.new_empty(len(place))
        found = torch.empty_like(place, dtype=torch.bool)
        wanted = context.needs_input_grad[0]
        size = max(1, _CHUNK.get(embedding.device.type, 2**20) // max(1, len(keys)))
        for start in range(0, len(place), size):
            part = slice(start, start + size)
            unit, mine = pixels[part], own[part]
            logits = unit @ scaled.T  # (n, M)
            positive = logits.gather(1, mine[:, None])  # (n, 1)
            greatest = logits.amax(1, keepdim=True)
            torch.ge(positive[:, 0], greatest[:, 0], out=found[part])
            exponentials = logits.sub_(greatest).exp_()
            total = exponentials.sum(1, keepdim=True)
            torch.add(total.log().add_(greatest)[:, 0], positive[:, 0], alpha=-1, out=loss[part])
            if wanted:
                gradient = (exponentials @ scaled).div_(total).sub_(scaled[mine])  # to the unit vector, (n, D)
                # Through the normalisation: what points along the vector is lost, the rest is divided by the length.
                gradient.sub_(unit * (unit * gradient).sum(1, keepdim=True))
                unit.copy_(gradient.mul_(torch.where(lengths[part] > _EPSILON, 1 / lengths[part], 0)))
        if wanted:
            context.save_for_backward(pixels, place)  # by now the gradients
            context.shape = embedding.shape
        context.mark_non_differentiable(found)
        return loss, found

    @staticmethod
    @once_differentiable
    def backward(context: Any, *upstream: Any) -> Any:
        gradients, place = context.saved_tensors
        images, dim, height, width = context.shape
        dense = gradients.new_zeros(images * height * width, dim)
        dense.index_copy_(0, place, gradients * upstream[0][:, None])
        return dense.view(images, height, width, dim).permute(0, 3, 1, 2), None, None, None


def _pixels(embedding: Tensor) -> Tensor:
    """(B, D, h, w) to (B * h * w, D)."""
    return embedding.permute(0, 2, 3, 1).reshape(-1, embedding.shape[1])


def balanced_object_weight(share: Tensor) -> Tensor:
    """What a pixel weighs, so that small objects count: 1 / ln(1.02 + share).

    The class weights of ENet (Paszke et al., arXiv 1606.02147, section 5.2), which MaskContrast's reference
    implementation applies to objects; a weighted mean divides by their sum.

    Args:
        share: of the pixel's object among all contrasted pixels, in [0, 1].

    Returns:
        Of the same shape, 1.42 (all pixels are one object's) to 50.5 (next to none).

    Example:
        >>> balanced_object_weight(torch.tensor([0.0, 1.0])).round(decimals=2)
        tensor([50.5000,  1.4200])
    """
    return 1 / torch.log(1.02 + share)
