"""Labelled folders, for evaluation only.

    ROOT/classes.txt             a class per line, as "INDEX NAME" or just the name; 255 is void
    ROOT/SPLIT/images/NAME.jpg   any image that `selfseg.data.images` reads
    ROOT/SPLIT/labels/NAME.png   a PNG of class indices (gray or palette), of the image's size; 255 is void

Pairs are found by NAME, subfolders included. Nothing here is needed to train.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selfseg.data.decoding import quiet
from selfseg.data.images import ImageCollection, list_images
from selfseg.errors import ConfigError, DataError, LabelError

VOID = 255
"""The label of pixels that count for nothing."""


@dataclass(frozen=True)
class LabelledImages:
    """The images of one split with their labels.

    Attributes:
        root: ROOT.
        split: e.g. "val".
        images: the split's images.
        labels: one file per image.
        class_names: C names; label values are their indices.
    """

    root: Path
    split: str
    images: ImageCollection
    labels: tuple[Path, ...]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Sequence[int]) -> LabelledImages:
        """Some of the images, in the given order, with their names in the whole."""
        images = ImageCollection(
            self.images.root,
            tuple(self.images.paths[index] for index in indices),
            tuple(self.images.names[index] for index in indices),
        )
        return replace(self, images=images, labels=tuple(self.labels[index] for index in indices))

    def read_label(self, index: int) -> NDArray[np.uint8]:
        """The label of image `index`.

        Returns:
            (H, W) uint8 in the image's pixels: class indices below C, 255 = void.

        Raises:
            LabelError: if the label can't be read, is no index image, has another size than its image as stored, or
                holds a value outside of the classes.
        """
        path = self.labels[index]
        label = _read_indices(path)
        try:
            height, width = upright_size(self.images.paths[index])
        except OSError:
            pass  # the image is bad: whoever reads it will say so
        else:
            if label.shape != (height, width):
                raise LabelError(
                    f"{path} has {label.shape[1]}x{label.shape[0]} pixels but its image {self.images.paths[index]} has "
                    f"{width}x{height}; both must have the same size"
                )
        largest = _largest(label)
        if largest >= len(self.class_names):
            where = self.root / "classes.txt"
            raise LabelError(
                f"{path} holds the value {largest} but there are {len(self.class_names)} classes "
                f"(0 to {len(self.class_names) - 1}, 255 = void); mend the label or add the class to {where}"
            )
        return label


def check_same_classes(fit: LabelledImages, measured: LabelledImages) -> None:
    """Raise ConfigError unless what is learned from has the classes of what is measured, in the same order."""
    if fit.class_names != measured.class_names:
        raise ConfigError(
            f"the splits have other classes: {fit.class_names} and {measured.class_names}; give ROOT/classes.txt"
        )


def upright_size(path: Path) -> tuple[int, int]:
    """(H, W) of an image file as `read_image` gives it, from its header; raises OSError if that can't be read."""
    with quiet(), Image.open(path) as image:
        width, height = image.size
        return (width, height) if image.getexif().get(0x0112, 1) in (5, 6, 7, 8) else (height, width)


def open_labelled(root: Path | str, split: str) -> LabelledImages:
    """Open one split of a labelled folder.

    Args:
        root: ROOT of the layout at the top of this module.
        split: the split's folder, e.g. "train" or "val".

    Returns:
        The pairs. Labels without an image are passed over; sizes and values are checked when a label is read.

    Raises:
        DataError: if the folder or the split is missing, with what there is.
        EmptyCollection: if the split has no image.
        LabelError: if an image has no label, or classes.txt can't be understood.
    """
    root = Path(root).expanduser()
    for folder in (root, root / split, root / split / "images", root / split / "labels"):
        if not folder.is_dir():
            raise DataError(_missing_folder(root, split, folder))
    images = list_images(root / split / "images")
    found = {
        os.path.splitext(path.relative_to(root / split / "labels").as_posix())[0]: path
        for path in sorted((root / split / "labels").rglob("*.png"))
    }
    stems = [os.path.splitext(path.relative_to(images.root).as_posix())[0] for path in images.paths]
    without = [stem for stem in stems if stem not in found]
    if without:
        raise LabelError(_missing_labels(root / split / "labels", without, len(images)))
    labels = tuple(found[stem] for stem in stems)
    return LabelledImages(root, split, images, labels, _class_names(root))


