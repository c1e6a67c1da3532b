"""What the server asks of a studio, and what it is told: plain values, which `app` writes as JSON.

JSON has the same names in camelCase: `left_out` is `leftOut`. Images are told by their index, clusters by their path
("27/3", or "27/3.1" for a part), classes by their name. Places are x, y in [0, 1] of the image, from its upper left.

Letters in shapes: h, w working size of an image's superpixels, n its superpixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from selfseg.data.labelled.legend import Colour
from selfseg.errors import ConfigError

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 of an image, in [0, 1]."""

Channels = Sequence[int] | str | None
"""Which of the measured channels a picture shows: up to three by index, "pca", or None, as the studio thinks best."""

NO_CLASS = 65_535
"""What stands for "no class" in a prediction."""


class AnotherNow(ConfigError):
    """What a page spoke of has become another one; it has to look again."""


UNSURE = "unsure"
"""The verdict of a person who can't tell; no class is called so."""


@dataclass(frozen=True)
class Crop:
    """A part of an image that shows a cluster."""

    image: int
    box: Box


@dataclass(frozen=True)
class ClusterView:
    """A cluster, or a part of one that was split; what is split is not listed itself, its parts stand in its place.

    Attributes:
        id: its path.
        share: of all pixels, in [0, 1].
        mixed: how mixed it seems, 0 to 1.
        name: its class; "" for none.
        left_out: whether it belongs to no class on purpose.
        typical: crops of what it mostly is, best first.
        diverse: crops of what else is in it.
    """

    id: str
    share: float
    mixed: float
    name: str
    left_out: bool
    typical: Sequence[Crop]
    diverse: Sequence[Crop]


@dataclass(frozen=True)
class ClassView:
    """A class that a person named.

    Attributes:
        name: as it was typed.
        colour: R, G, B in [0, 255].
        regions: superpixels of the collection that are predicted to be of it; None until they are counted.
        share: of all pixels, in [0, 1], likewise.
    """

    name: str
    colour: Colour
    regions: int | None
    share: float | None


@dataclass(frozen=True)
class Progress:
    """How far a person has come.

    Attributes:
        decisions: names, splits and whatever else was decided, clicks among them.
        clicks: segments that were given a class or erased.
        named_share: pixels whose cluster has a name or is left out, in [0, 1].
        sentence: what that means, and what would help next; it claims no quality.
    """

    decisions: int
    clicks: int
    named_share: float
    sentence: str


@dataclass(frozen=True)
class StudioState:
    """What the page shows of everything but the images.

    Attributes:
        run: the run's name.
        images: how many can be read.
        k: numbers of clusters that there are to choose from.
        k_now: the one chosen.
        clusters: of it.
        classes: in the order of the predictions' values.
        undoes: what undo would take back, as "named cluster 3 of 27 “road”"; "" if there is nothing.
        redoes: what redo would give back; "" if there is nothing.
        progress: how far the person has come.
        busy: what is being worked out at the moment; None if nothing.
        version: another one whenever any answer would be another one.
        session: of the studio; another one where images or clusters of the same number may be others.
        undo_of: what undo would take back, as `undo` takes it; None if there is nothing.
        redo_of: likewise.
        channels: the names of measured channels, which pictures show in false colours; none of photographs.
        legend: which channel is which colour where a page asks for nothing else; "" of photographs.
        unusable: images of the collection that can't be used; RUN/studio/regions/skipped.jsonl lists them.
    """

    run: str
    images: int
    k: Sequence[int]
    k_now: int
    clusters: Sequence[ClusterView]
    classes: Sequence[ClassView]
    undoes: str
    redoes: str
    progress: Progress
    busy: str | None
    version: int
    session: str = ""
    undo_of: int | None = None
    redo_of: int | None = None
    channels: Sequence[str] = ()
    legend: str = ""
    unusable: int = 0


