import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("pycocotools")

from selfseg.errors import ConfigError, DataError, LabelError, MissingExtra
from selfseg.evaluation.protocols import coco, detection
from selfseg.evaluation.protocols.coco import DetectionResult, average_precision, open_coco, rasterise, to_coco
from selfseg.evaluation.protocols.detection import (
    DetectionConfig,
    ExampleDataset,
    Pyramid,
    make_detector,
    parameter_groups,
)
from selfseg.evaluation.protocols.transfer import transfer
from selfseg.fitting import supervised as finetuning
from selfseg.models.backbones import make_backbone
from selfseg.storage.files import read_json

SIZE = (48, 64)  # H, W
TINY = DetectionConfig(
    backbone="test_resnet",
    fit_split="train",
    split="val",
    steps=2,
    batch_size=2,
    lr=0.005,
    warmup=0,
    short_sides=(48, 64),
    test_side=48,
    max_side=100,
    channels=16,
)
QUIET = {"device": "cpu", "workers": 0, "progress": False}


def draw(root: Path, images: int = 4) -> Path:
    """Two coloured rectangles an image, one stored as a polygon and one as run lengths; a crowd; an empty image."""
    height, width = SIZE
    (root / "annotations").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", images), ("val", 1)):
        (root / split).mkdir()
        content = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 7, "name": "red"}, {"id": 3, "name": "blue"}],
        }
        for index in range(count + 1):
            image = np.full((height, width, 3), 90, np.uint8)
            content["images"].append({"id": 100 + index, "file_name": f"{index}.png", "height": height, "width": width})
            for place, category in enumerate((7, 3) if index < count else ()):
                x, y = int(rng.integers(2, 10)) + 30 * place, int(rng.integers(2, 14))
                w, h = int(rng.integers(14, 20)), int(rng.integers(18, 30))
                image[y : y + h, x : x + w] = (200, 60, 40) if category == 7 else (40, 60, 220)
                mask = np.zeros(SIZE, np.uint8)
                mask[y : y + h, x : x + w] = 1
                flat = mask.T.reshape(-1)
                changes = np.flatnonzero(np.diff(flat)) + 1
                runs = np.diff([0, *changes, flat.size]).tolist()
                polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
                content["annotations"].append(
                    {
                        "id": len(content["annotations"]) + 1,
                        "image_id": 100 + index,
                        "category_id": category,
                        "bbox": [x, y, w, h],
                        "area": w * h,
                        "iscrowd": 0,
                        "segmentation": {"size": list(SIZE), "counts": runs} if place else polygon,
                    }
                )
            cv2.imwrite(str(root / split / f"{index}.png"), image[..., ::-1])
        crowd = {"segmentation": {"size": list(SIZE), "counts": [0, 100, height * width - 100]}, "bbox": [0, 0, 3, 48]}
        number = len(content["annotations"]) + 1
        content["annotations"].append(
            {"id": number, "image_id": 100, "category_id": 3, "iscrowd": 1, "area": 100, **crowd}
        )
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("detection") / "objects")


def test_perfect_predictions_are_perfect(objects: Path) -> None:
    data = open_coco(objects, "val")
    assert data.class_names == ("blue", "red")
    results = []
    for index in range(len(data)):
        _, target = data.example(index, SIZE[0], 1000, flip=False)
        prediction = {
            "boxes": target["boxes"],
            "labels": target["labels"],
            "scores": torch.full((len(target["labels"]),), 0.9),
            "masks": target["masks"][:, None].float(),
        }
        results += to_coco(prediction, data.ids[index], data.category_ids)
    metrics = average_precision(data.annotations, results)
    assert set(metrics) == {"box_ap", "box_ap50", "box_ap75", "mask_ap", "mask_ap50", "mask_ap75"}
    assert list(metrics.values()) == pytest.approx([1.0] * 6)
    # Boxes two pixels off keep AP50 and lose what is stricter; classes exchanged lose everything.
    moved = [{**result, "bbox": [result["bbox"][0] + 3, *result["bbox"][1:]]} for result in results]
    worse = average_precision(data.annotations, moved)
    assert worse["box_ap50"] == pytest.approx(1.0)
    assert worse["box_ap"] < 0.7
    assert worse["mask_ap"] == pytest.approx(1.0)
    wrong = [{**result, "category_id": 10 - result["category_id"]} for result in results]
    assert average_precision(data.annotations, wrong)["box_ap50"] < 0.05
    assert average_precision(data.annotations, [])["box_ap"] == 0


