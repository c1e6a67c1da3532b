"""The concepts that a method has learned itself, beside a run's embedder."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from selfseg.errors import RunError
from selfseg.storage.files import write_atomically

_PROTOTYPES = "embedder/prototypes.safetensors"


def has_prototypes(run: Path | str) -> bool:
    """Whether the run's method learned concepts itself."""
    return (Path(run) / _PROTOTYPES).is_file()


def load_prototypes(run: Path | str) -> Tensor:
    """The concepts that the run's method learned itself.

    Returns:
        (K, D) float32, unit rows in the space of the embedder's output.

    Raises:
        RunError: if the run has none, or they are damaged.
    """
    path = Path(run) / _PROTOTYPES
    if not path.is_file():
        raise RunError(
            f"{run} has no prototypes ({path} is missing): its method has none, or an older selfseg trained it; "
            "`selfseg cluster` gives any run clusters"
        )
    try:
        prototypes = load_file(path)["prototypes"]
    except (OSError, KeyError, SafetensorError) as error:
        raise RunError(
            f"{path} is damaged ({type(error).__name__}: {error}); delete RUN/embedder, and the same train command "
            "writes it again from the last checkpoint"
        ) from error
    return prototypes


def save_prototypes(run: Path | str, prototypes: Tensor | None) -> None:
    """Write what `load_prototypes` reads; nothing for None."""
    if prototypes is not None:
        tensors = {"prototypes": prototypes.detach().float().cpu().contiguous()}
        write_atomically(Path(run) / _PROTOTYPES, lambda path: save_file(tensors, path))
