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

from selfseg.data.labelled.catalog import missing_files, parse_source
from selfseg.data.labelled.coco_json import CocoObject, outline, read_coco
from selfseg.data.labelled.shapes import BadOutline, spread
from selfseg.data.reading.images import read_image
from selfseg.errors import DataError, LabelError, MissingExtra
from selfseg.kinds import check_kinds

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
        result = cls(**{**values, "class_names": tuple(values["class_names"])})
        check_kinds(result, finite=False)
        return result


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
        DataError: if a file or folder is missing, an image is, or the file is no COCO file of object instances.
        LabelError: for faults in the file, see `selfseg.data.labelled.coco_json`.
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
    found = read_coco(path, folder)
    paths = tuple(folder / image.name for image in found.images)
    if missing := missing_files(paths):
        raise DataError(
            f"{len(missing)} of {len(paths)} images that {path} lists are not there, e.g. "
            f"{', '.join(str(one) for one in missing[:5])}; put them there, or take them out of the file"
        )
    return CocoImages(
        root,
        split,
        path,
        paths,
        tuple(image.id for image in found.images),
        tuple(
            json.dumps(_usable(objects, image.size), separators=(",", ":")).encode()
            for image, objects in zip(found.images, found.by_image(), strict=True)
        ),
        tuple(category.id for category in found.categories),
        tuple(category.name for category in found.categories),
    )


def _usable(objects: Sequence[CocoObject], size: tuple[int, int]) -> list[dict[str, Any]]:
    """Plain values of the objects to train on, with boxes cut off at the image's border."""
    height, width = size
    kept = []
    for item in objects:
        x0, y0, x1, y1 = item.box
        box = [max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1)]
        if item.crowd or box[2] - box[0] <= 1 or box[3] - box[1] <= 1:
            continue
        mask = item.segmentation(size)
        kept.append({"box": box, "label": 1 + item.category, "mask": mask, "size": [height, width]})
    return kept


def rasterise(mask: Any, stored: tuple[int, int], wanted: tuple[int, int]) -> Image:
    """An object's mask at another size.

    Args:
        mask: polygons as [x0, y0, x1, y1, ...] lists, or COCO's run lengths.
        stored: (H, W) of the image that it is of.
        wanted: (h, w) of the result. Polygons are scaled before they are drawn.

    Returns:
        (h, w) uint8, 1 inside.

    Raises:
        LabelError: for a mask of neither kind, or one that can't be of such an image.
    """
    coder, _, _ = _pycocotools()
    try:
        polygons, lengths = outline(mask, stored)
    except BadOutline as error:
        raise LabelError(f"an object has no mask that Mask R-CNN could learn: {error}") from error
    if lengths is None:
        scale = np.array([wanted[1] / stored[1], wanted[0] / stored[0]])
        scaled = [(polygon * scale).reshape(-1).tolist() for polygon in polygons]
        return _decode(coder.merge(coder.frPyObjects(scaled, *wanted)))
    filled = spread(lengths, stored).astype(np.uint8)
    resized: Image = cv2.resize(filled, wanted[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
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
    content = _truth(annotations)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells its progress
        truth = coco_class()
        truth.dataset = content
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


def _truth(annotations: Path) -> dict[str, Any]:
    """A file's content as pycocotools can read it, whatever wrote the file: every field is there."""
    found = read_coco(annotations, annotations.parent.parent / annotations.stem.removeprefix("instances_"))
    objects = [
        {
            "id": number,
            "image_id": found.images[item.image].id,
            "category_id": found.categories[item.category].id,
            "bbox": [item.box[0], item.box[1], item.box[2] - item.box[0], item.box[3] - item.box[1]],
            "area": item.area,
            "iscrowd": int(item.crowd),
            "segmentation": item.segmentation(found.images[item.image].size),
        }
        for number, item in enumerate(found.objects, start=1)  # to pycocotools, 0 is no object
    ]
    images = [{"id": one.id, "height": one.size[0], "width": one.size[1]} for one in found.images]
    categories = [{"id": one.id, "name": one.name} for one in found.categories]
    # The evaluation copies "info", and pycocotools asks for it since 2.0.9.
    return {"info": {}, "images": images, "categories": categories, "annotations": objects}


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
