"""A project's file of weights as a run that every verb takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from selfseg.errors import RunError
from selfseg.models.published.files import open_weights
from selfseg.models.published.whole import Whole, open_whole
from selfseg.storage.files import is_unclaimed, mark_output, write_folder_atomically, write_json
from selfseg.storage.remote.places import at_places

RECORD = "from.json"
"""What RUN/embedder keeps of where it is from."""


@dataclass(frozen=True)
class Imported:
    """What became of a file.

    Attributes:
        whole: the embedder, with prototypes if the file has some.
        sentences: what the file holds, what was taken, and what was not; each without its full stop.
        run: the folder that was written, or None.
    """

    whole: Whole
    sentences: tuple[str, ...]
    run: Path | None


@at_places(reads=["file"], writes=["out"])
def import_weights(
    file: str | Path,
    out: str | Path | None = None,
    *,
    backbone: str = "",
    output_stride: int | None = None,
    resolution: int | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
) -> Imported:
    """Read published weights of a whole model, and write them as a run: embedder, and prototypes if there are some.

    The file may be SlotCon's, MaskContrast's, ViCE's (VISSL) or PiCIE's, of which the decoder is taken too, or any that
    `--init` reads, of which the backbone alone becomes the embedder. Nothing that is in it is run.

    Args:
        file: a .safetensors or torch file.
        out: the run's folder, which must be new; None = only say what the file holds.
        backbone: timm's name of the network; "" = find it out from the file, which works for ResNets.
        output_stride: stride of the backbone's last stage, 8, 16 or 32; None = as the project had it, 32 for a backbone
            alone.
        resolution: short side in px that images are resized to, 0 = as they are; None = as the project had it.
        mean: mean of R, G and B in [0, 1] that the network expects to be subtracted; None = ImageNet's.
        std: standard deviation that it expects to be divided by; None = ImageNet's.

    Raises:
        CheckpointError: if the file can't be read, or holds no such network.
        ConfigError: if the network can't be built so.
        RunError: if something is at `out`.
        StorageError: if it can't be written.
    """
    file = Path(file).expanduser()
    run = None if out is None else Path(out)
    if run is not None and not is_unclaimed(run):
        raise RunError(f"{run} exists already; give a new folder with --out")
    changes: dict[str, Any] = {"output_stride": output_stride, "mean": mean, "std": std}
    changes = {name: value for name, value in changes.items() if value is not None}
    if resolution is not None:
        changes["resolution"] = resolution or None
    whole = open_whole(open_weights(file), file.name, backbone, changes)
    if run is not None:
        _write(run, whole, file)
    return Imported(whole, whole.sentences, run)


def _write(run: Path, whole: Whole, file: Path) -> None:
    def write(folder: Path) -> None:
        whole.embedder.save(folder)
        if whole.prototypes is not None:
            save_file({"prototypes": whole.prototypes.contiguous()}, folder / "prototypes.safetensors")
        write_json(folder / RECORD, {"file": str(file), "said": whole.sentences})

    mark_output(run)
    write_folder_atomically(run / "embedder", write)
