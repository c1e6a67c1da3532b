"""Did training help? The same images in the segments of a run and in those of its start, or of another run.

Letters: H W pixels of an image, K clusters, N images.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from selfseg.collection.clusters import Clusters, load_clusters
from selfseg.collection.false_colours import painter_of
from selfseg.collection.opening import load
from selfseg.collection.points.drawing import look_twice
from selfseg.collection.streaming import embed_images
from selfseg.data.reading.images import ImageCollection, spread_indices
from selfseg.data.reading.skipping import SkipLog
from selfseg.drawing.figures import Figure, figure
from selfseg.drawing.pictures import Picture, borders, fit_within, overlay, palette
from selfseg.errors import RunError
from selfseg.models.embedder import Embedder
from selfseg.ops.matching import match_hungarian, overlaps

MOST_IMAGES = 8
SPECK = 0.005
"""Share of an image below which a piece of a segment counts as a speck."""

_LONGEST = 480  # of a picture, in px
_FEWEST = 5  # images below which no difference is called clear
_NOTHING = 0.02  # share of pixels below which training has changed next to nothing
_LEAST_OVERLAP = 0.1  # IoU below which two clusters are not the same, whatever else is left


@dataclass(frozen=True)
class Sign:
    """One number of both.

    Attributes:
        name: what is counted.
        other, own: the means over the images, ready to be read.
        better: in how many images the run is the better one; None where neither end is.
        worse: in how many the other is.
        clear: 1 if the run is clearly the better one, -1 if the other is, else 0.
    """

    name: str
    other: str
    own: str
    better: int | None = None
    worse: int | None = None
    clear: int = 0


@dataclass(frozen=True)
class Beside:
    """What the section shows.

    Attributes:
        k: the number of clusters of both.
        other: what the run is held against, in a word or two.
        trained: whether that is the run's own start.
        rows: per image its name, and figures: photograph, the other's segments, the run's.
        signs: the numbers.
        sentences: what they say in words.
    """

    k: int
    other: str
    trained: bool
    rows: tuple[tuple[str, tuple[Figure, ...]], ...]
    signs: tuple[Sign, ...]
    sentences: tuple[str, ...]


def compare_beside(
    embedder: Embedder,
    clusterings: Sequence[Clusters],
    images: ImageCollection,
    beside: Path | None,
    notes: list[str],
    progress: bool,
) -> Beside | None:
    """A run beside its start or beside another run, with the largest number of clusters that both have.

    Args:
        embedder: the run's, on its device.
        clusterings: the run's.
        images: of which `MOST_IMAGES` are shown, evenly spread.
        beside: the other run; the run's own start if None.
        notes: where a sentence goes if the start can't be shown though there is one.
        progress: whether to show progress bars on stderr.

    Returns:
        None if `beside` is None and the start can't be had.

    Raises:
        RunError: if `beside` is no run, or no number of clusters is common to both.
    """
    if beside is None:
        other = embedder.before_training()
        if other is None or not clusterings:
            return None
        known = [clusters for clusters in clusterings if clusters.before is not None]
        if not known:
            notes.append("These clusters are of a version that kept none of the start; cluster again to see both.")
            return None
        own = max(known, key=lambda clusters: clusters.k)
        assert own.before is not None
        second, name, look = own.before, "before training", look_twice(embedder, other)
    else:
        other, look, name = load(beside, str(embedder.mean.device)), None, beside.resolve().name
        own, second = _common(clusterings, beside)
    chosen = spread_indices(len(images), MOST_IMAGES)
    shown = images.subset(chosen)
    found = list(_segments(embedder, other, own, second, shown, look, progress))
    if not found:
        return None
    compared = _compare(found, own.k, name, beside is None, painter_of(shown).word("photograph"))
    return replace(compared, sentences=(*compared.sentences, *_unlike(own, second, name)))


def _unlike(own: Clusters, other: Clusters, name: str) -> list[str]:
    """A sentence if the two were clustered in ways that move pixels by themselves, whatever was learned."""
    words = {"merge": "--merge", "position": "--position"}
    differ = [key for key in words if (own.info.get(key) or None) != (other.info.get(key) or None)]
    if not differ:
        return []
    ways = [" ".join(f"{words[key]} {one.info.get(key) or 'none'}" for key in differ) for one in (own, other)]
    return [f"But they were clustered in different ways ({ways[0]} here, {ways[1]} in {name}), which moves pixels too."]


def _common(clusterings: Sequence[Clusters], beside: Path) -> tuple[Clusters, Clusters]:
    """Clusters of the run and as many of the other one, the largest K first."""
    for own in sorted(clusterings, key=lambda clusters: -clusters.k):
        try:
            return own, load_clusters(beside, own.k)
        except RunError:
            continue
    if not clusterings:
        raise RunError(f"nothing can be shown beside {beside}: this run has no clusters yet; run selfseg cluster first")
    counts = " ".join(str(clusters.k) for clusters in clusterings)
    raise RunError(
        f"{beside} has none of this run's numbers of clusters ({counts}); run: selfseg cluster {beside} IMAGES "
        f"-k {counts}"
    )


@dataclass(frozen=True)
class _Both:
    """An image (H, W, 3) with its clusters (H, W), the other's first, and those of its mirror image mirrored back."""

    name: str
    image: Picture
    ids: tuple[NDArray[Any], NDArray[Any]]
    mirrored: tuple[NDArray[Any], NDArray[Any]]


