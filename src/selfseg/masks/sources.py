"""Where maps of what stands out come from: the methods of `selfseg masks` beside the priors and proposals.

features       by the features of a pretrained network, learned for the collection   `selfseg.masks.networks.features`
network        a network that learns from all priors                           `selfseg.masks.networks.pseudo`
bootstrapped   a boundary-aware one that learns from that one's predictions
supervised     a boundary-aware one that learns from given masks
attention      a self-supervised ViT's attention                               `selfseg.masks.networks.vit`
tokencut       the normalised cut of its patches
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from selfseg.collection.batching.room import AUTO, Batching
from selfseg.collection.opening import choose_device
from selfseg.collection.streaming import Fetched, to_device
from selfseg.data.labelled.catalog import find_images
from selfseg.data.labelled.mask_files import MaskFolder, survey
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.skipping import SkipLog
from selfseg.errors import CheckpointError, ConfigError
from selfseg.masks import edges
from selfseg.masks.edges import to_image
from selfseg.masks.networks import features, vit
from selfseg.masks.networks.features import FeatureForeground, FeaturesConfig
from selfseg.masks.networks.learning import VERSION, NetworkConfig, to_square
from selfseg.masks.networks.network import predict, predict_there
from selfseg.masks.networks.pseudo import (
    Job,
    bootstrap,
    learn_from_masks,
    learn_from_priors,
    load_learned,
    tidy,
)
from selfseg.masks.priors import by_name as priors
from selfseg.masks.priors.scene import Array
from selfseg.masks.together import Finder
from selfseg.models.start import is_word
from selfseg.ops.channels import Channels
from selfseg.storage.files import write_json

Find = Callable[[NDArray[np.uint8]], Array]
"""(H, W, 3) uint8 RGB, or (H, W, C) levels, to (H, W) float32 in [0, 1]; several threads may call it."""

Learned = Literal["network", "bootstrapped", "supervised"]
Source = Literal["features", Learned, vit.Foreground]
SOURCES: tuple[Source, ...] = get_args(Source)


@dataclass(frozen=True)
class Training:
    """What networks are made of and trained on.

    Attributes:
        network: the settings of networks.
        images: folder or list of the images to train on; None = those that masks are mined for.
        masks: folder of masks of (some of) these images, for "supervised".
        device: auto, cpu or cuda.
        features: the settings of "features".
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    images: Path | None = None
    masks: Path | None = None
    device: str = "auto"
    features: FeaturesConfig = field(default_factory=FeaturesConfig)


def check_training(method: str, training: Training) -> None:
    """Whether the options fit together.

    Raises:
        ConfigError: if they don't, with the way out.
    """
    learns = method == "features" or method in get_args(Learned)
    if training.images is not None and not learns:
        raise ConfigError(f"--method {method} does not learn; leave --train-images out, or take --method features")
    if (training.masks is not None) != (method == "supervised"):
        raise ConfigError(
            "--method supervised learns from masks; give their folder with --train-masks"
            if method == "supervised"
            else f"--method {method} learns from no masks; leave --train-masks out, or take --method supervised"
        )
    if method in get_args(vit.Foreground) and training.network.init is None:
        raise ConfigError(
            f"--method {method} needs the weights of a self-supervised transformer; give its file with --network.init "
            "and its timm name with --network.backbone"
        )
    choose_device(training.device)


def describe(method: Source, training: Training) -> dict[str, Any]:
    """All that the maps depend on besides the images, as plain values.

    Raises:
        CheckpointError: if there is no file of initial weights.
    """
    if method == "features":
        return {
            "features": {**asdict(training.features), "init": _digest(training.features.init)},
            "train_images": None if training.images is None else str(training.images),
            "version": [features.VERSION, priors.VERSION, edges.VERSION],
        }
    network = asdict(training.network)
    if training.network.init is not None:
        network["init"] = _digest(training.network.init)
    if method in get_args(vit.Foreground):
        kept = {key: network[key] for key in ("backbone", "init")}
        return {"network": kept, "version": [vit.VERSION, edges.VERSION]}
    return {
        "network": {**network, "priors": list(training.network.priors)},
        "train_images": None if training.images is None else str(training.images),
        "train_masks": None if training.masks is None else str(training.masks),
        "version": [VERSION, priors.VERSION, edges.VERSION],
    }


