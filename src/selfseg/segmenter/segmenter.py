"""A named segmenter: an image of any size to a mask of classes that a person named.

Letters in shapes: H W pixels of an image, D embedding dimension, F inputs of the classifier (D, or D + 4 with the place
in the image), P rows of the classifier, C classes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from selfseg.collection.assigning import assign_later, cell_scores
from selfseg.collection.clusters import add_position
from selfseg.collection.large.mosaic import Scores
from selfseg.collection.opening import choose_device
from selfseg.collection.streaming import Fetched
from selfseg.data.labelled.legend import Legend
from selfseg.errors import CheckpointError, ConfigError, RunError
from selfseg.models.embedder import Embedder, Looks
from selfseg.models.inputs.preparing import pixels_of
from selfseg.ops.levels import mark_void
from selfseg.pages.cards import legend_rows
from selfseg.segmenter.cards import folder_card, legend_table
from selfseg.sharing.card import Network
from selfseg.sharing.model import Shareable
from selfseg.showing import card, facts, in_line, note
from selfseg.storage.files import read_json, write_folder_atomically, write_json, write_text
from selfseg.storage.hashes import embedder_hash
from selfseg.storage.remote.places import at_places
from selfseg.storage.tensors import read_tensors

FORMAT = 1
FORMAT_OF_FEATURES = 2
"""Of segmenters that see features, which an older selfseg would take for embeddings."""
Sees = Literal["embedding", "features"]
NO_CLASS = -1
"""In a segmenter's table: a row that stands for no class."""

SHARED = ("made_of", "made_by", "k", "decisions", "labels_percent")
"""What of `Segmenter.about` goes with it when it is shared: no name of a folder or a run."""

MADE_OF = {
    "clusters": "clusters that a person named",
    "decisions": "a classifier on what a person named and corrected in the studio",
    "finetune": "a network that was fine-tuned on labelled images",
}

_BAND = 1 << 22  # scores held at a time