def _segments(
    embedder: Embedder,
    other: Embedder,
    own_clusters: Clusters,
    other_clusters: Clusters,
    images: ImageCollection,
    look: Callable[[Tensor], Tensor] | None,
    progress: bool,
) -> Iterator[_Both]:
    def embeddings(mirror: bool) -> Generator[tuple[int, Picture, tuple[Tensor, Tensor]], None, None]:
        """Index, image and both embeddings, mirrored back, of all that can be read."""

        def cut(image: Picture) -> Picture:
            return image[:, ::-1] if mirror else image

        def stream(one: Embedder, look: Callable[[Tensor], Tensor] | None = None) -> Any:
            log = SkipLog(None, len(images), limit=1.0)
            return embed_images(one, images, range(len(images)), log, "beside", progress, cut, look=look)

        def back(vectors: Tensor) -> Tensor:
            return vectors.flip(2).cpu() if mirror else vectors.cpu()

        with closing(stream(embedder, look)) as ours:
            if look is not None:
                for i, image, _, vectors in ours:
                    first, second = vectors.chunk(2)
                    yield i, image, (back(second), back(first))
                return
            with closing(stream(other)) as theirs:
                for mine, its in zip(ours, theirs, strict=True):
                    yield mine.number, mine.image, (back(its.embedding), back(mine.embedding))

    both, painter = (other_clusters, own_clusters), painter_of(images)
    with closing(embeddings(False)) as plain, closing(embeddings(True)) as mirrored:
        for (i, image, vectors), (_, _, turned) in zip(plain, mirrored, strict=True):
            picture = fit_within(painter(image), _LONGEST)
            size = picture.shape[0], picture.shape[1]
            ids = [clusters.assign(one, size) for clusters, one in zip(both, vectors, strict=True)]
            back = [clusters.assign(one, size) for clusters, one in zip(both, turned, strict=True)]
            yield _Both(images.names[i], picture, (ids[0], ids[1]), (back[0], back[1]))


def _compare(found: Sequence[_Both], k: int, other: str, trained: bool, caption: str = "photograph") -> Beside:
    table = sum(overlaps(one.ids[0], one.ids[1], k) for one in found)
    pairs = matching_clusters(np.asarray(table))
    colours = palette(2 * k)
    # A cluster of the other's that has no match gets a colour that the run does not use.
    theirs = np.stack([colours[own if own >= 0 else k + c] for c, own in enumerate(pairs)])
    rows, values = [], []
    for one in found:
        figures = (
            figure(one.image, caption),
            figure(overlay(one.image, one.ids[0], theirs), other),
            figure(overlay(one.image, one.ids[1], colours), "this run"),
        )
        rows.append((one.name, figures))
        values.append([measure(one.image, one.ids[side], one.mirrored[side]) for side in (0, 1)])
    changed = float(np.mean([(pairs[one.ids[0]] != one.ids[1]).mean() for one in found]))
    signs = tuple(_sign(key, name, percent, better, values) for key, (name, percent, better) in _SIGNS.items())
    return Beside(k, other, trained, tuple(rows), signs, _in_words(changed, len(found), other, trained, signs, values))


