"""How a folder of one's own images and labels is laid out, found out from what lies there.

| layout | splits |
|---|---|
| `SPLIT/images`, `SPLIT/labels` | the folders |
| `images/SPLIT`, `labels/SPLIT` | the folders: train, val, valid, validation, test, ... |
| `images`, `labels` | drawn, or "all" |
| `JPEGImages`, `SegmentationClass` (VOC) | the lists in ImageSets/Segmentation; without them drawn, or "all" |
| images and labels in one folder, labels with a suffix of their own | drawn, or "all" |
| the same in `SPLIT` | the folders |

The folder of labels may also be called annotations, masks, gt, label, mask or annotation. A label is called like its
image, with a suffix where all labels have the same (`a_mask.png` of `a.jpg`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfseg.data.labelled.values import LOSSLESS
from selfseg.data.reading.listing import list_folder, list_images
from selfseg.data.reading.sniffing import stem_of
from selfseg.errors import ConfigError, DataError, EmptyCollection, LabelError
from selfseg.storage.regular import read_text

LABEL_FOLDERS = ("labels", "annotations", "masks", "gt", "label", "mask", "annotation")
"""What the folder of labels may be called; the first that is there is taken."""

ALL = "all"
"""The split of a folder that isn't divided."""

_ALIKE = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
    "trainval": ("trainval",),
}
_BEFORE_SUFFIX = "_-. "
_TEXTS = (".json", ".txt", ".xml", ".yaml", ".yml", ".geojson", ".cache", ".md")
_VOC = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")


@dataclass(frozen=True)
class FolderOptions:
    """What a person may say of a folder.

    Attributes:
        label_suffix: what labels' names have behind their images', before the file type: "_mask"; None = found out.
        val: percent of the images that are drawn as val where the folder isn't divided; 0 = none.
        unrotated: whether labels were drawn on the pixels as they are stored, and have to be turned with their images
            by the EXIF orientation.

    Raises:
        ConfigError: if `val` is no share, or the suffix holds a "/".
    """

    label_suffix: str | None = None
    val: float = 0.0
    unrotated: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.val < 100:
            raise ConfigError(
                f"--val is the percentage of the images to measure with, from 0 to below 100, not {self.val:g}"
            )
        if self.label_suffix is not None and "/" in self.label_suffix:
            raise ConfigError(f"a label's suffix is the end of its name, such as _mask, not {self.label_suffix!r}")


@dataclass(frozen=True)
class Pairs:
    """The images of a split, each with its label.

    Attributes:
        root: the folder that names of images are relative to.
        images: their files.
        labels: one each, whether it is there or not.
        folder: the folder of the labels.
        suffix: what their names have behind the images'.
        strip: what the images' names have that the labels' lack.
    """

    root: Path
    images: tuple[Path, ...]
    labels: tuple[Path, ...]
    folder: Path
    suffix: str = ""
    strip: str = ""

    def sentence(self, base: Path) -> str:
        """Where they lie and how they are named, below a folder."""
        there = sum(label.is_file() for label in self.labels)
        images, labels = counted(len(self.images), "image"), counted(there, "label")
        text = f"{images} in {_below(self.root, base)}, {labels} in {_below(self.folder, base)}"
        if self.strip:
            return f"{text}, where names end with {self.suffix} instead of {self.strip}"
        return f"{text}, whose names end with {self.suffix}" if self.suffix else text


@dataclass(frozen=True)
class _Part:
    images: Path
    labels: Path
    stems: tuple[str, ...] | None = None  # the names that a list has
    drawn: bool = False  # whether the split is a share of the images


