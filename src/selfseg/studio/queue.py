"""What to ask next: for each name in turn, the region where that name is least sure.

Names are asked about in turn, because rare ones matter as much as common ones: asking where doubt is largest by area
asks about the edges of road and sky again and again. Within a name the region is chosen whose best class leads least
before the second; regions like one that was chosen already are passed over. With CamVid's labels 200 such answers are
worth .47 mIoU, where 200 random places have .43 and the largest doubt by area less than those (docs/numbers.md).

While nothing is known, regions are chosen that stand for the most of the collection.

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

_COVERED_BY = 3000  # regions from which the first questions are chosen
_REACH = 0.1  # the cosine distance over which what a first answer says of others falls to 1 / e
_OF_A_NAME = 200  # doubtful regions of a name that are looked through


@dataclass(frozen=True)
class Question:
    """A region to ask about.

    Attributes:
        image: its index in the collection.
        region: its row in the store.
        doubt: how unsure its class is, in [0, 1].
    """

    image: int
    region: int
    doubt: float


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
    if scores.shape[1] == 1:
        return (1 - scores[:, 0]).astype(np.float32)
    best = np.partition(scores, scores.shape[1] - 2, axis=1)[:, -2:]
    return (1 - (best[:, 1] - best[:, 0])).astype(np.float32)


def next_questions(
    vectors: NDArray[np.floating[Any]],
    scores: NDArray[np.floating[Any]],
    areas: NDArray[np.floating[Any]],
    first: NDArray[np.integer[Any]],
    answered: Iterable[int] = (),
    count: int = 20,
    seed: int = 0,
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
    if not scores[looked].any():
        chosen = _cover(np.asarray(vectors[looked[:: max(1, len(looked) // _COVERED_BY)]], np.float32), count)
        rows = looked[:: max(1, len(looked) // _COVERED_BY)][chosen]
    else:
        rows = looked[_in_turn(vectors, scores[looked], looked, count, seed)]
    images = np.searchsorted(first, rows, side="right") - 1
    doubt = doubt_of(scores[rows])
    return [Question(int(i), int(row), float(d)) for i, row, d in zip(images, rows, doubt, strict=True)]


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


def _cover(vectors: NDArray[np.float32], count: int) -> list[int]:
    """The regions that stand for most of the others, each beside those before it."""
    reach = np.exp(np.minimum(vectors @ vectors.T - 1, 0) / _REACH)
    left = np.full(len(vectors), 1 / len(vectors), np.float32)
    gains = reach @ left
    chosen = []
    for _ in range(min(count, len(vectors))):
        best = int(gains.argmax())
        chosen.append(best)
        lost = left * reach[best]
        gains -= reach @ lost
        left -= lost
        gains[best] = -1
    return chosen


def _drawn(rows: NDArray[np.int64], areas: NDArray[np.floating[Any]], seed: int) -> NDArray[np.int64]:
    """Some of the regions, drawn by their area, evenly over the collection."""
    if len(rows) <= LOOKED_AT:
        return rows
    running = np.cumsum(np.asarray(areas)[rows], dtype=np.float64)
    start = np.random.default_rng(seed).random()
    places = np.searchsorted(running, (np.arange(LOOKED_AT) + start) * (running[-1] / LOOKED_AT))
    found: NDArray[np.int64] = rows[np.unique(np.minimum(places, len(rows) - 1))]
    return found