def open_source(
    method: Source,
    training: Training,
    images: ImageCollection,
    out: Path,
    progress: bool,
    max_bad: float,
    batch: Batching = AUTO,
) -> Finder[Any, Any]:
    """What finds objects in an image; first trains it, if it has to be trained.

    A network is trained once for its settings, in OUT/networks: later calls take it as it is, also for images that
    have come since. An interrupted training goes on.

    Args:
        method: which.
        training: how; see `check_training`.
        images: those that masks are mined for.
        out: the folder of masks.
        progress: whether to show progress bars.
        max_bad: share of unreadable images that is an error.
        batch: how many images a GPU looks at together.

    Raises:
        ConfigError, DataError, CheckpointError, NonFiniteLoss, Interrupted, StorageError: see
            `selfseg.masks.networks.pseudo` and `selfseg.masks.networks.vit`.
    """
    if method != "features" and not images.rgb:
        raise ConfigError(
            f"--method {method} is a network of red, green and blue, and these images have other channels; take "
            "--method features, a prior such as mean, or hierarchy"
        )
    config, device = training.network, choose_device(training.device)
    settings = describe(method, training)
    work = source_folder(method, training, out)
    candidates = images if training.images is None else find_images(training.images).measured(images.channels)
    if method == "features":
        return _features(training.features, device, candidates, work, settings, progress, max_bad, batch)
    if method == "attention" or method == "tokencut":
        assert config.init is not None
        return vit.TransformerForeground(config.backbone, config.init, method, device)
    if method == "supervised":
        masks = MaskFolder(cast(Path, training.masks))
        if not (work / "boundary" / "weights.safetensors").is_file():
            found = survey(masks, candidates)
            masks, candidates = found.folder, candidates.subset(found.usable)
    job = Job(candidates, work, config, device, progress, max_bad)
    write_json(work / "settings.json", settings)
    if method == "network":
        learn_from_priors(job)
    elif method == "bootstrapped":
        bootstrap(job)
    else:
        learn_from_masks(job, masks)
    tidy(job)
    return load_source(method, training, images.channels, work)  # as whoever else loads it


def load_source(method: Source, training: Training, channels: Channels | None, work: Path) -> Finder[Any, Any]:
    """What finds objects in an image, as `open_source` trained it; nothing is written.

    Args:
        method: which.
        training: how it was trained.
        channels: how the images are read; None = photographs.
        work: as of `source_folder`.

    Raises:
        ConfigError, CheckpointError: if what was trained is gone or damaged.
    """
    config, device = training.network, choose_device(training.device)
    if method == "features":
        find = FeatureForeground(training.features, device, channels)
        find.load(work)
        return find
    if method == "attention" or method == "tokencut":
        assert config.init is not None
        return vit.TransformerForeground(config.backbone, config.init, method, device)
    network = load_learned(work, config, device, boundary=method != "network")
    return NetworkForeground(network, config.size, device)


class NetworkForeground:
    """Maps of the foreground from a network that was trained here.

    Args:
        network: it.
        size: side in px of the squares that it sees.
        device: where it is.
    """

    def __init__(self, network: nn.Module, size: int, device: torch.device) -> None:
        self.network, self.size, self.device = network, size, device
        # On a CPU several images are looked at side by side, each in one thread.
        self._alone = nullcontext() if device.type == "cpu" else threading.Lock()

    def __call__(self, image: NDArray[np.uint8]) -> Array:
        """(H, W, 3) uint8 RGB to (H, W) float32 in [0, 1]."""
        square = torch.from_numpy(to_square(image, self.size)[None])
        with self._alone:
            values = predict(self.network, square)[0].numpy()
        return to_image(values, image)

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """As of `selfseg.masks.together.Finder`: the square that the network sees."""
        return to_square(image, self.size)

    def pixels(self, prepared: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """As of `Finder`."""
        return prepared

    def see(self, pixels: Sequence[NDArray[np.uint8]]) -> list[Fetched]:
        """(S, S) float32 in [0, 1] for each square."""
        return Fetched(predict_there(self.network, to_device(np.stack(pixels), self.device))).rows()

    def coarse(self, prepared: NDArray[np.uint8], found: Fetched) -> Array:
        """As of `Finder`."""
        del prepared
        values: Array = found.numpy()
        return values


def source_folder(method: Source, training: Training, out: Path) -> Path:
    """Where what `open_source` trains for a folder of masks lies."""
    key = json.dumps(describe(method, training), sort_keys=True)
    return out / "networks" / hashlib.blake2b(key.encode(), digest_size=5).hexdigest()


def _features(
    config: FeaturesConfig,
    device: torch.device,
    candidates: ImageCollection,
    work: Path,
    settings: dict[str, Any],
    progress: bool,
    max_bad: float,
    batch: Batching,
) -> FeatureForeground:
    """What `features` learned from the candidates, now or before."""
    find = FeatureForeground(config, device, candidates.channels)
    if (work / features.FILE).is_file():
        find.load(work)
        return find
    work.mkdir(parents=True, exist_ok=True)
    log = SkipLog(work / "skipped.jsonl", len(candidates), max_bad)
    find.fit(candidates, log, progress, batch)
    write_json(work / "settings.json", settings)
    find.save(work)
    return find


def _digest(init: Path | str) -> str:
    """What tells a file of weights from another; a word that `load_backbone` knows stands for itself."""
    if is_word(init):
        return str(init)
    try:
        return hashlib.blake2b(Path(init).expanduser().read_bytes(), digest_size=8).hexdigest()
    except OSError as error:
        raise CheckpointError(f"can't read the weights {init}: {error.strerror}; give an existing file") from error
