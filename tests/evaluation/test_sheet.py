"""Whole evaluations of drawn folders against figures that numpy computes from the drawn arrays, by the definitions."""

from itertools import permutations
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from selfseg.data.labelled.catalog import LabelledImages, open_labelled
from selfseg.errors import ConfigError, LabelError
from selfseg.evaluation import Clusters, EvaluationConfig, Extractor, Linear, evaluate_extractors
from selfseg.evaluation.measure.results import column_of, result_name
from selfseg.ops.crf import CRFConfig
from selfseg.types import EvalResult

COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255], [255, 0, 255]], np.uint8)
LINEAR = Linear(steps=150, batch=2048)
Drawn = dict[str, tuple[NDArray[np.int64], NDArray[np.uint8]]]


def one_hot(image: NDArray[np.uint8]) -> torch.Tensor:
    which = (image[:, :, None] == COLOURS).all(3)
    assert (which.sum(2) == 1).all()
    return torch.from_numpy(which).permute(2, 0, 1).float()


EMBEDDING = Extractor("one-hot", one_hot, normalised=True)


def write(root: Path, classes: int, splits: Drawn) -> tuple[LabelledImages, LabelledImages]:
    """A labelled folder of (images, H, W) colours and labels by split."""
    root.mkdir()
    (root / "classes.txt").write_text("".join(f"class {i}\n" for i in range(classes)))
    for split, (colours, labels) in splits.items():
        for kind in ("images", "labels"):
            (root / split / kind).mkdir(parents=True)
        for index, (colour, label) in enumerate(zip(colours, labels, strict=True)):
            cv2.imwrite(str(root / split / "images" / f"{index}.png"), COLOURS[colour][..., ::-1])
            cv2.imwrite(str(root / split / "labels" / f"{index}.png"), label)
    return open_labelled(root, "train"), open_labelled(root, "val")


def draw(seed: int, colours: int, truths: list[int], images: int = 3, void: float = 0.1):
    """Colours, and labels that go with them in 7 of 10 pixels: of colour j mostly class truths[j % len(truths)]."""
    generator = np.random.default_rng(seed)
    size = (images, 20, 24)
    which = generator.integers(0, colours, size)
    labels = np.array(truths)[which % len(truths)]
    labels = np.where(generator.random(size) < 0.7, labels, generator.choice(truths, size)).astype(np.uint8)
    labels[generator.random(size) < void] = 255
    return which, labels


def figures(confusion: NDArray[np.int64]) -> tuple[float, float, list[float | None]]:
    """mIoU, accuracy and IoU of each class of a (C, C + 1) confusion with "none" in the last column."""
    classes = len(confusion)
    iou: list[float | None] = []
    for c in range(classes):
        union = confusion[c].sum() + confusion[:, c].sum() - confusion[c, c]
        iou.append(confusion[c, c] / union if union else None)
    present = [value for value in iou if value is not None]
    right = sum(confusion[c, c] for c in range(classes))
    return float(np.mean(present)) if present else 0.0, right / max(confusion.sum(), 1), iou


