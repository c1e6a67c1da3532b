"""Reference rows: networks that nobody here trained, as embedders, by a word on the command line.

    timm:NAME              any timm backbone with the weights that timm has for it (downloaded, once)
    timm:NAME:default      with packaged weights, where there are some
    timm:NAME:random       with random weights
    timm:NAME:FILE         with those of a local file, as `selfseg.models.start.load_backbone` reads them

What is measured is the last stage, of a ViT after its last norm, normalised to unit length as every embedding is.
Colours are centred and scaled as the file says, or timm for the architecture's weights. A CNN's last stage has a stride
of 16 (dilated; 32 where timm can't), a ViT's that of its patches.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import timm
import torch

from selfseg.errors import ConfigError
from selfseg.evaluation.measure.features import Extractor
from selfseg.models.embedder import Embedder, EmbedderConfig

PREFIX = "timm:"
STRIDES: tuple[Literal[16, 32], ...] = (16, 32)  # of a CNN's last stage in px, the first that can be had
_WORDS = "write timm:NAME, timm:NAME:random or timm:NAME:FILE"


@dataclass(frozen=True)
class Reference:
    """What a word names.

    Attributes:
        backbone: timm name.
        weights: "timm", "random" or a file.
    """

    backbone: str
    weights: str = "timm"

    @property
    def name(self) -> str:
        """What results call it, e.g. "resnet18, random" or "vit_small_patch16_224, dino.pth"."""
        return f"{self.backbone}, {Path(self.weights).name}"


def is_reference(source: object) -> bool:
    """Whether a source is a reference and not a run's folder."""
    return isinstance(source, str | Path) and str(source).startswith(PREFIX)


def parse_reference(source: str | Path) -> Reference:
    """What `timm:NAME[:WEIGHTS]` names.

    Raises:
        ConfigError: for a word of another form.

    Example:
        >>> parse_reference("timm:resnet18:random").name
        'resnet18, random'
    """
    backbone, _, weights = str(source).removeprefix(PREFIX).partition(":")
    if not is_reference(source) or not backbone or str(source).endswith(":"):
        raise ConfigError(f"{str(source)!r} names no backbone; {_WORDS}")
    return Reference(backbone, weights or "timm")


def load_reference(reference: Reference, seed: int = 0) -> Embedder:
    """The backbone as an embedder, on the CPU, in evaluation mode; images keep their size.

    Args:
        reference: which.
        seed: of random weights.

    Raises:
        ConfigError: if timm has no such network, or it does not take images of any size.
        CheckpointError: if the weights can't be had or are another network's.
    """
    embedder = _build(reference.backbone, seed)
    _check_any_size(embedder, reference.backbone)
    if reference.weights != "random":
        embedder.begin_from("imagenet" if reference.weights == "timm" else reference.weights)
        return embedder
    known = timm.models.get_pretrained_cfg(reference.backbone)
    if known is not None:
        embedder.expect_colours(known.mean, known.std)
    return embedder


def of_reference(extractor: Extractor, reference: Reference) -> Extractor:
    """An extractor of `load_reference`'s embedder under the reference's name, with a record of what it is."""
    further = "" if extractor.name.startswith("embedder") else f"{reference.name}: "
    name = further + extractor.name.replace("embedder", reference.name, 1)
    return replace(extractor, name=name, options={**extractor.options, **asdict(reference)})


def _build(backbone: str, seed: int) -> Embedder:
    refused: ConfigError | None = None
    for stride in STRIDES:
        config = EmbedderConfig(backbone=backbone, output_stride=stride, decoder="none", resolution=None)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                return Embedder(config).eval()
        except ConfigError as error:
            refused = refused or error
    assert refused is not None
    raise refused


def _check_any_size(embedder: Embedder, backbone: str) -> None:
    try:
        shape = embedder.embed(np.zeros((70, 101, 3), np.uint8)).shape
    except (RuntimeError, AssertionError, ValueError, ConfigError) as error:
        raise ConfigError(
            f"timm's {backbone} does not take images of any size ({error}); take a CNN such as resnet50 or "
            "convnext_tiny, or a ViT"
        ) from error
    if len(shape) != 3 or shape[0] != embedder.dim:
        raise ConfigError(f"timm's {backbone} gives no feature maps of {embedder.dim} channels; take a CNN or a ViT")
