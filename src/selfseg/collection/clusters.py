"""The clusters of a run: reading, writing, and giving each pixel of an image its cluster.

Letters in shapes: H W pixels of an image, D embedding dimension, h w embedding cells, K clusters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfseg.collection.assigning import assign_later
from selfseg.collection.assigning import assign_pixels as assign_pixels
from selfseg.collection.streaming import Fetched
from selfseg.errors import ConfigError, RunError
from selfseg.models.embedder_config import EmbedderConfig, read_config
from selfseg.ops.merging import cut_tree
from selfseg.pages.cards import clusters_card
from selfseg.showing import in_line
from selfseg.storage.files import read_json
from selfseg.storage.hashes import embedder_hash
from selfseg.storage.tensors import check_matrix, is_described, read_described, write_described

MOST_POSITION = 1e6
"""More than that leaves nothing of an embedding in 32 bits."""


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
        names: what a person called some of them, by number, where they were read from a run.
    """

    centroids: Tensor
    share: tuple[float, ...]
    typical: tuple[tuple[str, ...], ...]
    info: Mapping[str, Any]
    groups: Tensor | None = None
    before: Clusters | None = None
    names: Mapping[int, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """One line."""
        named = f"{len(self.names)} of them named"
        return in_line("Clusters", [("k", self.k), ("", f"of {self.info.get('count', '?')} images"), ("", named)])

    def _repr_html_(self) -> str:
        return clusters_card(self.share, self.typical, self.names, self.info)

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
        raise ConfigError(f"position must be a weight of at least 0, not {weight}")
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
    found = (path.stem[1:] for path in folder.glob("k*.safetensors") if is_described(path))
    return tuple(sorted(int(word) for word in found if word.isascii() and word.isdigit() and len(word) < 10))


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
            return replace(tree.cut(k), names=_names_of(run, k))
    if k is not None and k not in found:
        raise RunError(
            f"{run} has no clusters with k = {k}, only with {', '.join(map(str, found))}; "
            f"take one of these, or run: selfseg cluster {run} IMAGES -k {max(k, 2)}"
        )
    k = found[-1] if k is None else k
    try:
        tensors, info = read_described(run / "clusters" / f"k{k}.safetensors")
        made_by = info["embedder"]
        is_ours = made_by == embedder_hash(run)
        made = _clusters_of(tensors, info, k, read_config(run / "embedder")[0]) if is_ours else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"the clusters with k = {k} in {run} are damaged ({type(error).__name__}: {error}); "
            f"run: selfseg cluster {run} IMAGES -k {k}"
        ) from error
    if made is None:
        raise RunError(
            f"the clusters with k = {k} in {run} were made by an earlier embedder; "
            f"run: selfseg cluster {run} IMAGES -k {k}"
        )
    return replace(made, names=_names_of(run, k))


