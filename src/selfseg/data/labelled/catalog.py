"""Data by name, and labelled images for evaluation.

Wherever a command or function takes data it takes a path, or `NAME:ROOT`: a data set of
`selfseg.data.labelled.datasets.DATASETS` below ROOT, e.g. `cityscapes27:/data/cityscapes`. Where one split is meant,
`NAME/SPLIT:ROOT` names it. A path that exists is always a path.

As images (`find_images`) a path is a folder or list of them, and NAME:ROOT the images of the data set's first split;
as labelled data (`open_labelled`) a path is a labelled folder, see
`selfseg.data.labelled.datasets.folders`. Nothing of labels is needed to train.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfseg.data.labelled.coloured import ColouredCodes, read_stored
from selfseg.data.labelled.cropping import CroppedImages
from selfseg.data.labelled.cropping import centre_square as centre_square
from selfseg.data.labelled.cropping import cropped_ids as cropped_ids
from selfseg.data.labelled.datasets import DATASETS, DataSet, Files
from selfseg.data.labelled.datasets.base import Codes
from selfseg.data.labelled.datasets.folders import find_in_folder, splits_of
from selfseg.data.labelled.labels import VOID as VOID
from selfseg.data.labelled.labels import ColourMap, LabelMap, UnknownId, read_label_file, stored_size
from selfseg.data.labelled.labels import upright_size as upright_size
from selfseg.data.labelled.layouts.finding import LABEL_FOLDERS, FolderOptions
from selfseg.data.labelled.values import same_proportions
from selfseg.data.reading.decoding import upright
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.listing import list_images
from selfseg.data.reading.packed.shards import is_shards, open_shards
from selfseg.data.reading.sniffing import stem_of
from selfseg.errors import ConfigError, DataError, LabelError
from selfseg.ops.channels import Channels
from selfseg.ops.geometry import sample_ids
from selfseg.storage.remote.urls import as_url
from selfseg.telling import tell

LABEL_NAMES = frozenset(LABEL_FOLDERS)
_NAMED = re.compile(r"([A-Za-z][\w-]+)(?:/([\w-]+))?:(.*)", re.DOTALL)
_OPTIONS = re.compile(
    r"(.+)\?((?:(?:label-suffix|val|labels)=[^&]*)(?:&(?:label-suffix|val|labels)=[^&]*)*)", re.DOTALL
)
_FOLDER = DATASETS["folder"]


@dataclass(frozen=True)
class LabelledImages:
    """The images of one split with their labels.

    Attributes:
        root: ROOT.
        split: e.g. "val".
        images: the split's images; squares already if there is a `crop`.
        labels: one file per image.
        class_names: C names; label values are their indices.
        codes: what the values in the files mean; None: class indices.
        dataset: the name in the catalog; "" for a folder.
        crop: side in px of the square that images and labels are read as, see `cropped`; None = as they are.
        unrotated: whether labels lie on their images' pixels as they are stored, and are turned with them.
    """

    root: Path
    split: str
    images: ImageCollection
    labels: tuple[Path, ...]
    class_names: tuple[str, ...]
    codes: Codes | None = None
    dataset: str = ""
    crop: int | None = None
    unrotated: bool = False

    def __len__(self) -> int:
        return len(self.images)

    def cropped(self, side: int) -> LabelledImages:
        """The split as the field's centre crop: short side to `side` px, then the centre square.

        Images are resized by area average (bilinear where they grow), labels to the same size by their nearest pixel,
        so that whatever reads the split sees pairs of (side, side) that lie on each other. What the crop leaves out is
        not measured.

        Args:
            side: in px; 320 in PiCIE's, SlotCon's and ViCE's tables of COCO-Stuff-27 and Cityscapes-27.

        Raises:
            ConfigError: for a side below 8 px, or a split that is cropped already.
        """
        if side < 8:
            raise ConfigError(f"a crop of {side} px is too small to measure anything in; the field's is 320")
        if self.crop is not None:
            raise ConfigError(f"the split is cropped to {self.crop} px already; crop what open_labelled gives")
        whole = self.images
        images = CroppedImages(whole.root, whole.paths, whole.names, side, channels=whole.channels, parts=whole.parts)
        return replace(self, images=images, crop=side)

    @property
    def name(self) -> str:
        """What results call the data: the catalog's name for it, or the folder's."""
        return self.dataset or self.root.resolve().name

    def subset(self, indices: Sequence[int]) -> LabelledImages:
        """Some of the images, in the given order, with their names in the whole."""
        return replace(self, images=self.images.subset(indices), labels=tuple(self.labels[index] for index in indices))

    def shares_images(self, other: LabelledImages) -> bool:
        """Whether an image is in both, as of VOC's trainval and val."""
        return not set(self.images.paths).isdisjoint(other.images.paths)

    def read_label(self, index: int) -> NDArray[np.uint8]:
        """The label of image `index`.

        Returns:
            (H, W) uint8 in the image's pixels, those of the crop if there is one: class indices below C, 255 = void. A
            label file of the image's proportions but another size is resampled: each pixel has the value at its place.

        Raises:
            LabelError: if the label can't be read, is of another kind than the data set's, has other proportions than
                its image as stored, or holds a value outside of the classes.
        """
        path = self.labels[index]
        turned = self._orientation(index) if self.unrotated else 1
        codes = self.codes or LabelMap.indices(self.class_names)
        try:
            # A wrong size is a better reason than a wrong value.
            if isinstance(codes, ColouredCodes):
                stored = read_stored(path)
                if turned > 1:
                    stored = replace(stored, pixels=upright(stored.pixels, turned))
                size = self._check_size(index, stored.pixels.shape)
                label = codes.apply(stored)
            else:
                values = read_label_file(path, colours=isinstance(codes, ColourMap))
                if turned > 1:
                    values = upright(values, turned)
                size = self._check_size(index, values.shape)
                label = codes.apply(values)
        except UnknownId as error:
            raise LabelError(self._unknown(path, error)) from error
        if label.shape != size:
            box = (0, 0, label.shape[1], label.shape[0])
            label = sample_ids(label.astype(np.int32), box, size).astype(np.uint8)
        return label if self.crop is None else np.asarray(cropped_ids(label, self.crop), np.uint8)

    def stored_size(self, index: int) -> tuple[int, int]:
        """(H, W) of image `index` before any crop, from its header; raises OSError if that can't be read."""
        return ImageCollection.size(self.images, index)

    def measured(self, channels: Channels | None) -> LabelledImages:
        """The same split, its images read as levels of these channels."""
        return replace(self, images=self.images.measured(channels))

    def _check_size(self, index: int, shape: tuple[int, ...]) -> tuple[int, int]:
        """The image's (H, W), which the label becomes; the label's own where the image can't be read."""
        own = shape[0], shape[1]
        try:
            size = self.stored_size(index)
        except OSError:
            return own  # the image is bad: whoever reads it will say so
        if own != size and not same_proportions(own, size):
            turned = ""
            if same_proportions(own, size[::-1]):
                turned = " (the label is not turned as the image is)"
                if self._orientation(index) >= 5:
                    turned = (
                        " (the image is turned by its EXIF orientation, the label is not; if labels were drawn on the "
                        f"pixels as they are stored, give the data as '{self.root}?labels=unrotated')"
                    )
            raise LabelError(
                f"{self.labels[index]} has {own[1]}x{own[0]} pixels but its image {self.images.paths[index]} "
                f"has {size[1]}x{size[0]}{turned}; both must have the same proportions"
            )
        return size

    def _orientation(self, index: int) -> int:
        """Of the image by EXIF, 1 to 8; of what has none, or can't be read, 1."""
        try:
            return stored_size(self.images.file(index))[2]
        except OSError:
            return 1

    def _unknown(self, path: Path, error: UnknownId) -> str:
        value, at = error.value, f"at x = {error.at[0]}, y = {error.at[1]}"
        what = f"the colour {value}" if isinstance(value, tuple) else f"the value {value}"
        if self.dataset:
            return f"{path} holds {what}, which is none of {self.dataset}'s ({at}); is it the right kind of file?"
        classes = self.root / "classes.txt"
        if isinstance(value, tuple):
            return (
                f"{path} holds {what} {at}, which {classes} gives to no class; mend the label, or add the colour there "
                f"(as '255 void {value[0]} {value[1]} {value[2]}' if it counts for nothing)"
            )
        count = len(self.class_names)
        return (
            f"{path} holds {what} but there are {count} classes (0 to {count - 1}, 255 = void), {at}; mend the label "
            f"or add the class to {classes}"
        )