def test_examples_are_scaled_and_mirrored_with_their_objects(objects: Path) -> None:
    data = open_coco(objects, "train")
    assert data.with_objects() == [0, 1, 2, 3]
    for flip in (False, True):
        image, target = data.example(0, 96, 1000, flip)
        assert image.shape == (3, 96, 128)
        assert image.dtype == target["masks"].dtype == torch.uint8
        assert target["labels"].tolist() == [2, 1]  # without the crowd
        for box, mask, colour in zip(target["boxes"], target["masks"], ((200, 60, 40), (40, 60, 220)), strict=True):
            rows, columns = torch.nonzero(mask, as_tuple=True)
            edges = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            assert (edges - box).abs().max() <= 1
            inside = image[:, mask.bool()].float().mean(1)
            assert (inside - torch.tensor(colour)).abs().max() < 12
    assert data.example(0, 96, 100, flip=False)[0].shape == (3, 75, 100)  # the long side is bound


def test_an_example_is_a_function_of_its_key(objects: Path) -> None:
    dataset = ExampleDataset(open_coco(objects, "train"), TINY)
    assert len(dataset) == 4
    first, again = dataset[(5, 1)], dataset[(5, 1)]
    assert torch.equal(first[0], again[0])
    assert len({dataset[(epoch, 1)][0].shape for epoch in range(12)}) == 2


