"""What the few-label curve compares: a run's network, and the same with the weights that the run began from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from selfseg.collection.opening import load
from selfseg.data.labelled.legend import Legend
from selfseg.errors import CheckpointError
from selfseg.evaluation.protocols.segmentation import Segmenter
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.segmenter.segmenter import Segmenter as NamedSegmenter
from selfseg.storage.reading import read_recipe_values


class FineTunedEmbedder(Segmenter):
    """An embedder's backbone and decoder with a new classifier.

    Args:
        embedder: its embedding's last map, saliency head and projector are of no use here and should not be there.
        classes: C.
        frozen: modules whose BatchNorm keeps its statistics in training.
    """

    def __init__(self, embedder: Embedder, classes: int, frozen: Sequence[nn.Module] = ()) -> None:
        super().__init__(embedder.decoder.channels, classes)
        self.embedder = embedder
        inside = [module for part in frozen for module in part.modules()]
        self._frozen = [module for module in inside if isinstance(getattr(module, "running_mean", None), Tensor)]

    def features(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] to the decoder's features, (B, channels, h, w)."""
        return self.embedder.features(image)

    def named(self, legend: Legend, resolution: int | None, about: Mapping[str, Any]) -> NamedSegmenter:
        """The same network as what `selfseg.apply` and `selfseg.export` take.

        Args:
            legend: the classes, in the order of the classifier.
            resolution: short side in px that images are resized to; None = as they are.
            about: see `selfseg.Segmenter`.
        """
        network = copy.deepcopy(self.embedder)
        network.config = replace(network.config, resolution=resolution, smooth=0.0)
        network.resolution = resolution
        weight, bias = self.classifier.weight.flatten(1), self.classifier.bias
        return NamedSegmenter(network, legend, weight, bias, about=about, sees="features").eval()

    def train(self, mode: bool = True) -> FineTunedEmbedder:
        """As of every module, but that frozen statistics stay as they are."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self


@dataclass(frozen=True)
class Contender:
    """A network to start from.

    Attributes:
        what: what results call it.
        make: a fresh one for a seed.
        keeps: the modules of it whose BatchNorm statistics came with weights.
        trained: whether it is the run's.
        sentence: what it is.
    """

    what: str
    make: Callable[[int], Embedder]
    keeps: Callable[[Embedder], Sequence[nn.Module]]
    trained: bool
    sentence: str

    def segmenter(self, classes: int, seed: int, frozen: bool) -> FineTunedEmbedder:
        """The network at the start of a cell.

        Args:
            classes: C.
            seed: of what is new; the classifier is the same for all contenders.
            frozen: whether BatchNorm keeps statistics that came with weights.
        """
        embedder = self.make(seed)
        torch.manual_seed(seed)
        return FineTunedEmbedder(embedder, classes, self.keeps(embedder) if frozen else ())


def contenders(run: Path | str | Embedder, init: str | None = None) -> tuple[Contender, Contender]:
    """The run's network, and the same with the weights that the run began from.

    Args:
        run: a run's folder, or an embedder, of which nobody knows what it began from.
        init: the weights that it began from, as `--init` of the training: a file, "imagenet:TAG" or "random"; None =
            what the run's recipe says, random without one.

    Raises:
        RunError: if the folder is no run with an embedder.
        CheckpointError: if the initial weights are not there any more, or of another network.
    """
    embedder = run if isinstance(run, Embedder) else load(run, "cpu")
    if init is None and not isinstance(run, Embedder):
        init = _recipe_init(Path(run))
    source = None if init in (None, "random") else str(init)
    config = _trainable(embedder.config)
    held = embedder.state_dict()

    def trained(seed: int) -> Embedder:
        fresh = Embedder(config)
        fresh.load_state_dict({name: held[name] for name in fresh.state_dict()})
        return fresh

    def start(seed: int) -> Embedder:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = Embedder(config)
        if source is not None:
            try:
                fresh.begin_from(source)
            except CheckpointError as error:
                raise CheckpointError(
                    f"the weights that the run began from can't be used: {error}; tell where they are with --init, or "
                    "compare with --init random"
                ) from error
        if config.decoder == "pyramid":  # what it began as: all but the correction was found, not learned
            found = {name: value for name, value in held.items() if name.startswith("decoder.")}
            learned = {name for name in found if name.startswith("decoder.correction.")}
            fresh.load_state_dict({name: found[name] for name in found.keys() - learned}, strict=False)
        return fresh

    def kept(fresh: Embedder) -> Sequence[nn.Module]:
        return [fresh.backbone] if source is not None else []

    before = "random weights, drawn anew for each split" if source is None else f"the backbone from {source}"
    return (
        Contender("embedder", trained, lambda fresh: [fresh], True, f"a trained {config.backbone}, {config.decoder}"),
        Contender("random" if source is None else Path(source).name, start, kept, False, before),
    )


def _trainable(config: EmbedderConfig) -> EmbedderConfig:
    """The network below the classifier: without what belongs to the methods' comparisons."""
    decoder = "none" if config.decoder == "projector" else config.decoder
    return replace(config, decoder=decoder, centred=False, saliency=False, frozen=False, frozen_stages=0)


def _recipe_init(run: Path) -> str | None:
    init = read_recipe_values(run).get("init")
    return init if isinstance(init, str) else None
