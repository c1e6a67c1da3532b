"""Objects of labelled images as vectors: where they are, what their vector is, and which labels they hold.

MaskContrast (W. Van Gansbeke et al., ICCV 2021, arXiv 2102.06191, section E): the mean embedding of what the saliency
head takes for the object of an image, L2-normalised. Objects may also come from a folder of masks, several per image.

Ours, where the paper is silent: the mean is over the embedding's cells (of a mask, weighted by the share of the cell
that it covers), and the saliency is resized bilinearly to the label's size. The reference implementation sums the cells
whose logit is above 0.5, weighted by their logits, and keeps 32 whitened principal components:
`Objects(weighting="logit", threshold=0.5, whiten=32)`.

Letters: O objects of a split, n of an image, D dimensions, C classes, H W pixels, h w cells.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tyro.conf import Suppress

from selfseg.collection.streaming import beside
from selfseg.data.labelled.catalog import LabelledImages, cropped_ids
from selfseg.data.labelled.mask_files import MaskFolder
from selfseg.data.reading.ahead import Skips, pixels_of
from selfseg.data.reading.images import resize_short_side
from selfseg.errors import BadMask, ConfigError, DataError
from selfseg.evaluation.measure.confusion import cross_counts
from selfseg.evaluation.measure.features import Resolution, colour_and_position, short_side
from selfseg.evaluation.measure.reading import Progress, Tally, readable
from selfseg.evaluation.measure.sharing import Order, Shared
from selfseg.evaluation.protocols.clusters import check_numbers
from selfseg.models.embedder import Embedder
from selfseg.ops.matching import Maximise
from selfseg.threads import one_thread_each
from selfseg.workers.gathering import SkipList, Skipped
from selfseg.workers.plan import Job, Shard

Many = Literal["majority", "largest_iou"]
MANY: tuple[Many, ...] = ("majority", "largest_iou")
PLACE = "colour + position"
"""The baseline's name."""


@dataclass(frozen=True)
class Objects:
    """How objects become vectors, and how many clusters of them are made.

    Attributes:
        k: numbers of clusters, with the background; None = the number of classes, and those of MaskContrast's table 4
            for which there are enough objects.
        threshold: a place belongs to the object if the saliency head's logit is above this.
        weighting: how an object's cells become one vector. "mean": their mean, L2-normalised (paper). "logit": their
            sum weighted by the saliency head's logits, as it is (reference implementation).
        whiten: how many principal components of the fit split's vectors are kept and whitened; None = no whitening
            (paper).
        masks: folder of masks that say what an object is, instead of the saliency head. If it has a folder SPLIT, the
            masks of that split lie there.
        many: how clusters are named where k isn't the number of classes and several may share a class: by the
            "majority" of their pixels, or by the class with which their IoU is largest ("largest_iou", MaskContrast's
            table 4).
        maximise: what Hungarian matching maximises, the sum of "iou" or "pixels"; on the command line also
            `--matching`.
    """

    name: ClassVar[Literal["objects"]] = "objects"

    k: Suppress[Sequence[int] | None] = None  # of all protocols on the command line
    threshold: float = 0.0
    weighting: Literal["mean", "logit"] = "mean"
    whiten: int | None = None
    masks: Path | None = None
    many: Many = "majority"
    maximise: Maximise = "iou"

    def __post_init__(self) -> None:
        check_numbers(self.k)
        if self.many not in MANY:
            raise ConfigError(f"many must be one of {', '.join(MANY)}, not {self.many!r}")
        if self.weighting not in ("mean", "logit"):
            raise ConfigError(f'weighting must be "mean" or "logit", not {self.weighting!r}')
        if self.weighting == "logit" and (self.masks is not None or self.threshold < 0):
            raise ConfigError("weighting by logits needs the saliency head and a threshold of at least 0")
        if self.whiten is not None and self.whiten < 1:
            raise ConfigError(f"whiten must be at least 1 component or None, not {self.whiten}")

    @property
    def spherical(self) -> bool:
        """Whether vectors are directions."""
        return self.weighting == "mean" and self.whiten is None


@dataclass(frozen=True)
class Retrieval:
    """How an object gets the class of the objects nearest to it.

    Attributes:
        neighbours: how many of the nearest objects vote.
        classes: the classes that are retrieved, besides the first, which is the background; the others are void. Empty
            = all.
        objects: how objects become vectors; None = as for the protocol `objects`, if that is measured too, or its
            defaults.
    """

    name: ClassVar[Literal["retrieval"]] = "retrieval"

    neighbours: int = 1
    classes: tuple[str, ...] = ()
    objects: Suppress[Objects | None] = None  # those of --objects on the command line

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise ConfigError(f"neighbours must be at least 1, not {self.neighbours}")


