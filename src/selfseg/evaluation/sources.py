"""What fine-tuning starts from: a run, a file or fresh weights, and the folder that the outcome goes to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from selfseg.collection.opening import load
from selfseg.errors import CheckpointError, RecipeMismatch, RunError
from selfseg.fitting.supervised import FineTuningConfig
from selfseg.models.backbones import make_backbone
from selfseg.models.embedder import Embedder
from selfseg.models.start import is_word, load_backbone
from selfseg.ops.channels import Channels
from selfseg.storage.files import is_unclaimed, mark_output, read_json, sole_use, write_json
from selfseg.types import IMAGENET_MEAN, IMAGENET_STD

Config = TypeVar("Config", bound=FineTuningConfig)


@dataclass(frozen=True)
class Start:
    """A backbone to start from.

    Attributes:
        backbone: (B, 3, H, W), normalised, to a list of feature maps, finest first.
        what: what results call it: "embedder" of a run, the file's name, or the word for initial weights.
        sentence: what was loaded.
        weights: hash of its weights.
        mean: of R, G and B in [0, 1] that it expects to be subtracted.
        std: that it expects to be divided by.
        channels: how it reads measured images; None = photographs.
    """

    backbone: nn.Module
    what: str
    sentence: str
    weights: str
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    channels: Channels | None = None


def open_source(source: Path | str | Embedder, config: Config, output_stride: int) -> tuple[Start, Config]:
    """The backbone that a source names, at the stride that the task wants.

    Args:
        source: a run's folder, an embedder, a checkpoint that `load_backbone` reads, or a
            word of `selfseg.models.start`.
        config: its `backbone` is the architecture, but for a run or an embedder, which know theirs.
        output_stride: of the last stage; weights don't depend on it.

    Returns:
        The backbone, and the configuration with its architecture.

    Raises:
        RunError: if the folder is no run with an embedder.
        CheckpointError: if there is no such file, or it holds another network.
        ConfigError: if the architecture can't be built at that stride.
    """
    if isinstance(source, Embedder) or Path(source).is_dir():
        embedder = source if isinstance(source, Embedder) else load(source, "cpu")
        config = replace(config, backbone=embedder.config.backbone)
        channels, groups = embedder.config.channels, embedder.config.groups
        inputs = 3 if groups else embedder.config.inputs
        normed = embedder.config.final_norm is not False
        backbone = make_backbone(config.backbone, output_stride, normed, inputs=inputs, groups=groups)
        try:
            backbone.load_state_dict(embedder.backbone.state_dict())
        except RuntimeError as error:
            raise CheckpointError(f"the embedder's backbone does not fit a {config.backbone}: {error}") from error
        what, sentence = "embedder", f"a {config.backbone}, of a trained embedder"
        colours = embedder.colours
    else:
        channels = None
        torch.manual_seed(config.seed)
        backbone = make_backbone(config.backbone, output_stride, final_norm=True)
        if str(source) == "random":
            what, sentence = "random", f"random weights of a {config.backbone}"
            colours = IMAGENET_MEAN, IMAGENET_STD
        elif not is_word(source) and not Path(source).is_file():
            raise CheckpointError(
                f"there is nothing at {source}; give a run, a file of weights, default, imagenet or random"
            )
        else:
            what = Path(source).name
            initial = load_backbone(backbone, source, config.backbone)
            sentence, colours = initial.loaded, (initial.mean, initial.std)
    return Start(backbone, what, sentence, weights_hash(backbone), *colours, channels), config


def weights_hash(network: nn.Module) -> str:
    """16 hex digits of everything that a network holds."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


_SINCE = {"one_class": 1.0, "distort": False, "head_concat": False, "dropout": 0.0, "auxiliary": 0.0}
"""Settings that older folders don't know, with the values that they were made by."""


@contextmanager
def own_job(out: Path, record: Mapping[str, Any], kind: str = "transfer") -> Iterator[None]:
    """Make OUT, or check that it is of the same job, and hold it: of two calls one would write over the other's work.

    Args:
        out: the folder.
        record: what the outcome depends on, ready for JSON; it lies in OUT/KIND.json.
        kind: what the job is.

    Raises:
        RecipeMismatch: if OUT is of another job; the message shows the difference.
        RunError: if OUT is something else, or another process is at work on it.
    """
    path = out / f"{kind}.json"
    if not path.is_file() and not is_unclaimed(out):
        raise RunError(f"{out} exists and is no {kind} of selfseg; give another --out")
    mark_output(out)
    with sole_use(out):
        _claim(path, record, kind)
        yield


def _claim(path: Path, record: Mapping[str, Any], kind: str) -> None:
    """Write OUT/KIND.json; RecipeMismatch if it is there, says something else, and work of it is kept."""
    out = path.parent
    wanted = json.loads(json.dumps(record))
    if path.is_file():
        # A first attempt that left nothing may have had a wrong setting.
        if any(any(out.rglob(left)) for left in ("checkpoints/step_*", "cells/*/cell.json")):
            try:
                held = dict(read_json(path))
            except (OSError, ValueError, TypeError) as error:
                raise RunError(f"{path} is damaged ({error}); give another --out, or take a copy of it") from error
            changed = [
                f"{key}: {held.get(key)} -> {wanted.get(key)}"
                for key in {**held, **wanted}
                if held.get(key, _SINCE.get(key, wanted.get(key) if key == "files" else None)) != wanted.get(key)
            ]
            if changed:
                raise RecipeMismatch(
                    f"{out} holds another {kind}:\n  "
                    + "\n  ".join(changed)
                    + "\ngive another --out, or the old settings to continue it"
                )
    write_json(path, wanted)


def describe(
    kind: str, source: object, start: Start, data: Path | str, files: str, config: FineTuningConfig
) -> dict[str, Any]:
    """What OUT/transfer.json holds: all that the outcome depends on; `files` is a hash of the labelled data."""
    return {
        "kind": kind,
        "source": str(source) if isinstance(source, str | Path) else type(source).__name__,
        "weights": start.weights,
        "data": str(Path(data)),
        "files": files,
        **asdict(config),
    }
