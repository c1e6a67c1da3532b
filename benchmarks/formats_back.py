"""Whether `selfseg.exchange.read` reads what other tools' own libraries write: pixel for pixel, or IoU for polygons.

In an environment of its own (see benchmarks/formats.py), where OUT is filled:

    THEIRS/bin/python benchmarks/formats_back.py write OUT

In the project's environment, where it is read and held against OUT/truth:

    python benchmarks/formats_back.py read OUT

Datumaro writes masks as its own JSON, COCO, PASCAL VOC (which CVAT's "Segmentation mask 1.1" is) and CVAT's XML, and
polygons as its own JSON, COCO and CVAT's XML (its YOLO holds boxes only); Label Studio's SDK packs brush masks.
Polygons have whole corners, so that the mask that belongs to them is known.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NAMES = ("street", "sky blue", "tree")
SIZE = (61, 83)
COUNT = 6


def masks() -> dict[str, NDArray[Any]]:
    """Blobs of three classes, a third of the pixels void."""
    random = np.random.default_rng(0)
    found = {}
    for i in range(COUNT):
        coarse = random.integers(0, 4, (9, 12)).repeat(7, 0).repeat(7, 1)[: SIZE[0], : SIZE[1]]
        noisy = np.where(random.random(SIZE) < 0.02, random.integers(0, 4, SIZE), coarse)
        found[f"image {i}"] = np.where(noisy == 3, 255, noisy).astype(np.uint8)
    return found


def boxes() -> dict[str, list[tuple[int, list[int]]]]:
    """(class, polygon) of L-shapes that don't overlap."""
    random = np.random.default_rng(1)
    found = {}
    for i in range(COUNT):
        shapes = []
        for column in range(3):
            x, y = 2 + 27 * column, int(random.integers(2, 12))
            w, h = int(random.integers(10, 25)), int(random.integers(14, 40))
            corners = [x, y, x + w, y, x + w, y + h // 2, x + w // 2, y + h // 2, x + w // 2, y + h, x, y + h]
            shapes.append((column, corners))
        found[f"image {i}"] = shapes
    return found


def drawn(shapes: list[tuple[int, list[int]]]) -> NDArray[Any]:
    mask = np.full(SIZE, 255, np.uint8)
    for value, (x0, y0, x1, _, _, y1, x2, _, _, y2, *_) in shapes:
        mask[y0:y1, x0:x1] = value
        mask[y0:y2, x0:x2] = value
    return mask


def write(out: Path) -> None:
    import datumaro as dm
    from label_studio_sdk.converter.brush import encode_rle

    truth = {"masks": masks(), "polygons": {name: drawn(shapes) for name, shapes in boxes().items()}}
    for kind, named in truth.items():
        for name, mask in named.items():
            for folder in ("truth", "photos"):
                (out / kind / folder).mkdir(parents=True, exist_ok=True)
            np.save(out / kind / "truth" / f"{name}.npy", mask)
            Image.fromarray(np.repeat(mask[..., None] // 2, 3, axis=2)).save(out / kind / "photos" / f"{name}.png")

    def items(kind: str, background: bool) -> list[Any]:
        found = []
        for name, mask in truth[kind].items():
            if kind == "masks":
                objects = [dm.Mask(mask == c, label=c + background) for c in range(3) if (mask == c).any()]
            else:
                objects = [dm.Polygon(points, label=c + background) for c, points in boxes()[name]]
            for number, one in enumerate(objects, start=1):
                one.id, one.group = number, number
            image = dm.Image.from_numpy(np.asarray(Image.open(out / kind / "photos" / f"{name}.png")))
            found.append(
                dm.DatasetItem(id=name, subset="val" if name[-1] in "25" else "train", media=image, annotations=objects)
            )
        return found

    ways = {
        "masks": ("datumaro", "coco_instances", "voc_segmentation", "cvat"),
        "polygons": ("datumaro", "coco_instances", "cvat"),
    }
    for kind, formats in ways.items():
        for name in formats:
            background = name == "voc_segmentation"
            labels = (*(["background"] if background else []), *NAMES)
            data = dm.Dataset.from_iterable(items(kind, background), categories=list(labels), media_type=dm.Image)
            try:
                data.export(str(out / kind / name), name, save_media=False)
            except Exception as error:
                print(f"{kind} {name}: not written: {type(error).__name__}: {error}")
    tasks = []
    for name, mask in truth["masks"].items():
        result = []
        for c, label in enumerate(NAMES):
            rgba = np.repeat(((mask == c) * 255).astype(np.uint8)[..., None], 4, axis=2)
            value = {"format": "rle", "rle": encode_rle(rgba.ravel().tolist()), "brushlabels": [label]}
            size = {"original_height": SIZE[0], "original_width": SIZE[1], "image_rotation": 0}
            result.append({"id": f"{name}-{c}", "type": "brushlabels", "value": value, **size})
        address = f"/data/upload/3/1a2b3c4d-{name}.png"
        tasks.append({"id": len(tasks), "data": {"image": address}, "annotations": [{"result": result}]})
    (out / "masks" / "label_studio").mkdir()
    (out / "masks" / "label_studio" / "export.json").write_text(json.dumps(tasks))


def read(out: Path) -> int:
    from selfseg.exchange import read as read_labels

    failed = 0
    for kind in ("masks", "polygons"):
        for folder in sorted(out.joinpath(kind).iterdir()):
            if folder.name in ("truth", "photos"):
                continue
            legend, found = read_labels("auto", folder, images=out / kind / "photos")
            to_value = np.array([NAMES.index(name) if name in NAMES else 255 for name in legend.names] + [255] * 256)
            wrong = seen = 0
            for one in found:
                mask = np.load(out / kind / "truth" / f"{Path(one.name).stem}.npy")
                wrong += int((to_value[one.mask] != mask).sum())
                seen += 1
            line = f"{kind:9} {folder.name:18} {seen} of {COUNT} images, {wrong} of {COUNT * mask.size} pixels differ"
            print(line)
            failed += seen != COUNT or wrong > 0
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("write", "read"))
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    if arguments.verb == "write":
        write(arguments.out)
        return 0
    return read(arguments.out)


if __name__ == "__main__":
    sys.exit(main())