@dataclass(frozen=True)
class Layout:
    """A folder that was understood.

    Attributes:
        root: the folder.
        kind: the layout in words.
        splits: their names: train, val and test first.
        options: what was said of it.
    """

    root: Path
    kind: str
    splits: tuple[str, ...]
    options: FolderOptions
    parts: Mapping[str, _Part]

    def split(self, wanted: str) -> str | None:
        """The name that a split has here: "val" may be called validation; None if there is none."""
        return match_split(wanted, self.splits)

    def pairs(self, split: str) -> Pairs:
        """The images and labels of a split.

        Raises:
            DataError: if there is no such split.
            EmptyCollection: if it has no image.
            LabelError: if several suffixes fit.
        """
        name = self.split(split)
        if name is None:
            raise DataError(no_split(self.root, self.kind, self.splits, split))
        part = self.parts[name]
        images = (list_folder if part.images == part.labels else list_images)(part.images)
        paths = images.paths
        if part.stems is not None:
            wanted = set(part.stems)
            paths = tuple(path for path in paths if _stem(path, images.root) in wanted)
            if not paths:
                raise EmptyCollection(
                    f"none of the {len(wanted)} names of the split {name!r} is an image in {part.images}"
                )
        pairs = pair(images.root, paths, part.labels, self.options.label_suffix)
        if not part.drawn:
            return pairs
        val = drawn_as_val([path.relative_to(images.root).as_posix() for path in pairs.images], self.options.val / 100)
        kept = [i for i, is_val in enumerate(val) if is_val == (name == "val")]
        if not kept:
            raise EmptyCollection(f"no image of {part.images} is drawn as {name}, of {len(val)} in all")
        return Pairs(
            pairs.root,
            tuple(pairs.images[i] for i in kept),
            tuple(pairs.labels[i] for i in kept),
            pairs.folder,
            pairs.suffix,
            pairs.strip,
        )


def understand(root: Path, options: FolderOptions | None = None) -> Layout | None:
    """The layout of a folder; None if it is none of those at the top of this module. No file is opened."""
    options = options or FolderOptions()
    if not root.is_dir():
        return None
    children = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    parts = {
        child.name: _Part(child / "images", labels)
        for child in children
        if (child / "images").is_dir() and (labels := _labels_in(child)) is not None
    }
    if parts:
        return _layout(root, f"SPLIT/images and SPLIT/{next(iter(parts.values())).labels.name}", parts, options)
    labels = _labels_in(root)
    if (root / "images").is_dir() and labels is not None:
        names = sorted(entry.name for entry in (root / "images").iterdir() if not entry.name.startswith("."))
        divided = [name for name in names if _is_split(name) and (root / "images" / name).is_dir()]
        if divided and divided == names:
            both = [name for name in divided if (labels / name).is_dir()]
            if both:
                parts = {name: _Part(root / "images" / name, labels / name) for name in both}
                return _layout(root, f"images/SPLIT and {labels.name}/SPLIT", parts, options)
        return _undivided(root, f"images and {labels.name}", root / "images", labels, options)
    images, labels, lists = (root / name for name in _VOC)
    if images.is_dir() and labels.is_dir():
        files = sorted(lists.glob("*.txt")) if lists.is_dir() else []
        if not files:
            return _undivided(root, "JPEGImages and SegmentationClass, without lists", images, labels, options)
        parts = {file.stem: _Part(images, labels, _listed(file)) for file in files}
        return _layout(root, "JPEGImages, SegmentationClass and lists of splits, as VOC", parts, options)
    divided_here = {child.name: _Part(child, child) for child in children if _is_split(child.name)}
    parts = {name: part for name, part in divided_here.items() if _lie_together(part.images, options)}
    if parts:
        return _layout(root, "SPLIT, with images and labels together", parts, options)
    if _lie_together(root, options):
        return _undivided(root, "images and labels together in one folder", root, root, options)
    return None


def pair(root: Path, images: Sequence[Path], labels: Path, suffix: str | None = None) -> Pairs:
    """The label of each image, by its name.

    Args:
        root: the folder that the images' names are relative to.
        images: their files; those that are labels are left out where `labels` is `root`.
        labels: the folder of labels.
        suffix: what the labels' names have behind the images'; None = found out: none if every image has a label of its
            own name, else the only one that fits all images.

    Raises:
        LabelError: if several suffixes fit all images.
        EmptyCollection: if all images are labels.
    """
    by_stem = _label_files(labels)
    strip = ""
    if labels == root:
        if suffix is None:
            suffix = _suffix_together(root, [_stem(path, root) for path in images], by_stem)
        if suffix:
            images = [path for path in images if not _stem(path, root).endswith(suffix)]
        else:
            images = [path for path in images if path not in set(by_stem.values())]
        if not images:
            raise EmptyCollection(f"every image in {root} has a name that ends with {suffix!r}, as a label")
    stems = [_stem(path, root) for path in images]
    if suffix is None:
        strip, suffix = _find_suffix(stems, by_stem, labels)
    bare = [stem.removesuffix(strip) for stem in stems]
    found = tuple(by_stem.get(f"{stem}{suffix}", labels / f"{stem}{suffix}.png") for stem in bare)
    return Pairs(root, tuple(images), found, labels, suffix, strip)


