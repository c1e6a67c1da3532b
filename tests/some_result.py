"""A result of two classes, one of which has no pixel, for what shows results."""

from dataclasses import replace
from typing import Any

from selfseg.types import EvalResult

_RESULT = EvalResult(
    protocol="linear",
    protocol_version=1,
    what="embedder",
    dataset="drawn",
    split="val",
    fit_split="train",
    metrics={},
    class_names=("sky", "<b>road"),
    class_iou=(0.5, None),
    confusion=((1, 0), (0, 0)),
    matching="none",
    k=None,
    resolution=64,
    crop="none",
    crf=False,
    seeds=(0, 1),
    counts={"images": 3},
)


def some_result(what: str, miou: float, accuracy: float = 0.5, **others: Any) -> EvalResult:
    """One that is called `what` in tables; `others` are fields of it."""
    metrics = {"miou": miou, "miou_std": 0.01, "accuracy": accuracy}
    return replace(_RESULT, what=what, metrics=metrics, class_iou=(miou, None), **others)
