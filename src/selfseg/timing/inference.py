"""What one image costs: the embedder, and then clusters against a linear model, both ways.

ViCE's tables 13 (preprint) and 8 (BMVC 2022) give every pixel the nearest of 256 centroids by FAISS, on an embedding
that was enlarged to the image's size, against a 1x1 convolution on it: 2395 ms against 15 ms. What is compared there is
two programs more than two models: a product with the centroids is a linear layer. So each is measured twice: "pixels"
enlarges the embedding to the image's size first and asks every pixel's own vector, as the papers do, and "cells" is
what selfseg does: the scores of the embedding's cells are enlarged and not the vectors.

Letters: H W pixels, D dimensions, h w cells, K centroids or filters.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfseg.collection.assigning import assign_later
from selfseg.data.reading.images import ImageCollection
from selfseg.errors import BadImage, EmptyCollection
from selfseg.models.embedder import Embedder
from selfseg.ops.linear import linear
from selfseg.timing.recorder import peak_bytes, reset_peak, wait

_PIXELS = 1 << 16  # whose vectors are compared with all centroids at once


@dataclass(frozen=True)
class Inference:
    """One way or one part of looking at an image.

    Attributes:
        what: which.
        seconds: of each image, in the order of the images.
        bytes: the peak over all images; None if it can't be known.
    """

    what: str
    seconds: tuple[float, ...]
    bytes: int | None

    @property
    def median(self) -> float:
        """Seconds of an image."""
        return statistics.median(self.seconds)


def time_inference(
    embedder: Embedder, images: ImageCollection, indices: Sequence[int], rows: int, warm_up: int
) -> tuple[list[Inference], list[tuple[int, int]]]:
    """Time each part of segmenting some images, one image at a time; from the files' pixels to masks on the CPU.

    Args:
        embedder: in evaluation mode, on its device.
        images: the collection.
        indices: of the images.
        rows: K: vectors drawn from the images' own cells, because what selfseg spares depends on how many pixels
            lie between two of them.
        warm_up: how many images are looked at before.

    Returns:
        The parts, and the (H, W) that each image was looked at.

    Raises:
        EmptyCollection: if none of them can be read.
    """
    device = embedder.mean.device
    prepared: list[NDArray[np.uint8]] = []
    preparing: list[float] = []
    for index in indices:
        try:
            image = images.read(index)
        except BadImage:
            continue
        begin = time.perf_counter()
        prepared.append(embedder.prepare(image))
        preparing.append(time.perf_counter() - begin)
    if not prepared:
        raise EmptyCollection(f"none of {len(indices)} images in {images.root} could be read, so none was timed")
    sizes = [(image.shape[0], image.shape[1]) for image in prepared]
    embeddings: list[Tensor] = []

    def embed(number: int) -> None:
        found = embedder.embed_prepared([prepared[number]])[0]
        if len(embeddings) == number:
            embeddings.append(found)

    def measure(what: str, function: Callable[[int], object]) -> Inference:
        # The embeddings are there already, so that a part's peak holds them too.
        for number in range(min(warm_up, len(prepared)) if what != EMBEDDER else 0):
            function(number)
        reset_peak(device)
        seconds = []
        for number in range(len(prepared)):
            wait(device)
            begin = time.perf_counter()
            function(number)
            wait(device)
            seconds.append(time.perf_counter() - begin)
        return Inference(what, tuple(seconds), peak_bytes(device))

    with torch.no_grad():
        for number in range(min(warm_up, len(prepared))):
            embedder.embed_prepared([prepared[number]])
        parts = [Inference("image to the embedder's size", tuple(preparing), None), measure(EMBEDDER, embed)]
        weight = _drawn_cells(embeddings, rows)
        bias = torch.zeros(rows, device=device)
        of_image: dict[str, Callable[[int], object]] = {
            f"{rows} clusters, cells": lambda n: assign_later(embeddings[n], weight, sizes[n], rows - 1).numpy(),
            f"linear model, {rows} filters, cells": lambda n: assign_later(
                embeddings[n], weight, sizes[n], rows - 1, bias=bias
            ).numpy(),
            f"{rows} clusters, pixels": lambda n: nearest_of_pixels(embeddings[n], weight, sizes[n]).cpu(),
            f"linear model, {rows} filters, pixels": lambda n: _convolved(embeddings[n], weight, bias, sizes[n]).cpu(),
        }
        parts += [measure(what, function) for what, function in of_image.items()]
    return parts, sizes


def _drawn_cells(embeddings: Sequence[Tensor], rows: int) -> Tensor:
    """(rows, D) cells of some embeddings, the same in every call."""
    cells = torch.cat([each.flatten(1).T for each in embeddings])
    drawn = torch.randint(len(cells), (rows,), generator=torch.Generator().manual_seed(0))
    return cells[drawn.to(cells.device)].contiguous()


EMBEDDER = "embedder"
"""The network alone: prepared image to embedding."""


def nearest_of_pixels(embedding: Tensor, centroids: Tensor, size: tuple[int, int]) -> Tensor:
    """The nearest centroid of each pixel's own vector, by Euclid as the papers' k-NN does.

    Args:
        embedding: (D, h, w) float.
        centroids: (K, D) float.
        size: (H, W).

    Returns:
        (H, W) int64.

    Example:
        >>> nearest_of_pixels(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]), torch.eye(2), (1, 4)).tolist()
        [[0, 0, 1, 1]]
    """
    pixels = F.interpolate(embedding[None], size=size, mode="bilinear", align_corners=False)[0].flatten(1).T
    half = centroids.square().sum(1) / 2  # the nearest has the largest product less half of its own square
    found = [(linear(part.contiguous(), centroids) - half).max(1).indices for part in torch.split(pixels, _PIXELS)]
    return torch.cat(found).view(size)


def _convolved(embedding: Tensor, weight: Tensor, bias: Tensor, size: tuple[int, int]) -> Tensor:
    """A 1x1 convolution on the enlarged embedding: (H, W) int64."""
    pixels = F.interpolate(embedding[None], size=size, mode="bilinear", align_corners=False)
    return F.conv2d(pixels, weight[:, :, None, None], bias)[0].max(0).indices