def check_same_classes(fit: LabelledImages, measured: LabelledImages) -> None:
    """Raise ConfigError unless what is learned from has the classes of what is measured, in the same order."""
    if fit.class_names != measured.class_names:
        raise ConfigError(
            f"the splits have other classes: {fit.class_names} and {measured.class_names}; give ROOT/classes.txt"
        )


@dataclass(frozen=True)
class Source:
    """Data on the command line, taken apart.

    Attributes:
        dataset: None for a plain path.
        root: ROOT, or the path.
        split: of NAME/SPLIT:ROOT; "" where it is not said.
        options: what is said of a labelled folder's layout.
    """

    dataset: DataSet | None
    root: Path
    split: str = ""
    options: FolderOptions = field(default_factory=FolderOptions)

    @property
    def plain(self) -> bool:
        """Whether it is a path or a labelled folder, not one of the published data sets."""
        return self.dataset is None or self.dataset is _FOLDER


def with_options(data: Path | str, label_suffix: str | None = None, val: float | None = None) -> Path | str:
    """Labelled data with what is said of its layout, as one text: DATA?label-suffix=_mask&val=20.

    Args:
        data: a labelled folder, or a file of labels.
        label_suffix: what labels' names have behind their images'; None = found out.
        val: percent of the images that are drawn as val.

    Raises:
        ConfigError: if the suffix holds what can't stand there.

    Example:
        >>> with_options("photos", "_mask", 20)
        'photos?label-suffix=_mask&val=20'
    """
    if label_suffix is not None and re.search("[&?=/]", label_suffix):
        raise ConfigError(f"a label's suffix is the end of its name, such as _mask, not {label_suffix!r}")
    said = [] if label_suffix is None else [f"label-suffix={label_suffix}"]
    said += [] if val is None else [f"val={val:g}"]
    return f"{data}?{'&'.join(said)}" if said else data