def drawn_as_val(names: Sequence[str], share: float) -> list[bool]:
    """Which images of a folder without splits are val: a matter of each name and the share; at least one is.

    Example:
        >>> drawn_as_val(["a.jpg", "b.jpg", "c.jpg", "d.jpg"], 0.2)
        [False, False, True, False]
    """
    keys = [key_of(name) for name in names]
    drawn = [key < share for key in keys]
    if share > 0 and len(names) > 1 and len(set(drawn)) == 1:  # so that neither split is empty
        drawn[keys.index(min(keys) if not drawn[0] else max(keys))] ^= True
    return drawn


def key_of(name: str) -> float:
    """A number in [0, 1) that only the name decides."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=6).digest()) / (1 << 48)


def match_split(wanted: str, splits: Sequence[str]) -> str | None:
    """The one of some splits that is meant: "val" may be called validation; None if none or several are."""
    if wanted in splits:
        return wanted
    found = [split for split in splits if _usual(split) is not None and _usual(split) == _usual(wanted)]
    return found[0] if len(found) == 1 else None


def counted(number: int, what: str) -> str:
    """A number of things: "1 image", "2 images"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def no_split(root: Path, kind: str, splits: Sequence[str], wanted: str) -> str:
    """What to say of a split that isn't there."""
    if tuple(splits) == (ALL,):
        return (
            f"{root} is not divided into splits ({kind}), so there is no split {wanted!r}; --val 20 draws 20 % of the "
            f"images as val, and the rest is train; {ALL!r} is the split of all images"
        )
    return f"no split {wanted!r} in {root}; there is {', '.join(splits)} ({kind})"


def split_in_words(words: Sequence[str]) -> str | None:
    """The split that a path's folders or a name's words tell, as train, val or test; None if none or several do.

    Example:
        >>> split_in_words(["photos", "val2017"]), split_in_words(["instances", "valid"]), split_in_words(["photos"])
        ('val', 'val', None)
    """
    found = {usual for word in words if (usual := _usual(word)) is not None}
    return found.pop() if len(found) == 1 else None


def sort_splits(names: Iterable[str]) -> tuple[str, ...]:
    """Splits in the order in which they are told: train, val, test, then the others by name."""
    order = list(_ALIKE)
    return tuple(sorted(names, key=lambda name: (order.index(_usual(name) or order[-1]), name)))


def _usual(name: str) -> str | None:
    """What a split is usually called; a year behind the name means nothing."""
    bare = name.lower().rstrip("0123456789")
    return next((usual for usual, names in _ALIKE.items() if bare in names), None)


def _is_split(name: str) -> bool:
    return _usual(name) is not None


def _layout(root: Path, kind: str, parts: Mapping[str, _Part], options: FolderOptions) -> Layout:
    return Layout(root, kind, sort_splits(parts), options, parts)


def _undivided(root: Path, kind: str, images: Path, labels: Path, options: FolderOptions) -> Layout:
    part = _Part(images, labels, drawn=options.val > 0)
    parts = {"train": part, "val": part} if options.val > 0 else {ALL: part}
    return Layout(root, kind, tuple(parts), options, parts)


def _labels_in(folder: Path) -> Path | None:
    """The folder of labels; None if there is none, or it holds only texts, which other tools' labels are."""
    there = [folder / name for name in LABEL_FOLDERS if (folder / name).is_dir()]
    return next((labels for labels in there if not _only_texts(labels)), None)


def _only_texts(folder: Path) -> bool:
    """Whether every file in a folder, of which there is one at least, is a JSON, XML, YAML or other text."""
    found = False
    for _, _, files in os.walk(folder):
        for name in files:
            if os.path.splitext(name)[1].lower() not in _TEXTS and not name.startswith("."):
                return False
            found = True
    return found


