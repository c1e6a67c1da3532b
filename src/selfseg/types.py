"""The vocabulary: what moves between the loader, a method, the trainer and the evaluation.

Letters in shapes: B images, V views, H W pixels, D embedding dimension, h w embedding cells, K prototypes or
clusters, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from selfseg.kinds import check_kinds
from selfseg.showing import bar, card, facts, folded, in_line, note, table

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of ImageNet's R, G and B in [0, 1]: what embedders subtract, and the centre of the noise in views."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of ImageNet's R, G and B in [0, 1]: what embedders divide by, and half the noise's width."""


@dataclass(frozen=True)
class View:
    """A batch of crops, one of each of the batch's B images.

    Attributes:
        image: (B, 3, H, W), RGB, uint8 out of the loader and float32 in [0, 1] once on the device; never normalised.
        to_image: (B, 2, 3) float32 affine from view to source image, both in [-1, 1] with align_corners=False, (x, y).
            A flip is a negative determinant and is stored nowhere else. The source image is what the view plan's
            `prepare` returned.
        regions: (B, H, W) int64, region ids of the source image, equal across views; -1 = none or unknown. (B, 0, 0) if
            the view plan has no regions.
    """

    image: Tensor
    to_image: Tensor
    regions: Tensor

    def to(self, device: torch.device | str) -> View:
        """The same view on `device`, the image as float32 in [0, 1]."""
        image = self.image.to(device, non_blocking=True)
        if image.dtype == torch.uint8:
            image = image.float().div_(255)
        return View(
            image=image,
            to_image=self.to_image.to(device, non_blocking=True),
            regions=self.regions.to(device, non_blocking=True),
        )

    def pin_memory(self) -> View:
        """The same view in page-locked memory (the loader calls this by name)."""
        return View(self.image.pin_memory(), self.to_image.pin_memory(), self.regions.pin_memory())


