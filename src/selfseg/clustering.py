"""The clusters of a run: reading, writing, and giving each pixel of an image its cluster.

Letters in shapes: H W pixels of an image, D embedding dimension, h w embedding cells, K clusters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from selfseg.errors import RunError
from selfseg.files import read_json, write_atomically, write_json
from selfseg.nn.embedder import Embedder


@dataclass(frozen=True)
class Clusters:
    """The clusters of a run's embedding.

    Attributes:
        centroids: (K, D) float32, unit vectors; a pixel belongs to the centroid with the highest cosine similarity.
        share: K fractions of the sampled pixels.
        typical: per cluster, names of the images that show it best (mean similarity times area), best first.
        info: how they were found: images, count, seed, points, inertia, embedder.
    """

    centroids: Tensor
    share: tuple[float, ...]
    typical: tuple[tuple[str, ...], ...]
    info: Mapping[str, Any]

    @property
    def k(self) -> int:
        """The number of clusters."""
        return self.centroids.shape[0]


def available_clusters(run: Path | str) -> tuple[int, ...]:
    """The numbers of clusters that a run has been grouped into, ascending."""
    folder = Path(run) / "clusters"
    found = (path.stem[1:] for path in folder.glob("k*.safetensors") if path.with_suffix(".json").is_file())
    return tuple(sorted(int(word) for word in found if word.isdigit()))


def load_clusters(run: Path | str, k: int | None = None) -> Clusters:
    """A run's clusters; the largest k there is if None.

    Raises:
        RunError: if there are none, or none with this k, or another embedder made them.
    """
    run, found = Path(run), available_clusters(run)
    if not found:
        raise RunError(f"{run} has no clusters yet; run: selfseg cluster {run} IMAGES --k 27")
    if k is not None and k not in found:
        raise RunError(f"{run} has no clusters with k = {k} (there are {list(found)}); run: selfseg cluster --k {k}")
    k = found[-1] if k is None else k
    info = read_json(run / "clusters" / f"k{k}.json")
    if info["embedder"] != embedder_hash(run):
        raise RunError(
            f"the clusters with k = {k} in {run} were made by an earlier embedder; run: selfseg cluster --k {k}"
        )
    centroids = load_file(run / "clusters" / f"k{k}.safetensors")["centroids"]
    share = tuple(float(one["share"]) for one in info["clusters"])
    typical = tuple(tuple(one["typical"]) for one in info["clusters"])
    return Clusters(centroids, share, typical, {key: v for key, v in info.items() if key != "clusters"})


def embedder_hash(run: Path | str) -> str:
    """SHA-256 of a run's embedder: its weights and its description."""
    digest = hashlib.sha256()
    for name in ("embedder.json", "weights.safetensors"):
        path = Path(run) / "embedder" / name
        if path.is_file():
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def segment_image(embedder: Embedder, centroids: Tensor, image: NDArray[np.uint8]) -> NDArray[Any]:
    """The cluster of each pixel of an image.

    Args:
        embedder: what embeds the image.
        centroids: (K, D) unit vectors.
        image: (H, W, 3) uint8 RGB.

    Returns:
        (H, W), uint8 if K <= 256, else uint16.
    """
    return assign_pixels(embedder.embed(image), centroids, (image.shape[0], image.shape[1]))


def assign_pixels(embedding: Tensor, centroids: Tensor, size: tuple[int, int]) -> NDArray[Any]:
    """The best centroid of each pixel: scores upsampled bilinearly (align_corners=False), then the maximum.

    Exact, but cheap on large images: between four cells with the same winner the winner stays the same, because a
    bilinear mean of scores keeps the order that all four agree on. Only the pixels at borders are interpolated.

    Args:
        embedding: (D, h, w) float.
        centroids: (K, D) unit vectors.
        size: (H, W) of the result.

    Returns:
        (H, W) array, uint8 if K <= 256, else uint16.

    Example:
        >>> embedding = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])  # two cells, side by side
        >>> assign_pixels(embedding, torch.eye(2), (1, 6)).tolist()
        [[0, 0, 0, 1, 1, 1]]
    """
    dim, h, w = embedding.shape
    vectors = F.normalize(embedding.float().reshape(dim, h * w).T, dim=1)  # (h w, D)
    scores = vectors @ centroids.to(vectors).T  # (h w, K)
    winner = scores.max(1).indices.reshape(h, w)
    top, bottom, weight_y = _linear_taps(size[0], h)
    left, right, weight_x = _linear_taps(size[1], w)
    down = torch.cat([winner[1:], winner[-1:]])
    square = torch.stack([winner, down, *(torch.cat([x[:, 1:], x[:, -1:]], dim=1) for x in (winner, down))])
    uniform = (square == winner).all(0)  # [i, j]: the cells (i..i+1, j..j+1) have the same winner
    result = winner[top][:, left]
    rows, columns = torch.nonzero(~uniform[top][:, left], as_tuple=True)
    chunk = max(1, (1 << 24) // centroids.shape[0])  # 64 MiB of scores at a time
    for start in range(0, len(rows), chunk):
        y, x = rows[start : start + chunk], columns[start : start + chunk]
        wy, wx = weight_y[y][:, None], weight_x[x][:, None]
        above = torch.lerp(scores[top[y] * w + left[x]], scores[top[y] * w + right[x]], wx)
        below = torch.lerp(scores[bottom[y] * w + left[x]], scores[bottom[y] * w + right[x]], wx)
        result[y, x] = torch.lerp(above, below, wy).max(1).indices
    ids: NDArray[Any] = result.numpy().astype(np.uint8 if centroids.shape[0] <= 256 else np.uint16)
    return ids


def save_clusters(run: Path | str, clusters: Clusters) -> Path:
    """Write `RUN/clusters/k{K}.safetensors` and, last, `k{K}.json`; returns the latter's path."""
    folder = Path(run) / "clusters"
    tensors = {"centroids": clusters.centroids.contiguous()}
    write_atomically(folder / f"k{clusters.k}.safetensors", lambda path: save_file(tensors, path))
    both = zip(clusters.share, clusters.typical, strict=True)
    listed = [{"cluster": c, "share": share, "typical": list(names)} for c, (share, names) in enumerate(both)]
    write_json(folder / f"k{clusters.k}.json", {**clusters.info, "clusters": listed})
    return folder / f"k{clusters.k}.json"


def _linear_taps(size: int, cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `size` pixels: the cell before, the cell after, and the weight of the latter (bilinear)."""
    place = ((torch.arange(size) + 0.5) * (cells / size) - 0.5).clamp(0, cells - 1)
    before = place.floor().long()
    return before, (before + 1).clamp(max=cells - 1), place - before
