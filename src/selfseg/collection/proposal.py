"""How many clusters to begin with: a number where two halves of the collection split things alike.

Clusters are found in one half of the images and in the other, and both group the same pixels; how far they agree is the
adjusted Rand index. Agreement falls with K by itself, because few large groups are easy to find twice. So a number is
proposed only where agreement has a peak: it is clearly higher than with a number smaller by half and with one larger by
half, beside its spread over several halvings. Photographs often have none, and then the sentence says that.

Letters: N points, D dimensions, K clusters, M small clusters, S splits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfseg.errors import ConfigError
from selfseg.ops.kmeans import assign, kmeans
from selfseg.ops.matching import adjusted_rand, overlaps
from selfseg.ops.merging import cut_tree, merge_tree
from selfseg.storage.files import read_json, write_json
from selfseg.storage.hashes import embedder_hash

TRIED = (2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 64)
FEWEST_IMAGES = 16
_SPLITS = 6
_POINTS = 3000  # of each half
_BLOCKS = 16  # of images that follow each other: a video's frames are alike, and belong into one half
_PER_CLUSTER = 20  # points of a half, at the least
_PEAK = 0.05  # by which agreement has to be higher than beside it, in the mean
_PERFECT, _EQUAL = 0.9, 0.02  # agreement that is nearly perfect, and differences of it that are none


@dataclass(frozen=True)
class Proposal:
    """A number of clusters to begin with, if one stands out.

    Attributes:
        k: the number, or None.
        sentence: what was found, for a reader who knows no index.
        agreement: per number that was tried, as a word (JSON has no other keys), the mean adjusted Rand index.
        images: how many were divided into halves.
        merged: the number of small clusters that were merged, None for k-means with K clusters.
    """

    k: int | None
    sentence: str
    agreement: Mapping[str, float]
    images: int
    merged: int | None = None


def propose_k(samples: Tensor, owners: Tensor, seed: int = 0, merge: int | None = None) -> Proposal:
    """Look for a number of clusters that two halves of the images agree on better than on the numbers beside it.

    Args:
        samples: (N, D) float, pixels of all images.
        owners: (N,) int64, the image that each is of.
        seed: of the halves, the drawn pixels and k-means.
        merge: clusters are found as `selfseg.collection.clustering.cluster` would with this `merge`.

    Returns:
        The proposal. Its `k` is None if there are fewer than `FEWEST_IMAGES`, or nothing stands out.

    Example:
        >>> groups = torch.nn.functional.one_hot(torch.arange(3200) % 5).float()  # pixels of 5 kinds
        >>> noise = 0.1 * torch.randn(3200, 5, generator=torch.Generator().manual_seed(0))
        >>> propose_k(groups + noise, torch.arange(3200) // 100).k
        5
    """
    images = len(torch.unique(owners))
    if images < FEWEST_IMAGES:
        sentence = (
            f"No number of clusters is proposed: that takes {FEWEST_IMAGES} images or more, and there are {images}."
        )
        return Proposal(None, sentence, {}, images, merge)
    block = torch.unique(owners, return_inverse=True)[1].cpu().numpy() * _BLOCKS // images
    tables: list[list[float]] = []
    counts: Sequence[int] = ()
    for split in range(_SPLITS):
        random = np.random.default_rng((seed, split))
        in_first = np.isin(block, random.permutation(_BLOCKS)[: _BLOCKS // 2])
        halves = [_drawn(samples, np.flatnonzero(side), random) for side in (in_first, ~in_first)]
        counts = counts or [k for k in TRIED if k * _PER_CLUSTER <= min(map(len, halves))]
        try:
            tables.append(_agreements(halves, counts, split, merge))
        except ConfigError:  # too few points, or too few that differ
            sentence = "No number of clusters can be proposed: the images' pixels differ too little."
            return Proposal(None, sentence, {}, images, merge)
    agreement = np.array(tables)  # (S, numbers tried)
    peak = _peak(counts, agreement, merge is not None)
    means = agreement.mean(0)
    named = {str(k): round(float(mean), 3) for k, mean in zip(counts, means, strict=True)}
    k = None if peak is None else counts[peak[1]]
    return Proposal(k, _in_words(counts, means, peak), named, images, merge)


def save_proposal(run: Path | str, proposal: Proposal) -> None:
    """Write `RUN/clusters/proposal.json`."""
    write_json(Path(run) / "clusters" / "proposal.json", {**asdict(proposal), "embedder": embedder_hash(Path(run))})


def load_proposal(run: Path | str) -> Proposal | None:
    """What `save_proposal` wrote; None if nothing, or of another embedder, or damaged."""
    try:
        values: dict[str, Any] = read_json(Path(run) / "clusters" / "proposal.json")
        if values.pop("embedder") != embedder_hash(Path(run)):
            return None
        return Proposal(**values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _drawn(samples: Tensor, rows: NDArray[np.int64], random: np.random.Generator) -> Tensor:
    chosen = np.sort(random.choice(rows, min(_POINTS, len(rows)), replace=False))
    return samples[torch.from_numpy(chosen).to(samples.device)].float()


def _agreements(halves: Sequence[Tensor], counts: Sequence[int], seed: int, merge: int | None) -> list[float]:
    """Of each K, how far the clusters of one half and of the other agree on all points of both."""
    both = torch.cat(list(halves))
    if merge is None:
        found = [[_groups(half, both, k, seed) for half in halves] for k in counts]
    else:
        small = min(merge, *(len(half) // _PER_CLUSTER for half in halves))
        cuts = []
        for half in halves:
            centroids = kmeans(half, small, seed=seed).centroids
            tree, nearest = merge_tree(centroids), assign(both, centroids).cpu().numpy()
            cuts.append([cut_tree(tree, min(k, small))[nearest] for k in counts])
        found = [list(pair) for pair in zip(*cuts, strict=True)]
    return [adjusted_rand(overlaps(first, second, k)) for (first, second), k in zip(found, counts, strict=True)]


def _groups(half: Tensor, both: Tensor, k: int, seed: int) -> NDArray[np.int64]:
    nearest: NDArray[np.int64] = assign(both, kmeans(half, k, seed=seed).centroids).cpu().numpy()
    return nearest


def _peak(counts: Sequence[int], agreement: NDArray[np.float64], merged: bool) -> tuple[int, int, int] | None:
    """The columns (of S rows) of a number that stands out, and of the ones that it is held against, before and after.

    These are the nearest numbers that are smaller and larger by half: those right beside a good number are nearly as
    good. It has to be clearly better than both. Where merged clusters agree nearly perfectly, being as good as the
    smaller one is enough: what is joined in the same way in both halves agrees at any smaller number. Of several the
    one with the highest agreement, the largest of equals; None if there is none.
    """
    best, found = -1.0, None
    for i, k in enumerate(counts):
        below = [j for j, other in enumerate(counts) if 1.5 * other <= k]
        above = [j for j, other in enumerate(counts) if other >= 1.5 * k]
        if not below or not above:
            continue
        here, over = agreement[:, i], agreement[:, i] - agreement[:, below[-1]]
        level = merged and here.mean() >= _PERFECT and over.mean() > -_EQUAL
        clear = (level or _is_clear(over)) and _is_clear(here - agreement[:, above[0]])
        if clear and here.mean() > best - _EQUAL:
            best, found = max(best, float(here.mean())), (below[-1], i, above[0])
    return found


def _is_clear(rises: NDArray[np.float64]) -> bool:
    """Whether (S,) differences are large in the mean, and beside their spread."""
    return bool(rises.mean() >= max(_PEAK, 2 * rises.std(ddof=1) / len(rises) ** 0.5))


def _in_words(counts: Sequence[int], means: NDArray[np.float64], peak: tuple[int, int, int] | None) -> str:
    if peak is not None:
        fewer, more = (f"{counts[i]} ({_short(means[i])})" for i in (peak[0], peak[2]))
        there = f"there ({_short(means[peak[1]])})"
        level = means[peak[1]] - means[peak[0]] < _PEAK
        return (
            f"We would begin with {counts[peak[1]]} clusters: two halves of your images agree "
            + (
                f"as well {there} as with {fewer}, and with {more} "
                if level
                else f"better {there} than with {fewer}; with {more} "
            )
            + "each half splits things more in its own way. This is a place to begin. Look at the pictures to see "
            "whether it is the number that you need."
        )
    best = int(means.argmax())
    most, last = (f"{_short(means[i])} with {counts[i]}" for i in (best, -1))
    sentence = "No number of clusters stands out: nowhere do two halves of your images agree clearly better than with"
    return (
        f"{sentence} fewer or with more. They agree to {most} clusters and to {last}, but few large groups are always "
        "easier to find twice. Try a small number and a large one, and look."
        if means[-1] < means[best]
        else f"{sentence} fewer. Try a small number and a large one, and look."
    )


def _short(value: float) -> str:
    return f"{value:.2f}".replace("0.", ".", 1)
