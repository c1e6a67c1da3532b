"""What an evaluation measures: a run, a reference or an object, and the extractors that are made of it.

`Subjects` can be pickled where what it is of can be, so that a worker makes the same extractors for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from selfseg.collection.opening import choose_device, load, load_known, require_same
from selfseg.errors import ConfigError, RunError
from selfseg.evaluation.baselines import trivial_extractors, untrained_extractor
from selfseg.evaluation.measure.features import (
    Extractor,
    backbone_extractor,
    embedder_extractor,
    features_extractor,
    positioned,
)
from selfseg.evaluation.protocols.object_vectors import Finder, mask_finder, saliency_finder
from selfseg.evaluation.protocols.objects import object_settings
from selfseg.evaluation.protocols.prototypes import Prototypes
from selfseg.evaluation.references import is_reference, load_reference, of_reference, parse_reference
from selfseg.evaluation.settings import Beside, Reading
from selfseg.evaluation.sheet import EvaluationConfig, OfObjects, names_of
from selfseg.models.embedder import Embedder
from selfseg.models.prototypes import load_prototypes
from selfseg.storage.hashes import embedder_hash
from selfseg.workers.pipes import packed


@dataclass(frozen=True)
class Subjects:
    """What is measured.

    Attributes:
        run: as of `selfseg.evaluate`.
        config: says by what it is measured.
        reading: says the size of the images.
        beside: what is measured beside it.
        device: as of `open_source`.
        weights: `embedder_hash` of the run that was opened first; who opens it again must find the same.
        learned: (K, D) prototypes of that run, if prototypes are measured.
    """

    run: Path | str | Embedder | Extractor
    config: EvaluationConfig
    reading: Reading
    beside: Beside
    device: str | None = None
    weights: str = ""
    learned: torch.Tensor | None = None

    @property
    def folder(self) -> Path | None:
        """The run's; None if it is something else."""
        return None if is_reference(self.run) or not isinstance(self.run, str | Path) else Path(self.run)

    def open(self) -> Embedder | Extractor:
        """See `open_source`; raises RunError if the run is not the one of `weights` any more."""
        if self.folder is None:
            return open_source(self.run, self.device)
        embedder, found = load_known(self.folder, self.device or "auto")
        require_same(self.folder, self.weights, found)
        return embedder

    def opened(self) -> tuple[Embedder | Extractor, Subjects]:
        """What `open` gives, and the subjects with `weights` and `learned`, which a training may replace meanwhile."""
        if self.folder is None:
            return self.open(), self
        embedder, weights, learned = open_run(self.folder, self.config.prototypes is not None, self.device or "auto")
        return embedder, replace(self, weights=weights, learned=learned)

    def extractors(self, source: Embedder | Extractor) -> list[Extractor]:
        """What is measured by protocols of pixels, in the order of the results.

        Args:
            source: what `open` gave.

        Raises:
            ConfigError: if prototypes are asked for, of an embedder alone.
            RunError: if the run has none.
        """
        config, reading, beside = self.config, self.reading, self.beside
        found: list[Extractor] = []
        if isinstance(source, Embedder):
            learned = None
            if config.prototypes is not None:
                if self.folder is None:
                    raise ConfigError("an embedder alone has no prototypes; give the run's folder, or leave them out")
                learned = load_prototypes(self.folder) if self.learned is None else self.learned
            found += embedder_extractors(source, config, reading, beside, learned)
            if beside.untrained and config.fitted:
                found.append(untrained_extractor(source, reading.side))
            if is_reference(self.run):
                found = [of_reference(extractor, parse_reference(str(self.run))) for extractor in found]
        else:
            found.append(source)
        if beside.baselines and config.fitted:
            found += trivial_extractors(reading.side)
        return found

    def finder(self, source: Embedder | Extractor) -> tuple[Finder, int | str]:
        """What finds objects, and the resolution of the images for it; raises ConfigError if nothing does."""
        return _finder(source, self.config.of_objects, self.reading)

    def check_portable(self) -> None:
        """Raise ConfigError unless another process can be told what is measured."""
        if isinstance(self.run, str | Path):
            return
        try:
            packed(self.run)
        except Exception as error:  # of any kind: objects say in their own ways that they can't be pickled
            raise ConfigError(
                f"other processes can't be given this {type(self.run).__name__} ({error}); give the run's folder, an "
                "extractor whose function a module defines, or leave out --processes and --ray"
            ) from error