def _names_of(run: Path, k: int) -> dict[int, str]:
    """What `selfseg name` has called a run's clusters; {} if nothing, or if they were others."""
    try:
        about = read_json(run / "segmenter" / "segmenter.json")["about"]
        if about["made_of"] != "clusters" or about["k"] != k or about["embedder"] != embedder_hash(run):
            return {}
        return {int(number): _name(name) for number, name in about["names"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # whoever needs the names says what is wrong
        return {}


def _clusters_of(tensors: Mapping[str, Tensor], info: dict[str, Any], k: int, config: EmbedderConfig) -> Clusters:
    """The clusters that two files tell of; raises ValueError, KeyError or TypeError if they can't be these."""
    listed, shares_before = info.pop("clusters"), shares_of(info.pop("before", []))
    share = shares_of([one["share"] for one in listed])
    typical = tuple(tuple(map(_name, one["typical"])) for one in listed)
    if len(share) != k or info.get("k", k) != k or len(shares_before) not in (0, k):
        raise ValueError(f"it lists {len(share)} clusters, but k is {info.get('k', k)}")
    check_info(info)
    centroids, groups = placed_rows(tensors, "centroids", info, k if "groups" not in tensors else None, config)
    before = None
    if shares_before and "before" in tensors:
        rows, merged = placed_rows(tensors, "before", info, k if "before_groups" not in tensors else None, config)
        before = Clusters(rows, shares_before, ((),) * k, info, merged)
    return Clusters(centroids, share, typical, info, groups, before)


def placed_rows(
    tensors: Mapping[str, Tensor], name: str, info: Mapping[str, Any], rows: int | None, config: EmbedderConfig | None
) -> tuple[Tensor, Tensor | None]:
    """Centroids that were read, (K, D) or (K, D + 4) float32, and the groups of them.

    Args:
        tensors: that were read.
        name: "centroids" or "before".
        info: checked by `check_info`.
        rows: how many there must be; None where they have groups.
        config: of the embedder; None = any D.

    Raises:
        ValueError, KeyError: if they can't be these.
    """
    width = None if config is None or config.decoder == "none" else config.dim + (4 if info.get("position") else 0)
    found = check_matrix(tensors[name], name, rows, width)
    groups = tensors.get("groups" if name == "centroids" else "before_groups")
    if groups is not None:
        k = int(info["k"])
        whole = groups.dtype == torch.int64 and groups.shape == (len(found),)
        if not whole or np.unique(groups.numpy()).tolist() != list(range(k)):
            raise ValueError(f"the groups of {len(found)} clusters don't give each of them one of {k}")
    return found, groups


def check_info(info: Mapping[str, Any]) -> None:
    """Raise ValueError or KeyError unless what is told of clusters can be used: embedder, position, images."""
    position, count = info.get("position", 0.0), info.get("count", 1)
    for name in ("embedder", "images"):
        _name(info[name])
    if not (is_number(position) and position >= 0):
        raise ValueError(f"position is a weight of at least 0, not {position!r}")
    if not (isinstance(count, int) and count >= 1):
        raise ValueError(f"count must be a number of images, not {count!r}")


def shares_of(values: Any) -> tuple[float, ...]:
    """Fractions that were read; raises ValueError if they are something else."""
    if not isinstance(values, list) or not all(is_number(value) and 0 <= value <= 1.001 for value in values):
        raise ValueError("shares are fractions from 0 to 1")
    return tuple(map(float, values))


def is_number(value: Any) -> bool:
    """Whether a value that was read is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a name is a text, not {value!r:.40}")
    return value


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
    return is_described(Path(run) / "clusters" / "tree.safetensors")


def save_tree(run: Path | str, tree: ClusterTree) -> None:
    """Write `RUN/clusters/tree.safetensors`, and `tree.json` beside it for people (`selfseg.storage.tensors`)."""
    folder = Path(run) / "clusters"
    tensors = {"centroids": tree.centroids.contiguous(), "linkage": torch.from_numpy(tree.linkage)}
    write_described(folder / "tree.safetensors", tensors, {**tree.info, "share": tree.share, "best": tree.best})


def load_tree(run: Path | str) -> ClusterTree:
    """What `save_tree` wrote.

    Raises:
        RunError: if it is damaged, or another embedder's.
    """
    try:
        tensors, info = read_described(Path(run) / "clusters" / "tree.safetensors")
        tree = _tree_of(tensors, info)
    except (OSError, ValueError, KeyError, TypeError) as error:
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


def _tree_of(tensors: Mapping[str, Tensor], info: dict[str, Any]) -> ClusterTree:
    share = shares_of(info.pop("share"))
    best = tuple(tuple((_name(n), int(i), float(v)) for n, i, v in each) for each in info.pop("best"))
    check_info({"count": info["count"], **info})
    centroids = check_matrix(tensors["centroids"], "centroids", len(share))
    linkage = tensors["linkage"].double().numpy()
    if linkage.shape != (len(share) - 1, 4) or len(best) != len(share):
        raise ValueError(f"the linkage of {len(share)} clusters has the shape {linkage.shape}")
    joined = linkage[:, :2]
    if not (np.sort(joined, axis=None) == np.arange(2 * len(share) - 2)).all():
        raise ValueError("its linkage doesn't join each cluster once")
    return ClusterTree(centroids, linkage, share, best, info)


def save_clusters(run: Path | str, clusters: Clusters) -> Path:
    """Write `RUN/clusters/k{K}.safetensors`, and `k{K}.json` beside it for people; returns the latter's path."""
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
    both = zip(clusters.share, clusters.typical, strict=True)
    listed = [{"cluster": c, "share": share, "typical": list(names)} for c, (share, names) in enumerate(both)]
    return write_described(folder / f"k{clusters.k}.safetensors", tensors, {**info, "clusters": listed})