def matching_clusters(table: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which cluster of the second each of the first is: one for one, with the most pixels in common.

    Args:
        table: (K, K) pixels, from `overlaps`.

    Returns:
        (K,) int64, -1 for a cluster that no other is like (an overlap below a tenth of their union).

    Example:
        >>> matching_clusters(np.array([[0, 9, 0], [8, 1, 0], [0, 0, 0]])).tolist()
        [1, 0, -1]
    """
    pairs = match_hungarian(table, "pixels")
    rows = np.arange(len(table))
    common = table[rows, pairs]
    union = table.sum(1) + table.sum(0)[pairs] - common
    return np.where(common >= _LEAST_OVERLAP * np.maximum(union, 1), pairs, -1)


_SIGNS: Mapping[str, tuple[str, bool, int]] = {
    # name, whether it is a share, and which end is better: 1 the high one, -1 the low one, 0 neither
    "mirror": ("pixels with the same cluster in the mirrored image", True, 1),
    "specks": (f"pixels in pieces smaller than {SPECK:.1%} of the image".replace("%", " %"), True, -1),
    "edges": ("contrast of the image along the segments' borders (1 = as anywhere)", False, 1),
    "clusters": ("clusters that an image is divided among", False, 0),
}


def measure(image: Picture, ids: NDArray[Any], mirrored: NDArray[Any]) -> dict[str, float]:
    """What can be counted of an image's segments without knowing what they show.

    Args:
        image: (H, W, 3) uint8 RGB.
        ids: (H, W) integers, its clusters.
        mirrored: (H, W), those of its mirror image, mirrored back.

    Returns:
        `mirror`, the share of pixels with the same cluster in both, and `specks`, the share in connected pieces smaller
        than `SPECK` of the image, in [0, 1]; `edges`, how much the colours change at the segments' borders, 1 = as much
        as anywhere in the image; `clusters`, exp of the entropy of the clusters' shares, from 1 to K.

    Example:
        >>> image = np.zeros((8, 8, 3), np.uint8)
        >>> image[:, 4:] = 255
        >>> halves = (image[:, :, 0] > 0).astype(np.uint8)
        >>> found = measure(image, halves, halves)
        >>> found["mirror"], found["specks"], found["clusters"], found["edges"] > 1
        (1.0, 0.0, 2.0, True)
    """
    share = np.bincount(ids.ravel()) / ids.size
    present = share[share > 0]
    return {
        "mirror": float((ids == mirrored).mean()),
        "specks": _in_specks(ids),
        "edges": _contrast_at_borders(image, ids),
        "clusters": float(np.exp(-(present * np.log(present)).sum())),
    }


def _in_specks(ids: NDArray[Any]) -> float:
    small = 0
    for cluster in np.unique(ids):
        mask = (ids == cluster).astype(np.uint8)
        areas = cv2.connectedComponentsWithStats(mask, connectivity=4)[2][1:, cv2.CC_STAT_AREA]
        small += int(areas[areas < SPECK * ids.size].sum())
    return small / ids.size


def _contrast_at_borders(image: Picture, ids: NDArray[Any]) -> float:
    """The colours' mean gradient at the borders over that of the image; 1 where there is no border or no contrast."""
    # Blurred by about an eighth of a cell: fine texture is no edge, and a border is not sharper than that.
    lab = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32), (0, 0), 2)
    change = np.sqrt(sum(np.square(cv2.Sobel(lab, cv2.CV_32F, *axis)).sum(2) for axis in ((1, 0), (0, 1))))
    edge, everywhere = borders(ids), float(change.mean())
    return float(change[edge].mean()) / everywhere if edge.any() and everywhere > 1e-3 else 1.0


def _sign(key: str, name: str, percent: bool, better: int, values: Sequence[Sequence[Mapping[str, float]]]) -> Sign:
    pairs = np.array([[one[key] for one in both] for both in values])  # (N, 2)
    digits = 2 if better else 1  # what has no better end is a count of clusters
    other, own = (f"{100 * mean:.0f} %" if percent else f"{mean:.{digits}f}" for mean in pairs.mean(0))
    if not better:
        return Sign(name, other, own)
    gain = better * (pairs[:, 1] - pairs[:, 0])
    up, down = int((gain > 0).sum()), int((gain < 0).sum())
    most = len(pairs) - len(pairs) // MOST_IMAGES  # all, or all but one of eight
    clear = 0 if len(pairs) < _FEWEST else int(up >= most) - int(down >= most)
    return Sign(name, other, own, up, down, clear)


def _in_words(
    changed: float,
    count: int,
    other: str,
    trained: bool,
    signs: Sequence[Sign],
    values: Sequence[Sequence[Mapping[str, float]]],
) -> tuple[str, ...]:
    """What changed, which signs differ clearly, and what spoils them."""
    images = "this image" if count == 1 else f"these {count} images"
    what = (
        f"Training gave {changed:.0%} of the pixels of {images} another cluster."
        if trained
        else f"{changed:.0%} of the pixels of {images} have another cluster than in {other}."
    )
    sentences = [what.replace("%", " %")]
    phrases = {
        "mirror": (
            "agree better between an image and its mirror image",
            "agree less between an image and its mirror image",
        ),
        "specks": ("have fewer specks", "have more specks"),
        "edges": ("follow the edges of the image better", "follow the edges of the image less"),
    }
    if trained and changed < _NOTHING:
        sentences.append("That is almost nothing, so what you see is the start.")
    named = dict(zip(_SIGNS, signs, strict=True))
    clear = [phrases[key][named[key].clear < 0] for key in phrases if named[key].clear]
    subject = "After it, segments" if trained else "This run's segments"
    if count < _FEWEST:
        sentences.append(
            f"With so few images the numbers can't say which is better; that takes {_FEWEST} images or more."
        )
    elif clear:
        sentences.append(f"{subject} {', '.join(clear[:-1])}{' and ' if clear[1:] else ''}{clear[-1]}.")
    else:
        sentences.append("No number is clearly better: each is better in some of the images and worse in others.")
    before, after = np.mean([[one["clusters"] for one in both] for both in values], axis=0)
    if after < 0.8 * before and any(named[key].clear > 0 for key in ("mirror", "specks")):
        sentences.append(
            f"But an image is divided among fewer clusters ({after:.1f}, not {before:.1f}), and fewer are steadier and "
            "tidier whatever they mean."
        )
    return tuple(sentences)