@dataclass(frozen=True)
class Pulse:
    """What a page asks for every few seconds, so it must be cheap: `version`, `busy` and `session` of the state."""

    version: int
    busy: str | None
    session: str = ""


@dataclass(frozen=True)
class ImageView:
    """An image of the collection.

    Attributes:
        index: its number.
        name: its file's name, relative to the collection.
        height: in px, turned as its EXIF data say.
        width: likewise.
        uncertainty: how unsure its prediction is, 0 to 1.
        clicks: decisions in it.
    """

    index: int
    name: str
    height: int
    width: int
    uncertainty: float
    clicks: int


@dataclass(frozen=True)
class Prediction:
    """What is believed of an image's superpixels.

    Attributes:
        classes: (n,) uint16, index into the state's classes, `NO_CLASS` = none.
        certainty: (n,) float32 in [0, 1].
    """

    classes: NDArray[np.uint16]
    certainty: NDArray[np.float32]


@dataclass(frozen=True)
class AfterClick:
    """What a click changed: of the state what a canvas needs, and the prediction of the image."""

    version: int
    classes: Sequence[ClassView]
    undoes: str
    redoes: str
    prediction: Prediction


@dataclass(frozen=True)
class QuestionView:
    """A segment whose answer would help.

    Attributes:
        image: its index.
        x: of a place in the segment.
        y: of a place in the segment.
        level: of the segment; see `StudioLike.click`.
        why: the reason, in a sentence.
    """

    image: int
    x: float
    y: float
    level: float
    why: str


@dataclass(frozen=True)
class AuditPlace:
    """A place that was drawn at random.

    Attributes:
        n: its number in the audit, from 0.
        image: its image.
        x: of the place.
        y: of the place.
        predicted: the class that is, or was when it was judged, predicted there; "" for none.
        verdict: the right class, "" for none of the classes, `UNSURE`; None while it is to be judged.
    """

    n: int
    image: int
    x: float
    y: float
    predicted: str
    verdict: str | None


@dataclass(frozen=True)
class ClassPrecision:
    """Of the places that were predicted to be of a class, how many are: low and high bound the 95 % interval."""

    name: str
    right: int
    judged: int
    low: float
    high: float


@dataclass(frozen=True)
class AuditView:
    """An audit as far as it has come.

    Attributes:
        places: all of them, in order.
        answered: those with a verdict.
        unsure: those of them that the person couldn't tell; they don't count.
        right: those that are right.
        accuracy: right among those that count, in [0, 1]; None without any.
        low: of its 95 % interval.
        high: of its 95 % interval.
        per_class: precision of each class that was predicted somewhere.
        sentence: the result in words.
        limits: what the number does not cover, a sentence each.
        decisions_since: decisions after its first answer; above 0, it speaks of an earlier state.
        round: which audit it is, as `audit_answer` takes it.
    """

    places: Sequence[AuditPlace]
    answered: int
    unsure: int
    right: int
    accuracy: float | None
    low: float
    high: float
    per_class: Sequence[ClassPrecision]
    sentence: str
    limits: Sequence[str]
    decisions_since: int
    round: int = 0


@dataclass(frozen=True)
class FormatView:
    """A form in which masks can be handed over.

    Attributes:
        key: as `hand_over` takes it.
        title: what it is called.
        about: who reads it, in a sentence.
        problem: why it can't be made here, with the way out; "" if it can.
    """

    key: str
    title: str
    about: str
    problem: str = ""


@dataclass(frozen=True)
class FileView:
    """A finished file.

    Attributes:
        name: unique among the job's files.
        bytes: its size.
        about: what is in it, with counts.
    """

    name: str
    bytes: int
    about: str


@dataclass(frozen=True)
class JobView:
    """A handing over as far as it has come.

    Attributes:
        job: its name.
        done: images.
        total: images.
        running: whether it still goes on.
        sentence: what it does at the moment, or has done.
        files: those that are finished.
        error: what went wrong, and the way out; None if nothing.
        decisions_since: decisions that came after what is handed over.
    """

    job: str
    done: int
    total: int
    running: bool
    sentence: str
    files: Sequence[FileView]
    error: str | None
    decisions_since: int = 0


