"""The clusters of a run: reading, writing, and giving each pixel of an image its cluster.

Letters in shapes: H W pixels of an image, D embedding dimension, h w embedding cells, K clusters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from selfseg.collection.assigning import assign_later
from selfseg.collection.assigning import assign_pixels as assign_pixels
from selfseg.collection.streaming import Fetched
from selfseg.errors import ConfigError, RunError
from selfseg.ops.merging import cut_tree
from selfseg.storage.files import read_json, write_atomically, write_json
from selfseg.storage.hashes import embedder_hash


@dataclass(frozen=True)
class Clusters:
    """The clusters of a run's embedding.

    Attributes:
        centroids: (K, D) float32, unit vectors; a pixel belongs to the centroid with the highest cosine similarity.
            (K, D + 4) where the position has a say.
        share: K fractions of the sampled pixels.
        typical: per cluster, names of the images that show it best (mean similarity times area), best first.
        info: how they were found: images, count, seed, points, position, merge, inertia, embedder.
        groups: (M,) int64 in [0, K) of clusters that were merged: `centroids` are then the M that were there before,
            and a pixel belongs to the group of the nearest. None = not merged.
        before: as many clusters of what the embedder was before its training, where that can be told
            (`Embedder.before_training`); without typical images.
    """

    centroids: Tensor
    share: tuple[float, ...]
    typical: tuple[tuple[str, ...], ...]
    info: Mapping[str, Any]
    groups: Tensor | None = None
    before: Clusters | None = None

    @property
    def k(self) -> int:
        """The number of clusters."""
        return len(self.share)

    def to(self, device: torch.device) -> Clusters:
        """The same with their tensors on a device."""
        groups = None if self.groups is None else self.groups.to(device)
        return replace(self, centroids=self.centroids.to(device), groups=groups)

    @property
    def position(self) -> float:
        """How much a pixel's place has a say, see `add_position`."""
        return float(self.info.get("position", 0.0))

    def assign(self, embedding: Tensor, size: tuple[int, int]) -> NDArray[Any]:
        """The cluster of each pixel.

        Args:
            embedding: (D, h, w) float of the embedder that the clusters were made from.
            size: (H, W) of the result.

        Returns:
            (H, W), uint8 if K <= 256, else uint16.
        """
        return self.assign_later(embedding, size).numpy()

    def assign_later(self, embedding: Tensor, size: tuple[int, int]) -> Fetched:
        """As `assign`, without waiting for a GPU."""
        placed = add_position(embedding, self.position)
        return assign_later(placed, self.centroids, size, self.k - 1, self.groups)


def add_position(embedding: Tensor, weight: float) -> Tensor:
    """Let the place in the image have a say in what belongs together: for cameras that stand or always look ahead.

    Four coordinates are appended, `weight` times the unit circle's quarter that x and y run through from edge to
    edge, and all is scaled to unit length again: cosines of what comes out weigh likeness 1 to `weight` squared
    against nearness in x and in y.

    Args:
        embedding: (D, h, w) float.
        weight: 0 changes nothing but the length; 1 is much.

    Returns:
        (D + 4, h, w) float32, unit length over the first axis; with a weight of 0 the embedding itself.

    Raises:
        ConfigError: if the weight is negative.

    Example:
        >>> add_position(torch.ones(1, 1, 2), 1.0).shape
        torch.Size([5, 1, 2])
    """
    if not weight >= 0:
        raise ConfigError(f"position is a weight of at least 0, not {weight}")
    if weight == 0:
        return embedding
    h, w = embedding.shape[1:]
    x = ((torch.arange(w, device=embedding.device) + 0.5) * (math.pi / 2 / w)).expand(h, w)
    y = ((torch.arange(h, device=embedding.device) + 0.5) * (math.pi / 2 / h))[:, None].expand(h, w)
    place = torch.stack([x.cos(), x.sin(), y.cos(), y.sin()])
    joined = torch.cat([F.normalize(embedding.float(), dim=0), weight * place])
    return joined / math.sqrt(1 + 2 * weight**2)


def available_clusters(run: Path | str) -> tuple[int, ...]:
    """The numbers of clusters that a run has been grouped into, ascending."""
    folder = Path(run) / "clusters"
    found = (path.stem[1:] for path in folder.glob("k*.safetensors") if path.with_suffix(".json").is_file())
    return tuple(sorted(int(word) for word in found if word.isdigit()))