@dataclass(frozen=True)
class Batch:
    """The views of one training step, all of the same B images in the same order.

    Attributes:
        views: V views of B crops each.
        index: (B,) int64, the images' positions in the collection.
        skipped: what could not be read while this batch was made, as (index, reason) pairs; another image stands in.
    """

    views: tuple[View, ...]
    index: Tensor
    skipped: tuple[tuple[int, str], ...] = ()

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`, images as float32 in [0, 1]."""
        return Batch(tuple(view.to(device) for view in self.views), self.index.to(device), self.skipped)

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory (the loader calls this by name)."""
        return Batch(tuple(view.pin_memory() for view in self.views), self.index.pin_memory(), self.skipped)


class LazyLogs(Mapping[str, Tensor]):
    """Logs of which some are worked out when they are looked at: most steps' logs are never written.

    Args:
        ready: scalars; they are detached here.
        later: functions that give one each. What they use must not change with the next step: no parameter, no queue.

    Example:
        >>> logs = LazyLogs({"loss": torch.tensor(2.0)}, rank=lambda: torch.tensor(3.0))
        >>> dict(logs)
        {'loss': tensor(2.), 'rank': tensor(3.)}
    """

    def __init__(self, ready: Mapping[str, Tensor], **later: Callable[[], Tensor]) -> None:
        self._ready = {name: value.detach() for name, value in ready.items()}
        self._later = later

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._ready and name in self._later:
            with torch.no_grad():
                self._ready[name] = self._later[name]().detach()
        return self._ready[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._ready, *self._later]))

    def __len__(self) -> int:
        return len(self._ready.keys() | self._later.keys())


@dataclass(frozen=True)
class StepOutput:
    """What one training step returns.

    Attributes:
        loss: scalar with gradient.
        logs: detached scalars; the names are documented by each method. `LazyLogs` for those that cost time.
    """

    loss: Tensor
    logs: Mapping[str, Tensor]


@dataclass(frozen=True)
class EvalResult:
    """One measurement with everything that is needed to understand it.

    Metrics are fractions; the rows of a confusion are truth.

    Attributes:
        protocol: "clusters", "linear", "prototypes", ...
        protocol_version: raised whenever the same input would give another number.
        what: what was evaluated: "embedder", or the name of a trivial baseline.
        dataset: the data set's folder or name.
        split: the split that was measured, e.g. "val".
        fit_split: the split that clusters or the linear layer were fitted on; "none" where nothing is.
        metrics: e.g. {"miou": 0.31, "miou_std": 0.01, "accuracy": ...}; the mean over seeds, and its deviation.
        class_names: C names in the order of `class_iou` and `confusion`.
        class_iou: C fractions (mean over seeds); None for a class with neither truth nor prediction.
        confusion: (C, C) pixel counts of the first seed; rows = truth, columns = prediction.
        matching: "hungarian", "majority" or "none".
        k: number of clusters or prototypes, or None.
        resolution: the short side that images were resized to, or "native".
        crop: "none", or the side in px of the square that images and labels were cropped to.
        crf: whether a CRF refined the prediction.
        seeds: the seeds that the mean is over.
        counts: e.g. {"images": 101, "pixels": ..., "void": ...}.
        options: whatever else the protocol was run with (steps of the linear layer, points of k-means, ...).
        recipe_hash: the run's recipe, or "" for a baseline.
        package_version: selfseg's.
        labels: the share of the fit split's labelled images that was learned from, in percent; None = all there are.
    """

    protocol: str
    protocol_version: int
    what: str
    dataset: str
    split: str
    fit_split: str
    metrics: Mapping[str, float]
    class_names: tuple[str, ...]
    class_iou: tuple[float | None, ...]
    confusion: tuple[tuple[int, ...], ...]
    matching: str
    k: int | None
    resolution: int | str
    crop: str
    crf: bool
    seeds: tuple[int, ...]
    counts: Mapping[str, int]
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe_hash: str = ""
    package_version: str = ""
    labels: float | None = None

    @property
    def fitted_elsewhere(self) -> bool:
        """Whether what was learned from is worth telling: the measured split itself, or another data set."""
        return self.protocol != "constant" and (self.fit_split == self.split or "/" in self.fit_split)

    @property
    def by_pixels(self) -> bool:
        """Whether clusters are named one to one so that pixels, and not the sum of IoU, are as many as can be."""
        return self.matching == "hungarian" and self.options.get("maximise") == "pixels"

    @property
    def column(self) -> str:
        """What tables call the protocol with its settings, e.g. "clusters k=64, majority"."""
        if self.labels is not None:
            return f"{self.protocol}, {self.labels:g} % of the labels"
        name = self.protocol if self.k is None else f"{self.protocol} k={self.k}, {self.matching}"
        name = f"{name}, {self.options['hidden']} filters" if self.options.get("hidden") else name
        name = name.replace("largest_iou", "largest IoU") + (" by pixels" if self.by_pixels else "")
        name = f"{name}, merged from {self.options['merge']}" if self.options.get("merge") else name
        name = f"{name}, crop {self.crop}" if self.crop != "none" else name
        name = f"{name}, {self.options['looks'].strip('-').replace('-', ', ')}" if self.options.get("looks") else name
        name = f"{name} + CRF" if self.crf else name
        return f"{name}, fitted on {self.fit_split}" if self.fitted_elsewhere else name

    @property
    def doubt(self) -> str:
        """Why this may not mean what it seems to: what is missing, or was learned from; "" without a doubt."""
        said = []
        if in_both := self.options.get("images_in_both", 0):
            measured = f"{self.dataset} {self.split}"
            said.append(f"images of {measured} that are in {self.fit_split} too, which was learned from: {in_both}")
        pixels, void = self.counts.get("pixels", 0), self.counts.get("void", 0)
        unseen = [name for name, row in zip(self.class_names, self.confusion, strict=False) if not any(row)]
        if unseen and self.protocol not in ("objects", "retrieval"):  # whose rows are objects
            names = ", ".join(unseen[:5]) + (f" and {len(unseen) - 5} more" if len(unseen) > 5 else "")
            said.append(f"not one pixel of {self.dataset} {self.split} is {names}")
        if void > pixels:
            said.append(f"{void / (void + pixels):.0%} of its pixels are void and count for nothing")
        return "; ".join(said)

    @property
    def headline(self) -> str:
        """The mIoU, with its standard deviation where there are several seeds, e.g. "mIoU .312 ± .010"."""
        if "miou" not in self.metrics:
            return ", ".join(f"{name} {_fraction(value)}" for name, value in self.metrics.items())
        spread = f" ± {_fraction(self.metrics.get('miou_std', 0.0))}" if len(self.seeds) > 1 else ""
        return f"mIoU {_fraction(self.metrics['miou'])}{spread}"

    def __repr__(self) -> str:
        """One line; `to_dict` has everything."""
        measured = f"{self.dataset} {self.split}"
        doubt = [("", f"note: {self.doubt}")] if self.doubt else []
        return in_line("EvalResult", [("", f"{self.what}, {self.column}, {measured}: {self.headline}"), *doubt])

    def _repr_html_(self) -> str:
        further = [name for name in self.metrics if name not in ("miou", "miou_std") and not name.endswith("_std")]
        told = [("measured on", f"{self.dataset} {self.split}"), ("what", self.what), ("protocol", self.column)]
        told += [(name.replace("_", " "), _fraction(self.metrics[name])) for name in further]
        rows = [
            (name, "no pixel, none predicted" if iou is None else bar(iou), "" if iou is None else _fraction(iou))
            for name, iou in zip(self.class_names, self.class_iou, strict=True)
        ]
        classes = table(("class", "IoU", ""), rows, right=(2,), what="classes")
        if len(rows) > 12:
            classes = folded(f"IoU of the {len(rows)} classes", classes)
        doubts = [self.doubt] if self.doubt else []
        return card("A result", facts(told), classes, note(self.meaning), warnings=doubts, headline=self.headline)

    @property
    def meaning(self) -> str:
        """What the headline's number and its interval are, in a sentence or two."""
        count, what = len(self.seeds), "seeds" if self.labels is None else "draws of the labelled images"
        spread = f" ± is the standard deviation over {count} {what}." if count > 1 else ""
        if count == 1:
            spread = " It was measured once, so nothing says how much another seed would differ."
        told = f"mIoU is the mean over the classes of overlap divided by union, 1 is perfect.{spread}"
        if self.matching == "none":
            return told
        named_by = self.options.get("matched_on", self.split)
        return f"{told} The labels of {self.dataset} {named_by} said which class each group stands for."

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EvalResult:
        """The inverse of `to_dict`.

        Raises:
            TypeError: for an unknown or missing key, or a value of another kind.
            ValueError: if there is not one IoU and one row of the confusion for each class.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"a result is an object, not {type(values).__name__}")
        values = dict(values)
        for name in ("class_names", "class_iou", "seeds", "confusion"):
            if isinstance(values.get(name), list):  # and not a text, which is a sequence too
                values[name] = tuple(values[name])
        if isinstance(values.get("confusion"), tuple):
            values["confusion"] = tuple(tuple(row) if isinstance(row, list) else row for row in values["confusion"])
        result = cls(**values)
        check_kinds(result, finite=False)
        names, rows = len(result.class_names), result.confusion
        if len(result.class_iou) != names or (rows and {len(rows), *map(len, rows)} != {names}):
            raise ValueError(f"a result of {names} classes has {len(result.class_iou)} IoU and {len(rows)} rows")
        return result


def _fraction(value: float) -> str:
    return f"{value:.3f}"