class Segmenter(Shareable, nn.Module):
    """Turns an image into a mask: an embedder, a linear classifier on its unit vectors, and the names of the classes.

    The classifier has P rows. A cell's score for a row is the product of its vector and the row, plus the row's bias.
    Scores are brought to the image's size (bilinear), and the best row's class is the pixel's. Rows are a run's
    centroids, of which several may have one name and others none; or the weights of a logistic regression, one a class.
    A fine-tuned network's classifier sees the decoder's features as they are instead of unit vectors.

    Attributes:
        embedder: how images are seen, looks and smoothing included.
        legend: the C classes, in the order of their values in a mask.
        weight: (P, F) float32.
        bias: (P,) float32.
        table: (P,) int64, the class of each row in [0, C), or -1: void.
        position: how much the place in the image counts (`selfseg.collection.clusters.add_position`).
        sharpness: what scores are multiplied by before the softmax of `probabilities`.
        about: plain values on how it was made, kept with it.
        sees: what the classifier's cells are: the "embedding", or the decoder's "features" (`Embedder.features`).

    Example:
        >>> from selfseg.models.embedder import EmbedderConfig
        >>> embedder = Embedder(EmbedderConfig(dim=4, output_stride=32, resolution=64))
        >>> segmenter = Segmenter(embedder, Legend.of(["road", "sky"]), torch.eye(4)[:3], table=torch.tensor([0, 1, 0]))
        >>> segmenter(np.zeros((40, 60, 3), np.uint8)).shape
        (40, 60)
    """

    weight: Tensor
    bias: Tensor
    table: Tensor

    _KIND = "segmenter"
    _FILES: ClassVar[tuple[str, ...]] = (
        "segmenter.json",
        "weights.safetensors",
        "embedder/embedder.json",
        "embedder/weights.safetensors",
    )

    def __init__(
        self,
        embedder: Embedder,
        legend: Legend,
        weight: Tensor,
        bias: Tensor | None = None,
        table: Tensor | None = None,
        position: float = 0.0,
        sharpness: float = 1.0,
        about: Mapping[str, Any] | None = None,
        sees: Sees = "embedding",
    ) -> None:
        """Put one together.

        Args:
            embedder: how images are seen.
            legend: the C classes.
            weight: (P, F) float.
            bias: (P,) float; None = 0.
            table: (P,) integers, the class of each row or -1; None = row i is class i, and P = C.
            position: see the class.
            sharpness: see the class.
            about: see the class; must be writable as JSON.
            sees: see the class; with "features" the place in the image has no say.

        Raises:
            ConfigError: if shapes don't fit, a row stands for a class that there isn't, or a number is not finite.
        """
        super().__init__()
        if sees == "features" and (position > 0 or embedder.looks != Looks()):
            raise ConfigError("a segmenter that sees features has no position and looks at an image once")
        width = embedder.decoder.channels if sees == "features" else embedder.dim
        wanted = width + (4 if position > 0 else 0)
        rows = len(weight)
        bias = torch.zeros(rows) if bias is None else bias
        table = torch.arange(rows) if table is None else table
        if weight.ndim != 2 or not rows or weight.shape[1] != wanted:
            raise ConfigError(
                f"the classifier's weights are (P, {wanted}) for this embedder, not {tuple(weight.shape)}"
            )
        if bias.shape != (rows,) or table.shape != (rows,):
            raise ConfigError(
                f"{rows} rows have as many biases and classes, not {tuple(bias.shape)} and {tuple(table.shape)}"
            )
        finite = bool(weight.float().isfinite().all()) and bool(bias.float().isfinite().all())  # float64 may be more
        if not (finite and 0 < sharpness < float("inf") and position >= 0):
            raise ConfigError("a segmenter's weights and biases are finite numbers, its sharpness is above 0")
        if int(table.min()) < NO_CLASS or int(table.max()) >= len(legend.classes):
            raise ConfigError(
                f"rows stand for classes from {int(table.min())} to {int(table.max())}; the legend has "
                f"{len(legend.classes)}, and -1 is void"
            )
        self.embedder = embedder
        self.legend = legend
        self.position = float(position)
        self.sharpness = float(sharpness)
        self.about = dict(about or {})
        self.sees: Sees = sees
        self.register_buffer("weight", weight.detach().float().contiguous())
        self.register_buffer("bias", bias.detach().float().contiguous())
        self.register_buffer("table", table.detach().long().contiguous())

    def __repr__(self) -> str:
        """One line."""
        return in_line("Segmenter", [("classes", ", ".join(self.legend.names)), ("", repr(self.embedder))])

    def _repr_html_(self) -> str:
        void = int((self.table == NO_CLASS).sum())
        made_of = str(self.about.get("made_of", "not known"))
        told = [("made of", made_of), ("void in a mask", str(self.legend.void))]
        told += [("run", str(self.about["run"]))] if self.about.get("run") else []
        told += [("began from", self.embedder.start or "not known")]
        kind = "clusters" if made_of == "clusters" else "rows"
        said = f"{void} of its {len(self.table)} {kind} have no name: their pixels become void in a mask."
        title = f"A segmenter of {len(self.legend.classes)} classes"
        return card(title, facts(told), legend_rows(self.legend.to_json()), note(said if void else ""))

    def forward(self, image: NDArray[np.uint8] | str | Path | Any) -> NDArray[Any]:
        """The mask of one image.

        Args:
            image: (H, W, 3) uint8 RGB, a tensor (3, H, W), a PIL image, or a file.

        Returns:
            (H, W) uint8 of class values from 0 and 255 for void; uint16 and 65535 with more than 255 classes.

        Raises:
            BadImage: if a file can't be read.
            ConfigError: if an array is not (H, W, 3) uint8.
        """
        embedding, pixels = self._embed(image)
        mask = self.assign_later(embedding, (pixels.shape[0], pixels.shape[1])).numpy()
        return self.without_void(mask, pixels)

    def without_void(self, mask: NDArray[Any], pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """A mask in which void stands wherever nothing was measured; of photographs the mask itself.

        Args:
            mask: (H, W), as `forward` gives it.
            pixels: (H, W, C) uint8 of the image.
        """
        return mask if self.embedder.config.channels is None else mark_void(mask, pixels, self.legend.void)

    def rows(self) -> tuple[Scores, NDArray[Any]]:
        """How the cells of a large image are scored, and the value that each row of scores stands for.

        Raises:
            ConfigError: if the place in the image has a say, which a window doesn't know.
        """
        if self.position:
            raise ConfigError("this segmenter looks at the place in an image, which windows of a large one have not")
        values = torch.where(self.table < 0, self.legend.void, self.table).cpu().numpy()
        kind = np.uint8 if self.legend.void < 256 else np.uint16
        return lambda cells: cell_scores(cells, self.weight, self.bias, self._unit), values.astype(kind)

    @torch.no_grad()
    def assign_later(self, embedding: Tensor, size: tuple[int, int]) -> Fetched:
        """The mask of an image that was embedded already, without waiting for a GPU.

        Args:
            embedding: (D, h, w) float, as `embedder.embed_prepared` gives it with `look`, on the segmenter's device.
            size: (H, W) of the mask.

        Returns:
            (H, W), see `forward`.
        """
        values = torch.where(self.table < 0, self.legend.void, self.table)
        placed = add_position(embedding, self.position)
        return assign_later(placed, self.weight, size, self.legend.void, values, self.bias, self._unit)

    @property
    def _unit(self) -> bool:
        return self.sees == "embedding"

    def look(self, image: Tensor) -> Tensor:
        """What the classifier sees of a batch: (B, 3, H, W) in [0, 1] to (B, D, h, w) float32."""
        return self.embedder.look(image) if self._unit else self.embedder.features(image).float()

    def network(self, image: Tensor) -> Tensor:
        """As `look`, with one look and without smoothing: what an exported graph holds."""
        found: Tensor = self.embedder(image) if self._unit else self.embedder.features(image).float()
        return found

    @torch.no_grad()
    def probabilities(self, image: NDArray[np.uint8] | str | Path | Any) -> NDArray[np.float32]:
        """How sure the segmenter says it is: a softmax over the classes and void, of each one's best row.

        The best class is that of the mask. For clusters the numbers are those of a mixture of equally concentrated
        directions (`selfseg.segmenter.naming`). They are not calibrated: how often a mask is right is for labels to
        tell.

        Args:
            image: as of `forward`.

        Returns:
            (C, H, W) float32 in [0, 1]; what is missing to a sum of 1 is void's.

        Raises:
            BadImage, ConfigError: see `forward`.
        """
        embedding, pixels = self._embed(image)
        height, width = pixels.shape[:2]
        placed = add_position(embedding, self.position)
        scores = cell_scores(placed, self.weight, self.bias, self._unit).permute(2, 0, 1)[None]  # (1, P, h, w)
        h = scores.shape[2]
        result = np.empty((len(self.legend.classes), height, width), np.float32)
        wide = F.interpolate(scores, (h, width), mode="bilinear", align_corners=False)
        place = ((torch.arange(height, device=scores.device) + 0.5) * (h / height) - 0.5).clamp(0, h - 1)
        top = place.floor().long()
        band = max(1, _BAND // (len(self.weight) * width))
        for start in range(0, height, band):
            rows = top[start : start + band]
            below = (rows + 1).clamp(max=h - 1)
            share = (place[start : start + band] - rows)[None, :, None]
            part = torch.lerp(wide[0][:, rows], wide[0][:, below], share)  # (P, rows, W)
            result[:, start : start + band] = self._softmax(part).cpu().numpy()
        return result

    def _softmax(self, scores: Tensor) -> Tensor:
        """(P, ...) scores of rows to (C, ...) probabilities of classes."""
        count = len(self.legend.classes)
        place = torch.where(self.table < 0, count, self.table)
        best = scores.new_full((count + 1, *scores.shape[1:]), -torch.inf)
        best.scatter_reduce_(0, place.view(-1, *[1] * (scores.ndim - 1)).expand_as(scores), scores, "amax")
        return (self.sharpness * best).softmax(0)[:count]

    def _embed(self, image: Any) -> tuple[Tensor, NDArray[np.uint8]]:
        """(D, h, w) on the segmenter's device, and the image's pixels (H, W, C)."""
        pixels = pixels_of(image, self.embedder.config.channels)
        prepared = self.embedder.prepare(pixels)
        return self.embedder.embed_prepared([prepared], look=self.look)[0], pixels

    def digest(self) -> str:
        """32 hex digits of all that decides what masks it gives, and in which colours."""
        made = hashlib.blake2b(digest_size=16)
        facts: list[Any] = [
            self.legend.to_json(),
            self.position,
            asdict(self.embedder.looks),
            self.embedder.config.told(),
        ]
        facts += [] if self._unit else [self.sees]  # others keep the digest that they had
        made.update(json.dumps(facts).encode())
        for name, tensor in self.state_dict().items():
            made.update(name.encode())
            made.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).data)
        return made.hexdigest()

    def save(self, folder: str | Path) -> Path:
        """Write a folder that stands alone; it appears at once, in place of an older segmenter.

        Holds `segmenter.json`, `weights.safetensors` (weight, bias, table), `embedder/`, and a card, `README.md`.

        Returns:
            The folder.

        Raises:
            ConfigError: if there is something else.
            StorageError: if it can't be written.
        """
        folder = Path(folder)
        if (
            folder.exists()
            and not (folder / "segmenter.json").is_file()
            and (not folder.is_dir() or any(folder.iterdir()))
        ):
            raise ConfigError(f"{folder} holds something else than a segmenter; give a new folder")

        def write(temporary: Path) -> None:
            self._write(temporary, self.about)
            write_text(temporary / "README.md", folder_card(self.legend, self.embedder.config, self.about))

        write_folder_atomically(folder, write)
        return folder

    def _write(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.embedder.save(folder / "embedder")
        tensors = {name: getattr(self, name).cpu() for name in ("weight", "bias", "table")}
        save_file(tensors, folder / "weights.safetensors")
        values = {
            "format": FORMAT if self._unit else FORMAT_OF_FEATURES,
            "classes": self.legend.to_json(),
            "void": self.legend.void,
            "position": self.position,
            "sharpness": self.sharpness,
            **({} if self._unit else {"sees": self.sees}),
            "looks": asdict(self.embedder.looks),
            "embedder": embedder_hash(folder),
            "about": about,
        }
        write_json(folder / "segmenter.json", values)

    def write_files(self, folder: Path) -> None:
        """As `save`, to be shared: without a card, and without the name of the run."""
        self._write(folder, {key: self.about[key] for key in SHARED if key in self.about})

    def shared_network(self) -> Network:
        """What a model card says of the segmenter."""
        network = self.embedder.shared_network()
        looks = self.embedder.looks
        facts = {
            **network.facts,
            "made of": MADE_OF.get(str(self.about.get("made_of", self.about.get("made_by"))), ""),
            "looks at an image": "" if looks == Looks() else looks.name.strip("-").replace("-", ", "),
        }
        return Network("segmenter", facts, network.channels, legend_table(self.legend))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote; in evaluation mode, on the CPU.

        Raises:
            CheckpointError: if the folder holds no segmenter, another format's, or a damaged one.
        """
        folder = Path(folder)
        if not (folder / "segmenter.json").is_file():
            raise CheckpointError(f"no segmenter in {folder} (no segmenter.json); `selfseg name` makes one")
        try:
            values = read_json(folder / "segmenter.json")
            if not isinstance(values, dict) or values["format"] not in (FORMAT, FORMAT_OF_FEATURES):
                raise ValueError(f"not of format {FORMAT} or {FORMAT_OF_FEATURES} of selfseg's segmenters")
            tensors = read_tensors(folder / "weights.safetensors")
            embedder = Embedder.load(folder / "embedder")
            if values["embedder"] != embedder_hash(folder):
                raise ValueError("its embedder is another one, or was changed")
            looks = values["looks"]
            if not isinstance(looks["flip"], bool):  # bool("false") is True
                raise ValueError(f"flip is true or false, not {looks['flip']!r:.40}")
            embedder.looks = Looks(tuple(map(float, looks["scales"])), bool(looks["flip"]))
            return cls(
                embedder,
                Legend.from_json(values["classes"]),
                tensors["weight"],
                tensors["bias"],
                tensors["table"],
                float(values["position"]),
                float(values["sharpness"]),
                values["about"],
                "features" if values["format"] == FORMAT_OF_FEATURES else "embedding",
            ).eval()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ConfigError, CheckpointError) as error:
            raise CheckpointError(
                f"the segmenter in {folder} is damaged ({type(error).__name__}: {error}); make it again, or take a copy"
            ) from error


def find_segmenter(path: Path | str) -> Path:
    """The segmenter's folder that a path means: itself, or a run's `segmenter/`.

    Raises:
        RunError: if there is none; says how to make one.
    """
    path = Path(path)
    for folder in (path, path / "segmenter"):
        if (folder / "segmenter.json").is_file():
            return folder
    if not path.exists():
        raise RunError(f"there is no run and no segmenter at {path}")
    if (path / "embedder").is_dir():
        raise RunError(
            f"{path} has no segmenter yet; name its clusters: selfseg name {path} 3=road 7=sky (`selfseg name {path}` "
            "lists them)"
        )
    raise RunError(f"{path} is neither a run nor a segmenter (no segmenter.json, no embedder/ in it)")


@at_places(models=["path"])
def load_segmenter(path: Path | str, device: str = "auto") -> Segmenter:
    """A named segmenter, ready to use.

    Args:
        path: a segmenter's folder, or a run that has one (`selfseg name`).
        device: where it is put: "auto" (CUDA if there is any), "cpu", "cuda", "cuda:1", ...

    Returns:
        The segmenter in evaluation mode; `segmenter(image)` is the mask.

    Raises:
        RunError: if there is none.
        CheckpointError: if it is damaged.
        ConfigError: if the device is not there.
    """
    chosen = choose_device(device)
    return Segmenter.load(find_segmenter(path)).to(chosen)
