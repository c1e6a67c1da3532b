"""How good is it? Places drawn at random, judged by a person, and what follows from that with which certainty.

What is estimated: the share of the area that has the right class, in the collection that the places were drawn from.
Images differ in size, so there are two such shares. By default each image counts the same: the number is what to expect
in an image of the collection, and one panorama among snapshots doesn't decide it. With `weigh="pixels"` each pixel
counts the same, as in most published numbers.

How places are drawn: images at random, one place in each, in a place of its own anywhere in the image; a second place
in an image only when every image has one (by pixels: in an image that is due more than one by its size). Mistakes come
in clumps, whole objects and whole images, and two places in one image tell less than two places in two. From different
images, the number of right places varies no more than if each place were drawn on its own (Cochran, "Sampling
Techniques", 1977, on sampling without replacement and on strata), so that the binomial interval stays true for these
images, a bit too wide if anything. It is not one for images of another place or day.

The interval is the exact one of Clopper and Pearson ("The use of confidence or fiducial limits illustrated in the case
of the binomial", Biometrika 1934). `benchmarks/audit.py` is the simulation it was chosen by: Wilson's and Jeffreys's
are narrower, but cover a truth of .95 to .99, where one would like to be, too seldom.

It is true for a number of places that was fixed beforehand, not for one at which a person stops because the number is
pleasing. Places that the person was not sure about are no part of the accuracy, but they widen the interval: it goes
down to where it would go if all of them were wrong and up to where it would go if all were right, so it holds whatever
they are. An interval of the judged places alone would not: what is hard to judge is often wrong.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

from selfseg.errors import ConfigError
from selfseg.studio.decisions.state import Answer, AuditRound

_TRIES = 100  # at a place where something was measured

LEVEL = 0.95
"""How often an interval is to hold the truth."""


class Place(NamedTuple):
    """A pixel to be judged.

    Attributes:
        image: its index in the collection.
        x: of the pixel's middle, in (0, 1), from the left.
        y: of the pixel's middle, in (0, 1), from above.
    """

    image: int
    x: float
    y: float


def draw_places(
    sizes: ArrayLike,
    count: int = 60,
    seed: int = 0,
    weigh: str = "images",
    measured: Callable[[int, float, float], bool] = lambda *_: True,
) -> list[Place]:
    """Places at random over a collection; the same for the same numbers.

    Args:
        sizes: (N, 2) H, W of the images, in pixels.
        count: how many places. With `weigh="images"`, fewer are the first of more.
        seed: another one gives other places: for a new audit after further decisions.
        weigh: "images", each counts the same, or "pixels", each counts the same.
        measured: (image, x, y): whether anything was measured at a place; another one is drawn where nothing was.

    Returns:
        `count` places in random order, so that those answered first are places at random too.

    Raises:
        ConfigError: if there is no image, or an argument can't be.

    Example:
        >>> places = draw_places([(480, 640)] * 3, count=4, seed=1)
        >>> sorted(place.image for place in places[:3])
        [0, 1, 2]
    """
    shapes = np.asarray(sizes, np.int64).reshape(-1, 2)
    if not len(shapes) or shapes.min() < 1:
        raise ConfigError("an audit draws places in images, but there is no image, or one without pixels")
    if count < 1 or seed < 0:
        raise ConfigError(f"an audit needs at least one place and a seed of at least 0, not {count} and {seed}")
    images = draw_images(shapes.prod(1), count, seed, weigh)
    places: dict[int, Place] = {}
    for n in np.argsort(images, kind="stable").tolist():  # `measured` unpacks each image once
        image = int(images[n])
        height, width = shapes[image].tolist()
        generator = np.random.default_rng((seed, 1, n))
        for _ in range(_TRIES):
            y, x = generator.integers((height, width)).tolist()
            place = Place(image, (x + 0.5) / width, (y + 0.5) / height)
            if measured(image, place.x, place.y):
                break
        places[n] = place
    return [places[n] for n in range(count)]


def draw_images(pixels: ArrayLike, count: int, seed: int, weigh: str = "images") -> NDArray[np.int64]:
    """The images of `draw_places`: (count,) indices, of images with (N,) numbers of pixels."""
    areas = np.asarray(pixels, np.float64)
    random = np.random.default_rng((seed, 0))
    if weigh == "images":
        rounds = [random.permutation(len(areas)) for _ in range(-(-count // len(areas)))]
        return np.concatenate(rounds)[:count].astype(np.int64)
    if weigh != "pixels":
        raise ConfigError(f"weigh must be 'images' or 'pixels', not {weigh!r}")
    # Equal steps along the images laid end to end in random order: each gets what it is due, rounded down or up.
    order = random.permutation(len(areas))
    ends = np.cumsum(areas[order])
    steps = (random.random() + np.arange(count)) * (ends[-1] / count)
    found = np.searchsorted(ends, steps, side="right").clip(max=len(areas) - 1)
    return random.permutation(order[found]).astype(np.int64)


def interval(right: int, judged: int, level: float = LEVEL) -> tuple[float, float]:
    """The exact interval of Clopper and Pearson for a share of which `right` of `judged` were seen.

    Example:
        >>> low, high = interval(57, 60)
        >>> round(low, 3), round(high, 3)
        (0.861, 0.99)
        >>> interval(0, 0)
        (0.0, 1.0)
    """
    if not 0 <= right <= judged:
        raise ConfigError(f"{right} right places among {judged} judged ones can't be: give 0 to {judged}")
    tail = (1 - level) / 2
    low = float(betaincinv(right, judged - right + 1, tail)) if right else 0.0
    high = float(betaincinv(right + 1, judged - right, 1 - tail)) if right < judged else 1.0
    return low, high


@dataclass(frozen=True)
class Share:
    """A share of places that were right.

    Attributes:
        right: places.
        judged: places that the person was sure about.
    """

    right: int
    judged: int

    @property
    def value(self) -> float | None:
        """The share in [0, 1]; None if nothing was judged."""
        return self.right / self.judged if self.judged else None

    @property
    def interval(self) -> tuple[float, float]:
        """Within these two lies the true share, 95 times in 100."""
        return interval(self.right, self.judged)


@dataclass(frozen=True)
class ClassResult:
    """A class among the places that were shown as it.

    Attributes:
        name: of the class; "" for places without any.
        precision: of the judged places shown as this class, those that are of it.
        unsure: places shown as this class that the person was not sure about; the precision's interval is without them.
    """

    name: str
    precision: Share
    unsure: int


@dataclass(frozen=True)
class Result:
    """What an audit found.

    Attributes:
        places: that were drawn.
        images: of the collection.
        weigh: "images" or "pixels".
        accuracy: of the judged places, those with the right class.
        unsure: places that the person could not judge.
        per_class: by name of the class shown, most places first. A hint: a class has few of the places, so its interval
            is wide, and of twenty such intervals one is expected to miss.
        mistakes: (shown, right class, places), most first; "" is no class.
        decisions_since: see `AuditRound`.
    """

    places: int
    images: int
    weigh: str
    accuracy: Share
    unsure: int
    per_class: tuple[ClassResult, ...]
    mistakes: tuple[tuple[str, str, int], ...]
    decisions_since: int

    @property
    def answered(self) -> int:
        """Places that were answered, those with "unsure" too."""
        return self.accuracy.judged + self.unsure

    @property
    def interval(self) -> tuple[float, float]:
        """Within these two lies the true share, 95 times in 100, whatever is right where the person was not sure."""
        low = interval(self.accuracy.right, self.answered)[0]
        return low, interval(self.accuracy.right + self.unsure, self.answered)[1]

    @property
    def sentence(self) -> str:
        """The number in plain English, what it covers and what it does not."""
        return " ".join([self.finding, *self.limits])

    @property
    def finding(self) -> str:
        """The number in plain English, and what it is a share of."""
        judged, right = self.accuracy.judged, self.accuracy.right
        if self.accuracy.value is None:
            unsure = f" You were not sure about {_count(self.unsure, 'place')}." if self.unsure else ""
            return f"No place has been judged yet, so nothing is known.{unsure}"
        low, high = (_percent(end, way) for end, way in zip(self.interval, (math.floor, math.ceil), strict=True))
        parts = [
            f"{right} of {_count(judged, 'judged place')} {'has' if 1 in (right, judged) else 'have'} the right class: "
            f"{_percent(self.accuracy.value)}, and the true share lies between {low} and {high} (95 % interval)."
        ]
        if self.unsure:
            parts.append(
                f"That interval holds whatever the right class is at {_count(self.unsure, 'place')} you were not sure "
                f"about, which {'is' if self.unsure == 1 else 'are'} left out of the {_percent(self.accuracy.value)}."
            )
        if self.answered < self.places:
            parts.append(f"{self.answered} of {self.places} places are answered; the number is final when all are.")
        parts.append(
            f"It is the share of the area of {'this image' if self.images == 1 else f'these {self.images:,} images'} "
            f"with the right class, by your own judgement, where each {self.weigh[:-1]} counts the same."
        )
        return " ".join(parts)

    @property
    def limits(self) -> tuple[str, ...]:
        """What the number does not cover, a sentence each; none while there is no number."""
        if self.accuracy.value is None:
            return ()
        rare = 1 - 0.05 ** (1 / self.answered)  # the share that so many places miss one time in twenty
        found = [
            "It does not cover other images, nor how exact outlines are. These places may have missed something that "
            f"covers less than {_percent(rare, math.ceil)} of the area."
        ]
        if self.decisions_since:
            found.append(
                f"{_count(self.decisions_since, 'decision')} came after the first answer, and the number is about what "
                "was predicted before. Draw new places to judge what is predicted now."
            )
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """The result in plain values; shares in [0, 1], None where nothing was judged; low to high is `interval`."""
        low, high = self.interval
        return {
            "places": self.places,
            "answered": self.answered,
            "right": self.accuracy.right,
            "unsure": self.unsure,
            "weigh": self.weigh,
            "judged": self.accuracy.judged,
            "accuracy": self.accuracy.value,
            "low": low,
            "high": high,
            "perClass": [
                {
                    "name": one.name,
                    "precision": one.precision.value,
                    "low": one.precision.interval[0],
                    "high": one.precision.interval[1],
                    "judged": one.precision.judged,
                    "unsure": one.unsure,
                }
                for one in self.per_class
            ],
            "mistakes": [{"shown": shown, "right": right, "places": n} for shown, right, n in self.mistakes],
            "decisionsSince": self.decisions_since,
            "sentence": self.sentence,
        }


def judge(audit: AuditRound, images: int) -> Result:
    """What an audit's answers so far say.

    Args:
        audit: from `State.audits`.
        images: of the collection that its places were drawn from.
    """
    by_class: dict[str, list[Answer]] = {}
    for answer in audit.answers:
        by_class.setdefault(answer.predicted, []).append(answer)
    ranked = sorted(by_class.items(), key=lambda item: (-len(item[1]), item[0]))
    mistakes = Counter((a.predicted, a.verdict) for a in audit.answers if a.right is False)
    return Result(
        places=max(audit.count, len(audit.answers)),
        images=images,
        weigh=audit.weigh,
        accuracy=_share(audit.answers),
        unsure=_unsure(audit.answers),
        per_class=tuple(ClassResult(name, _share(answers), _unsure(answers)) for name, answers in ranked),
        mistakes=tuple((*pair, n) for pair, n in sorted(mistakes.items(), key=lambda item: (-item[1], item[0]))),
        decisions_since=audit.decisions_since,
    )


def _share(answers: Sequence[Answer]) -> Share:
    return Share(sum(a.right is True for a in answers), sum(a.right is not None for a in answers))


def _unsure(answers: Iterable[Answer]) -> int:
    return sum(a.right is None for a in answers)


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def _percent(share: float, rounded: Any = round) -> str:
    """Whole percents; a digit more where they would say none or all and it is not."""
    whole = rounded(round(100 * share, 9))
    return f"{whole} %" if 0 < whole < 100 or share in (0.0, 1.0) else f"{rounded(round(1000 * share, 9)) / 10:g} %"