def open_run(run: Path, prototypes: bool = False, device: str = "auto") -> tuple[Embedder, str, torch.Tensor | None]:
    """A run's embedder, its `embedder_hash`, and its prototypes if asked for: all of one moment of a training.

    Raises:
        RunError: as of `load_known` and `load_prototypes`.
    """
    for _ in range(5):
        embedder, weights = load_known(run, device)
        learned = load_prototypes(run) if prototypes else None
        if learned is None or embedder_hash(run) == weights:
            break
    else:
        raise RunError(f"the embedder of {run} is replaced all the time; wait until its training is over")
    return embedder, weights, learned


def open_source(source: Path | str | Embedder | Extractor, device: str | None = None) -> Embedder | Extractor:
    """What is measured: a run's embedder, a reference's (`selfseg.evaluation.references`), or what is given.

    Args:
        source: a run's folder, `timm:NAME[:WEIGHTS]`, an embedder or an extractor.
        device: "auto", "cpu", "cuda", ...; None = "auto" for what is loaded, else where it is.

    Raises:
        RunError, ConfigError, CheckpointError: if it can't be had.
    """
    if isinstance(source, Extractor):
        return source
    if isinstance(source, Embedder):
        return source if device is None else source.to(choose_device(device))
    if is_reference(source):
        return load_reference(parse_reference(str(source))).to(choose_device(device or "auto"))
    if isinstance(source, str | Path):
        return load(source, device or "auto")
    raise ConfigError(
        f"can't evaluate {source!r}; give a run's folder, timm:NAME, an Embedder, or a function of your own as an "
        'Extractor: selfseg.evaluation.Extractor("mine", function, normalised=False, resolution="native")'
    )


def embedder_extractors(
    embedder: Embedder,
    config: EvaluationConfig,
    reading: Reading,
    beside: Beside,
    learned: torch.Tensor | None = None,
) -> list[Extractor]:
    """An embedder as what is measured: with its prototypes, if it has some, and what is asked for beside it.

    Args:
        embedder: stays on its device.
        config: says by what it is measured.
        reading: says the size of the images.
        beside: `position`, `backbone` and `features`.
        learned: (K, D) prototypes to measure, or None.

    Raises:
        RunError: if the prototypes are of another embedder.
    """
    side, others = reading.side, names_of(config.fitted)
    plain = embedder_extractor(embedder, side, looks=reading.looks)
    found = [plain]
    if learned is not None:
        if learned.shape[1] != embedder.dim:
            raise RunError(f"the run's prototypes have {learned.shape[1]} dimensions, its embedder {embedder.dim}")
        own = side or (config.prototypes or Prototypes()).resolution
        at = embedder_extractor(embedder, own, looks=reading.looks)
        if at.resolution == plain.resolution or not others:  # one extractor, which spares a pass
            found = [replace(at, prototypes=learned)]
        else:
            found = [replace(plain, protocols=others), replace(at, prototypes=learned, protocols=("prototypes",))]
    if beside.position and others:
        found.append(replace(positioned(plain, beside.position), protocols=others))
    if beside.backbone and others:
        found.append(replace(backbone_extractor(embedder, side), protocols=others))
    if beside.features and others:
        found.append(replace(features_extractor(embedder, side), protocols=others))
    return found


def _finder(source: object, protocols: Sequence[OfObjects], reading: Reading) -> tuple[Finder, int | str]:
    """Where objects are found, and the resolution of the images for it."""
    config = object_settings(protocols)
    if isinstance(source, Embedder) and config.masks is not None:
        source = embedder_extractor(source, reading.side)
    if isinstance(source, Embedder):
        return saliency_finder(source, config, reading.side), reading.side or source.resolution or "native"
    if isinstance(source, Extractor) and config.masks is not None:
        return mask_finder(source.extract, config.masks, reading.crop), source.resolution
    raise ConfigError("objects of an extractor without a saliency head need masks: Objects(masks=FOLDER)")
