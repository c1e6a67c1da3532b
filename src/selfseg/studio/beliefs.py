"""What the studio believes of each region: learned from named concepts and clicks, kept up to date.

Named concepts are weak examples, clicks strong ones. Concepts that were left out are examples of *none*; so are those
that nobody named yet and nobody clicked into, as soon as one concept has a name: what was not looked at stays empty
instead of getting the name that happens to be nearest. While there are clicks only, their names are told apart
everywhere, but a single name is told apart from all that is unlike it.

What examples say spreads to regions that are like them (`selfseg.studio.spreading`). These are examples too, and count
less the more clicks there are.

Letters in shapes: N regions of the collection, D embedding dimension, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from selfseg.studio.classifier import RegionClassifier
from selfseg.studio.concepts import Grouping, Regions
from selfseg.studio.queue import doubt_of
from selfseg.studio.spreading import LabelSpreading

NONE = 65_535
"""What stands for "no class" where classes are uint16."""

PER_CONCEPT = 200
"""Regions of a concept that are examples of its name."""

CONCEPT_WEIGHT = 4.0
"""What a named concept counts: as much as so many clicks, shared by its examples."""

SPREAD = 100.0
"""Clicks after which what was spread counts half as much as it does at first: many clicks need no help."""

PER_CLICK = 8
"""Regions of a click that are learned from, evenly over them; a large segment has hundreds that are alike."""

LEARNED = 8000
"""Regions of clicks that are learned from. Of more, which come with labels, all of the last clicks and some others."""

_LAST = 1000  # clicks that are learned from whatever others there are


@dataclass(frozen=True)
class Examples:
    """What a classifier learns from.

    Attributes:
        rows: (n,) int64 rows of the store.
        labels: (n,) int64: 0 = none, 1 + c = class c.
        weights: (n,) float32; 0 for what is known but not learned from.
        clicked: (n,) bool, whether a person said it of this very region.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]
    clicked: NDArray[np.bool_]


def examples(
    grouping: Grouping,
    names: Mapping[str, int],
    left_out: Iterable[str],
    clicks: Sequence[tuple[NDArray[np.int64], int | None]],
) -> Examples:
    """The examples that a person's decisions are.

    Args:
        grouping: the concepts.
        names: class of each named concept by path; those that aren't among the grouping's are passed over.
        left_out: paths of concepts that are none of the classes.
        clicks: the rows of each clicked segment and its class, in order; of a region that was clicked twice the last
            one holds, and None takes back what was said of it. A click counts once, shared by its regions: a large
            segment says little more than a small one, because its regions are alike.
    """
    clicked, said, learned = _standing(clicks)
    touched = {grouping.paths[number] for number in np.unique(grouping.members[clicked])} if len(clicked) else set()
    labels = {path: label + 1 for path, label in names.items() if path in grouping.paths}
    labels |= {path: 0 for path in left_out if path in grouping.paths}
    if any(labels.values()) or len(np.unique(said)) == 1:
        labels |= {path: 0 for path in grouping.paths if path not in labels and path not in touched}
    parts = [(clicked, said, learned)]
    free = np.ones(len(grouping.members), np.bool_)
    free[clicked] = False
    for path, label in labels.items():
        shown = grouping.shown(path, PER_CONCEPT)
        rows = shown[free[shown]]
        weight = np.full(len(rows), CONCEPT_WEIGHT / max(len(rows), 1), np.float32)
        parts.append((rows, np.full(len(rows), label), weight))
    found, numbers, weights = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Examples(found, numbers.astype(np.int64), weights, np.arange(len(found)) < len(clicked))


