"""The few-label curve (protocol `finetune`): the whole network learns from a share of the labels.

The protocol of MaskContrast (W. Van Gansbeke et al., ICCV 2021, arXiv 2102.06191, section 4.6, table 6, appendix F):
the run's network with a new 1x1 classifier on the decoder's features learns from 0.1 to 100 % of the labelled images,
several random splits each, beside the same network with the weights that the run itself had begun from. Both see the
same images, crops, flips and classifier in each split; a split's smaller shares lie inside its larger ones.

What each contender gets
- the run's weights ("embedder"): BatchNorm keeps its statistics; up to `few` percent of the labels the learning rate is
  `few_lr`, of the classifier `few_last_lr`; above, `lr` for all (appendix F).
- the start ("random", or the name of the weights): `lr` for all at every share, as the paper's baseline.
  Statistics that came with the weights (a pre-trained backbone's) are kept too. Random weights have none: at mean 0 and
  variance 1 BatchNorm would not normalise, so theirs are the batch's in training and running averages when measured.
  `frozen_statistics=False` lets all contenders do that, to see how much it matters.

Where ours differs from the paper
- it does not say how long it trains: `steps` is our choice, the same for every share.
- logits are resized with align_corners=False.
- the projector of SlotCon is a part of its comparison: the classifier is put on the backbone's last stage.

    OUT/finetune.json     every setting but labels and splits, which may grow
    OUT/cells/            a folder per contender, share and split: cell.json when it is done; segmenter/ if it is kept
    OUT/predictions.html  what the kept networks of the first split predict
    OUT/splits/           the images of each split, one a line: n percent are the first n percent of the lines
    OUT/curve.svg         the plot, which the report shows too
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from selfseg.collection.opening import choose_device
from selfseg.data.labelled.catalog import VOID, LabelledImages
from selfseg.data.labelled.legend import Legend
from selfseg.drawing.charts import standalone
from selfseg.drawing.result_charts import curves_of, few_label_curves
from selfseg.errors import ConfigError
from selfseg.evaluation.baselines import MOST_FREQUENT, constant_confusion
from selfseg.evaluation.contents import check_labels, contents_of, images_in_both
from selfseg.evaluation.measure.confusion import metrics_of
from selfseg.evaluation.measure.reading import Tally
from selfseg.evaluation.measure.results import Question, Results, result_name, result_of
from selfseg.evaluation.predictions import Kept, write_predictions_page
from selfseg.evaluation.protocols.contenders import Contender, FineTunedEmbedder, contenders
from selfseg.evaluation.protocols.segmentation import SegmentationConfig, count_segmenter, open_splits, train_segmenter
from selfseg.evaluation.sources import own_job, weights_hash
from selfseg.models.embedder import Embedder
from selfseg.storage.files import mark_output, read_json, write_json, write_text
from selfseg.storage.hashes import run_hash
from selfseg.storage.remote.places import at_places
from selfseg.types import EvalResult

VERSION = 1
"""Raised whenever the same input would give another number."""

LABELS = (1.0, 2.0, 5.0, 12.5, 100.0)
"""The paper's shares of the labelled images, in percent."""


@dataclass(frozen=True)
class FewLabelsConfig(SegmentationConfig):
    """How the cells of the curve are trained; see the top of this file.

    Attributes:
        few: share of the labels, in percent, up to which the next two learning rates are used.
        few_lr: learning rate for all but the classifier, with few labels.
        few_last_lr: learning rate of the classifier, with few labels.
        frozen_statistics: whether BatchNorm keeps the statistics that come with the weights.
    """

    steps: int = 10_000
    batch_size: int = 8
    lr: float = 0.004
    decay: Literal["steps", "poly"] = "poly"
    crop: int = 512
    short_side: int | None = None
    few: float = 2.0
    few_lr: float = 0.001
    few_last_lr: float = 0.1
    frozen_statistics: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.few <= 100:
            raise ConfigError(f"few is a share in percent, in [0, 100], not {self.few}")
        if min(self.few_lr, self.few_last_lr) <= 0:
            raise ConfigError(f"need few_lr > 0 and few_last_lr > 0, not {self.few_lr} and {self.few_last_lr}")