@dataclass(frozen=True)
class Found:
    """The objects of one image.

    Attributes:
        embedding: (D, h, w) float32.
        weight: (n, h, w) float32 of each object's cells.
        ids: (H, W) integers below n, -1 = background; at the label's size.
    """

    embedding: Tensor
    weight: Tensor
    ids: NDArray[np.integer]


Finder = Callable[[NDArray[np.uint8], str, str], Found]
"""Takes an image (H, W, 3) uint8 RGB, its split, and its name in the split; several threads may call it."""


@dataclass
class ObjectTable:
    """The objects of a split.

    Attributes:
        vectors: (O, D) float32 of what is measured, by its name.
        pixels: (O, C) int64 labelled pixels of each class in each object.
        background: (C,) int64 of the pixels outside of all objects.
        without: images without an object.
        tally: what was met.
    """

    vectors: dict[str, Tensor]
    pixels: NDArray[np.int64]
    background: NDArray[np.int64]
    without: int = 0
    tally: Tally = field(default_factory=Tally)


def saliency_finder(embedder: Embedder, config: Objects, resolution: Resolution = None) -> Finder:
    """At most one object per image: where the embedder's saliency head says so.

    Args:
        embedder: in evaluation mode, with a saliency head.
        config: `threshold`, `weighting`.
        resolution: short side in px that images are resized to; "native" = as they are; None = the embedder's own.

    Raises:
        ConfigError: if it has no saliency head.
    """
    if embedder.saliency_head is None:
        raise ConfigError(
            "this embedder has no saliency head, so that nothing says where objects are; "
            "give a folder of masks (--objects.masks)"
        )
    side = short_side(resolution, embedder.resolution)

    @torch.no_grad()
    def find(image: NDArray[np.uint8], split: str, name: str) -> Found:
        resized = image if side is None else resize_short_side(image, side)
        pixels = torch.from_numpy(np.ascontiguousarray(resized)).permute(2, 0, 1)[None].to(embedder.mean.device)
        raw, logits = embedder.raw_and_saliency(pixels.float() / 255)
        logits = logits.float()
        inside = (logits > config.threshold).float().cpu()  # (1, h, w)
        weight = inside * logits.cpu() if config.weighting == "logit" else inside
        large = F.interpolate(logits[:, None], image.shape[:2], mode="bilinear", align_corners=False)[0, 0]
        ids = np.where((large > config.threshold).cpu().numpy(), 0, -1)
        if not bool(inside.any()):
            weight, ids = weight[:0], np.full_like(ids, -1)
        return Found(F.normalize(raw.float(), dim=1)[0].cpu(), weight, ids)

    return find


def mask_finder(extract: Callable[[NDArray[np.uint8]], Tensor], folder: Path, crop: int | None = None) -> Finder:
    """The objects of a folder of masks, several per image.

    Args:
        extract: gives an image's embedding.
        folder: of masks as `selfseg.data.labelled.mask_files` reads them, or with one for each split. An image without
            a mask, or with an empty one, has no object.
        crop: of the images, whose masks are resized and cropped in the same way (`LabelledImages.cropped`).

    Raises:
        DataError: if there is no such folder.
    """
    if not Path(folder).is_dir():
        raise DataError(f"the masks' folder {folder} does not exist")

    def find(image: NDArray[np.uint8], split: str, name: str) -> Found:
        own = Path(folder) / split
        masks = MaskFolder(own if own.is_dir() else folder, min_area=0.0, max_area=1.0)
        embedding = extract(image).cpu()
        height, width = image.shape[:2]
        try:
            ids = masks.get(name, height, width) if crop is None else cropped_ids(masks.read(name), crop)
        except BadMask as error:
            if error.reason not in ("missing", "empty"):
                raise
            ids = np.full((height, width), -1, np.int32)
        kept = np.unique(ids[ids >= 0])  # a crop may leave one out
        ids = np.where(ids >= 0, np.searchsorted(kept, ids), -1)
        count = len(kept)
        # The share of each cell that an object covers.
        inside = torch.from_numpy(ids)[None] == torch.arange(count)[:, None, None]  # (n, H, W)
        weight = F.adaptive_avg_pool2d(inside.float(), (embedding.shape[1], embedding.shape[2]))
        return Found(embedding, weight, ids)

    return find


def collect_objects(
    finder: Finder,
    data: LabelledImages,
    config: Objects,
    baselines: bool = True,
    progress: Progress | None = None,
    what: str = "embedder",
) -> ObjectTable:
    """One pass over a split: the vector and the labels of each object.

    Args:
        finder: of objects.
        data: the split.
        config: `weighting`.
        baselines: also the mean colour and place of each object's pixels, in [0, 1].
        progress: called after each image.
        what: the embedding's name.

    Raises:
        DataError: as `selfseg.evaluation.measure.reading.readable`; BadMask if a mask can't be used.
    """
    names = _names(baselines, what)
    tally = Tally(labels=np.zeros(len(data.class_names), np.int64))
    with closing(_see(finder, data, config, names, tally, progress)) as found:
        return _table(found, data, tally, names)


