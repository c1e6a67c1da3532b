"""What a few answers say of regions like them: label spreading over a sample of the collection.

A click says something of the regions that look like the clicked one, of those that look like these, and so on. Zhou et
al. (Learning with local and global consistency, NeurIPS 2003, equation 4) let labels flow over the graph of nearest
neighbours: F = (I - alpha S)^-1 Y, with S the graph's normalised adjacency. S is of the collection and doesn't change,
so its inverse is worked out once, and an answer costs one small product.

It helps where answers are few and fall anywhere: 25 random clicks of CamVid are worth .29 mIoU, and .26 without it;
from 200 on it changes nothing (docs/numbers.md).

Letters in shapes: N regions of the collection, D embedding dimension, M regions of the sample, n examples, C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from selfseg.studio.classifier import BALANCE
from selfseg.studio.concepts import Regions
from selfseg.studio.queue import lead_of

SAMPLE = 2000
"""M: twice as many are worth .005 mIoU more, and cost eight times the time to begin."""

NEIGHBOURS = 10
ALPHA = 0.99
"""How far labels flow, in [0, 1); the paper's."""

WHOLE = 0.25
"""What examples count that are not balanced by their class: a whole concept, which weighs 4 clicks, as one."""

_REACH = 0.1  # the cosine distance over which a neighbour counts 1 / e


class LabelSpreading:
    """A sample of the collection's regions, and who of them is like whom.

    Args:
        regions: the collection's regions.
        seed: of the sample, which is drawn by area.
        sample: M; all regions if there are fewer.

    Attributes:
        rows: (M,) int64, the sample's rows, ascending.
        vectors: (M, D) float32.
    """

    def __init__(self, regions: Regions, seed: int = 0, sample: int = SAMPLE) -> None:
        self.rows = _drawn(regions.areas, sample, seed)
        self.vectors = np.asarray(regions.vectors[self.rows], np.float32)
        self._regions = regions
        self._flow = _flow(self.vectors)
        self._place = np.full(len(regions.areas), -1, np.int32)  # in the next two, of regions that were examples
        self._near = np.zeros((0, min(NEIGHBOURS, len(self.rows))), np.int32)
        self._weight = np.zeros(self._near.shape, np.float32)

    def spread(
        self,
        rows: NDArray[np.int64],
        labels: NDArray[np.int64],
        weights: NDArray[np.float32],
        classes: int,
        balanced: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """What examples say of the sample's regions.

        Args:
            rows: (n,) of the store.
            labels: (n,) in [0, C).
            weights: (n,) at least 0.
            classes: C.
            balanced: (n,) examples whose weight is balanced by how much their class has of such; None = all. The others
                count `WHOLE`, however many there are: one click doesn't turn what was said of a whole concept.

        Returns:
            (M,) the class of each region of the sample, and (M,) float32 in [0, 1] how sure that is: the lead of
            its share before the second's; 0 where nothing flows to.
        """
        near, weight = self._neighbours(rows)
        chosen = np.ones(len(rows), np.bool_) if balanced is None else balanced
        total = np.bincount(labels[chosen], weights[chosen], classes)
        counts = weights * np.where(chosen, np.maximum(total, 1e-12)[labels] ** -BALANCE, WHOLE)
        codes = near * np.int64(classes) + labels[:, None]
        given = np.bincount(codes.ravel(), (weight * counts[:, None]).ravel(), len(self.rows) * classes)
        given = given.reshape(-1, classes).astype(np.float32)
        reached = np.maximum(self._flow @ given, 0)
        shares = reached / np.maximum(reached.sum(1, keepdims=True), 1e-12)
        return shares.argmax(1), lead_of(shares).astype(np.float32)

    def _neighbours(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The regions of the sample that are most like each example, (n, k), and how they share its label."""
        new = np.unique(rows[self._place[rows] < 0])
        if len(new):
            alike = np.asarray(self._regions.vectors[new], np.float32) @ self.vectors.T
            near = _largest(alike, self._near.shape[1])
            chosen = np.take_along_axis(alike, near, 1)
            weight = np.exp((chosen - chosen.max(1, keepdims=True)) / _REACH)
            weight /= weight.sum(1, keepdims=True)
            self._place[new] = len(self._near) + np.arange(len(new))
            self._near = np.concatenate([self._near, near.astype(np.int32)])
            self._weight = np.concatenate([self._weight, weight])
        places = self._place[rows]
        return self._near[places], self._weight[places]


def _flow(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(I - alpha S)^-1 of the graph in which each region knows those that are most like it, (M, M)."""
    count = len(vectors)
    alike = vectors @ vectors.T
    np.fill_diagonal(alike, -np.inf)
    near = _largest(alike, min(NEIGHBOURS, count - 1)) if count > 1 else np.zeros((count, 0), np.int64)
    graph = np.zeros((count, count), np.float32)
    values = np.exp((np.take_along_axis(alike, near, 1) - 1) / _REACH)
    np.put_along_axis(graph, near, values, 1)
    np.maximum(graph, graph.T, out=graph)
    scale = np.maximum(graph.sum(1), 1e-12) ** -0.5
    graph *= -ALPHA * scale[:, None] * scale
    graph[np.diag_indices(count)] += 1
    return np.linalg.inv(graph)


def _largest(values: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Columns of the `count` largest values of each row, ascending."""
    if count >= values.shape[1]:
        return np.broadcast_to(np.arange(values.shape[1]), values.shape).copy()
    return np.sort(np.argpartition(-values, count - 1, axis=1)[:, :count], axis=1)


def _drawn(areas: NDArray[np.float32], count: int, seed: int) -> NDArray[np.int64]:
    """Regions drawn by their area without putting back, ascending."""
    if len(areas) <= count:
        return np.arange(len(areas))
    # The largest of u^(1/area) are such a draw (Efraimidis and Spirakis, 2006); logarithms keep it in range.
    lot = np.log(np.random.default_rng(seed).random(len(areas))) / np.maximum(areas, 1e-12)
    return np.sort(np.argpartition(-lot, count - 1)[:count])