def confusion_of(classes: int, prediction: NDArray[np.int64], labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    counts, known = np.zeros((classes, classes + 1), np.int64), labels != 255
    np.add.at(counts, (labels[known], prediction[known]), 1)  # none = -1 is the last column
    return counts


def named_by(rule: str, k: int, classes: int, which: NDArray[np.int64], labels: NDArray[np.uint8]):
    """The confusion of colours under the best map of all (Hungarian), or each with its most frequent class."""
    if rule == "majority":
        votes = [np.bincount(labels[(labels != 255) & (which == j)], minlength=classes) for j in range(k)]
        return confusion_of(classes, np.array([v.argmax() if v.any() else -1 for v in votes])[which], labels)
    best, most = None, (-1.0, -1.0)
    for order in permutations(range(max(k, classes)), k):
        mapping = np.array([c if c < classes else -1 for c in order])  # a class beyond the last is none
        confusion = confusion_of(classes, mapping[which], labels)
        miou, _, iou = figures(confusion)
        worth = (round(sum(value or 0.0 for value in iou), 9), miou)
        if worth > most:
            best, most = confusion, worth
    return best


def majority_of(k: int, which: NDArray[np.int64], labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The most frequent class of each colour."""
    return np.array([np.bincount(labels[(which == j) & (labels != 255)]).argmax() for j in range(k)])


def check(result: EvalResult, confusion: NDArray[np.int64], rule: str = "") -> None:
    miou, accuracy, iou = figures(confusion)
    prefix = f"{rule}_" if rule and rule != result.matching else ""
    assert result.metrics[f"{prefix}miou"] == pytest.approx(miou)
    assert result.metrics[f"{prefix}accuracy"] == pytest.approx(accuracy)
    if not prefix:
        assert result.class_iou == pytest.approx(tuple(iou))
        assert result.confusion == tuple(map(tuple, confusion[:, :-1].tolist()))
        assert result.counts["unassigned"] == confusion[:, -1].sum()
        assert result.counts["pixels"] == confusion.sum()
        absent = [name for name, value in zip(result.class_names, iou, strict=True) if value is None]
        assert result.options["absent_classes"] == absent


@pytest.mark.parametrize(("k", "classes"), [(3, 3), (4, 4), (2, 4), (3, 5), (5, 3), (6, 2)])
@pytest.mark.parametrize("images", [1, 3])
def test_clusters_by_both_rules(tmp_path, k, classes, images):
    # As many clusters as colours: k-means finds the colours whatever its seed, so that counts are known.
    splits = {name: draw(seed, k, list(range(classes)), images) for seed, name in enumerate(("train", "val"))}
    fit, measured = write(tmp_path / "data", classes, splits)
    for matching in ("hungarian", "majority"):
        config = EvaluationConfig((Clusters(k=(k,), matching=matching),), seeds=(0, 1))
        (result,) = evaluate_extractors([EMBEDDING], fit, measured, config, most_frequent=False)
        assert result.metrics["miou_std"] == 0
        for rule in ("hungarian", "majority"):
            check(result, named_by(rule, k, classes, *splits["val"]), rule)


def test_both_figures_of_a_matching_are_in_the_result(tmp_path):
    """Of 42 columns 22 are of colour 0 and class 0, 10 of colour 0 and class 1, 10 of colour 1 and class 0."""
    colours = np.repeat([0, 1], [32, 10])[None, None].repeat(24, 1).repeat(2, 0)
    labels = np.repeat([0, 1, 0], [22, 10, 10]).astype(np.uint8)[None, None].repeat(24, 1).repeat(2, 0)
    fit, measured = write(tmp_path / "data", 2, {name: (colours, labels) for name in ("train", "val")})
    found = {}
    for maximise in ("iou", "pixels"):
        config = EvaluationConfig((Clusters(k=(2,), maximise=maximise),), seeds=(0,))
        (found[maximise],) = evaluate_extractors([EMBEDDING], fit, measured, config, most_frequent=False)
        assert found[maximise].options["maximise"] == maximise
    assert found["pixels"].metrics["accuracy"] == pytest.approx(22 / 42)
    assert found["iou"].metrics["accuracy"] == pytest.approx(20 / 42)
    assert found["iou"].metrics["miou"] == pytest.approx(10 / 32)
    for figure in ("miou", "accuracy"):
        assert found["iou"].metrics[figure] == found["pixels"].metrics[f"hungarian_iou_{figure}"]
        assert found["pixels"].metrics[figure] == found["iou"].metrics[f"hungarian_pixels_{figure}"]
    assert result_name(found["iou"]) == "data-val-clusters-k2-one-hot.json"
    assert result_name(found["pixels"]) == "data-val-clusters-k2-by-pixels-one-hot.json"
    assert column_of(found["pixels"]) == "clusters k=2, hungarian by pixels"


def test_absent_classes_and_a_cluster_that_wins_nothing(tmp_path):
    # Six colours in training of which four are in val; classes 1 and 4 are nowhere true there, 5 nowhere at all.
    splits = {"train": draw(0, 6, [0, 1, 2, 3, 4]), "val": draw(1, 4, [0, 2, 3])}
    fit, measured = write(tmp_path / "data", 6, splits)
    config = EvaluationConfig((Clusters(k=(6,)), LINEAR), seeds=(0,))
    clusters, linear = evaluate_extractors([EMBEDDING], fit, measured, config, most_frequent=False)
    check(clusters, named_by("majority", 6, 6, *splits["val"]), "majority")
    # Four clusters have pixels and three classes truth: a fourth class has an IoU of 0, of those absent any one.
    miou, _, iou = figures(named_by("hungarian", 6, 6, *splits["val"]))
    assert clusters.metrics["miou"] == pytest.approx(miou)
    found = sorted(value for value in clusters.class_iou if value is not None)
    assert found == pytest.approx(sorted(value for value in iou if value is not None))
    assert (len(found), found[0]) == (4, 0)
    # The layer goes by what training said: colour 1 is class 1 there, which is only predicted in val.
    learned = majority_of(6, *splits["train"])
    assert learned[:5].tolist() == [0, 1, 2, 3, 4]
    check(linear, confusion_of(6, learned[splits["val"][0]], splits["val"][1]))
    assert linear.class_iou[1] == 0
    assert linear.options["absent_classes"] == ["class 4", "class 5"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("solver", ["adamw", "sgd"])
def test_the_linear_layer_learns_each_colours_class(tmp_path, seed, solver):
    splits = {"train": draw(seed, 5, [3, 0, 2, 1]), "val": draw(seed + 9, 5, [3, 0, 1, 1], images=1)}
    fit, measured = write(tmp_path / "data", 4, splits)
    learned = majority_of(5, *splits["train"])
    linear = LINEAR if solver == "adamw" else Linear(solver="sgd", epochs=100, drop=80)
    config = EvaluationConfig((linear,), seeds=(0,))
    (result,) = evaluate_extractors([EMBEDDING], fit, measured, config, most_frequent=False)
    check(result, confusion_of(4, learned[splits["val"][0]], splits["val"][1]))


@pytest.mark.slow
def test_linear_models_of_several_sizes_have_a_result_each(tmp_path):
    splits = {"train": draw(0, 5, [3, 0, 2, 1]), "val": draw(9, 5, [3, 0, 1, 1], images=1)}
    fit, measured = write(tmp_path / "data", 4, splits)
    learned = majority_of(5, *splits["train"])
    config = EvaluationConfig((Linear(steps=100, batch=1024, hidden=(8, 16)),), seeds=(0,), crf=CRFConfig(iterations=1))
    results = evaluate_extractors([EMBEDDING], fit, measured, config, most_frequent=False)
    plain = [result for result in results if not result.crf]
    for result in plain:
        check(result, confusion_of(4, learned[splits["val"][0]], splits["val"][1]))
    assert [result.options["hidden"] for result in plain] == [8, 16]
    assert [column_of(result) for result in plain] == ["linear, 8 filters", "linear, 16 filters"]
    assert result_name(plain[0]) == "data-val-linear-filters8-one-hot.json"
    assert len({result_name(result) for result in results}) == 4

    one = EvaluationConfig((LINEAR,), seeds=(0,))
    (result,) = evaluate_extractors([EMBEDDING], fit, measured, one, most_frequent=False)
    assert "hidden" not in result.options
    assert "hidden" not in one.record()["protocols"]["linear"]
    assert config.record()["protocols"]["linear"]["hidden"] == (8, 16)


def test_nothing_but_void(tmp_path):
    splits = {"train": draw(0, 3, [0, 1, 2]), "val": draw(1, 3, [0, 1, 2], void=1.1)}
    fit, measured = write(tmp_path / "data", 3, splits)
    config = EvaluationConfig((Clusters(k=(2, 3)), LINEAR), seeds=(0,))
    with pytest.raises(LabelError, match="all are void, so there is nothing to measure"):
        evaluate_extractors([EMBEDDING], fit, measured, config)
    backwards = EvaluationConfig((LINEAR,), seeds=(0,))
    with pytest.raises(ConfigError, match="the fit split is all void"):
        evaluate_extractors([EMBEDDING], measured, fit, backwards)
    # Clusters need no labels to be found.
    only = EvaluationConfig((Clusters(k=(3,)),), seeds=(0,))
    (result,) = evaluate_extractors([EMBEDDING], measured, fit, only, most_frequent=False)
    check(result, named_by("hungarian", 3, 3, *splits["train"]))