def collect_shared(
    shared: Shared,
    data: LabelledImages,
    config: Objects,
    baselines: bool = True,
    progress: Progress | None = None,
    what: str = "embedder",
) -> ObjectTable:
    """`collect_objects` of the evaluation's finder, by workers."""
    names = _names(baselines, what)
    tally = Tally(labels=np.zeros(len(data.class_names), np.int64))
    found: list[Seen] = []
    job: Job[Seen | Tally | Skipped] = _Finding(shared.order, config, names)
    values: Generator[Seen | Tally, None, None] = shared.over(job, data, tally)
    with closing(values):
        for value in values:
            if isinstance(value, Seen):
                found.append(value)
                continue
            tally.join(value)
            if progress is not None:
                progress(f"objects, {data.split}", tally.images, len(data))
    return _table(sorted(found, key=lambda one: one.number), data, tally, names)


class Seen(NamedTuple):
    """What one pass keeps of an image; see `ObjectTable`.

    Attributes:
        number: of the image in the whole split.
        vectors: (n, D) float32 of its objects, by name.
        pixels: (n, C) int64.
        background: (C,) int64.
    """

    number: int
    vectors: dict[str, Tensor]
    pixels: NDArray[np.int64]
    background: NDArray[np.int64]


def _table(found: Iterable[Seen], data: LabelledImages, tally: Tally, names: Sequence[str]) -> ObjectTable:
    """Of all images, in the order of the split; the tally is that of all of them, once they were taken."""
    classes = len(data.class_names)
    vectors: dict[str, list[Tensor]] = {name: [] for name in names}
    pixels, background, without = [np.zeros((0, classes), np.int64)], np.zeros(classes, np.int64), 0
    for one in found:
        pixels.append(one.pixels)
        background += one.background
        without += len(one.pixels) == 0
        for name, parts in vectors.items():
            parts.append(one.vectors[name])
    joined = {name: torch.cat(parts) if parts else torch.zeros(0, 1) for name, parts in vectors.items()}
    return ObjectTable(joined, np.concatenate(pixels), background, without, tally)


def _names(baselines: bool, what: str) -> tuple[str, ...]:
    return (what, PLACE) if baselines else (what,)


def _see(
    finder: Finder,
    data: LabelledImages,
    config: Objects,
    names: Sequence[str],
    tally: Tally,
    progress: Progress | None,
    skips: Skips | None = None,
) -> Generator[Seen, None, None]:
    """The objects of each image, several images side by side, each in one thread."""
    classes = len(data.class_names)

    def look(read: tuple[int, NDArray[np.uint8], NDArray[np.uint8]]) -> Seen:
        index, image, label = read
        found = finder(image, data.split, data.images.names[index])
        count = len(found.weight)
        counts = cross_counts(label, found.ids, classes, count + 1)[0].T  # (n + 1, C), the last row is background's
        total = torch.einsum("nhw,dhw->nd", found.weight, found.embedding)
        if config.weighting == "mean":
            total = F.normalize(total, dim=1)
        vectors = {names[0]: total}
        if PLACE in names:
            inside = torch.from_numpy(found.ids)[None] == torch.arange(count)[:, None, None]
            place = torch.einsum("nhw,dhw->nd", inside.float(), colour_and_position(image))
            vectors[PLACE] = place / inside.sum((1, 2)).clamp(min=1)[:, None]
        return Seen(index, vectors, counts[:count], counts[count])

    with closing(readable(data, tally, f"objects, {data.split}", progress, skips)) as read, one_thread_each():
        yield from beside(look, read, lambda one: pixels_of(one[1]))


@dataclass(frozen=True)
class _Finding:
    """The job of `collect_shared`: the objects of each image of a shard, then what was met in it."""

    order: Order
    config: Objects
    names: tuple[str, ...]

    def open(self) -> Callable[[Shard[LabelledImages]], Iterator[Seen | Tally | Skipped]]:
        """Load what finds objects."""
        finder, _ = self.order.subjects.finder(self.order.open())
        return partial(self._find, finder)

    def _find(self, finder: Finder, shard: Shard[LabelledImages]) -> Iterator[Seen | Tally | Skipped]:
        data, skips = shard.images, SkipList()
        tally = Tally(labels=np.zeros(len(data.class_names), np.int64))
        for one in skips.among(_see(finder, data, self.config, self.names, tally, None, skips)):
            yield one if isinstance(one, Skipped) else one._replace(number=shard.indices[one.number])
        yield tally
