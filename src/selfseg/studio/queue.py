"""What to ask next: first what is unlike all that was answered, then for each name in turn where it is least sure.

The first questions find out what there is. While no cluster has a name, the region is asked about that is least like
any that was answered (k-centre greedy; Sener and Savarese, Active learning for convolutional neural networks: a
core-set approach, ICLR 2018), but for those that stand alone, which are mostly mixed.

Then names are asked about in turn, because rare ones matter as much as common ones: asking where doubt is largest by
area asks about the edges of road and sky again and again. Within a name the region is chosen whose best class leads
least before the second; regions like one that was chosen already are passed over. What that is worth on CamVid is in
docs/numbers.md.

Letters in shapes: N regions of the collection, D embedding dimension, C classes, M regions that are looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfseg.errors import ConfigError

LOOKED_AT = 20_000
"""M: so many regions, drawn by their area, stand for the collection."""

ALIKE = 0.97
"""The cosine from which on two regions are the same question."""

FIRST = 25
"""Answers after which a person's names are asked about instead of what is unlike them."""

_CHOSEN_FROM = 3000  # regions from which the first questions are chosen
_KIN = 10  # regions most like one that tell whether it stands alone
_ALONE = 0.2  # of the regions are said to
_OF_A_NAME = 200  # doubtful regions of a name that are looked through


@dataclass(frozen=True)
class Question:
    """A region to ask about.

    Attributes:
        image: its index in the collection.
        region: its row in the store.
        doubt: how unsure its class is, in [0, 1].
        new: whether it was chosen because it is unlike all that was answered.
    """

    image: int
    region: int
    doubt: float
    new: bool = False


def doubt_of(scores: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """How unsure each region's class is: 1 less the lead of the best class before the second.

    Args:
        scores: (N, C) probabilities; rows of zeros are wholly unsure.

    Returns:
        (N,) float32 in [0, 1].

    Example:
        >>> doubt_of(np.array([[0.75, 0.25], [0.0, 0.0]])).tolist()
        [0.5, 1.0]
    """
    return (1 - lead_of(scores)).astype(np.float32)


def lead_of(scores: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """(N,) how far each region's best class leads before the second, of (N, C) shares; a single one before 0."""
    if scores.shape[1] == 1:
        return scores[:, 0]
    best = np.partition(scores, scores.shape[1] - 2, axis=1)[:, -2:]
    return best[:, 1] - best[:, 0]


def next_questions(
    vectors: NDArray[np.floating[Any]],
    scores: NDArray[np.floating[Any]],
    areas: NDArray[np.floating[Any]],
    first: NDArray[np.integer[Any]],
    answered: Iterable[int] = (),
    count: int = 20,
    seed: int = 0,
    new_first: bool = False,
) -> list[Question]:
    """The regions whose answer would help most, best first.

    Args:
        vectors: (N, D) unit vectors of the collection's regions.
        scores: (N, C) probabilities, as `RegionClassifier.scores` gives them.
        areas: (N,) of the regions, as shares of their images.
        first: (images + 1,) rows at which the images' regions begin.
        answered: rows that were answered already; they are not asked again.
        count: how many; fewer come back if there are no more regions.
        seed: of which regions are looked at.
        new_first: whether to ask about what is unlike all that was answered; so it is anyway while nothing is known.

    Raises:
        ConfigError: if the shapes don't fit.
    """
    if not len(vectors) == len(scores) == len(areas) == int(first[-1]):
        raise ConfigError(
            f"vectors, scores and areas are of one length, not {len(vectors)}, {len(scores)}, {len(areas)}; "
            f"the images end at {int(first[-1])}"
        )
    done = np.zeros(len(scores), np.bool_)
    done[np.fromiter(answered, np.int64)] = True
    looked = _drawn(np.flatnonzero(~done & (np.asarray(areas) > 0)), areas, seed)
    if len(looked) == 0 or count < 1:
        return []
    new = new_first or not scores[looked].any()
    if new:
        some = looked[:: max(1, -(-len(looked) // _CHOSEN_FROM))]
        rows = some[_unlike(_unit(vectors, some), _unit(vectors, np.flatnonzero(done)), count)]
    else:
        rows = looked[_in_turn(vectors, scores[looked], looked, count, seed)]
    images = np.searchsorted(first, rows, side="right") - 1
    doubt = doubt_of(scores[rows])
    return [Question(int(i), int(row), float(d), new) for i, row, d in zip(images, rows, doubt, strict=True)]


def _in_turn(
    vectors: NDArray[np.floating[Any]],
    scores: NDArray[np.floating[Any]],
    looked: NDArray[np.int64],
    count: int,
    seed: int,
) -> list[int]:
    """Of each name in turn its most doubtful region that is not like one chosen before; indices into `looked`."""
    doubt, names = doubt_of(scores), scores.argmax(1)
    waiting = {}
    for name in np.random.default_rng(seed).permutation(np.unique(names)).tolist():
        own = np.flatnonzero((names == name) & (doubt > 0))
        waiting[name] = own[np.argsort(-doubt[own], kind="stable")[:_OF_A_NAME]].tolist()[::-1]
    chosen: list[int] = []
    kept = np.zeros((count, vectors.shape[1]), np.float32)
    while len(chosen) < count and any(waiting.values()):
        for own in waiting.values():
            while own and len(chosen) < count:
                place = own.pop()
                vector = np.asarray(vectors[looked[place]], np.float32)
                if not len(chosen) or float((kept[: len(chosen)] @ vector).max()) < ALIKE:
                    kept[len(chosen)] = vector
                    chosen.append(place)
                    break
    return chosen


def _unlike(vectors: NDArray[np.float32], known: NDArray[np.float32], count: int) -> list[int]:
    """The regions that are least like those known and those before them; alone ones only where no other is left."""
    alike = vectors @ vectors.T
    kin = np.partition(alike, max(len(alike) - _KIN, 0), axis=1)[:, -_KIN:].mean(1)
    nearest = np.full(len(vectors), -1, np.float32)
    for start in range(0, len(known), _CHOSEN_FROM):
        np.maximum(nearest, (vectors @ known[start : start + _CHOSEN_FROM].T).max(1), out=nearest)
    alone = kin < np.quantile(kin, _ALONE)
    chosen: list[int] = []
    if not len(known):  # what most are like
        chosen.append(int(np.where(alone, -np.inf, alike.sum(1)).argmax()))
    for _ in range(min(count, len(vectors)) - len(chosen)):
        if chosen:
            np.maximum(nearest, alike[chosen[-1]], out=nearest)
            nearest[chosen[-1]] = np.inf
        chosen.append(int((nearest + 2 * alone + 4 * (nearest >= ALIKE)).argmin()))
    return chosen


def _unit(vectors: NDArray[np.floating[Any]], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.asarray(vectors[rows], np.float32)


def _drawn(rows: NDArray[np.int64], areas: NDArray[np.floating[Any]], seed: int) -> NDArray[np.int64]:
    """Some of the regions, drawn by their area, evenly over the collection."""
    if len(rows) <= LOOKED_AT:
        return rows
    running = np.cumsum(np.asarray(areas)[rows], dtype=np.float64)
    start = np.random.default_rng(seed).random()
    places = np.searchsorted(running, (np.arange(LOOKED_AT) + start) * (running[-1] / LOOKED_AT))
    found: NDArray[np.int64] = rows[np.unique(np.minimum(places, len(rows) - 1))]
    return found
