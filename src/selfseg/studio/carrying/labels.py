"""Labels that a person already has, taken over as clicks.

Of each labelled image the largest segments of its tree are looked for that are of one class (`PURE` of their labelled
pixels, and at least `COVERED` of them labelled), down to single superpixels, for which less is enough (`PURE_ONE`).
Each becomes a click, so that nothing else in the studio has to know of labels: they can be corrected, undone, counted
and carried to another run. What no superpixel follows (a wire, the edge between two things) is not taken over, and of
each class in an image only the `MOST` largest segments are: further ones say the same again, and would make each later
decision slower.

A click of the person's own on the same segment stays. Labels that are here already are not taken twice.

Letters in shapes: n regions of an image, C classes, h w size of its superpixels.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from selfseg.data.labelled.legend import Legend, format_colour
from selfseg.data.reading.formats.base import Window
from selfseg.exchange import NamedMask, read
from selfseg.studio.carrying.images import ImageFinder, OwnClicks
from selfseg.studio.decisions.log import DecisionLog
from selfseg.studio.decisions.state import Click, ImageId, counted
from selfseg.studio.regions import VOID, RegionStore

PURE = 0.95
"""Share of a segment's labelled pixels that its class has."""

PURE_ONE = 0.75
"""The same of a single superpixel."""

COVERED = 0.5
"""Share of a segment's pixels that are labelled."""

MOST = 8
"""Segments of a class in an image. Of CamVid they are 85 % of the labelled pixels, all that are pure would be 94 %."""

FROM_LABELS = "labels"
"""Where such a click is from: its field "carried" says so."""

_SHOWN = 3  # names in a sentence


@dataclass(frozen=True)
class LabelReport:
    """What became of labels.

    Attributes:
        clicks: taken over.
        images: labelled ones in this collection.
        covered: share of their labelled pixels that the clicks say something of, in [0, 1].
        before: segments of which the labels say what was here already.
        kept: segments that have a click of the person's own, which stays.
        elsewhere: names of labelled images that are not in this collection.
        problems: sentences about what could not be used.
    """

    clicks: int
    images: int
    covered: float
    before: int
    kept: int
    elsewhere: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """All of it, for a person."""
        words = [
            f"The labels of {counted(self.images, 'image')} became {counted(self.clicks, 'click')}"
            + (f"; {self.covered:.0%} of the labelled pixels lie in their segments." if self.clicks else ".")
        ]
        if self.before:
            words.append(f"{counted(self.before, 'segment')} already had what the labels say.")
        if self.kept:
            words.append(f"{counted(self.kept, 'segment')} with clicks of your own stayed as you decided.")
        if self.elsewhere:
            shown = ", ".join(self.elsewhere[:_SHOWN]) + (", ..." if len(self.elsewhere) > _SHOWN else "")
            verb = "is" if len(self.elsewhere) == 1 else "are"
            words.append(f"{counted(len(self.elsewhere), 'labelled image')} {verb} not in this collection: {shown}.")
        return " ".join([*words, *self.problems])


def take_labels(
    log: DecisionLog,
    store: RegionStore,
    paths: Mapping[Path, Sequence[tuple[str, Window | None]]],
    labels: Path | str,
    format: str = "auto",
) -> LabelReport:
    """Write what labels say into a log, as one step that undo takes back.

    Args:
        log: to write to.
        store: the regions of the images.
        paths: the names in the store of what each image file holds, each with its window; None = all of the file.
        labels: a file, folder or zip in a format that `selfseg.exchange.read` knows.
        format: which; "auto" looks what is there.

    Raises:
        ConfigError: if there is no such format.
        DataError: if the files are not what they should be; nothing is written then.
        StorageError: if the log can't be written.
    """
    left_out: list[str] = []
    legend, masks = read(format, labels, images=list(paths), left_out=left_out)
    taking = _Taking(log, store, legend)
    taking.take(paths, masks)
    if taking.found:
        log.append_all(list(taking.decisions()), group=f"labels {taking.digest.hexdigest()} at {log.state().seq}")
    labelled = max(taking.labelled, 1)
    return LabelReport(
        len(taking.found),
        taking.images,
        taking.covered / labelled,
        taking.before,
        taking.kept,
        tuple(taking.elsewhere),
        (*left_out, *taking.problems()),
    )


