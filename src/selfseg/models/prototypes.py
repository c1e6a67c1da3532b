"""The concepts that a method has learned itself, beside a run's embedder."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from selfseg.errors import RunError
from selfseg.models.embedder import Embedder
from selfseg.models.embedder_config import read_config
from selfseg.storage.files import write_folder_atomically
from selfseg.storage.tensors import check_matrix, read_tensors, write_tensors

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
        config = read_config(path.parent)[0]
        width = None if config.decoder == "none" else config.dim
        return check_matrix(read_tensors(path)["prototypes"], "prototypes", None, width)
    except (OSError, KeyError, ValueError) as error:
        raise RunError(
            f"{path} is damaged ({type(error).__name__}: {error}); delete RUN/embedder, and the same train command "
            "writes it again from the last checkpoint"
        ) from error


def save_prototypes(run: Path | str, prototypes: Tensor | None) -> None:
    """Write what `load_prototypes` reads; nothing for None."""
    if prototypes is not None:
        tensors = {"prototypes": prototypes.detach().float().cpu().contiguous()}
        write_tensors(Path(run) / _PROTOTYPES, tensors)


def save_product(run: Path | str, embedder: Embedder, prototypes: Tensor | None) -> None:
    """Write `RUN/embedder`: the embedder and, unless None, the prototypes; a kill leaves the former folder or this one.

    Raises:
        StorageError: if it can't be written.
    """

    def write(folder: Path) -> None:
        embedder.save(folder)
        if prototypes is not None:
            write_tensors(folder / Path(_PROTOTYPES).name, {"prototypes": prototypes.detach().float()})

    write_folder_atomically(Path(run) / "embedder", write)