def _missing_folder(root: Path, split: str, missing: Path) -> str:
    layout = f"a labelled folder holds {root}/SPLIT/images and {root}/SPLIT/labels"
    if not root.exists():
        return f"{root} does not exist; {layout}"
    if not root.is_dir():
        return f"{root} is a file; {layout}"
    parent = missing.parent
    there = sorted(entry.name for entry in parent.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    what = f"split {split!r}" if missing == root / split else f"folder {missing.name!r}"
    return f"no {what} in {parent}; there is {', '.join(there) or 'no folder'}; {layout}"


def _missing_labels(folder: Path, stems: Sequence[str], total: int) -> str:
    others = {path.suffix.lower() for path in folder.iterdir() if path.is_file()} - {".png"}
    return (
        f"{len(stems)} of {total} images have no label, e.g. "
        + ", ".join(str(folder / f"{stem}.png") for stem in stems[:5])
        + (f" (there are files named *{', *'.join(sorted(others))}; labels must be .png)" if others else "")
    )


def _class_names(root: Path) -> tuple[str, ...]:
    path = root / "classes.txt"
    if not path.exists():
        # Over all splits, so that a class that is missing from one of them keeps the splits comparable.
        largest = max((_largest(_read_indices(label)) for label in sorted(root.glob("*/labels/**/*.png"))), default=-1)
        return tuple(f"class {index}" for index in range(max(largest, 0) + 1))
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise LabelError(f"can't read {path}: {error}") from error
    lines = [line for line in lines if line and not line.startswith("#")]
    numbered = [re.fullmatch(r"(\d+)[\s:,]+(.+)", line) for line in lines]
    if not lines:
        raise LabelError(f"{path} names no class; write one per line, e.g. '0 sky'")
    if not all(numbered):
        return tuple(lines)
    by_index: dict[int, str] = {}
    for match in numbered:
        assert match is not None
        index = int(match[1])
        if index in by_index:
            raise LabelError(f"{path} names class {index} twice: {by_index[index]!r} and {match[2]!r}")
        by_index[index] = match[2]
    by_index.pop(VOID, None)
    gaps = sorted(set(range(max(by_index, default=-1) + 1)) - set(by_index))
    if gaps or not by_index:
        raise LabelError(
            f"{path} does not name class {gaps[0] if gaps else 0}; classes are numbered from 0 without gaps"
        )
    return tuple(by_index[index] for index in range(len(by_index)))


def _largest(label: NDArray[np.uint8]) -> int:
    """The largest value but void; -1 where all is void."""
    counts = np.flatnonzero(np.bincount(label.ravel(), minlength=VOID + 1)[:VOID])
    return int(counts[-1]) if counts.size else -1


def _read_indices(path: Path) -> NDArray[np.uint8]:
    """The (H, W) uint8 values of an index PNG, as stored."""
    try:
        with quiet(), open(path, "rb") as stream:
            head = stream.read(26)
            stream.seek(0)
            with Image.open(stream) as image:
                if image.format != "PNG":
                    raise LabelError(f"{path} is a {image.format} file; labels must be PNG, which keeps indices exact")
                if image.mode not in ("L", "P", "1") and not image.mode.startswith("I"):
                    raise LabelError(
                        f"{path} holds colours (mode {image.mode}), not class indices; convert each colour to its "
                        "index and save a gray or palette PNG"
                    )
                mode, values = image.mode, np.array(image)
    except LabelError:
        raise
    except Exception as error:  # Pillow's parsers raise whatever broken bytes make them raise
        raise LabelError(f"can't read the label {path}: {error}") from error
    if mode == "L":  # Pillow spreads gray of 2 and 4 bits over 0..255
        values = values // {2: 85, 4: 17}.get(head[24], 1)
    if values.max(initial=0) > VOID:
        raise LabelError(f"{path} holds the value {values.max()}; classes are 0 to 254 and 255 is void")
    return values.astype(np.uint8, copy=False)