class _Taking:
    """Goes through the masks one by one."""

    def __init__(self, log: DecisionLog, store: RegionStore, legend: Legend) -> None:
        self.store, self.legend = store, legend
        self.known = log.state().colours
        self.digest = hashlib.blake2b(digest_size=8)
        self.found: list[dict[str, Any]] = []
        self.elsewhere: list[str] = []
        self.bare: list[str] = []  # labelled images without a segment to click
        self.images = self.before = self.kept = self.labelled = self.covered = 0
        self._place = {name: place for place, name in enumerate(store.names)}
        finder = ImageFinder(store.names, store.hashes)
        self._own = OwnClicks(store)
        self._here: dict[tuple[int, float, tuple[float, float]], str | None] = {}
        entries = [entry for entry in log.standing if entry.kind == "click"]
        for click, entry in zip(log.state().clicks, entries, strict=True):
            image = finder.find(click.image)
            if image is None:
                continue
            if (entry.fields.get("carried") or {}).get("from") == FROM_LABELS:
                self._here[image, click.level, click.point] = click.name
            else:
                self._own.add(image, click)

    def take(self, paths: Mapping[Path, Sequence[tuple[str, Window | None]]], masks: Iterable[NamedMask]) -> None:
        parts = {path.resolve(): found for path, found in paths.items()}
        for mask in masks:
            here = parts.get(mask.image.resolve(), ()) if mask.image is not None else ()
            known = [(self._place[name], window) for name, window in here if name in self._place]
            if not known:
                self.elsewhere.append(mask.name)
            for image, window in known:
                self._take(image, mask if window is None else _window_of(mask, window))

    def _take(self, image: int, mask: NamedMask) -> None:
        store, classes = self.store, len(self.legend.classes)
        superpixels = store.superpixels(image)
        count = int(store.first[image + 1] - store.first[image])
        counts = _counts(superpixels, count, mask.mask, classes)
        labelled = int(counts[:, :classes].sum())
        if not labelled:
            return
        self.images += 1
        self.labelled += labelled
        any_of_it = False
        places = _middles(superpixels, len(counts))
        told = {"hash": store.hashes[image], "name": store.names[image]}
        found = sorted(_segments(store.tree(image), counts), key=lambda one: -int(counts[one[0]].sum()))
        taken: Counter[int] = Counter()
        for regions, level, label in found:
            any_of_it = True
            taken[label] += 1
            if taken[label] > MOST:
                continue
            self.covered += int(counts[regions, :classes].sum())
            largest = regions[counts[regions].sum(1).argmax()]
            point = (float(places[largest, 0]), float(places[largest, 1]))
            name = self.legend.classes[label].name
            click = Click(0, ImageId(**told), level, point, name)
            if self._here.get((image, level, point)) == name:
                self.before += 1
            elif self._own.has(image, click):
                self.kept += 1
            else:
                carried = {"from": FROM_LABELS, "seq": 0, "time": ""}
                self.found.append(
                    {"image": told, "level": level, "point": list(point), "name": name, "carried": carried}
                )
                self.digest.update(repr((told, level, point, name)).encode())
        if not any_of_it:
            self.bare.append(mask.name)

    def decisions(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The colours of new classes first, which gives them their order too."""
        used = {fields["name"] for fields in self.found}
        for one in self.legend.classes:
            if one.name in used and one.name not in self.known:
                colour = format_colour(one.colour)
                yield "colour", {"name": one.name, "colour": colour, "carried": {"from": FROM_LABELS}}
        yield from (("click", fields) for fields in self.found)

    def problems(self) -> Iterator[str]:
        if self.bare:
            shown = ", ".join(self.bare[:_SHOWN]) + (", ..." if len(self.bare) > _SHOWN else "")
            yield (
                f"The labels of {counted(len(self.bare), 'image')} say nothing about any whole superpixel, because "
                f"less than half of each is labelled, or several classes share it: {shown}."
            )


def _window_of(mask: NamedMask, window: Window) -> NamedMask:
    """What of a file's mask, which has its size, lies in a window."""
    y, x, height, width = window
    return NamedMask(f"{mask.name}/y{y}-x{x}", mask.mask[y : y + height, x : x + width], mask.image)


def _counts(superpixels: NDArray[np.uint16], count: int, mask: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """(n, C + 1) pixels of each region in each class, those without one last."""
    wide = mask.astype(np.uint16, copy=False)
    if wide.shape != superpixels.shape:
        height, width = superpixels.shape
        wide = np.asarray(cv2.resize(wide, (width, height), interpolation=cv2.INTER_NEAREST_EXACT))
    there = superpixels != VOID
    codes = superpixels[there].astype(np.int64) * (classes + 1) + np.minimum(wide[there], classes)
    return np.bincount(codes.ravel(), minlength=count * (classes + 1)).reshape(count, -1)


def _segments(tree: NDArray[np.float32], counts: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], float, int]]:
    """The largest segments of one class: their regions, the level at which they are one, and the class."""
    count = len(counts)
    pairs = tree[:, :2].astype(np.int64)
    sums = np.concatenate([counts, np.zeros((len(pairs), counts.shape[1]), np.int64)])
    for merge, (one, two) in enumerate(pairs):
        np.add(sums[one], sums[two], out=sums[count + merge])
    labelled, whole = sums[:, :-1].sum(1), sums.sum(1)
    purity = np.full(len(sums), PURE)
    purity[:count] = PURE_ONE
    most = sums[:, :-1].max(1)
    pure = (most > 0) & (most >= purity * labelled) & (labelled >= COVERED * whole)
    waiting = [len(sums) - 1]
    while waiting:
        node = waiting.pop()
        if pure[node]:
            regions = np.array(_leaves(node, pairs, count), np.int64)
            yield regions, float(count if node < count else 2 * count - 1 - node), int(sums[node, :-1].argmax())
        elif node >= count:
            waiting += pairs[node - count].tolist()