def subset_order(images: int, seed: int, split: int) -> list[int]:
    """The order in which a split takes images: a share of the labels is the beginning of it.

    Args:
        images: how many there are.
        seed: at least 0.
        split: number of the split.

    Returns:
        A permutation of the images.
    """
    order: list[int] = np.random.Generator(np.random.PCG64([seed, split, images])).permutation(images).tolist()
    return order


def subset_size(images: int, labels: float) -> int:
    """How many images a share is: rounded half up, at least 1.

    Example:
        >>> [subset_size(367, labels) for labels in (0.1, 1, 12.5, 100)]
        [1, 4, 46, 367]
    """
    return max(1, int(images * labels / 100 + 0.5))


@at_places(runs=["run"], reads=["data"], writes=["out"])
def finetune(
    run: Path | str | Embedder,
    data: Path | str,
    labels: Sequence[float] = LABELS,
    splits: int = 3,
    config: FewLabelsConfig | None = None,
    out: Path | str | None = None,
    *,
    init: str | None = None,
    device: str = "auto",
    workers: int = 2,
    checkpoint_every: int = 1000,
    progress: bool = True,
    keep: bool = False,
) -> Results:
    """Measure what a run is worth when there are few labels; or continue a curve that was stopped.

    Each cell of the curve (contender, share, split) is trained and measured once. The same call again only does what is
    missing, also with further shares or splits.

    Args:
        run: a run's folder, or an embedder.
        data: a labelled folder, see `selfseg.data.labelled.catalog`.
        labels: shares of the labelled images in percent, in (0, 100]; at least one image is taken.
        splits: how many random subsets of each share. At 100 % they only differ in the order of images and the new
            layers.
        config: how the cells are trained.
        out: the folder to work in; RUN/finetune/DATA if None.
        init: what the run began from, see `contenders`.
        device: "auto", "cpu", "cuda", ...
        workers: processes that read and crop.
        checkpoint_every: iterations between checkpoints.
        progress: show a progress bar per cell.
        keep: keep each cell's network as a named segmenter (OUT/cells/CELL/segmenter, for `selfseg.apply` and
            `selfseg.export`), and write OUT/predictions.html. A cell whose network was not kept is trained again.

    Returns:
        For each contender and share a result whose `labels` is the share, with mean and standard deviation over splits,
        and the most frequent class. They also lie in RUN/results (of an embedder in OUT/results).

    Raises:
        ConfigError: for settings that can't work.
        RunError: if `run` is no run with an embedder, or OUT is something else or in use.
        CheckpointError: if the weights that the run began from are not there any more.
        RecipeMismatch: if OUT holds a curve with other settings, of another run or other images.
        DataError: if the data can't be read.
        NonFiniteLoss: if a loss stops being a number.
        Interrupted: after Ctrl-C or SIGTERM, when the state is saved.

    Example:
        >>> finetune("runs/vice", "data/camvid", labels=[1, 5, 25, 100])  # doctest: +SKIP
    """
    config = config or FewLabelsConfig()
    shares = sorted(set(labels))
    if not shares or not 0 < shares[0] <= shares[-1] <= 100:
        raise ConfigError(f"labels are shares in percent, in (0, 100], not {', '.join(map(str, labels)) or 'none'}")
    if splits < 1 or checkpoint_every < 1 or workers < 0:
        raise ConfigError(
            f"need splits >= 1, checkpoint_every >= 1 and workers >= 0, not {splits}, {checkpoint_every} and {workers}"
        )
    folder = None if isinstance(run, Embedder) else Path(run)
    if out is None and folder is None:
        raise ConfigError("an embedder has no folder to write to; give out")
    settings = {
        "device": choose_device(device),
        "workers": workers,
        "checkpoint_every": checkpoint_every,
        "progress": progress,
    }
    fit, measured = open_splits(data, config)
    pair = contenders(run, init)
    starts = [contender.make(config.seed) for contender in pair]
    config = replace(config, backbone=starts[0].config.backbone)
    channels = starts[0].config.channels
    fit, measured = fit.measured(channels), measured.measured(channels)
    record = {
        "kind": "finetune",
        "contenders": {c.what: weights_hash(start) for c, start in zip(pair, starts, strict=True)},
        "data": str(Path(data)),
        "images": hashlib.blake2b(
            "\n".join((*fit.images.names, *measured.images.names)).encode("utf-8", "surrogateescape"), digest_size=8
        ).hexdigest(),
        "files": contents_of((fit, measured)),
        **asdict(config),
    }
    place = curve_folder(run, out, fit.name)  # type: ignore[arg-type]
    if keep:
        Legend.of(fit.class_names)  # refuses two classes of one name
    check_labels(fit, measured)
    with own_job(place, record, "finetune"):
        curve = _Curve(fit, measured, config, place, settings, keep)
        results = [
            curve.result(contender, share, splits, run_hash(folder) if folder else "")
            for share in shares
            for contender in pair
        ]
        results.append(curve.constant(tally_of(curve.cell(pair[-1], shares[-1], 0))))
        if keep:
            networks = [curve.kept(contender, share) for share in shares for contender in pair]
            title = (folder or place).resolve().name
            write_predictions_page(place / "predictions.html", title, networks, measured, len(fit), device=device)
    kept = (folder or place) / "results"
    for result in results:
        write_json(kept / result_name(result), result.to_dict())
    try:
        known = few_label_curves(folder or place)  # with shares that were measured before
    except (ValueError, TypeError, KeyError, AttributeError):  # of a file that is no result
        known = curves_of(results)
    for drawn in known:
        if drawn.key == results[0].options["curve"]:
            write_text(place / "curve.svg", standalone(drawn.svg()))
    return Results(results)


