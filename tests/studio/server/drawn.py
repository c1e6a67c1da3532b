"""A studio of drawn images, quick and simple, for tests of the server and looks at the page.

It behaves like the real one where the server or the page could tell: clusters, splits, names, a merge tree for each
image, predictions by the nearest centre, clicks, undo, an audit, and files to download. Nothing is kept on the disk but
those files.
"""

from __future__ import annotations

import copy
import heapq
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from selfseg.data.labelled.legend import Colour, Legend
from selfseg.drawing.pictures import encode, fit_within, highlight
from selfseg.errors import ConfigError
from selfseg.ops.regions.slic import slic
from selfseg.studio.server.contract import (
    NO_CLASS,
    UNSURE,
    AfterClick,
    AnotherNow,
    AuditPlace,
    AuditView,
    Box,
    Channels,
    ClassPrecision,
    ClassView,
    ClusterView,
    Crop,
    FileView,
    FormatView,
    ImageView,
    JobView,
    Prediction,
    Progress,
    Pulse,
    QuestionView,
    StudioState,
)

Features = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def colours_and_place(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W, 4) Lab and the row."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32) / 64 - 2
    rows = np.repeat(np.linspace(-1, 1, image.shape[0], dtype=np.float32)[:, None], image.shape[1], 1)
    return np.concatenate([lab, rows[..., None]], 2)


@dataclass
class _Picture:
    name: str
    pixels: NDArray[np.uint8]
    superpixels: NDArray[np.uint16]
    merges: NDArray[np.float32]
    vectors: NDArray[np.float32]
    areas: NDArray[np.float64]
    centres: NDArray[np.float64]


@dataclass
class _Decisions:
    names: dict[str, str] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    splits: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    colours: dict[str, Colour] = field(default_factory=dict)
    clicks: list[tuple[int, int, str | None]] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    audit: list[AuditPlace] | None = None
    since: int = 0
    k: int = 12
    count: int = 0