class StudioLike(Protocol):
    """What the server calls, from several threads at once.

    Every method raises a `SelfsegError` for what can't be (no such image, cluster or class, a name that is none); the
    person reads its message. What changes something returns after it is on the disk.
    """

    @property
    def session(self) -> str:
        """See `StudioState`."""

    def state(self) -> StudioState:
        """Everything but the images."""

    def pulse(self) -> Pulse:
        """Whether anything has changed; in well under a millisecond."""

    def crop(self, image: int, box: Box, cluster: str | None, size: int, channels: Channels = None) -> bytes:
        """A JPEG of a part of an image, `size` px long, in which the cluster is outlined and the rest dimmed."""

    def name(self, cluster: str, name: str) -> None:
        """Give a cluster a class; "" takes it away."""

    def leave_out(self, cluster: str, on: bool) -> None:
        """Make a cluster belong to no class, or take that back."""

    def split(self, cluster: str, parts: int) -> None:
        """Make 2 to 8 parts of a cluster."""

    def unsplit(self, cluster: str) -> None:
        """Make a cluster, "27/3" for the parts "27/3.0" and "27/3.1", one again."""

    def colour(self, name: str, colour: Colour) -> None:
        """Give a class a colour."""

    def rename(self, old: str, new: str) -> None:
        """Give a class another name; an existing one makes the two one."""

    def choose_k(self, k: int) -> None:
        """Work with another number of clusters."""

    def undo(self, of: int | None = None) -> None:
        """Take back the last decision, only if it is this one where one is named; otherwise nothing happens."""

    def redo(self, of: int | None = None) -> None:
        """Give back what undo took; see `undo`."""

    def images(self, start: int, count: int) -> Sequence[ImageView]:
        """Images from `start` on, at most `count`."""

    def photograph(self, image: int, size: int, channels: Channels = None) -> bytes:
        """The image as a JPEG, at most `size` px long."""

    def regions(self, image: int) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
        """Superpixels (h, w) with numbers 0 to n - 1, and the merges (n - 1, 3) in order: a, b, height.

        A merge joins the segments that hold the superpixels a and b; a number n + i stands for what merge i made.
        """

    def prediction(self, image: int) -> Prediction:
        """What is believed of the image, by the last decision."""

    def click(
        self, image: int, places: Sequence[tuple[float, float]], level: float, name: str | None, stroke: str
    ) -> AfterClick:
        """Give segments a class.

        Args:
            image: its index.
            places: a place x, y in each segment, at least one.
            level: how many segments the image is cut into: the first n - level merges hold. n and more: superpixels.
            name: the class; None erases what was decided there.
            stroke: clicks with the same are one decision for undo; "" for one that is alone.
        """

    def queue(self, count: int) -> Sequence[QuestionView]:
        """What to ask next, best first."""

    def audit_start(self, count: int, seed: int) -> None:
        """Draw places at random; an audit before it is kept in the log, but no longer shown."""

    def audit_answer(self, n: int, verdict: str, round: int | None = None) -> None:
        """Judge place n: the right class, "" for none of the classes, or `UNSURE`.

        Raises:
            AnotherNow: if a round is named and another audit was begun meanwhile.
        """

    def audit(self) -> AuditView | None:
        """The last audit; None before the first."""

    def formats(self) -> Sequence[FormatView]:
        """What can be handed over."""

    def hand_over(self, formats: Sequence[str], model: bool) -> str:
        """Begin to write masks of all images, and the model; returns the job's name. One at a time."""

    def job(self) -> JobView | None:
        """The last job; None before the first."""

    def file(self, name: str) -> Path:
        """Where a finished file of the last job lies."""
