"""One labelled set in fifteen layouts: is each understood as the same, to the pixel?

    python benchmarks/label_layouts.py [--data DATA/camvid] [--count 40] [--keep FOLDER]

Each layout is drawn from the same images and labels, opened as every verb opens labelled data, and held against the
same prediction (the image's mean level, cut into as many steps as there are classes). The confusion matrices over all
splits must be equal.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selfseg.data.labelled.catalog import open_labelled, parse_source, with_options
from selfseg.data.labelled.labels import VOID
from selfseg.data.labelled.legend import Legend
from selfseg.evaluation.measure.confusion import ConfusionMatrix
from selfseg.exchange import NamedMask, write
from selfseg.exchange.any_labels import open_labels, splits_of_labels
from selfseg.ops.regions.outlines import components, polygons, without_holes
from shipped import labelled

RESULTS = Path(__file__).parent / "results"
Label = NDArray[np.uint8]


@dataclass(frozen=True)
class Pair:
    """An image with its label: its split, name without suffix, file, and (H, W) classes, 255 = void."""

    split: str
    name: str
    image: Path
    label: Label


@dataclass(frozen=True)
class Drawing:
    """What a layout is drawn from."""

    pairs: Sequence[Pair]
    legend: Legend


def _image(pair: Pair, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{pair.name}{pair.image.suffix}").write_bytes(pair.image.read_bytes())


def _save(values: NDArray[Any], place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(place)


def _names(drawing: Drawing, root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(drawing.legend.names)))


def plain(drawing: Drawing, root: Path) -> str:
    """SPLIT/images and SPLIT/labels, gray PNG."""
    _names(drawing, root)
    for pair in drawing.pairs:
        _image(pair, root / pair.split / "images")
        _save(pair.label, root / pair.split / "labels" / f"{pair.name}.png")
    return str(root)


def images_by_split(drawing: Drawing, root: Path) -> str:
    """images/SPLIT and annotations/SPLIT, three equal channels in BMP."""
    _names(drawing, root)
    for pair in drawing.pairs:
        _image(pair, root / "images" / f"{pair.split}2017")
        _save(pair.label[..., None].repeat(3, 2), root / "annotations" / f"{pair.split}2017" / f"{pair.name}.bmp")
    return str(root)


def undivided(drawing: Drawing, root: Path) -> str:
    """Both images and masks without splits, names with _mask, palette PNG; --val 20."""
    _names(drawing, root)
    for pair in drawing.pairs:
        _image(pair, root / "images")
        picture = Image.fromarray(pair.label, "P")
        picture.putpalette([7, 8, 9] * 256)
        (root / "masks").mkdir(exist_ok=True)
        picture.save(root / "masks" / f"{pair.name}_mask.png")
    return with_options(root, val=20)


def together(drawing: Drawing, root: Path) -> str:
    """Images and labels in one folder, names with _gtFine_labelIds, 16-bit TIFF."""
    _names(drawing, root)
    for pair in drawing.pairs:
        _image(pair, root)
        _save(pair.label.astype(np.uint16), root / f"{pair.name}_gtFine_labelIds.tif")
    return str(root)


def test_alone(drawing: Drawing, root: Path) -> str:
    """Only test/images and test/gt, NPY."""
    _names(drawing, root)
    for pair in drawing.pairs:
        _image(pair, root / "test" / "images")
        (root / "test" / "gt").mkdir(exist_ok=True)
        np.save(root / "test" / "gt" / f"{pair.name}.npy", pair.label.astype(np.int64))
    return str(root)


def coloured(drawing: Drawing, root: Path) -> str:
    """SPLIT/images and SPLIT/labels, in the colours of classes.txt."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(drawing.legend.classes)] = [one.colour for one in drawing.legend.classes]
    table[VOID] = (1, 2, 3)
    for pair in drawing.pairs:
        _image(pair, root / pair.split / "images")
        _save(table[pair.label], root / pair.split / "labels" / f"{pair.name}.png")
    lines = [f"{i} {one.name} {' '.join(map(str, one.colour))}" for i, one in enumerate(drawing.legend.classes)]
    (root / "classes.txt").write_text("\n".join([*lines, "255 void 1 2 3"]) + "\n")
    return str(root)


def voc(drawing: Drawing, root: Path) -> str:
    """VOC's: JPEGImages, SegmentationClass and lists."""
    masks = [NamedMask(f"{p.name}{p.image.suffix}", p.label, p.image) for p in drawing.pairs]
    write("palette", masks, drawing.legend, root, images=True)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True, exist_ok=True)
    for old in lists.iterdir():
        old.unlink()
    for split in dict.fromkeys(pair.split for pair in drawing.pairs):
        (lists / f"{split}.txt").write_text("".join(f"{p.name}\n" for p in drawing.pairs if p.split == split))
    return str(root)


def doubled(drawing: Drawing, root: Path) -> str:
    """Labels of twice the image's resolution."""
    _names(drawing, root)
    for pair in drawing.pairs:
        _image(pair, root / "images" / pair.split)
        _save(pair.label.repeat(2, 0).repeat(2, 1), root / "labels" / pair.split / f"{pair.name}.png")
    return str(root)


