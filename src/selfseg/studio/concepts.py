"""Concepts: the clusters of a collection's regions, and the parts that a person splits them into.

A concept's name is its path: "27/3" is cluster 3 of 27, "27/3.1" its second part, "27/3.1.0" that one's first part.

Letters in shapes: N regions of the collection, D embedding dimension, K clusters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from selfseg.collection.clusters import Clusters
from selfseg.errors import ConfigError
from selfseg.ops.kmeans import kmeans

_ROWS = 1 << 16  # regions that are looked at together
_SAMPLE = 4096  # regions of a concept from which its pictures and parts are chosen
_SMALLEST = 0.4  # of the collection's usual region: what is smaller shows nobody anything


class Regions(Protocol):
    """What a concept is made of; `selfseg.studio.regions.RegionStore` is one."""

    first: NDArray[np.int64]
    vectors: NDArray[np.float16]
    areas: NDArray[np.float32]
    centres: NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """A region that shows a concept.

    Attributes:
        image: its index in the collection.
        region: its row in the store.
    """

    image: int
    region: int


@dataclass(frozen=True)
class Concept:
    """A cluster, or a part of one, that a person can name.

    Attributes:
        path: see the module.
        share: of all pixels of the collection, in [0, 1], where each image counts the same.
        mixed: how far its regions lie from their mean (root of the mean square), as a fraction of how far all regions
            lie from theirs, in [0, 1].
        typical: regions nearest to its centre, of images that are not neighbours; best first.
        diverse: regions that differ most from each other.
    """

    path: str
    share: float
    mixed: float
    typical: tuple[Example, ...]
    diverse: tuple[Example, ...]


class Grouping:
    """Which concept each region of a collection belongs to.

    Args:
        regions: the collection's regions.
        clusters: a clustering of the run.
        splits: parts of concepts by path, (P, D) float32 vectors each, as a person made them.
        before: a grouping of the same regions by the same clusters, from which is taken what still holds.
    """

    def __init__(
        self,
        regions: Regions,
        clusters: Clusters,
        splits: Mapping[str, NDArray[np.float32]],
        before: Grouping | None = None,
    ) -> None:
        self.regions = regions
        self.clusters = clusters
        self.paths: list[str] = [f"{clusters.k}/{number}" for number in range(clusters.k)]
        self._whole: NDArray[np.int32] = (
            _nearest_clusters(regions, clusters).astype(np.int32) if before is None else before._whole
        )
        self._members: NDArray[np.int32] = self._whole.copy()
        self._usual = float(np.median(regions.areas[:: max(len(regions.areas) // _SAMPLE, 1)]))
        self._spread: float = (
            _spread(_sample(regions, np.arange(len(regions.areas)))) if before is None else before._spread
        )
        self.splits: dict[str, NDArray[np.float32]] = {}
        for path in sorted(splits, key=lambda path: path.count(".")):  # what is split first has parts to split
            if path in self.paths:
                self.split(path, splits[path])
        self._described: dict[str, Concept] = {}
        if before is not None:  # a part is the same if all that it is a part of was split in the same way
            for path, concept in before._described.items():
                wholes = [path[:place] for place, letter in enumerate(path) if letter == "."]
                if path in self.paths and all(np.array_equal(before.splits[w], self.splits[w]) for w in wholes):
                    self._described[path] = concept

    @property
    def members(self) -> NDArray[np.int32]:
        """(N,) index into `paths` of each region's concept."""
        return self._members

    def rows(self, path: str) -> NDArray[np.int64]:
        """The regions of a concept, ascending.

        Raises:
            ConfigError: if there is no such concept.
        """
        if path not in self.paths:
            raise ConfigError(f"there is no concept {path!r} here; there are {', '.join(self.paths[:12])}, ...")
        found: NDArray[np.int64] = np.flatnonzero(self._members == self.paths.index(path))
        return found

    def find_parts(self, path: str, parts: int) -> NDArray[np.float32]:
        """The centres of a concept's parts, by k-means of its regions' vectors.

        Args:
            path: the concept.
            parts: how many, 2 to 8.

        Returns:
            (parts, D) float32 unit vectors, the largest part's first.

        Raises:
            ConfigError: if the concept has fewer regions that differ, or the number is another.
        """
        if not 2 <= parts <= 8:
            raise ConfigError(f"a concept is split into 2 to 8 parts, not {parts}")
        vectors = _sample(self.regions, self.rows(path))
        if len(np.unique(vectors, axis=0)) < parts:
            raise ConfigError(f"{path} has only {len(vectors)} regions; {parts} parts need more")
        centres = kmeans(torch.from_numpy(vectors), parts, seed=0).centroids.numpy()
        centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-9)
        sizes = np.bincount((vectors @ centres.T).argmax(1), minlength=parts)
        ordered: NDArray[np.float32] = centres[np.argsort(-sizes, kind="stable")].astype(np.float32)
        return ordered

    def split(self, path: str, centres: NDArray[np.float32]) -> None:
        """Put a concept's parts in its place: each region goes to the nearest centre, (P, D)."""
        rows = self.rows(path)
        place = self.paths.index(path)
        nearest = np.concatenate(
            [(_vectors(self.regions, chunk) @ centres.T).argmax(1) for chunk in _chunks(rows)] or [np.zeros(0, int)]
        )
        # The parts stand where the concept stood: those behind it move on.
        self._members[self._members > place] += len(centres) - 1
        self._members[rows] = place + nearest
        self.paths[place : place + 1] = [f"{path}.{number}" for number in range(len(centres))]
        self.splits[path] = centres

    def shown(self, path: str, most: int) -> NDArray[np.int64]:
        """Some of a concept's regions, (n,) ascending, at even distances; small ones only if there are no others."""
        rows = self.rows(path)
        large = rows[self.regions.areas[rows] >= _SMALLEST * self._usual]
        return _evenly(large if len(large) else rows, most)

    def concept(self, path: str, examples: int = 6) -> Concept:
        """What a person is shown of a concept; kept for the next time."""
        if path not in self._described:
            self._described[path] = self._describe(path, examples)
        return self._described[path]

    def _describe(self, path: str, examples: int) -> Concept:
        rows = self.rows(path)
        share = float(self.regions.areas[rows].sum(dtype=np.float64)) / max(len(self.regions.first) - 1, 1)
        if not len(rows):
            return Concept(path, 0.0, 0.0, (), ())
        chosen = self.shown(path, _SAMPLE)
        vectors = _vectors(self.regions, chosen)
        centre = vectors.mean(0)
        likeness = vectors @ (centre / max(float(np.linalg.norm(centre)), 1e-9))
        images = self._images(chosen)
        mixed = min(_spread(vectors) / max(self._spread, 1e-9), 1.0)
        typical = _apart(np.argsort(-likeness, kind="stable"), images, len(self.regions.first) - 1, examples)
        diverse = _farthest(vectors, int(typical[0]), images, examples)
        return Concept(path, share, mixed, self._examples(chosen, typical), self._examples(chosen, diverse))

    def _images(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The image that each region lies in."""
        found: NDArray[np.int64] = np.searchsorted(self.regions.first, rows, side="right") - 1
        return found

    def _examples(self, rows: NDArray[np.int64], places: Sequence[int]) -> tuple[Example, ...]:
        found = rows[np.asarray(places, np.int64)]
        return tuple(Example(int(i), int(r)) for i, r in zip(self._images(found), found, strict=True))


def _nearest_clusters(regions: Regions, clusters: Clusters) -> NDArray[np.integer]:
    """(N,) the cluster of each region."""
    centroids = clusters.centroids.numpy().astype(np.float32)
    groups = None if clusters.groups is None else clusters.groups.numpy()
    found = np.empty(len(regions.areas), np.int64)
    for chunk in _chunks(np.arange(len(found))):
        vectors = _vectors(regions, chunk)
        if clusters.position:
            vectors = with_position(vectors, regions.centres[chunk], clusters.position)
        nearest = (vectors @ centroids.T).argmax(1)
        found[chunk] = nearest if groups is None else groups[nearest]
    return found


def with_position(vectors: NDArray[np.float32], centres: NDArray[np.float32], weight: float) -> NDArray[np.float32]:
    """Vectors as `selfseg.collection.clusters.add_position` makes them of cells.

    Args:
        vectors: (n, D) unit vectors.
        centres: (n, 2) y and x in [0, 1].
        weight: of the position.

    Returns:
        (n, D + 4) unit vectors.
    """
    y, x = (np.pi / 2 * centres[:, axis] for axis in (0, 1))
    place = np.stack([np.cos(x), np.sin(x), np.cos(y), np.sin(y)], 1) * weight
    joined: NDArray[np.float32] = np.concatenate([vectors, place], 1).astype(np.float32)
    return joined / np.float32(np.sqrt(1 + 2 * weight**2))


def _vectors(regions: Regions, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """(n, D) float32 of unit length."""
    found = np.asarray(regions.vectors[rows], np.float32)
    unit: NDArray[np.float32] = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)
    return unit


def _sample(regions: Regions, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The vectors of some of the regions, evenly drawn."""
    return _vectors(regions, _evenly(rows, _SAMPLE))


def _evenly(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many of the rows, at even distances: of every image some."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


def _chunks(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)]


def _spread(vectors: NDArray[np.float32]) -> float:
    """How far unit vectors lie from their mean: the root of the mean square."""
    return math.sqrt(max(1 - float(np.square(vectors.mean(0)).sum()), 0.0)) if len(vectors) else 0.0


def _apart(order: NDArray[np.int64], images: NDArray[np.int64], count: int, most: int) -> list[int]:
    """The first of an order whose images are not neighbours; where too few are, nearer ones, but no image twice."""
    chosen: list[int] = []
    for reach in (count // (4 * most), 0):
        free = np.ones(len(images), np.bool_)
        for other in chosen:
            free &= np.abs(images - images[other]) > reach
        while len(chosen) < most and free.any():
            place = int(order[free[order].argmax()])
            chosen.append(place)
            free &= np.abs(images - images[place]) > reach
    return chosen


def _farthest(vectors: NDArray[np.float32], first: int, images: NDArray[np.int64], most: int) -> list[int]:
    """Regions each of which is the least like all chosen before it, beginning from `first`, which is left out."""
    chosen: list[int] = []
    likeness = vectors @ vectors[first]
    taken = images == images[first]
    while len(chosen) < most and not taken.all():
        place = int(np.where(taken, np.inf, likeness).argmin())
        chosen.append(place)
        likeness = np.maximum(likeness, vectors @ vectors[place])
        taken |= images == images[place]
    return chosen
