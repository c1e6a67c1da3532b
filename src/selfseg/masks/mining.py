"""Object masks for a folder of images, without labels: maps of what stands out, or proposals, cut and cleaned."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from selfseg.collection.batching.room import AUTO, Batching
from selfseg.collection.false_colours import painter_of
from selfseg.collection.opening import Images, collect, whole_images
from selfseg.collection.streaming import WriteBehind
from selfseg.data.labelled.catalog import LabelledImages
from selfseg.data.labelled.mask_files import MaskFolder
from selfseg.data.reading.ahead import Versions, map_images
from selfseg.data.reading.images import ImageCollection, read_image, spread_indices
from selfseg.data.reading.long.images import LongList
from selfseg.data.reading.skipping import SkipLog
from selfseg.data.reading.windows import as_measured
from selfseg.errors import BadImage, ConfigError, DataError, EmptyCollection
from selfseg.exchange.any_labels import open_labels
from selfseg.masks import proposals as hierarchy
from selfseg.masks.cleaning import Cleaned, Cleaning, clean, clean_objects
from selfseg.masks.many import ManyMasks
from selfseg.masks.priors.by_name import VERSION, Prior, check_prior, saliency
from selfseg.masks.quality import MaskScores, measure_maps
from selfseg.masks.sources import (
    SOURCES,
    Find,
    Source,
    Training,
    check_training,
    describe,
    load_source,
    open_source,
    source_folder,
)
from selfseg.masks.together import Finder, Mapped, map_together
from selfseg.masks.writing import SOFT_FOLDER, MaskFiles, MaskWriter
from selfseg.models.inputs.in_memory import ImagesInMemory
from selfseg.ops.channels import Channels
from selfseg.ops.regions.slic import ALGORITHM_VERSION
from selfseg.pages.masks import MaskCard, mask_card, write_masks_page
from selfseg.storage.files import read_json
from selfseg.storage.outputs.claiming import own_output
from selfseg.storage.remote.places import at_places
from selfseg.telling import tell
from selfseg.threads import one_thread_each
from selfseg.workers.gathering import SkipList, Skipped, gather
from selfseg.workers.hiring import hire
from selfseg.workers.plan import HERE, Shard, Where, cut

T = TypeVar("T")

Method = Literal[Prior, "hierarchy", Source]
"""A saliency prior, several objects by `selfseg.masks.proposals`, or one of `selfseg.masks.sources`."""

_SHOWN = 24  # images of each kind on the page


@at_places(reads=["labels"], writes=["out"])
def mine_masks(
    images: Images,
    out: Path | str,
    method: Method = "features",
    cleaning: Cleaning | None = None,
    labels: Path | str | None = None,
    split: str = "train",
    progress: bool = True,
    max_bad: float = 0.05,
    training: Training | None = None,
    window: int | None = None,
    channels: Sequence[str] = (),
    pages: str = "auto",
    where: Where = HERE,
    batch: Batching = AUTO,
) -> Path:
    """Find a mask of what stands out in each image, without labels.

    Writes the files that `selfseg.masks.writing` lists; `MaskFolder(out)` reads them, and a page shows images beside
    masks, and what was rejected and why. If a call is interrupted, the same call continues. A second call only does
    what is missing: new images and images that have changed, or everything if the settings have.

    Args:
        images: a folder, a list file, NAME:ROOT, paths, a collection, arrays, tensors or PIL images.
        out: the folder to write: new, or one that an earlier call made.
        method: "features" (`selfseg.masks.networks.features`), a prior (`selfseg.masks.priors.by_name` lists them),
            "hierarchy", or a network (`selfseg.masks.sources`), which is trained first.
        cleaning: how maps become masks; the defaults if None.
        labels: labelled data to measure the maps with, in any form (`selfseg.exchange`). Class 0 is the background, and
            all others are objects. Its images are found among `images` by their names.
        split: split of the labelled folder that is measured.
        progress: whether to show a progress bar on stderr.
        max_bad: share of unreadable images that is an error, in [0, 1].
        training: how networks are trained; the defaults if None.
        window: side in px of the windows that large images are cut into, each an image of its own as in a training with
            that window. None = 1024, for images that can't be looked at whole.
        channels: for measured images: which channels are taken, by index from 0 or by name. All if none is given; "rgb"
            reads them as photographs.
        pages: for files with several pages: how they become images, see `selfseg.training.recipe.Recipe`.
        where: where the masks are made. What a method learns is learned in this process; workers load it from
            OUT/networks.
        batch: how many images a GPU looks at together (`selfseg.collection.batching`), for methods that have a network.

    Returns:
        The path of masks.html.

    Raises:
        ConfigError: for an option that can't work, or an `out` that holds something else.
        EmptyCollection: if there are no images, or none has a usable mask (the page is written before).
        TooManyBadImages: if too many can't be read.
        DataError: if none of the images has a label.
        RunError: if another process is at work on `out`.
        StorageError: if the disk is full.
        CheckpointError, NonFiniteLoss, Interrupted: from a training, see `selfseg.masks.networks.pseudo`.

    Example:
        >>> mine_masks("photos", "masks")  # doctest: +SKIP
    """
    cleaning, training = cleaning or Cleaning(), training or Training()
    how: dict[str, Any] = {"method": check_method(method), "cleaning": asdict(cleaning)}
    check_training(method, training)
    if method in SOURCES:
        how |= describe(method, training)
    else:
        version = hierarchy.VERSION if method == "hierarchy" else VERSION
        how |= {"version": version, "superpixels": ALGORITHM_VERSION}
    collection = collect(images)
    if channels and isinstance(collection, ImagesInMemory):
        raise ConfigError("channels are chosen of files; of images in memory, give arrays of the three that are wanted")
    collection, found = as_measured(collection, channels, pages, window)
    if found:
        tell(found)
    if collection.channels is not None:
        how["channels"] = asdict(collection.channels)
    if isinstance(collection, LongList):
        if labels is not None:
            raise ConfigError(f"masks of a list as long as {collection.lines.path} aren't measured; leave out --labels")
        return _mine_many(collection, Path(out), how, method, cleaning, training, max_bad, where, progress)
    truth = None if labels is None else _labelled(open_labels(labels, split), collection)
    with MaskWriter(out, collection, how) as writer:
        log = SkipLog(writer.out / "skipped.jsonl", len(collection), max_bad)
        whole = set(whole_images(collection, log))
        missing = [i for i in writer.missing() if i in whole]
        job = _Mining(method, cleaning, training, writer.out, writer.made_by, collection.channels, progress, batch)
        find: Finder[Any, Any] | None = None
        if missing and method in SOURCES:
            find = open_source(method, training, collection, writer.out, progress, max_bad, batch)
        shards = cut(collection, missing, where)
        with hire(where, "masks", progress, training.device) as workers:
            with closing(gather(workers, job, shards, collection.names, log, _Miner(job, find))) as made:
                for entry in made:
                    writer.record(entry)
        for name in log.skipped:
            writer.discard(name)
        log.keep_current()
        scores = None if truth is None else _measure(writer, truth)
        note = writer.finish(log.skipped, None if scores is None else scores.as_dict())
        place = {name: i for i, name in enumerate(collection.names)}
        entries = [(place[name], writer.entries[name]) for name in collection.names if name in writer.entries]
        shown = [
            _spread([(i, entry) for i, entry in entries if bool(entry["reason"]) == rejected], _SHOWN)
            for rejected in (False, True)
        ]
        return _write_page(writer, note, shown)


def _mine_many(
    images: LongList,
    out: Path,
    how: Mapping[str, Any],
    method: Method,
    cleaning: Cleaning,
    training: Training,
    max_bad: float,
    where: Where,
    progress: bool,
) -> Path:
    """`mine_masks` of a long list; what a method learns it learns from drawn images, before any mask is made."""
    writer = MaskWriter(out, images, how)
    with own_output(out, "made_by"):
        masks = ManyMasks.of(writer, images, max_bad)
        job = _Mining(method, cleaning, training, out, writer.made_by, images.channels, progress)
        find = open_source(method, training, images, out, progress, max_bad) if method in SOURCES else None
        crew = hire(where, "masks", progress, training.device)
        masks.work.do(job, _Miner(job, find), crew, where, "masks", progress)
        note = masks.finish()
        told = read_json(note)
        shown = [masks.some(bool(word == "rejected"), told[word], _SHOWN) for word in ("kept", "rejected")]
        return _write_page(writer, note, shown)


def _write_page(writer: MaskWriter, note: Path, shown: Sequence[Sequence[tuple[int, dict[str, Any]]]]) -> Path:
    """The page of some images with masks and some without; raises EmptyCollection if none has one."""
    told = read_json(note)
    page = write_masks_page(writer.out, told, *_cards(writer, shown), painter_of(writer.images).caption("photograph"))
    if not told["kept"]:
        raise EmptyCollection(
            f"none of the {len(writer.images)} images has a usable mask; {page} shows why, {note} counts the reasons. "
            "Another --method or a lower --threshold may help"
        )
    return page


@dataclass(frozen=True)
class _Mining:
    """The job of `mine_masks`."""

    method: Method
    cleaning: Cleaning
    training: Training
    out: Path
    made_by: str
    channels: Channels | None
    progress: bool
    batch: Batching = AUTO

    def open(self) -> _Miner:
        """Load what the method has learned."""
        if self.method not in SOURCES:
            return _Miner(self, None)
        work = source_folder(self.method, self.training, self.out)
        return _Miner(self, load_source(self.method, self.training, self.channels, work))


class _Miner:
    """Writes the masks of a shard, and gives what the writer records of each."""

    def __init__(self, job: _Mining, find: Finder[Any, Any] | None) -> None:
        self.job, self.find = job, find

    def __call__(self, shard: Shard[ImageCollection]) -> Iterator[dict[str, Any] | Skipped]:
        job, skips, images, versions = self.job, SkipList(), shard.images, Versions()
        files = MaskFiles(job.out, images, job.made_by)
        if self.find is not None and job.batch.applies(self.find.device):
            yield from self._together(self.find, shard, files)
            return

        def make(i: int, image: NDArray[np.uint8]) -> dict[str, Any]:
            return files.write(i, *find_objects(image, job.method, job.cleaning, self.find, images.rgb), versions)

        shown = job.progress and shard.alone
        made = map_images(images, range(len(images)), make, skips, "masks", shown, versions=versions)
        # One thread for each image, whoever sums up in it: networks, the priors' algebra, the CRF after them.
        with one_thread_each():
            for one in skips.among(made):
                yield one if isinstance(one, Skipped) else one[1]

    def _together(
        self, find: Finder[Any, Any], shard: Shard[ImageCollection], files: MaskFiles
    ) -> Iterator[dict[str, Any] | Skipped]:
        """The same with network and CRF on several images at once."""
        job, skips, images, versions = self.job, SkipList(), shard.images, Versions()
        done: deque[dict[str, Any] | Skipped] = deque()

        def write(one: Mapped) -> dict[str, Any] | Skipped:
            values = one.saliency(images.rgb)
            try:
                return files.write(one.number, values, clean(values, job.cleaning), versions)
            except BadImage as error:
                return Skipped(images.names[one.number], error.reason, error.detail)

        writer: WriteBehind[dict[str, Any] | Skipped] = WriteBehind(done.append)
        stream = map_together(find, images, skips, job.progress and shard.alone, job.batch, versions)
        with one_thread_each(), closing(stream), writer:
            for one in stream:
                writer.call(write, one)
                yield from skips.taken()
                while done:
                    yield done.popleft()
        yield from skips.taken()
        yield from done


def check_method(method: str) -> Method:
    """The method of that name; raises ConfigError with the names that there are."""
    if method == "hierarchy" or method in SOURCES:
        return cast(Method, method)
    try:
        return check_prior(method)
    except ConfigError as error:
        raise ConfigError(f"{error}; other methods are hierarchy, {', '.join(SOURCES)}") from error


def find_objects(
    image: NDArray[np.uint8], method: Method, cleaning: Cleaning, find: Find | None = None, rgb: bool = True
) -> tuple[NDArray[np.float32], Cleaned]:
    """The map and the objects of an image.

    Args:
        image: (H, W, 3) uint8 RGB, or (H, W, C) levels of measured channels.
        method: as for `mine_masks`.
        cleaning: how the map becomes a mask.
        find: what makes the map, for the methods of `selfseg.masks.sources`.
        rgb: whether the image is a photograph; False for levels.

    Returns:
        values: (H, W) float32 in [0, 1]; of "hierarchy" 1 in all objects.
        cleaned: the objects.
    """
    if method == "hierarchy":
        cleaned = clean_objects(hierarchy.proposals(image, rgb=rgb), cleaning)
        return cleaned.mask.astype(np.float32), cleaned
    values = find(image) if find is not None else saliency(image, cast(Prior, method), rgb)
    return values, clean(values, cleaning)


def _labelled(data: LabelledImages, collection: ImageCollection) -> LabelledImages:
    """The labelled images that are in the collection."""
    names = set(collection.names)
    both = [i for i, name in enumerate(data.images.names) if name in names]
    if not both:
        raise DataError(
            f"none of the {len(data)} labelled images of {data.root} ({data.split}) is among the images, which are "
            f"named like {collection.names[0]!r}; give the images of that split: {data.images.root}"
        )
    return data.subset(both)


def _measure(writer: MaskWriter, data: LabelledImages) -> MaskScores:
    made = [i for i, name in enumerate(data.images.names) if name in writer.entries]
    return measure_maps(writer.out / SOFT_FOLDER, data.subset(made))


def _cards(
    writer: MaskWriter, shown: Sequence[Sequence[tuple[int, dict[str, Any]]]]
) -> tuple[list[MaskCard], list[MaskCard]]:
    """Images with a mask, and images whose mask was rejected; their numbers and entries are `shown`."""
    cards: tuple[list[MaskCard], list[MaskCard]] = ([], [])
    painter = painter_of(writer.images)
    masks = MaskFolder(writer.out, min_area=0, max_area=1)  # the areas were judged when they were written
    for rejected, found in enumerate(cards):
        for number, entry in shown[rejected]:
            name = entry["name"]
            try:
                image = writer.images.read(number)
                height, width = image.shape[:2]
                soft = read_image(writer.soft(name), max_pixels=height * width)[..., 0]
                if rejected:
                    ids = (soft >= max(1, 255 * entry["threshold"])).astype(np.int32) - 1
                else:
                    ids = masks.get(name, height, width)
            except BadImage:  # gone or changed since
                continue
            if soft.shape == ids.shape:
                found.append(mask_card(name, painter(image), soft, ids, entry["share"], entry["reason"]))
    return cards


def _spread(entries: Sequence[T], most: int) -> list[T]:
    return [entries[i] for i in spread_indices(len(entries), most)]