def load_clusters(run: Path | str, k: int | None = None) -> Clusters:
    """A run's clusters; the largest k there is if None.

    Raises:
        RunError: if there are none, or none with this k, or another embedder made them, or they are damaged.
    """
    run, found = Path(run), available_clusters(run)
    if not found:
        raise RunError(f"{run} has no clusters yet; run: selfseg cluster {run} IMAGES -k 27")
    if k is not None and k not in found and has_tree(run):
        tree = load_tree(run)
        if 1 <= k <= len(tree.centroids):
            return tree.cut(k)
    if k is not None and k not in found:
        raise RunError(
            f"{run} has no clusters with k = {k}, only with {', '.join(map(str, found))}; "
            f"take one of these, or run: selfseg cluster {run} IMAGES -k {max(k, 1)}"
        )
    k = found[-1] if k is None else k
    path = run / "clusters" / f"k{k}.json"
    try:
        info = read_json(path)
        tensors = load_file(path.with_suffix(".safetensors"))
        centroids, groups = tensors["centroids"], tensors.get("groups")
        share = tuple(float(one["share"]) for one in info["clusters"])
        typical = tuple(tuple(one["typical"]) for one in info["clusters"])
        shares_before = tuple(map(float, info.pop("before", ())))
        made_by = info["embedder"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise RunError(
            f"the clusters with k = {k} in {run} are damaged ({type(error).__name__}: {error}); "
            f"run: selfseg cluster {run} IMAGES -k {k}"
        ) from error
    if made_by != embedder_hash(run):
        raise RunError(
            f"the clusters with k = {k} in {run} were made by an earlier embedder; "
            f"run: selfseg cluster {run} IMAGES -k {k}"
        )
    del info["clusters"]
    before = None
    if shares_before and "before" in tensors:
        before = Clusters(tensors["before"], shares_before, ((),) * k, info, tensors.get("before_groups"))
    return Clusters(centroids, share, typical, info, groups, before)


@dataclass(frozen=True)
class ClusterTree:
    """Many small clusters of a run and how they are joined; it gives clusters at any K without clustering again.

    Attributes:
        centroids: (M, D) float32, unit vectors.
        linkage: (M - 1, 4) of `selfseg.ops.merging.merge_tree`.
        share: M fractions of the sampled pixels.
        best: per small cluster (image, its index in the collection, mean similarity times area), best first.
        info: see `Clusters`.
    """

    centroids: Tensor
    linkage: NDArray[np.float64]
    share: tuple[float, ...]
    best: tuple[tuple[tuple[str, int, float], ...], ...]
    info: Mapping[str, Any]

    def cut(self, k: int) -> Clusters:
        """The clusters when K are left, the largest first.

        Raises:
            ConfigError: if there are fewer.
        """
        groups = cut_tree(self.linkage, k)
        shares = np.zeros(k)
        np.add.at(shares, groups, self.share)
        order = np.argsort(-shares, kind="stable")
        groups = np.argsort(order)[groups]
        typical = []
        for group in range(k):
            scores: dict[tuple[str, int], float] = {}
            for member in np.flatnonzero(groups == group):
                for name, index, value in self.best[member]:
                    scores[name, index] = scores.get((name, index), 0.0) + value
            ranked = sorted(scores, key=lambda image: -scores[image])
            typical.append(diverse(ranked, int(self.info["count"])))
        share = tuple(shares[order].tolist())
        return Clusters(self.centroids, share, tuple(typical), {**self.info, "k": k}, torch.from_numpy(groups))


def diverse(ranked: Sequence[tuple[str, int]], images: int, most: int = 12) -> tuple[str, ...]:
    """The best images that are not neighbours: frames of a video that follow each other show the same.

    Args:
        ranked: (name, index in the collection), best first.
        images: in the collection.
        most: how many to choose. Neighbours are as near as a quarter of an even spread of so many.

    Returns:
        The names; where too few are far from each other, the best of the others follow.

    Example:
        >>> diverse([("a", 0), ("b", 1), ("c", 40)], images=96, most=2)
        ('a', 'c')
    """
    reach = images // (4 * most)
    chosen: list[tuple[str, int]] = []
    for image in ranked:
        if len(chosen) < most and all(abs(image[1] - other) > reach for _, other in chosen):
            chosen.append(image)
    others = [image for image in ranked if image not in chosen]
    return tuple(name for name, _ in [*chosen, *others[: most - len(chosen)]])


def has_tree(run: Path | str) -> bool:
    """Whether a run has clusters that can be merged to any number."""
    return (Path(run) / "clusters" / "tree.json").is_file()


def save_tree(run: Path | str, tree: ClusterTree) -> None:
    """Write `RUN/clusters/tree.safetensors` and, last, `tree.json`."""
    folder = Path(run) / "clusters"
    tensors = {"centroids": tree.centroids.contiguous(), "linkage": torch.from_numpy(tree.linkage)}
    write_atomically(folder / "tree.safetensors", lambda path: save_file(tensors, path))
    write_json(folder / "tree.json", {**tree.info, "share": tree.share, "best": tree.best})


def load_tree(run: Path | str) -> ClusterTree:
    """What `save_tree` wrote.

    Raises:
        RunError: if it is damaged, or another embedder's.
    """
    path = Path(run) / "clusters" / "tree.json"
    try:
        info = read_json(path)
        tensors = load_file(path.with_suffix(".safetensors"))
        best = tuple(tuple((str(n), int(i), float(v)) for n, i, v in each) for each in info.pop("best"))
        share = tuple(map(float, info.pop("share")))
        tree = ClusterTree(tensors["centroids"], tensors["linkage"].numpy(), share, best, info)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise RunError(
            f"the tree of clusters in {run} is damaged ({type(error).__name__}: {error}); "
            f"run: selfseg cluster {run} IMAGES --merge 200"
        ) from error
    if info.get("embedder") != embedder_hash(Path(run)):
        raise RunError(
            f"the tree of clusters in {run} was made by an earlier embedder; "
            f"run: selfseg cluster {run} IMAGES --merge 200"
        )
    return tree


def save_clusters(run: Path | str, clusters: Clusters) -> Path:
    """Write `RUN/clusters/k{K}.safetensors` and, last, `k{K}.json`; returns the latter's path."""
    folder = Path(run) / "clusters"
    tensors = {"centroids": clusters.centroids.contiguous()}
    if clusters.groups is not None:
        tensors["groups"] = clusters.groups.contiguous()
    info = dict(clusters.info)
    if clusters.before is not None:
        info["before"] = clusters.before.share
        tensors["before"] = clusters.before.centroids.contiguous()
        if clusters.before.groups is not None:
            tensors["before_groups"] = clusters.before.groups.contiguous()
    write_atomically(folder / f"k{clusters.k}.safetensors", lambda path: save_file(tensors, path))
    both = zip(clusters.share, clusters.typical, strict=True)
    listed = [{"cluster": c, "share": share, "typical": list(names)} for c, (share, names) in enumerate(both)]
    write_json(folder / f"k{clusters.k}.json", {**info, "clusters": listed})
    return folder / f"k{clusters.k}.json"