def _listed(file: Path) -> tuple[str, ...]:
    try:
        lines = read_text(file).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"can't read the list {file}: {error}") from error
    return tuple(line.split()[0] for line in lines if line.strip())


def _lie_together(folder: Path, options: FolderOptions) -> bool:
    """Whether every image of a folder is a label or has one."""
    try:
        images = list_folder(folder)
    except EmptyCollection:
        return False
    stems = [_stem(path, folder) for path in images.paths]
    by_stem = _label_files(folder)
    suffix = options.label_suffix
    if suffix:
        return any(stem.endswith(suffix) for stem in by_stem)
    try:
        found = _suffix_together(folder, stems, by_stem)
    except LabelError:
        return True  # whoever opens it is asked which
    return found is not None


def _suffix_together(folder: Path, stems: Sequence[str], labels: Mapping[str, Path]) -> str | None:
    """The suffix by which the files of one folder are images and their labels; None if there is none."""
    if len(set(stems)) < len(stems):
        pictures = [stem for stem in set(stems) if stems.count(stem) == 2 and stem in labels]
        return "" if 2 * len(pictures) == len(stems) else None
    every, fits = set(stems), []
    shortest = min(stems, key=len)
    for suffix in sorted({s[len(shortest) :] for s in every if s.startswith(shortest) and len(s) > len(shortest)}):
        marked = {stem for stem in every if stem.endswith(suffix)}
        if suffix[0] in _BEFORE_SUFFIX and {f"{stem}{suffix}" for stem in every - marked} == marked <= set(labels):
            fits.append(suffix)
    if len(fits) > 1:
        raise LabelError(_several(fits, folder))
    return fits[0] if fits else None


def _find_suffix(stems: Sequence[str], labels: Collection[str], folder: Path) -> tuple[str, str]:
    """(what is taken off the images' names, what is put on): nothing where all fit so, or nothing fits."""
    if all(stem in labels for stem in stems):
        return "", ""
    tail = _common_tail(stems) if len(stems) > 1 else ""
    marks = [i for i in reversed(range(len(tail))) if tail[i] in "_-"]
    for strip in ("", *(tail[i:] for i in marks)):
        bare = [stem.removesuffix(strip) for stem in stems]
        if strip and all(stem in labels for stem in bare):
            return strip, ""
        candidates = {name[len(bare[0]) :] for name in labels if name.startswith(bare[0]) and name != bare[0]}
        fits = sorted(s for s in candidates if "/" not in s and all(f"{stem}{s}" in labels for stem in bare))
        if len(fits) > 1:
            raise LabelError(_several(fits, folder))
        if fits:
            return strip, fits[0]
    return "", ""


def _common_tail(stems: Sequence[str]) -> str:
    low, high = min(stem[::-1] for stem in stems), max(stem[::-1] for stem in stems)  # what these share, all do
    same = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return low[:same][::-1]


def _several(suffixes: Sequence[str], folder: Path) -> str:
    return (
        f"the labels in {folder} may be those whose names end with {' or '.join(suffixes)}; say which, e.g. "
        f"--label-suffix {suffixes[0]}"
    )


def _label_files(folder: Path) -> dict[str, Path]:
    """Files that labels may be, by their path below the folder without suffix; of equal names the first format's."""
    found: dict[str, Path] = {}
    order = {suffix: i for i, suffix in enumerate(LOSSLESS)}
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if place.count(os.sep) - str(folder).count(os.sep) > 64:  # a circle of links
            folders.clear()
        for name in sorted(files):
            suffix = os.path.splitext(name)[1].lower()
            if suffix in order and not name.startswith("."):
                path = Path(place, name)
                stem = _stem(path, folder)
                if stem not in found or order[suffix] < order[found[stem].suffix.lower()]:
                    found[stem] = path
    return found


def _stem(path: Path, root: Path) -> str:
    return stem_of(path.relative_to(root).as_posix())


def _below(folder: Path, base: Path) -> str:
    inside = folder.relative_to(base).as_posix() if folder.is_relative_to(base) else str(folder)
    return "the folder itself" if inside == "." else f"{inside}/"
