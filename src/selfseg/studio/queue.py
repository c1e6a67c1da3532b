"""What to ask next: the regions whose answer would settle most of what is still unsure.

Every region carries doubt: how unsure its class is, times its area. An answer settles the doubt of the region and, in
part, of what looks like it. Greedily the region is chosen that settles most, then the next one beside it, so that
questions are unsure, common, and unlike each other and unlike what was answered before.

Letters in shapes: N regions of the collection, D embedding dimension, C classes, M regions that are looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfseg.errors import ConfigError

LOOKED_AT = 3000
"""M: so many regions, drawn by their doubt, stand for the collection."""

REACH = 0.1
"""How far an answer reaches: the cosine distance over which what it settles falls to 1 / e."""


@dataclass(frozen=True)
class Question:
    """A region to ask about.

    Attributes:
        image: its index in the collection.
        region: its row in the store.
        gain: the doubt that an answer settles, as a share of all doubt, in [0, 1].
        why: a sentence for the person.
    """

    image: int
    region: int
    gain: float
    why: str


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
        answered: rows that were answered already; they are not asked again, and what is like them less.
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
    done = np.unique(np.fromiter(answered, np.int64))
    doubt = doubt_of(scores) * np.asarray(areas, np.float32)
    doubt[done] = 0
    unsure = np.flatnonzero(doubt > 0)
    if len(unsure) == 0 or count < 1:
        return []
    looked = _drawn(unsure, doubt, seed)
    rows = np.asarray(vectors[looked], np.float32)
    # Each stands for what was not drawn: of the draw by doubt all weigh the same.
    left = doubt[looked] if len(looked) == len(unsure) else np.full(len(looked), 1 / len(looked), np.float32)
    left = left / left.sum()
    reach = _reach(rows, rows)
    if len(done):
        settled = _reach(np.asarray(vectors[_latest(done)], np.float32), rows).max(0)
        left *= 1 - settled
    questions, gains = [], reach @ left
    for _ in range(min(count, len(looked))):
        best = int(gains.argmax())
        row = int(looked[best])
        image = int(np.searchsorted(first, row, side="right")) - 1
        questions.append(Question(image, row, float(gains[best]), _why(scores[row])))
        lost = left * reach[best]
        gains -= reach @ lost
        left -= lost
        gains[best] = -1
    return questions


def _drawn(unsure: NDArray[np.int64], doubt: NDArray[np.float32], seed: int) -> NDArray[np.int64]:
    """Some of the unsure regions, drawn by their doubt, evenly over the collection."""
    if len(unsure) <= LOOKED_AT:
        return unsure
    running = np.cumsum(doubt[unsure], dtype=np.float64)
    start = np.random.default_rng(seed).random()
    places = np.searchsorted(running, (np.arange(LOOKED_AT) + start) * (running[-1] / LOOKED_AT))
    found: NDArray[np.int64] = unsure[np.unique(np.minimum(places, len(unsure) - 1))]
    return found


def _latest(done: NDArray[np.int64]) -> NDArray[np.int64]:
    return done[:: max(1, len(done) // LOOKED_AT)]


def _reach(answers: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """(answers, rows) how much of the doubt of each row an answer settles, in [0, 1]."""
    reach = answers @ rows.T
    reach -= 1
    reach /= REACH
    np.exp(np.minimum(reach, 0), out=reach)
    return reach


def _why(scores: NDArray[np.floating[Any]]) -> str:
    seen = int((scores > 0).sum())
    lead = 1 - float(doubt_of(scores[None])[0])
    if seen == 0:
        return "Nothing is known of this yet."
    return "Two names are about equally likely here." if lead < 0.2 else "Common, and not quite sure yet."