def curve_folder(run: Path | str, out: Path | str | None, dataset: str) -> Path:
    """Where `finetune` keeps its work.

    Args:
        run: the run's folder; not looked at if `out` is given.
        out: the folder that was asked for, or None.
        dataset: the name of the data.

    Example:
        >>> curve_folder("runs/vice", None, "camvid").as_posix()
        'runs/vice/finetune/camvid'
    """
    return Path(out) if out is not None else Path(run) / "finetune" / dataset


class _Curve:
    """The cells of a curve, trained as they are asked for."""

    def __init__(
        self,
        fit: LabelledImages,
        measured: LabelledImages,
        config: FewLabelsConfig,
        out: Path,
        settings: dict[str, Any],
        keep: bool = False,
    ) -> None:
        self.keep = keep
        self.fit, self.measured, self.config, self.out, self.settings = fit, measured, config, out, settings
        self.in_both = images_in_both(fit, measured)
        # Which results belong to one plot.
        held = (out / "finetune.json").read_bytes()
        self.key = hashlib.blake2b(held, digest_size=8).hexdigest()

    def result(self, contender: Contender, share: float, splits: int, recipe_hash: str) -> EvalResult:
        """Mean and deviation over the splits."""
        cells = [self.cell(contender, share, split) for split in range(splits)]
        confusions = [np.array(cell["confusion"], np.int64) for cell in cells]
        images = subset_size(len(self.fit), share)
        question = Question(
            protocol="finetune",
            protocol_version=VERSION,
            what=contender.what,
            fit_split=self.fit.split,
            resolution=self.config.short_side or "native",
            seeds=tuple(self.config.seed + split for split in range(splits)),
            labels=share,
            recipe_hash=recipe_hash if contender.trained else "",
        )
        return result_of(
            question,
            confusions,
            tally_of(cells[0]),
            self.measured,
            options={
                **asdict(self.cell_config(contender, share, 0)[0]),
                "start": contender.sentence,
                "statistics": "kept where they came with weights" if self.config.frozen_statistics else "trained",
                "last_layer_lr": self.cell_config(contender, share, 0)[1],
                "miou_of_splits": [metrics_of(confusion).miou for confusion in confusions],
                "curve": self.key,
                **self.in_both,
            },
            counts={"fit_images": images},
        )

    def constant(self, tally: Tally) -> EvalResult:
        """The most frequent class of the whole fit split, on the pixels that the cells' `tally` counted."""
        labels = np.zeros(len(self.fit.class_names), np.int64)
        for index in range(len(self.fit)):
            labels += np.bincount(self.fit.read_label(index).ravel(), minlength=VOID + 1)[: len(labels)]
        winner, confusion = constant_confusion(labels, tally.labels)
        return result_of(
            Question("constant", 1, MOST_FREQUENT, self.fit.split, "native"),
            [confusion],
            tally,
            self.measured,
            options={"class": self.fit.class_names[winner]},
            counts={"fit_images": len(self.fit)},
        )

    def cell_config(self, contender: Contender, share: float, split: int) -> tuple[FewLabelsConfig, float]:
        """A cell's settings, and the learning rate of its classifier."""
        config = replace(self.config, seed=self.config.seed + split)
        if contender.trained and share <= config.few:
            return replace(config, lr=config.few_lr, final_lr=min(config.final_lr, config.few_lr)), config.few_last_lr
        return config, config.lr

    def folder(self, contender: Contender, share: float, split: int) -> Path:
        """A cell's."""
        name = re.sub(r"[^A-Za-z0-9_.]+", "-", f"{contender.what}-{share:g}-split{split}")
        return self.out / "cells" / name

    def kept(self, contender: Contender, share: float) -> Kept:
        """The first split's network."""
        cell = self.cell(contender, share, 0)
        miou = metrics_of(np.array(cell["confusion"], np.int64)).miou
        return Kept(contender.what, share, cell["images"], miou, self.folder(contender, share, 0) / "segmenter")

    def cell(self, contender: Contender, share: float, split: int) -> dict[str, Any]:
        """What was measured in a cell, trained now or before."""
        folder = self.folder(contender, share, split)
        done = folder / "cell.json"
        if not done.is_file() or (self.keep and not (folder / "segmenter" / "segmenter.json").is_file()):
            order = subset_order(len(self.fit), self.config.seed, split)
            names = "".join(f"{self.fit.images.names[index]}\n" for index in order)
            write_text(self.out / "splits" / f"split{split}.txt", names)
            fit = self.fit.subset(order[: subset_size(len(self.fit), share)])
            config, last_lr = self.cell_config(contender, share, split)
            model = contender.segmenter(len(self.fit.class_names), config.seed, config.frozen_statistics)
            mark_output(folder)
            train_segmenter(
                model,
                fit,
                config,
                folder,
                **self.settings,
                groups=list(_groups(model, last_lr / config.lr)),
                what=f"{contender.what}, {share:g} %, split {split + 1}",
                keep_weights=False,
            )
            confusion, tally = count_segmenter(model, self.measured, config)
            if self.keep:
                about = {
                    "made_by": "finetune",
                    "from": contender.sentence,
                    "labels_percent": f"{share:g}",
                    "split": split,
                }
                model.named(Legend.of(self.fit.class_names), config.short_side, about).save(folder / "segmenter")
            met = {key: getattr(tally, key) for key in ("images", "pixels", "void", "skipped")}
            cell = {"labels": share, "split": split, "images": len(fit), "tally": met, "confusion": confusion.tolist()}
            write_json(done, cell)
        # A curve has dozens of cells: what only a resume needs goes.
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        read: dict[str, Any] = read_json(done)
        return read


def tally_of(cell: Mapping[str, Any]) -> Tally:
    """What a cell met in the measured split."""
    return Tally(**cell["tally"], labels=np.array(cell["confusion"], np.int64).sum(1))


def _groups(model: FineTunedEmbedder, scale: float) -> Iterator[dict[str, Any]]:
    yield {"params": list(model.embedder.parameters())}
    yield {"params": list(model.classifier.parameters()), "scale": scale}
