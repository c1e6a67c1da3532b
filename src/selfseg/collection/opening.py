"""Where every verb begins: a run's embedder on a device, and the images that it is shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from numpy.typing import NDArray

from selfseg.data.labelled.catalog import find_images
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.skipping import SkipLog, scan
from selfseg.data.reading.windows import expand
from selfseg.errors import ConfigError, EmptyCollection, RunError
from selfseg.models.embedder import Embedder, EmbedderConfig, Looks
from selfseg.models.embedder_config import read_config
from selfseg.models.inputs.in_memory import hold, is_held
from selfseg.showing import learned_with
from selfseg.storage.hashes import embedder_hash
from selfseg.storage.reading import read_recipe_values
from selfseg.storage.remote.places import at_places

Images = (
    str | Path | Sequence[Any] | Mapping[str, Any] | NDArray[Any] | torch.Tensor | PIL.Image.Image | ImageCollection
)
"""What verbs take: a folder, a list file, NAME:ROOT, paths, a collection; or images that the program holds.

`selfseg.models.inputs.in_memory.hold` says which these are."""


@at_places(models=["run"])
def load(run: Path | str, device: str = "auto", looks: Looks | None = None, window: int | None = None) -> Embedder:
    """The embedder that a run has learned so far, in evaluation mode.

    Args:
        run: the run's folder.
        device: where the embedder is put: "auto" (CUDA if there is any), "cpu", "cuda", "cuda:1", ...
        looks: how often `embed` looks at an image; once if None.
        window: side in px of the windows that large images are looked at in; the run's own if None.

    Raises:
        RunError: if the folder is missing, is not a run, or holds no embedder yet.
        ConfigError: if the device is not there.
    """
    run = _trained(run)
    embedder = Embedder.load(run / "embedder").to(choose_device(device)).eval()
    embedder.looks = looks or Looks()
    embedder.learned_with = learned_with(plain_recipe(run))
    if window is not None:
        embedder.window = replace(embedder.config, window=window).side  # checked
    return embedder


def load_known(
    run: Path | str, device: str = "auto", looks: Looks | None = None, window: int | None = None
) -> tuple[Embedder, str]:
    """`load`, and what `embedder_hash` gives for what was loaded, also while a training goes on and replaces it.

    Raises:
        RunError: as of `load`; if it is replaced again and again.
    """
    made_by = embedder_hash(run)
    for _ in range(5):
        embedder, before = load(run, device, looks, window), made_by
        made_by = embedder_hash(run)
        if made_by == before:
            return embedder, made_by
    raise RunError(f"the embedder of {run} is replaced all the time; wait until its training is over")


def require_same(run: Path, expected: str, loaded: str) -> None:
    """Raise RunError if a worker has loaded something else than who hired it ("": nobody did)."""
    if expected and expected != loaded:
        raise RunError(
            f"{run} was trained or clustered again while its images were looked at; run the same command again"
        )


def config_of(run: Path | str) -> EmbedderConfig:
    """What a run's embedder is made of, without its weights; raises RunError as `load` does."""
    return read_config(_trained(run) / "embedder")[0]


def _trained(run: Path | str) -> Path:
    run = Path(run)
    if not run.is_dir():
        raise RunError(f"there is no run at {run}; give the folder that training wrote with --out")
    if not (run / "embedder" / "embedder.json").is_file():
        if not any((run / name).exists() for name in ("recipe.yaml", "log.jsonl", "checkpoints")):
            raise RunError(f"{run} is not a run (no recipe.yaml, log.jsonl or embedder/ in it)")
        raise RunError(
            f"{run} has no embedder yet. Training writes it; run the same train command again to continue it"
        )
    return run


def choose_device(device: str) -> torch.device:
    """The device that a word names; "auto" is CUDA if there is any, else the CPU.

    Raises:
        ConfigError: if the word is no device or the device is not there.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device {device!r} is not known; use auto, cpu, cuda or cuda:N") from error
    if chosen.type not in ("cpu", "cuda"):
        try:
            torch.zeros(1, device=chosen).item()
        except Exception as error:  # torch's own are of many kinds
            raise ConfigError(f"device {device!r} can't be used here; use auto, cpu, cuda or cuda:N") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {device!r} is not there; there are {torch.cuda.device_count()} CUDA devices; use auto or cpu"
        )
    return chosen


def collect(images: Images, embedder: Embedder | None = None, cut: bool = True) -> ImageCollection:
    """The collection that a folder, a list file, NAME:ROOT (see `selfseg.data.labelled.catalog`) or paths name.

    Images that the program holds are a collection, too: see `selfseg.models.inputs.in_memory.hold`.

    Args:
        images: these, or a collection.
        embedder: who looks at the images: its run's channels are read, and large images are cut into its windows.
            None = photographs.
        cut: whether large images are cut into windows, which are images of their own.

    Raises:
        EmptyCollection: if there is no image.
    """
    if isinstance(images, Iterator):
        images = tuple(images)
    if isinstance(images, ImageCollection):
        collection = images
    else:
        collection = hold(images) if is_held(images) else find_images(images)  # type: ignore[arg-type]
    if len(collection) == 0:
        raise EmptyCollection(f"no images in {images}; give a folder with images, or a .txt file that lists them")
    if embedder is None:
        return collection
    return as_seen_by(embedder.config, collection, cut, embedder.window)


def collect_for(run: Path | str, images: Images, cut: bool = True) -> ImageCollection:
    """`collect` for a run whose embedder isn't loaded; raises RunError as `load` does."""
    return as_seen_by(config_of(run), collect(images), cut)


def as_seen_by(
    config: EmbedderConfig, collection: ImageCollection, cut: bool = True, window: int | None = None
) -> ImageCollection:
    """A collection that is read as an embedder's run read its images, see `collect`.

    Raises:
        DataError: for images in shards or a zip, which are photographs, where the run's are measured.
    """
    return expand(collection.measured(config.channels), window or config.side, cut)


def whole_images(collection: ImageCollection, log: SkipLog, indices: Sequence[int] | None = None) -> list[int]:
    """Those of `indices` (None: all) that `scan` finds whole; damage inside of a file shows only when it is read.

    Raises:
        TooManyBadImages: at once, when all of the bad ones are in `log`; see `SkipLog`.
        EmptyCollection: if none is left.
    """
    wanted = range(len(collection)) if indices is None else indices
    scan(collection if indices is None else collection.subset(indices), log)
    return [i for i in wanted if collection.names[i] not in log.skipped]


def plain_recipe(run: Path) -> dict[str, Any]:
    """A run's recipe.yaml as plain values; empty if there is none. Who only looks must not know methods or the trainer.

    Args:
        run: the run's folder.
    """
    return read_recipe_values(run)
