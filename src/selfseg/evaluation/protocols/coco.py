"""COCO's objects: read for training, and average precision of detections.

    ROOT/annotations/instances_SPLIT.json    boxes, masks and categories
    ROOT/SPLIT/                              the images

Letters: N objects of an image, C classes, H W pixels. Boxes are (x0, y0, x1, y1) in pixels of their image; the files
have (x, y, width, height). A network's label is 0 for the background and 1 + the place among the file's categories.

Needs pycocotools (the extra "coco").
"""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfseg.data.labelled.catalog import parse_source
from selfseg.data.reading.images import read_image
from selfseg.errors import DataError, LabelError, MissingExtra
from selfseg.storage.files import read_json

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class DetectionResult:
    """Average precisions of boxes and masks, with everything that makes them mean something.

    Attributes:
        protocol: "detection".
        protocol_version: raised whenever the same input would give another number.
        what: what was fine-tuned: "embedder", a file's name, "random".
        dataset: the data set's folder.
        split: the split that was measured.
        fit_split: the split that was trained on.
        metrics: box_ap, box_ap50, box_ap75, mask_ap, mask_ap50, mask_ap75, as fractions.
        class_names: C names.
        counts: images measured and trained on, and detections.
        options: the whole configuration, and what the network started from.
        recipe_hash: the run's recipe, or "".
        package_version: selfseg's.
    """

    protocol: str
    protocol_version: int
    what: str
    dataset: str
    split: str
    fit_split: str
    metrics: Mapping[str, float]
    class_names: tuple[str, ...]
    counts: Mapping[str, int]
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe_hash: str = ""
    package_version: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DetectionResult:
        """The inverse of `to_dict`; an unknown or missing key raises TypeError."""
        return cls(**{**values, "class_names": tuple(values["class_names"])})


@dataclass(frozen=True)
class CocoImages:
    """The images of a split with their objects.

    Attributes:
        root: ROOT.
        split: e.g. "val2017".
        annotations: the JSON file.
        paths: the images.
        ids: COCO's number of each image.
        objects: of each image, the JSON of its usable objects: no crowds, boxes of more than a pixel. Text, because
            worker processes get a copy, and Python's own objects take ten times the memory.
        category_ids: COCO's number of each class.
        class_names: C names.
    """

    root: Path
    split: str
    annotations: Path
    paths: tuple[Path, ...]
    ids: tuple[int, ...]
    objects: tuple[bytes, ...]
    category_ids: tuple[int, ...]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def with_objects(self) -> list[int]:
        """The places of the images that have any."""
        return [index for index, objects in enumerate(self.objects) if objects != b"[]"]

    def example(self, index: int, short_side: int, max_side: int, flip: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """An image and its objects as Mask R-CNN trains on them.

        Args:
            index: the image's place.
            short_side: to which it is resized.
            max_side: what its long side may not exceed.
            flip: whether it is mirrored.

        Returns:
            The image (3, H, W) uint8, and "boxes" (N, 4) float32, "labels" (N,) int64 in [1, C], "masks" (N, H, W)
            uint8.

        Raises:
            BadImage: if it can't be read.
            LabelError: if its size is not the one in the file, or an object has no mask.
        """
        image = read_image(self.paths[index])
        objects = json.loads(self.objects[index])
        height, width = image.shape[:2]
        for item in objects:
            if item["size"] != [height, width]:
                raise LabelError(
                    f"{self.paths[index]} has {width}x{height} pixels, but {self.annotations} says "
                    f"{item['size'][1]}x{item['size'][0]}"
                )
        factor = min(short_side / min(height, width), max_side / max(height, width))
        h, w = max(1, round(height * factor)), max(1, round(width * factor))
        image = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
        scale = np.array([w / width, h / height] * 2)
        boxes = np.array([item["box"] for item in objects]).reshape(-1, 4) * scale
        masks = np.zeros((len(objects), h, w), np.uint8)
        for mask, item in zip(masks, objects, strict=True):
            mask[:] = rasterise(item["mask"], (height, width), (h, w))
        if flip:
            image, masks = image[:, ::-1], masks[:, :, ::-1]
            boxes[:, [0, 2]] = w - boxes[:, [2, 0]]
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), {
            "boxes": torch.from_numpy(boxes.astype(np.float32)),
            "labels": torch.tensor([item["label"] for item in objects], dtype=torch.int64),
            "masks": torch.from_numpy(np.ascontiguousarray(masks)),
        }