def _standing(
    clicks: Sequence[tuple[NDArray[np.int64], int | None]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The rows of which something was clicked that still holds, what, and how much each counts."""
    empty = np.zeros(0, np.int64)
    sizes = np.array([len(rows) for rows, _ in clicks], np.int64)
    number = np.repeat(np.arange(len(clicks)), sizes)
    rows = np.concatenate([empty, *(each for each, _ in clicks)])
    place = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    size = sizes[number]
    some = np.minimum(size, PER_CLICK)
    # So many of each click's regions, evenly over them; all of a small one.
    weight = np.where(place * some // size > (place - 1) * some // size, 1 / np.maximum(some, 1), 0)
    said = np.array([0 if given is None else given + 1 for _, given in clicks], np.int64)[number]
    _, back = np.unique(rows[::-1], return_index=True)  # of a region that was clicked twice the last one holds
    kept = np.sort(len(rows) - 1 - back)
    kept = kept[said[kept] > 0]
    old = kept[(weight[kept] > 0) & (number[kept] < len(clicks) - _LAST)]
    if len(old) > LEARNED:  # the same ones each time, so that a fit can begin where the last one ended
        lot = (rows[old] * 2_654_435_761) % (1 << 32)  # Knuth's multiplicative hash
        weight[old[np.argsort(lot, kind="stable")[LEARNED:]]] = 0
    return rows[kept], said[kept], weight[kept].astype(np.float32)


class Beliefs:
    """The class of every region, and how sure that is.

    A refit is quick; the regions follow image by image (`of_image`) or all of them (`catch_up`), which may be done in
    another thread.

    Args:
        regions: the collection's regions.

    Attributes:
        classes: (N,) uint16, `NONE` = no class.
        certainty: (N,) float16 in [0, 1], the lead of the best class before the second.
    """

    def __init__(self, regions: Regions) -> None:
        count = len(regions.areas)
        self.regions = regions
        self.classes = np.full(count, NONE, np.uint16)
        self.certainty = np.zeros(count, np.float16)
        self._images = len(regions.first) - 1
        self._fitted = 0
        self._state = np.zeros(self._images, np.int64)  # the fit that each image's regions follow
        self._classifier: RegionClassifier | None = None
        self._fixed = (np.zeros(0, np.int64), np.zeros(0, np.uint16))
        self._lock = Lock()
        self._spreading: LabelSpreading | None = None

    @property
    def classifier(self) -> RegionClassifier | None:
        """Class 0 is none; None while nothing was decided."""
        return self._classifier

    @property
    def behind(self) -> int:
        """Images whose regions don't follow the last decision yet."""
        return int((self._state != self._fitted).sum())

    def refit(self, found: Examples, classes: int, anew: bool = False) -> None:
        """Learn from examples. What was clicked keeps its class, whatever is learned.

        Args:
            found: the examples.
            classes: C.
            anew: whether classes have changed their numbers, so that what was learned before is no start.
        """
        before = None if anew else self._classifier
        if before is None or before.classes > classes + 1:
            fitting = RegionClassifier(classes + 1, self.regions.vectors.shape[1])
        else:
            fitting = RegionClassifier(before.classes, self.regions.vectors.shape[1])
            fitting.weights, fitting.bias = before.weights, before.bias
            fitting.grow(classes + 1)
        if len(found.rows):
            fitting.fit(*self._with_those_like_them(found, classes + 1))
        rows, labels = found.rows[found.clicked], found.labels[found.clicked]
        order = np.argsort(rows, kind="stable")
        with self._lock:
            self._classifier = fitting if len(found.rows) else None
            self._fixed = rows[order], _outward(labels[order])
            self._fitted += 1

    def _with_those_like_them(
        self, found: Examples, classes: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
        """Vectors, labels and weights of the examples, and of the regions that they say something of.

        Without a click both count alike; the more clicks there are, the less counts what was spread.
        """
        if self._spreading is None:
            self._spreading = LabelSpreading(self.regions)
        used = found.weights > 0
        rows, given, own, clicked = found.rows[used], found.labels[used], found.weights[used], found.clicked[used]
        labels, sure = self._spreading.spread(rows, given, own, classes, clicked)
        share = SPREAD / (SPREAD + float(own[clicked].sum()))
        vectors = np.concatenate([self._vectors(rows), self._spreading.vectors])
        weights = np.concatenate([own / max(float(own.sum()), 1e-12), sure * (share / max(float(sure.sum()), 1e-12))])
        return vectors, np.concatenate([given, labels]), weights

    def of_image(self, image: int) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
        """Classes and certainties of an image's regions, by the last fit."""
        if self._state[image] != self._fitted:
            self._follow(image, image + 1)
        rows = slice(int(self.regions.first[image]), int(self.regions.first[image + 1]))
        return self.classes[rows], self.certainty[rows].astype(np.float32)

    def catch_up(self, at_once: int = 64) -> bool:
        """Bring some more images up to date.

        Args:
            at_once: how many at most.

        Returns:
            Whether any were behind.
        """
        late = np.flatnonzero(self._state != self._fitted)
        if not len(late):
            return False
        start = stop = int(late[0])
        while stop < min(self._images, start + at_once) and self._state[stop] != self._fitted:
            stop += 1
        self._follow(start, stop)
        return True

    def doubts(self) -> NDArray[np.float32]:
        """(images,) how unsure each image's pixels are on average, in [0, 1], as far as regions have followed."""
        doubt = (1 - self.certainty.astype(np.float32)) * self.regions.areas
        return np.add.reduceat(doubt, self.regions.first[:-1]).astype(np.float32)

    def probabilities(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, 1 + C) of some regions, none first; (n, 1) of zeros while nothing was decided."""
        classifier = self._classifier
        if classifier is None:
            return np.zeros((len(rows), 1), np.float32)
        return classifier.scores(self._vectors(rows))

    def _follow(self, start: int, stop: int) -> None:
        """Bring images up to date with the last fit."""
        with self._lock:
            classifier, (rows, labels), fitted = self._classifier, self._fixed, self._fitted
        first, last = int(self.regions.first[start]), int(self.regions.first[stop])
        if classifier is None:
            classes, certainty = np.full(last - first, NONE, np.uint16), np.zeros(last - first, np.float32)
        else:
            scores = classifier.scores(self._vectors(np.arange(first, last)))
            classes, certainty = _outward(scores.argmax(1)), 1 - doubt_of(scores)
        low, high = np.searchsorted(rows, [first, last])
        classes[rows[low:high] - first] = labels[low:high]
        certainty[rows[low:high] - first] = 1
        with self._lock:
            if fitted < self._fitted and (self._state[start:stop] == self._fitted).any():
                return  # another thread was quicker, with a later fit
            self.classes[first:last] = classes
            self.certainty[first:last] = certainty
            self._state[start:stop] = fitted

    def _vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.asarray(self.regions.vectors[rows], np.float32)


def _outward(labels: NDArray[np.integer]) -> NDArray[np.uint16]:
    """Labels with none = 0 as classes from 0 with none = `NONE`."""
    return np.where(labels == 0, NONE, labels - 1).astype(np.uint16)
