"""What clusters of another clustering are to be called: what most of their pixels were called.

Letters in shapes: D dimensions of the embedding, h w its cells, G places along each side of an image, K clusters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfseg.collection.clusters import Clusters, add_position
from selfseg.collection.opening import load, whole_images
from selfseg.collection.streaming import embed_images
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.skipping import SkipLog
from selfseg.studio.decisions.state import Split

LEFT_OUT, UNDECIDED = "\0left out", "\0undecided"
"""What a cluster can be beside a class's name; no name holds such a character."""

_PLACES = 32  # along each side of an image


@dataclass(frozen=True)
class Choice:
    """What the pixels of a new cluster were called.

    Attributes:
        cluster: its number.
        label: what most were: a class's name, `LEFT_OUT` or `UNDECIDED`.
        certainty: the share that were.
        second: what the second most were; "" if nothing.
        share: of all pixels that are in this cluster.
    """

    cluster: int
    label: str
    certainty: float
    second: str
    share: float


def leaf_labels(
    embedding: Tensor, clusters: Clusters, splits: Mapping[str, Split], labels: Mapping[str, str]
) -> NDArray[np.object_]:
    """What the places of a grid over an image are called.

    Args:
        embedding: (D, h, w) of the embedder that the clusters belong to.
        clusters: K of them.
        splits: by path, "K/ID" or of a part.
        labels: of clusters and parts that aren't split, by path.

    Returns:
        (G, G) of labels; `UNDECIDED` where `labels` has none.
    """
    ids = clusters.assign(embedding, (_PLACES, _PLACES))
    found = np.empty(ids.shape, object)
    vectors: Tensor | None = None
    for cluster in np.unique(ids).tolist():
        path = f"{clusters.k}/{cluster}"
        if path not in splits:
            found[ids == cluster] = labels.get(path, UNDECIDED)
            continue
        if vectors is None:
            grid = F.interpolate(embedding[None].float(), (_PLACES, _PLACES), mode="bilinear")[0]
            vectors = add_position(F.normalize(grid, dim=0), clusters.position).flatten(1).T.cpu()  # (G G, D)
        places = np.flatnonzero(ids.ravel() == cluster)
        for place, leaf in zip(places, _parts(path, vectors[places], splits), strict=True):
            found.flat[place] = labels.get(leaf, UNDECIDED)
    return found


def _parts(path: str, vectors: Tensor, splits: Mapping[str, Split]) -> list[str]:
    """The leaf of each of (N, D) vectors in a cluster that is split."""
    centroids = torch.tensor(splits[path].centroids, dtype=torch.float32)
    seen = vectors[:, : centroids.shape[1]]  # centroids without the position compare the embedding alone
    part = (seen @ F.normalize(centroids, dim=1).T).argmax(1)
    leaves = [f"{path}.{number}" for number in part.tolist()]
    for leaf in set(leaves) & splits.keys():
        rows = [row for row, other in enumerate(leaves) if other == leaf]
        for row, deeper in zip(rows, _parts(leaf, vectors[rows], splits), strict=True):
            leaves[row] = deeper
    return leaves


def gather(
    before: tuple[Path, Clusters, Mapping[str, Split], Mapping[str, str]],
    after: tuple[Path, Clusters],
    collection: ImageCollection,
    most: int = 100,
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
) -> dict[int, Counter[str]]:
    """Look at images with both runs, and count for each new cluster what its places were called.

    Args:
        before: the old run, its clusters, how they are split, and what they are called (see `leaf_labels`).
        after: the new run and its clusters.
        collection: any images of the kind.
        most: how many of them to look at.
        seed: of which.
        device: see `load`.
        progress: whether to show progress bars on stderr.

    Returns:
        Counts by label, for each of the K clusters.

    Raises:
        RunError: if a run has no embedder.
        TooManyBadImages: if too many images can't be read.
    """
    old_run, clusters, splits, labels = before
    log = SkipLog(None, len(collection))
    drawn = np.random.default_rng(seed).permutation(len(collection))[:most]
    chosen = whole_images(collection, log, sorted(drawn.tolist()))
    one_look = clusters.info.get("embedder") == after[1].info.get("embedder")
    votes: dict[int, Counter[str]] = {cluster: Counter() for cluster in range(after[1].k)}
    called: dict[int, NDArray[np.object_]] = {}
    if not one_look:
        for seen in embed_images(load(old_run, device), collection, chosen, log, "what was named", progress):
            called[seen.number] = leaf_labels(seen.embedding.cpu(), clusters, splits, labels)
    for seen in embed_images(load(after[0], device), collection, chosen, log, "clusters", progress):
        embedding = seen.embedding.cpu()  # grids are small
        old = leaf_labels(embedding, clusters, splits, labels) if one_look else called[seen.number]
        new = after[1].assign(embedding, (_PLACES, _PLACES))
        for (cluster, label), count in Counter(zip(new.ravel().tolist(), old.ravel().tolist(), strict=True)).items():
            votes[cluster][label] += count
    return votes


def choose(votes: Mapping[int, Counter[str]]) -> list[Choice]:
    """What each cluster that was seen is best called, by number."""
    total = sum(counter.total() for counter in votes.values())
    choices = []
    for cluster, counter in sorted(votes.items()):
        if ranked := sorted(counter.items(), key=lambda item: (-item[1], item[0])):
            second = ranked[1][0] if len(ranked) > 1 else ""
            certainty = ranked[0][1] / counter.total()
            choices.append(Choice(cluster, ranked[0][0], certainty, second, counter.total() / total))
    return choices


def missed(votes: Mapping[int, Counter[str]], given: Mapping[int, str]) -> list[tuple[str, float, str]]:
    """Classes of whose pixels less than half are in clusters with their name.

    Args:
        votes: see `gather`.
        given: the names that the clusters have now.

    Returns:
        (class, the share of its pixels in clusters of its name, what most of the others are in), the largest first.
    """
    areas: Counter[str] = Counter()
    where: dict[str, Counter[str]] = {}
    for cluster, counter in votes.items():
        for label, count in counter.items():
            areas[label] += count
            where.setdefault(label, Counter())[given.get(cluster, UNDECIDED)] += count
    found = []
    for label, area in areas.most_common():
        if label in (LEFT_OUT, UNDECIDED) or where[label][label] * 2 >= area:
            continue
        others = Counter({name: count for name, count in where[label].items() if name != label})
        found.append((label, where[label][label] / area, others.most_common(1)[0][0]))
    return found


def spoken_label(label: str) -> str:
    """A label in words."""
    return {LEFT_OUT: "left out", UNDECIDED: "without a name", "": "nothing"}.get(label, f"“{label}”")


def labels_of(names: Mapping[str, str], left_out: Iterable[str]) -> dict[str, str]:
    """What clusters are called, by path."""
    return {**names, **dict.fromkeys(sorted(left_out), LEFT_OUT)}