def open_coco(root: Path | str, split: str) -> CocoImages:
    """Open one split in COCO's layout.

    Raises:
        DataError: if a file or folder is missing, or is no COCO file of object instances.
    """
    root = parse_source(root).root  # coco:ROOT
    path, folder = root / "annotations" / f"instances_{split}.json", root / split
    for wanted in (path, folder):
        if not wanted.exists():
            there = sorted(entry.name for entry in wanted.parent.iterdir()) if wanted.parent.is_dir() else []
            raise DataError(
                f"{wanted} does not exist; there is {', '.join(there[:8]) or 'nothing'}; COCO's layout is "
                "ROOT/annotations/instances_SPLIT.json and ROOT/SPLIT/*.jpg"
            )
    try:
        content = read_json(path)
        categories = sorted(content["categories"], key=lambda category: int(category["id"]))
        label_of = {category["id"]: 1 + place for place, category in enumerate(categories)}
        images = sorted(content["images"], key=lambda image: int(image["id"]))
        by_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in images}
        size_of = {image["id"]: [int(image["height"]), int(image["width"])] for image in images}
        for item in content["annotations"]:
            height, width = size_of[item["image_id"]]
            x, y, w, h = item["bbox"]
            box = [max(0.0, x), max(0.0, y), min(float(width), x + w), min(float(height), y + h)]
            if item.get("iscrowd", 0) or box[2] - box[0] <= 1 or box[3] - box[1] <= 1:
                continue
            by_image[item["image_id"]].append(
                {
                    "box": box,
                    "label": label_of[item["category_id"]],
                    "mask": item["segmentation"],
                    "size": [height, width],
                }
            )
        return CocoImages(
            root,
            split,
            path,
            tuple(folder / image["file_name"] for image in images),
            tuple(image["id"] for image in images),
            tuple(json.dumps(by_image[image["id"]], separators=(",", ":")).encode() for image in images),
            tuple(category["id"] for category in categories),
            tuple(str(category["name"]) for category in categories),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no COCO file of object instances: {type(error).__name__}: {error}") from error


def rasterise(mask: Any, stored: tuple[int, int], wanted: tuple[int, int]) -> Image:
    """An object's mask at another size.

    Args:
        mask: polygons as [x0, y0, x1, y1, ...] lists, or COCO's run lengths.
        stored: (H, W) of the image that it is of.
        wanted: (h, w) of the result. Polygons are scaled before they are drawn.

    Returns:
        (h, w) uint8, 1 inside.

    Raises:
        LabelError: for a mask of neither kind.
    """
    coder, _, _ = _pycocotools()
    if isinstance(mask, list) and mask:
        scale = np.array([wanted[1] / stored[1], wanted[0] / stored[0]])
        polygons = [(np.array(polygon, np.float64).reshape(-1, 2) * scale).reshape(-1).tolist() for polygon in mask]
        return _decode(coder.merge(coder.frPyObjects(polygons, *wanted)))
    if not isinstance(mask, dict):
        raise LabelError(f"an object has no mask ({mask!r}); Mask R-CNN needs the segmentation of each")
    runs = coder.frPyObjects(mask, *stored) if isinstance(mask["counts"], list) else mask
    resized: Image = cv2.resize(_decode(runs), wanted[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return resized


def _decode(runs: Any) -> Image:
    with warnings.catch_warnings():
        # Of numpy 2.4, for an argument of __array__ that pycocotools 2.0.11 does not have yet.
        warnings.simplefilter("ignore", DeprecationWarning)
        mask: Image = _pycocotools()[0].decode(runs)
    return mask


def to_coco(prediction: Mapping[str, Tensor], image_id: int, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Detections of an image as COCO's results.

    Args:
        prediction: torchvision's: "boxes" (N, 4), "labels" (N,) in [1, C], "scores" (N,), "masks" (N, 1, H, W) in
            [0, 1]; a pixel is inside from 0.5 on.
        image_id: COCO's number of the image.
        category_ids: COCO's number of each class.

    Returns:
        N results with box and mask.
    """
    coder, _, _ = _pycocotools()
    boxes = prediction["boxes"].double().cpu().numpy()
    masks = (prediction["masks"][:, 0] >= 0.5).to(torch.uint8).cpu().numpy()
    results = []
    for box, label, score, mask in zip(
        boxes, prediction["labels"].tolist(), prediction["scores"].tolist(), masks, strict=True
    ):
        results.append(
            {
                "image_id": image_id,
                "category_id": category_ids[label - 1],
                "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
                "score": score,
                "segmentation": coder.encode(np.asfortranarray(mask)),
            }
        )
    return results


def average_precision(annotations: Path, results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """COCO's average precisions of all images of a split.

    Args:
        annotations: the split's JSON file.
        results: of `to_coco`, all images'.

    Returns:
        box_ap, box_ap50, box_ap75, mask_ap, mask_ap50, mask_ap75: fractions, up to 100 detections an image.
    """
    _, coco_class, evaluator = _pycocotools()
    metrics: dict[str, float] = {}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells its progress
        truth = coco_class()
        truth.dataset = read_json(annotations)
        # The evaluation copies these, and pycocotools asks for them since 2.0.9.
        truth.dataset.setdefault("info", {})
        truth.createIndex()
        for name, kind, left_out in (("box", "bbox", "segmentation"), ("mask", "segm", "bbox")):
            values = [0.0, 0.0, 0.0]
            if results:
                # With a box, pycocotools would take the box's area for the mask's.
                kept = [{key: value for key, value in result.items() if key != left_out} for result in results]
                judge = evaluator(truth, truth.loadRes(kept), kind)
                judge.evaluate()
                judge.accumulate()
                judge.summarize()
                values = [float(value) for value in judge.stats[:3]]
            metrics.update(zip((f"{name}_ap", f"{name}_ap50", f"{name}_ap75"), values, strict=True))
    return metrics


def require_coco() -> None:
    """Raise MissingExtra if pycocotools is not installed, before anything long begins."""
    _pycocotools()


def _pycocotools() -> tuple[Any, Any, Any]:
    """Its mask module, its COCO class and its evaluator.

    Raises:
        MissingExtra: if it is not installed.
    """
    try:
        from pycocotools import mask
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise MissingExtra("detection on COCO", "pycocotools", "coco") from error
    return mask, COCO, COCOeval