def parse_source(text: Path | str) -> Source:
    """Take NAME:ROOT, NAME/SPLIT:ROOT or a path apart; of a labelled folder also what `with_options` put behind it.

    Raises:
        ConfigError: if there is no data set of that name (and no such path), or ROOT is missing.

    Example:
        >>> source = parse_source("cityscapes27/train_extra:/data/cityscapes")
        >>> source.dataset.name, source.split, str(source.root)
        ('cityscapes27', 'train_extra', '/data/cityscapes')
        >>> parse_source("photos/summer").dataset is None
        True
    """
    given: Any = text
    if not isinstance(given, str | Path):
        raise ConfigError(
            f"labelled data lies in a folder, a zip or a file: give its path, not a {type(given).__name__}; "
            "docs/data.md says where images and labels lie in a folder of your own"
        )
    said = None if Path(text).exists() else _OPTIONS.fullmatch(str(text))
    if said is not None:
        source = parse_source(said[1])
        if not source.plain:
            raise ConfigError(f"{said[2]} only works for a folder of your own, not for the data set {said[1]}")
        return replace(source, options=_options(said[2]))
    named = _NAMED.fullmatch(str(text))
    if named is None or Path(text).exists():
        return Source(None, Path(os.path.expanduser(text)))
    name, split, root = named.groups()
    if is_shards(text):
        raise ConfigError(f"{text}: tar shards hold images only, no labels; use them for training and clustering")
    if name not in DATASETS:
        alike = [known for known in DATASETS if known.startswith(name.lower()[:4])] or list(DATASETS)
        raise ConfigError(f"there is no data set {name!r} and no folder {text}; data sets are {', '.join(alike)}")
    if not root:
        raise ConfigError(f"{text} does not say where the data is; write {name}:ROOT, with its folder as ROOT")
    return Source(DATASETS[name], Path(os.path.expanduser(root)), split or "")


def _options(text: str) -> FolderOptions:
    values = dict(part.split("=", 1) for part in text.split("&"))
    if values.get("labels", "unrotated") != "unrotated":
        raise ConfigError(f"?labels= must be unrotated or left out, not {values['labels']!r}")
    try:
        return FolderOptions(values.get("label-suffix"), float(values.get("val", 0)), "labels" in values)
    except ValueError as error:
        raise ConfigError(f"val must be a percentage such as 20, not {values['val']!r}") from error


def splits_in(source: Source) -> tuple[str, ...]:
    """The splits of a data set; of a plain folder, those that it has."""
    dataset = source.dataset or _FOLDER
    return tuple(dataset.splits) or splits_of(source.root, source.options)


def find_files(source: Source, split: str) -> Files:
    """The files of a split, whether they exist or not.

    Raises:
        DataError: if there is no such split, or the root is not laid out like the data set.
        EmptyCollection: if there is no image.
    """
    if source.plain:
        return find_in_folder(source.root, split, source.options)
    dataset = source.dataset
    assert dataset is not None
    if dataset.splits and split not in dataset.splits:
        raise DataError(f"{dataset.name} has no split {split!r}; there is {', '.join(dataset.splits)}")
    return dataset.find(source.root, split)