class DrawnStudio:
    """See the module. `images` are names and (H, W, 3) uint8; `spacing` is that of the superpixels in px."""

    def __init__(
        self,
        images: Sequence[tuple[str, NDArray[np.uint8]]],
        out: Path,
        features: Features = colours_and_place,
        ks: Sequence[int] = (6, 12),
        spacing: int = 12,
        run: str = "drawn",
    ) -> None:
        self.session, self.rounds = "drawn", 0
        self.run, self.out, self.ks = run, out, tuple(ks)
        self.pictures = [_picture(name, pixels, features(pixels), spacing) for name, pixels in images]
        self.vectors = np.concatenate([picture.vectors for picture in self.pictures])
        self.first = np.cumsum([0] + [len(picture.areas) for picture in self.pictures])
        self.areas = np.concatenate([picture.areas for picture in self.pictures]) / len(self.pictures)
        self.centroids = {k: _centres(self.vectors, k) for k in self.ks}
        self.decided = _Decisions(k=self.ks[-1])
        self.past: list[tuple[str, str, _Decisions]] = []  # what was done, its stroke, what was decided before
        self.future: list[tuple[str, str, _Decisions]] = []
        self.version = 1
        self.handed: JobView | None = None
        self.busy: str | None = None
        self._lock = threading.RLock()
        self._believed: tuple[int, NDArray[np.uint16], NDArray[np.float32]] | None = None

    def anew(self, out: Path) -> DrawnStudio:
        """The same images with nothing decided."""
        other = copy.copy(self)
        other.decided, other.out, other.past, other.future = _Decisions(k=self.ks[-1]), out, [], []
        other.version, other.handed, other.busy, other._believed = 1, None, None, None
        other._lock = threading.RLock()
        return other

    # What is decided

    def _decide(self, what: str, stroke: str = "") -> _Decisions:
        if not (stroke and self.past and self.past[-1][1] == stroke):
            self.past.append((what, stroke, copy.deepcopy(self.decided)))
        self.future.clear()
        self.version += 1
        self.decided.count += 1
        self.decided.since += 1
        return self.decided

    def _checked(self, cluster: str) -> str:
        if cluster not in self._paths():
            raise ConfigError(f"there is no concept {cluster!r}")
        return cluster

    @staticmethod
    def _clean(name: str) -> str:
        if not name.strip():
            raise ConfigError("a class needs a name that can be seen")
        return name.strip()

    def name(self, cluster: str, name: str) -> None:
        with self._lock:
            self._checked(cluster)
            what = f"named {_spoken(cluster)} “{name}”" if name else f"took the name from {_spoken(cluster)}"
            decided = self._decide(what)
            decided.names.pop(cluster, None)
            decided.left_out.discard(cluster)
            if name.strip():
                decided.names[cluster] = self._clean(name)
                self._first_use(name.strip())

    def _first_use(self, name: str) -> None:
        if name not in self.decided.order:
            self.decided.order.append(name)
            self.decided.colours.setdefault(
                name, Legend.of(self.decided.order, self.decided.colours).classes[-1].colour
            )

    def leave_out(self, cluster: str, on: bool) -> None:
        with self._lock:
            decided = self._decide(f"left {_spoken(self._checked(cluster))} {'out' if on else 'in'}")
            decided.names.pop(cluster, None)
            (decided.left_out.add if on else decided.left_out.discard)(cluster)

    def split(self, cluster: str, parts: int) -> None:
        with self._lock:
            if not 2 <= parts <= 8:
                raise ConfigError(f"a concept is split into 2 to 8 parts, not {parts}")
            rows = np.flatnonzero(self._members() == self._paths().index(self._checked(cluster)))
            self._decide(f"split {_spoken(cluster)} into {parts} parts")
            self.decided.splits[cluster] = _centres(self.vectors[rows], parts)
            name = self.decided.names.pop(cluster, "")
            if name:
                self.decided.names |= {f"{cluster}.{part}": name for part in range(parts)}

    def unsplit(self, cluster: str) -> None:
        with self._lock:
            if cluster not in self.decided.splits:
                raise ConfigError(f"{cluster!r} is not split")
            self._decide(f"made {_spoken(cluster)} one again")
            for path in list(self.decided.splits):
                if path == cluster or path.startswith(cluster + "."):
                    del self.decided.splits[path]
            for path in list(self.decided.names):
                if path.startswith(cluster + "."):
                    del self.decided.names[path]

    def colour(self, name: str, colour: Colour) -> None:
        with self._lock:
            if name not in self.decided.order:
                raise ConfigError(f"there is no class {name!r}")
            self._decide(f"gave “{name}” another colour").colours[name] = colour

    def rename(self, old: str, new: str) -> None:
        with self._lock:
            if old not in self.decided.order:
                raise ConfigError(f"there is no class {old!r}")
            new = self._clean(new)
            decided = self._decide(f"renamed “{old}” to “{new}”")
            decided.colours.setdefault(new, decided.colours[old])
            decided.names = {path: new if name == old else name for path, name in decided.names.items()}
            decided.clicks = [(i, r, new if name == old else name) for i, r, name in decided.clicks]
            decided.order = list(dict.fromkeys(new if name == old else name for name in decided.order))

    def choose_k(self, k: int) -> None:
        with self._lock:
            if k not in self.ks:
                raise ConfigError(f"there are {', '.join(map(str, self.ks))} clusters to choose from, not {k}")
            self.decided.k = k
            self.version += 1

    def undo(self, of: int | None = None) -> None:
        with self._lock:
            self._move(self.past, self.future)

    def redo(self, of: int | None = None) -> None:
        with self._lock:
            self._move(self.future, self.past)

    def _move(self, source: list[tuple[str, str, _Decisions]], target: list[tuple[str, str, _Decisions]]) -> None:
        if source:
            what, stroke, decided = source.pop()
            target.append((what, stroke, self.decided))
            self.decided = decided
            self.version += 1

    # What follows from it

    def _paths(self) -> list[str]:
        found = [f"{self.decided.k}/{number}" for number in range(self.decided.k)]
        for path, centres in self.decided.splits.items():
            if path in found:
                place = found.index(path)
                found[place : place + 1] = [f"{path}.{part}" for part in range(len(centres))]
        return found

    def _members(self) -> NDArray[np.int64]:
        paths = [f"{self.decided.k}/{number}" for number in range(self.decided.k)]
        members = (self.vectors @ self.centroids[self.decided.k].T).argmax(1)
        for path, centres in self.decided.splits.items():
            if path in paths:
                place = paths.index(path)
                rows = members == place
                members[members > place] += len(centres) - 1
                members[rows] = place + (self.vectors[rows] @ centres.T).argmax(1)
                paths[place : place + 1] = [f"{path}.{part}" for part in range(len(centres))]
        return members

    def _classes(self) -> list[str]:
        used = set(self.decided.names.values()) | {name for _, _, name in self.decided.clicks}
        return [name for name in self.decided.order if name in used]

    def _beliefs(self) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
        if self._believed is None or self._believed[0] != self.version:
            members, paths, classes = self._members(), self._paths(), self._classes()
            centres = [_unit(self.vectors[members == number].mean(0)) for number in range(len(paths))]
            labels = [
                classes.index(self.decided.names.get(path, "")) if path in self.decided.names else -1 for path in paths
            ]
            for image, region, name in self.decided.clicks:
                centres.append(self.vectors[self.first[image] + region])
                labels.append(-1 if name is None else classes.index(name))
            likeness = self.vectors @ np.stack(centres).T
            best = likeness.argmax(1)
            kinds = np.array(labels)
            chosen = kinds[best]
            other = np.where(kinds[None] == chosen[:, None], -1, likeness).max(1)
            certainty = np.clip((likeness.max(1) - other) * 8, 0, 1)
            for image, region, name in self.decided.clicks:
                row = self.first[image] + region
                chosen[row] = -1 if name is None else classes.index(name)
                certainty[row] = 1
            found = np.where(chosen < 0, NO_CLASS, chosen).astype(np.uint16)
            self._believed = (self.version, found, certainty.astype(np.float32))
        return self._believed[1], self._believed[2]

    def _class_views(self) -> list[ClassView]:
        found, _ = self._beliefs()
        return [
            ClassView(
                name, self.decided.colours[name], int((found == index).sum()), float(self.areas[found == index].sum())
            )
            for index, name in enumerate(self._classes())
        ]

    def state(self) -> StudioState:
        with self._lock:
            members, paths = self._members(), self._paths()
            clusters = [self._cluster(path, np.flatnonzero(members == number)) for number, path in enumerate(paths)]
            decided = [c for c in clusters if c.name or c.left_out]
            share = sum(cluster.share for cluster in decided)
            left = len(clusters) - len(decided)
            sentence = (
                f"{len(decided)} of {len(clusters)} concepts are decided; the largest of the other {left} come first."
            )
            return StudioState(
                self.run,
                len(self.pictures),
                self.ks,
                self.decided.k,
                clusters,
                self._class_views(),
                self.past[-1][0] if self.past else "",
                self.future[-1][0] if self.future else "",
                Progress(self.decided.count, len(self.decided.clicks), share, sentence),
                self.busy,
                self.version,
                self.session,
            )

    def pulse(self) -> Pulse:
        return Pulse(self.version, self.busy, self.session)

    def _cluster(self, path: str, rows: NDArray[np.int64]) -> ClusterView:
        name, left_out = self.decided.names.get(path, ""), path in self.decided.left_out
        if not len(rows):
            return ClusterView(path, 0.0, 0.0, name, left_out, (), ())
        centre = self.vectors[rows].mean(0)
        likeness = self.vectors[rows] @ _unit(centre)
        order = rows[np.argsort(-likeness)]
        mixed = min(1.0, 6 * float(1 - np.linalg.norm(centre)))
        share = float(self.areas[rows].sum())
        return ClusterView(path, share, mixed, name, left_out, self._crops(order), self._crops(order[::-1]))

    def _crops(self, rows: NDArray[np.int64], most: int = 6) -> list[Crop]:
        found: dict[int, Crop] = {}
        for row in rows:
            image = int(np.searchsorted(self.first, row, side="right")) - 1
            if image not in found:
                y, x = self.pictures[image].centres[row - self.first[image]]
                found[image] = Crop(image, _around(x, y))
            if len(found) == most:
                break
        return list(found.values())

    # Pictures

    def _picture_of(self, image: int) -> _Picture:
        if not 0 <= image < len(self.pictures):
            raise ConfigError(f"there is no image {image}; there are {len(self.pictures)}")
        return self.pictures[image]

    def crop(self, image: int, box: Box, cluster: str | None, size: int, channels: Channels = None) -> bytes:
        picture = self._picture_of(image)
        height, width = picture.pixels.shape[:2]
        part = (
            slice(int(box[1] * height), max(int(box[3] * height), int(box[1] * height) + 1)),
            slice(int(box[0] * width), max(int(box[2] * width), int(box[0] * width) + 1)),
        )
        pixels = picture.pixels[part]
        scale = size / max(pixels.shape[:2])
        shape = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
        pixels = np.asarray(cv2.resize(pixels, shape), np.uint8)
        if cluster is not None:
            with self._lock:
                number = self._paths().index(self._checked(cluster))
                members = self._members()[self.first[image] : self.first[image + 1]]
            mask = (members == number)[picture.superpixels][part].astype(np.uint8)
            pixels = highlight(pixels, cv2.resize(mask, shape) > 0, (255, 214, 10))
        return encode(pixels, ".jpg", 88)

    def images(self, start: int, count: int) -> list[ImageView]:
        with self._lock:
            _, certainty = self._beliefs()
            found = []
            for index, picture in list(enumerate(self.pictures))[start : start + count]:
                rows = slice(self.first[index], self.first[index + 1])
                doubt = float((picture.areas * (1 - certainty[rows])).sum())
                clicks = sum(image == index for image, _, _ in self.decided.clicks)
                found.append(ImageView(index, picture.name, *picture.pixels.shape[:2], doubt, clicks))
            return found

    def photograph(self, image: int, size: int, channels: Channels = None) -> bytes:
        return encode(fit_within(self._picture_of(image).pixels, size), ".jpg", 90)

    def regions(self, image: int) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
        picture = self._picture_of(image)
        return picture.superpixels, picture.merges

    def prediction(self, image: int) -> Prediction:
        self._picture_of(image)
        with self._lock:
            classes, certainty = self._beliefs()
        rows = slice(self.first[image], self.first[image + 1])
        return Prediction(classes[rows], certainty[rows])

    def click(
        self, image: int, places: Sequence[tuple[float, float]], level: float, name: str | None, stroke: str
    ) -> AfterClick:
        with self._lock:
            picture = self._picture_of(image)
            verb = "erased" if name is None else f"clicked “{name}”"
            decided = self._decide(f"{verb} in {picture.name}", stroke)
            if name is not None:
                self._first_use(self._clean(name))
            groups = _cut(picture.merges, len(picture.areas), level)
            for x, y in places:
                height, width = picture.superpixels.shape
                region = picture.superpixels[min(int(y * height), height - 1), min(int(x * width), width - 1)]
                inside = np.flatnonzero(groups == groups[region]).tolist()
                decided.clicks = [c for c in decided.clicks if c[0] != image or c[1] not in inside]
                decided.clicks += [(image, each, name) for each in inside if name is not None]
            past = self.past[-1][0]
            return AfterClick(self.version, self._class_views(), past, "", self.prediction(image))

    # Questions

    def queue(self, count: int) -> list[QuestionView]:
        with self._lock:
            classes, certainty = self._beliefs()
            doubt = (1 - certainty) * self.areas
            found: list[QuestionView] = []
            for row in np.argsort(-doubt):
                image = int(np.searchsorted(self.first, row, side="right")) - 1
                if all(question.image != image for question in found):
                    y, x = _inside(self.pictures[image].superpixels, row - self.first[image])
                    nothing = classes[row] == NO_CLASS
                    why = "Nothing is known about this yet." if nothing else "Two names are about equally likely here."
                    found.append(QuestionView(image, x, y, 60.0, why))
                if len(found) == count:
                    break
            return found

    def audit_start(self, count: int, seed: int) -> None:
        with self._lock:
            if not 1 <= count <= 1000:
                raise ConfigError(f"an audit has 1 to 1,000 places, not {count}")
            random = np.random.default_rng(seed)
            draws = [(int(random.integers(len(self.pictures))), *random.random(2)) for _ in range(count)]
            self.rounds += 1
            self.decided.audit = [AuditPlace(n, i, float(x), float(y), "", None) for n, (i, x, y) in enumerate(draws)]
            self.version += 1

    def audit_answer(self, n: int, verdict: str, round: int | None = None) -> None:
        with self._lock:
            if round not in (None, self.rounds):
                raise AnotherNow("another audit was begun")
            places = self._places()
            if not 0 <= n < len(places):
                raise ConfigError(f"there is no place {n}")
            if verdict not in ("", UNSURE, *self.decided.order):
                self._first_use(self._clean(verdict))
            place = places[n]
            since = self.decided.since
            decided = self._decide(f"judged place {n + 1} of the audit")
            decided.since = since if any(p.verdict is not None for p in places) else 0
            places[n] = AuditPlace(n, place.image, place.x, place.y, place.predicted, verdict)
            decided.audit = places

    def _places(self) -> list[AuditPlace]:
        classes, (believed, _) = self._classes(), self._beliefs()
        found = []
        for place in self.decided.audit or []:
            picture = self.pictures[place.image]
            height, width = picture.superpixels.shape
            region = picture.superpixels[int(place.y * height), int(place.x * width)]
            value = int(believed[self.first[place.image] + int(region)])
            now = "" if value == NO_CLASS else classes[value]
            predicted = place.predicted if place.verdict is not None else now
            found.append(AuditPlace(place.n, place.image, place.x, place.y, predicted, place.verdict))
        return found

    def audit(self) -> AuditView | None:
        with self._lock:
            if self.decided.audit is None:
                return None
            places = self._places()
            judged = [place for place in places if place.verdict not in (None, UNSURE)]
            right = [place for place in judged if place.verdict == place.predicted]
            per_class = []
            for name in dict.fromkeys(place.predicted for place in judged if place.predicted):
                those = [place for place in judged if place.predicted == name]
                hits = sum(place.verdict == name for place in those)
                per_class.append(ClassPrecision(name, hits, len(those), *_wilson(hits, len(those))))
            low, high = _wilson(len(right), len(judged))
            answered = sum(place.verdict is not None for place in places)
            accuracy = len(right) / len(judged) if judged else None
            return AuditView(
                places,
                answered,
                answered - len(judged),
                len(right),
                accuracy,
                low,
                high,
                per_class,
                f"{len(right)} of {len(judged)} judged places are right.",
                ["It speaks of this collection, not of images from elsewhere.", "It says little of rare classes."],
                self.decided.since,
                self.rounds,
            )

    # Handing over

    def formats(self) -> list[FormatView]:
        return [
            FormatView(
                "palette",
                "Palette PNG",
                "One indexed PNG an image, as Pascal VOC has them; every viewer shows its colours.",
            ),
            FormatView(
                "coco", "COCO JSON", "One file with run-length masks, for detectron2, MMDetection and FiftyOne."
            ),
            FormatView("cvat", "CVAT masks", "Segmentation mask 1.1, to go on correcting in CVAT."),
            FormatView(
                "datumaro", "Datumaro", "For OpenVINO's tools.", "it needs the package datumaro: pip install datumaro"
            ),
        ]

    def hand_over(self, formats: Sequence[str], model: bool) -> str:
        with self._lock:
            known = {each.key for each in self.formats()}
            if unknown := [each for each in formats if each not in known]:
                raise ConfigError(f"{unknown[0]!r} is no format; there are {', '.join(sorted(known))}")
            self.out.mkdir(parents=True, exist_ok=True)
            files = []
            for name in [*(f"{each}.zip" for each in formats), *(["model.zip"] if model else [])]:
                (self.out / name).write_bytes(name.encode() * 1000)
                about = f"{len(self.pictures)} masks, {len(self._classes())} classes"
                files.append(FileView(name, (self.out / name).stat().st_size, about))
            done = len(self.pictures)
            self.handed = JobView("job-1", done, done, False, f"Masks of {done} images are written.", files, None)
            return "job-1"

    def job(self) -> JobView | None:
        return self.handed

    def file(self, name: str) -> Path:
        return self.out / name