def _leaves(node: int, pairs: NDArray[np.int64], count: int) -> list[int]:
    """The regions that a node of the tree is joined from."""
    found, waiting = [], [node]
    while waiting:
        each = waiting.pop()
        if each < count:
            found.append(each)
        else:
            waiting += pairs[each - count].tolist()
    return found


def _middles(superpixels: NDArray[np.uint16], count: int) -> NDArray[np.float64]:
    """(n, 2) x and y in [0, 1] of a pixel of each region: the one that is nearest to their middle; nan without one."""
    height, width = superpixels.shape
    inside = superpixels.ravel() != VOID
    flat = superpixels.ravel()[inside]
    ys, xs = (place[inside] for place in np.divmod(np.arange(superpixels.size), width))
    size = np.bincount(flat, minlength=count)
    there = np.flatnonzero(size)  # a tiny region of a large image may have no pixel at this size
    y = (np.bincount(flat, ys, count) / np.maximum(size, 1))[flat]
    x = (np.bincount(flat, xs, count) / np.maximum(size, 1))[flat]
    order = np.argsort(flat, kind="stable")  # quick, since they are 16 bits
    far = ((ys - y) ** 2 + (xs - x) ** 2)[order]
    starts = np.cumsum(size[there]) - size[there]
    nearest = np.flatnonzero(far == np.repeat(np.minimum.reduceat(far, starts), size[there]))
    first = order[nearest[np.searchsorted(nearest, starts)]]
    places = np.full((count, 2), np.nan)
    places[there] = np.stack([(xs[first] + 0.5) / width, (ys[first] + 0.5) / height], 1)
    return places