def zipped(drawing: Drawing, root: Path) -> str:
    """A zip of SPLIT/images and SPLIT/masks, with valid for val."""
    archive = root.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("set/classes.txt", "".join(f"{name}\n" for name in drawing.legend.names))
        for pair in drawing.pairs:
            split = "valid" if pair.split == "val" else pair.split
            opened.write(pair.image, f"set/{split}/images/{pair.name}{pair.image.suffix}")
            _save(pair.label, root / "label.png")
            opened.write(root / "label.png", f"set/{split}/masks/{pair.name}.png")
    return str(archive)


def _written(kind: str) -> Callable[[Drawing, Path], str]:
    def draw(drawing: Drawing, root: Path) -> str:
        masks = [NamedMask(f"{p.split}/{p.name}{p.image.suffix}", p.label, p.image) for p in drawing.pairs]
        write(kind, masks, drawing.legend, root)
        for pair in drawing.pairs:
            _image(pair, root / "images" / pair.split)
        return str(root)

    draw.__doc__ = f"{kind}, with images/SPLIT."
    return draw


def labelme(drawing: Drawing, root: Path) -> str:
    """LabelMe's JSON beside each image, polygons; labels.txt."""
    names = drawing.legend.names
    for pair in drawing.pairs:
        _image(pair, root / pair.split)
        ids, owner = components(pair.label, VOID)
        shapes = [
            {"label": names[owner[i]], "shape_type": "polygon", "points": without_holes(one).tolist()}
            for i, one in enumerate(polygons(ids), start=1)
        ]
        height, width = pair.label.shape
        value = {"shapes": shapes, "imagePath": f"{pair.name}{pair.image.suffix}", "imageData": None}
        text = json.dumps(value | {"imageHeight": height, "imageWidth": width})
        (root / pair.split / f"{pair.name}.json").write_text(text)
    (root / "labels.txt").write_text("__ignore__\n" + "".join(f"{name}\n" for name in names))
    return str(root)


LAYOUTS: dict[str, Callable[[Drawing, Path], str]] = {
    "plain": plain,
    "images-by-split": images_by_split,
    "undivided": undivided,
    "together": together,
    "test-alone": test_alone,
    "coloured": coloured,
    "voc": voc,
    "doubled": doubled,
    "zipped": zipped,
    "labelme": labelme,
    **{kind: _written(kind) for kind in ("coco", "cvat", "label-studio", "yolo", "datumaro")},
}
"""Each draws a folder, and returns the word for it."""


def matrix_of(word: str, classes: int) -> tuple[ConfusionMatrix, tuple[str, ...]]:
    """The confusion matrix over all splits of labelled data, and their names."""
    matrix, splits = ConfusionMatrix(classes), splits_of_labels(parse_source(word))
    for split in splits:
        data = open_labels(word, split)
        for i in range(len(data)):
            mean = data.images.read(i).mean(2)
            matrix.add(data.read_label(i), (mean * classes / 256).astype(np.int64))
    return matrix, splits


def pairs_of(data: Path, count: int) -> tuple[list[Pair], tuple[str, ...]]:
    """Some pairs of the train and val split of a labelled folder, and the names of its classes."""
    opened = [open_labelled(data, split) for split in ("train", "val")]
    pairs = [
        Pair(one.split, one.images.names[i], one.images.paths[i], one.read_label(i))
        for one in opened
        for i in np.linspace(0, len(one) - 1, min(count, len(one))).astype(int).tolist()
    ]
    return pairs, opened[0].class_names


def compare(drawing: Drawing, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each layout; "same" says whether it gives the first one's matrix."""
    first: ConfusionMatrix | None = None
    for name, draw in LAYOUTS.items():
        (folder / name).mkdir(parents=True)
        word = draw(drawing, folder / name)
        start = time.perf_counter()
        matrix, splits = matrix_of(word, len(drawing.legend.classes))
        first = first or matrix
        yield {
            "layout": name,
            "splits": list(splits),
            "pixels": int(matrix.counts.sum()),
            "void": matrix.void,
            "miou": matrix.metrics.miou,
            "seconds": time.perf_counter() - start,
            "same": bool((matrix.counts == first.counts).all() and matrix.void == first.void),
        }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a labelled folder with train and val; drawn scenes if left out")
    parser.add_argument("--count", type=int, default=40, help="images of each split")
    parser.add_argument("--keep", type=Path, help="a new folder for the layouts; a temporary one if left out")
    arguments = parser.parse_args(argv)
    data = arguments.data or labelled()
    pairs, names = pairs_of(data, arguments.count)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        for row in compare(Drawing(pairs, Legend.of(names)), folder):
            rows.append(row)
            verdict = "same" if row["same"] else "DIFFERS"
            sys.stdout.write(
                f"{row['layout']:16} {'/'.join(row['splits']):10} {row['pixels']:11,} pixels, void {row['void']:9,}, "
                f"mIoU {row['miou']:.6f}, {row['seconds']:6.1f} s  {verdict}\n"
            )
            sys.stdout.flush()
    RESULTS.mkdir(exist_ok=True)
    record = {"data": data.name, "images": len(pairs), "rows": rows}
    (RESULTS / "label_layouts.json").write_text(json.dumps(record, indent=2) + "\n")
    return 0 if all(row["same"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