def open_labelled(data: Path | str, split: str, find: Callable[[Source, str], Files] | None = None) -> LabelledImages:
    """Open one split of labelled data.

    Args:
        data: NAME:ROOT, or a labelled folder.
        split: e.g. "train" or "val".
        find: what finds the files; `find_files` if None. `selfseg.exchange.any_labels` has one that knows more forms.

    Returns:
        The pairs. Sizes and values are checked when a label is read.

    Raises:
        ConfigError: if there is no data set of that name, or `data` names a split of its own.
        DataError: if the root is not laid out like the data set, with the file that was looked for; if the split does
            not exist or has no labels.
        EmptyCollection: if the split has no image.
        LabelError: if an image has no label, or classes.txt can't be understood.
    """
    source = parse_source(data)
    if source.split:
        raise ConfigError(f"{data} names a split; here it is an option of its own ({split!r} is asked for)")
    files = (find or find_files)(source, split)
    if files.codes is None:
        name = source.dataset.name if source.dataset else str(source.root)
        raise DataError(f"the split {split!r} of {name} has no labels; take another one, or use it as images")
    missing = missing_files(files.labels)
    if missing:
        raise LabelError(_missing_labels(missing, len(files.images)))
    for guess in files.guesses:
        tell(f"{source.root}, {split}: {guess}")
    return with_labels(source, split, files)


def with_labels(source: Source, split: str, files: Files) -> LabelledImages:
    """The files of a split as labelled images, whether they exist or not."""
    name = source.dataset.name if source.dataset is not None and not source.plain else ""
    classes = files.codes.classes if files.codes is not None else ()
    images = ImageCollection(files.root, files.images)
    return LabelledImages(
        source.root, split, images, files.labels, classes, files.codes, name, unrotated=source.options.unrotated
    )


def find_images(source: Path | str | Sequence[Path | str], cache: Path | None = None) -> ImageCollection:
    """Find images without looking at labels.

    Args:
        source: NAME:ROOT or NAME/SPLIT:ROOT for a data set's images (of its first split, which is the one for
            training; at a URL it is fetched whole); `shards:...` for images in tar files
            (`selfseg.data.reading.packed.shards`); anything else as for
            `selfseg.data.reading.listing.list_images`.
        cache: folder for what is kept of shards.

    Returns:
        The collection. Nothing was opened.

    Raises:
        ConfigError: if there is no data set of that name.
        DataError, EmptyCollection: as `list_images`, and if the root is not laid out like the data set.
    """
    if not isinstance(source, str | Path):
        return list_images(source)
    if is_shards(source):
        return open_shards(source, cache)
    if as_url(source) is not None:
        return list_images(source)
    if "://" in str(source) or as_url(str(source).partition(":")[2]) is not None:  # NAME:URL
        from selfseg.data.reading.remote import pinned

        source = pinned(source)
    parsed = parse_source(source)
    if parsed.dataset is None:
        found = list_images(parsed.root)
        _tell_of_labels(found)
        return found
    splits = splits_in(parsed)
    if not splits:
        raise DataError(f"{parsed.root} holds no SPLIT/images and SPLIT/labels; give the folder of images itself")
    files = find_files(parsed, parsed.split or splits[0])
    return ImageCollection(files.root, files.images)


def _tell_of_labels(images: ImageCollection) -> None:
    """Say that there are files which look like labels: taken for photographs they spoil results, and nothing shows."""
    inner = [name for name in images.names if not LABEL_NAMES.isdisjoint(name.split("/")[:-1])]
    if not inner or len(inner) == len(images):
        return
    beside = {stem_of(name.rpartition("/")[2]) for name in set(images.names).difference(inner)}
    labels = [name for name in inner if stem_of(name.rpartition("/")[2]) in beside]
    if 2 * len(labels) > len(inner):
        tell(
            f"{images.root}: {len(labels)} of the {len(images)} images, such as {labels[0]}, lie in a folder of labels "
            "by its name, and are called like others. They are taken for images, too; if they are labels, give the "
            "folder of the images alone"
        )


def missing_files(paths: Sequence[Path]) -> list[Path]:
    """Those that don't exist, from one listing of each folder: asking for each takes long on network disks."""
    listed: dict[Path, frozenset[str]] = {}
    missing = []
    for path in paths:
        folder = path.parent
        if folder not in listed:
            listed[folder] = frozenset(entry.name for entry in folder.iterdir()) if folder.is_dir() else frozenset()
        if path.name not in listed[folder]:
            missing.append(path)
    return missing


def _missing_labels(paths: Sequence[Path], total: int) -> str:
    folder = paths[0].parent
    others = {path.suffix.lower() for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set()
    others -= {paths[0].suffix}
    kinds, wanted = ", ".join(f"*{suffix}" for suffix in sorted(others)), paths[0].suffix
    note = f"; there are files named {kinds}, but labels are *{wanted}" if others else ""
    return f"{len(paths)} of {total} images have no label, e.g. {', '.join(str(path) for path in paths[:5])}{note}"
