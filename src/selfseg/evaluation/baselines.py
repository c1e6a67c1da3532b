"""What a number has to beat: baselines that learned nothing, measured by the same protocols.

- "most frequent class": every pixel gets the class that is most frequent in the fit split.
- "colour": raw RGB in [0, 1] as the embedding.
- "colour + position": RGB and the pixel's (x, y), all in [0, 1].
- "untrained": a network of the same architecture with random weights (on request: it takes as long as the real one).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from selfseg.evaluation.measure.features import (
    Extractor,
    Resolution,
    colour,
    colour_and_position,
    embedder_extractor,
    resized,
    short_side,
)
from selfseg.models.embedder import Embedder

MOST_FREQUENT = "most frequent class"


def trivial_extractors(resolution: Resolution = None) -> tuple[Extractor, ...]:
    """The baselines that are extractors.

    Args:
        resolution: short side in px that images are resized to; None or "native" = as they are.
    """
    return tuple(
        Extractor(name, resized(extract, short_side(resolution)), False, resolution or "native", trivial=True)
        for name, extract in (("colour", colour), ("colour + position", colour_and_position))
    )


def untrained_extractor(embedder: Embedder, resolution: Resolution = None, seed: int = 0) -> Extractor:
    """`untrained_like` an embedder, as what is measured.

    Args:
        embedder: says the architecture.
        resolution: short side in px that images are resized to instead of the embedder's own, or "native".
        seed: of the weights.
    """
    made = embedder_extractor(untrained_like(embedder, seed), resolution, name="untrained")
    return replace(made, trivial=True)


def untrained_like(embedder: Embedder, seed: int = 0) -> Embedder:
    """A network like `embedder`, on its device, with random weights that depend on `seed` alone.

    Args:
        embedder: says the architecture, and how colours are centred and scaled.
        seed: of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = Embedder(embedder.config).eval().to(embedder.mean.device)
    fresh.mean.copy_(embedder.mean)
    fresh.std.copy_(embedder.std)
    return fresh


def constant_confusion(fit_labels: NDArray[np.int64], labels: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]]:
    """The most frequent class as a prediction.

    Args:
        fit_labels: (C,) labelled pixels of each class in the fit split.
        labels: (C,) of the evaluated split.

    Returns:
        The class, and the (C, C) confusion of predicting it everywhere.

    Example:
        >>> constant_confusion(np.array([3, 9]), np.array([5, 2]))[1].tolist()
        [[0, 5], [0, 2]]
    """
    winner = int(fit_labels.argmax())
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    confusion[:, winner] = labels
    return winner, confusion