@pytest.mark.slow
def test_mask_rcnn_end_to_end_and_resumed(objects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = partial(detection.MaskRCNN, box_detections_per_img=10, box_batch_size_per_image=32)
    monkeypatch.setattr(detection, "MaskRCNN", few)  # of 100 and 512 regions, nearly all of the time is theirs
    straight = transfer("random", objects, TINY, tmp_path / "straight", **QUIET)
    assert isinstance(straight, DetectionResult)
    assert all(0 <= value <= 1 for value in straight.metrics.values())
    assert straight.counts["images"] == 2
    assert straight.options["warmup"] == 0
    path = tmp_path / "straight" / "results" / "objects-val-detection-random.json"
    assert DetectionResult.from_dict(read_json(path)).metrics == straight.metrics
    real = finetuning.save_checkpoint

    def killed(folder: Path, step: int, *rest: object) -> Path:
        path = real(folder, step, *rest)  # type: ignore[arg-type]
        if step == 1:
            raise KeyboardInterrupt
        return path

    monkeypatch.setattr(finetuning, "save_checkpoint", killed)
    out = tmp_path / "resumed"
    with pytest.raises(KeyboardInterrupt):
        transfer("random", objects, TINY, out, checkpoint_every=1, **QUIET)
    assert transfer("random", objects, TINY, out, checkpoint_every=1, **QUIET) == straight
    first, second = (load_file(folder / "weights.safetensors") for folder in (tmp_path / "straight", out))
    assert all(torch.equal(first[name], second[name]) for name in first)
    begun = make_backbone("test_resnet", 32).state_dict()
    stem = "backbone.backbone.conv1.0.weight"
    torch.manual_seed(TINY.seed)
    assert not torch.equal(first[stem], make_backbone("test_resnet", 32).state_dict()["conv1.0.weight"])
    assert first[stem].shape == begun["conv1.0.weight"].shape


def test_all_layers_are_trained_and_only_norms_are_spared_decay() -> None:
    model = make_detector(make_backbone("resnet18", 32), 2, TINY)
    assert all(p.requires_grad for p in model.parameters())
    decayed, spared = parameter_groups(model)
    assert len(decayed["params"]) + len(spared["params"]) == len(list(model.parameters()))
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(spared["params"]) == 2 * len(norms) > 0
    assert spared["weight_decay"] == 0


def changed(root: Path, split: str, change: Callable[[dict[str, Any]], object]) -> Path:
    path = root / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def test_faults_of_a_file_are_said_before_anything_begins(tmp_path: Path) -> None:
    root = draw(tmp_path / "broken", images=1)
    changed(root, "val", lambda content: content["annotations"][0].update(segmentation=[[10, 10, 10, 15]]))
    with pytest.raises(LabelError, match=r"instances_val.json: 1 .*annotation 1 of image '0.png': .* enclose nothing"):
        transfer("random", root, TINY, tmp_path / "out", **QUIET)
    assert not (tmp_path / "out").exists()
    (root / "train" / "1.png").unlink()
    with pytest.raises(
        DataError, match=r"1 of 2 images that .*instances_train.json lists are not there, e.g. .*1\.png"
    ):
        open_coco(root, "train")
    changed(root, "train", lambda content: content["images"][0].update(file_name="../val/0.png"))
    with pytest.raises(LabelError, match=r"images\[0\] \(id 100\): the name '../val/0.png' leads out of the folder"):
        open_coco(root, "train")


def test_a_file_without_areas_boxes_and_numbers_has_the_same_precision(objects: Path, tmp_path: Path) -> None:
    root = draw(tmp_path / "other")

    def strip(content: dict[str, Any]) -> None:
        for item in content["annotations"]:
            for name in ("area", "bbox", *(["iscrowd"] if not item["iscrowd"] else [])):
                del item[name]
            item["image_id"] = f"image {item['image_id']}"
            item["category_id"] = str(item["category_id"])
        for image in content["images"]:
            image["id"] = f"image {image['id']}"

    changed(root, "train", strip)
    given, bare = open_coco(objects, "train"), open_coco(root, "train")
    assert bare.ids == (1, 2, 3, 4, 5)
    assert bare.category_ids == given.category_ids == (3, 7)
    metrics = []
    for data in (given, bare):
        results = []
        for index in range(len(data)):
            _, target = data.example(index, SIZE[0], 1000, flip=False)
            masks = target["masks"].roll(2, dims=2)  # a little off, so that not all is right or wrong
            scores = torch.linspace(0.9, 0.5, len(masks) or 1)[: len(masks)]
            prediction = {**target, "scores": scores, "masks": masks[:, None].float()}
            results += to_coco(prediction, data.ids[index], data.category_ids)
        metrics.append(average_precision(data.annotations, results))
    assert metrics[0] == metrics[1]
    assert 0.3 < metrics[0]["mask_ap"] < 0.9
    for index in range(4):
        boxes = [data.example(index, SIZE[0], 1000, flip=False)[1]["boxes"] for data in (given, bare)]
        assert torch.equal(*boxes)


def test_what_can_not_work_says_so(objects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"instances_test.json does not exist; there is instances_train.json"):
        open_coco(objects, "test")
    with pytest.raises(ConfigError, match="strides"):
        Pyramid(make_backbone("resnet18", 16))
    with pytest.raises(ConfigError, match="at least 32 px"):
        replace(TINY, short_sides=(8,))
    with pytest.raises(LabelError, match="no mask"):
        rasterise([], SIZE, SIZE)
    broken = draw(tmp_path / "broken", images=1)
    path = broken / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    drawn = [item for item in content["annotations"] if isinstance(item["segmentation"], list)]
    narrow = [{**image, "width": 60} for image in content["images"]]
    path.write_text(json.dumps({**content, "images": narrow, "annotations": drawn}))
    with pytest.raises(LabelError, match="has 64x48 pixels"):
        open_coco(broken, "train").example(0, 48, 100, flip=False)
    path.write_text("{}")
    with pytest.raises(DataError, match="no COCO file"):
        open_coco(broken, "train")

    def missing() -> None:
        raise MissingExtra("detection on COCO", "pycocotools", "coco")

    monkeypatch.setattr(coco, "_pycocotools", missing)
    with pytest.raises(MissingExtra, match=r"selfseg\[coco\]"):
        transfer("random", objects, TINY, tmp_path / "out", **QUIET)
    assert not (tmp_path / "out").exists()