def _picture(name: str, pixels: NDArray[np.uint8], features: NDArray[np.float32], spacing: int) -> _Picture:
    superpixels = slic(pixels, spacing, 8.0).astype(np.int64)
    height, width = superpixels.shape
    counts = np.bincount(superpixels.ravel())
    if features.shape[:2] != (height, width):
        features = cv2.resize(features, (width, height))
    flat = features.reshape(-1, features.shape[-1])
    sums = np.stack([np.bincount(superpixels.ravel(), flat[:, d]) for d in range(flat.shape[1])], 1)
    vectors = (sums / counts[:, None]).astype(np.float32)
    rows, columns = np.divmod(np.arange(height * width), width)
    centres = np.stack(
        [
            np.bincount(superpixels.ravel(), rows) / counts / height,
            np.bincount(superpixels.ravel(), columns) / counts / width,
        ],
        1,
    )
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    merges = _merges(superpixels, vectors)
    return _Picture(name, pixels, superpixels.astype(np.uint16), merges, vectors, counts / counts.sum(), centres)


def _merges(superpixels: NDArray[np.int64], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The two neighbours that are most alike become one, again and again."""
    n = len(vectors)
    pairs = np.concatenate(
        [
            np.stack([superpixels[:, 1:].ravel(), superpixels[:, :-1].ravel()], 1),
            np.stack([superpixels[1:].ravel(), superpixels[:-1].ravel()], 1),
        ]
    )
    pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], 1), axis=0)
    near: dict[int, set[int]] = {i: set() for i in range(n)}
    for a, b in pairs.tolist():
        near[a].add(b)
        near[b].add(a)
    sums, sizes = dict(enumerate(vectors)), dict.fromkeys(range(n), 1)

    def distance(a: int, b: int) -> float:
        gap = sums[a] / sizes[a] - sums[b] / sizes[b]
        return float(gap @ gap) * sizes[a] * sizes[b] / (sizes[a] + sizes[b])

    heap = [(distance(a, b), a, b) for a, b in pairs.tolist()]
    heapq.heapify(heap)
    found: list[tuple[float, float, float]] = []
    while heap:
        height, a, b = heapq.heappop(heap)
        if a not in near or b not in near:
            continue
        new = n + len(found)
        found.append((a, b, height))
        sums[new], sizes[new] = sums[a] + sums[b], sizes[a] + sizes[b]
        near[new] = (near.pop(a) | near.pop(b)) - {a, b}
        for other in near[new]:
            near[other] = (near[other] - {a, b}) | {new}
            heapq.heappush(heap, (distance(new, other), new, other))
    return np.array(found, np.float32).reshape(-1, 3)


def _cut(merges: NDArray[np.float32], n: int, level: float) -> NDArray[np.int64]:
    parent = list(range(n + len(merges)))
    for number, (a, b, _) in enumerate(merges[: max(0, n - max(1, int(level)))]):
        parent[int(a)] = parent[int(b)] = n + number

    def root(node: int) -> int:
        while parent[node] != node:
            node = parent[node]
        return node

    return np.array([root(region) for region in range(n)])


def _centres(vectors: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    centres = vectors[np.linspace(0, len(vectors) - 1, k).astype(int)].copy()
    for _ in range(12):
        nearest = (vectors @ centres.T).argmax(1)
        for number in range(k):
            if (nearest == number).any():
                centres[number] = _unit(vectors[nearest == number].mean(0))
    return centres


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = np.nan_to_num(vector / max(float(np.linalg.norm(vector)), 1e-9)).astype(np.float32)
    return unit


def _around(x: float, y: float, side: float = 0.36) -> Box:
    x0, y0 = min(max(x - side / 2, 0), 1 - side), min(max(y - side / 2, 0), 1 - side)
    return (round(x0, 4), round(y0, 4), round(x0 + side, 4), round(y0 + side, 4))


def _inside(superpixels: NDArray[np.uint16], region: int) -> tuple[float, float]:
    rows, columns = np.nonzero(superpixels == region)
    middle = len(rows) // 2
    return (rows[middle] + 0.5) / superpixels.shape[0], (columns[middle] + 0.5) / superpixels.shape[1]


def _wilson(hits: int, total: int) -> tuple[float, float]:
    if not total:
        return 0.0, 1.0
    z, p = 1.96, hits / total
    middle = (p + z * z / (2 * total)) / (1 + z * z / total)
    reach = z * np.sqrt(p * (1 - p) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return float(max(0, middle - reach)), float(min(1, middle + reach))


def _spoken(path: str) -> str:
    k, _, rest = path.partition("/")
    cluster, _, part = rest.partition(".")
    return f"part {part} of cluster {cluster}" if part else f"cluster {cluster} of {k}"
