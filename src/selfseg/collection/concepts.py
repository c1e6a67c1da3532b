"""Concept discovery: what each prototype (or cluster) of a run finds in a collection of images.

An image falls into segments, the cells with the same nearest concept. A segment's vector is the mean of its cells' unit
vectors; a concept's segments are ranked by the cosine between their vector and its own, and the best are drawn.

Source: Wen et al., "Self-supervised visual representation learning with semantic grouping" (SlotCon), NeurIPS 2022,
sections 4.6 and A.4. These things are others here:
- Whole images at the run's own resolution, where the paper takes a centre crop of 224 px at 256: what lies at the rim
  of a photograph is found too, and segments are those that `selfseg.segment` gives. Options bring the paper's back.
- With `whole` an image is one segment, as in figures 12 and 13 (A.4: to save computation on ImageNet). It is ranked
  for its nearest concept only, so that counts mean the same as everywhere; the paper doesn't say whether it does so.
- Segments of less than 1 % of their image are ranked after all others: a speck shows nobody anything.

Letters in shapes: H W pixels of an image, D embedding dimension, h w embedding cells, K concepts.
"""

from __future__ import annotations

import copy
import heapq
import math
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfseg.collection.clusters import add_position, assign_pixels, load_clusters
from selfseg.collection.false_colours import Painter, painter_of
from selfseg.collection.opening import Images, collect, load, whole_images
from selfseg.collection.streaming import Embedded, WriteBehind, embed_images
from selfseg.data.reading.images import resize_short_side
from selfseg.data.reading.skipping import SkipLog
from selfseg.drawing.pictures import fit_within, palette, write_image
from selfseg.errors import ConfigError, EmptyCollection, RunError
from selfseg.models.prototypes import load_prototypes
from selfseg.pages.concepts import PICTURES, draw_segment, read_concepts, write_concepts_page
from selfseg.storage.files import mark_output, write_json
from selfseg.storage.hashes import embedder_hash
from selfseg.storage.remote.places import at_places

_BUDGET = 100_000_000  # pixels of all pictures: a page of about 30 MB
_LARGEST, _SMALLEST = 224, 96  # longer side of a picture, in pixels


@at_places(runs=["run"])
def concepts(
    run: Path | str,
    images: Images,
    top: int = 10,
    k: int | None = None,
    resolution: int | None = None,
    crop: int | None = None,
    min_share: float = 0.01,
    whole: bool = False,
    device: str = "auto",
    progress: bool = True,
    max_bad: float = 0.05,
) -> Path:
    """Show what each concept of a run finds: its best segments in a collection, with counts.

    Writes `RUN/concepts.html`, one page with all of them; `RUN/concepts/concepts.json` with the numbers; and the
    segments' pictures in `RUN/concepts/pictures/`. `selfseg.report` shows them too. Concepts are the run's own
    prototypes or, with `k`, its clusters, so that any run has some. Memory does not grow with the number of images:
    only the best segments are kept, and their images are read a second time to be drawn.

    Args:
        run: the run's folder.
        images: a folder, a list file, paths, a collection, arrays, tensors or PIL images.
        top: how many segments to show of each concept.
        k: the run's clusters with this k, which `selfseg.cluster` made; None = the run's prototypes.
        resolution: short side in px that images are resized to; None = the embedder's own.
        crop: side in px of the centre square that is looked at; None = the whole image. The paper has 224 with a
            resolution of 256.
        min_share: segments that are a smaller share of their image than this, in [0, 1], are ranked after all larger
            ones.
        whole: take each image as one segment, for pictures of single objects such as ImageNet's (the paper's figures
            12 and 13): its vector is the mean of all its cells.
        device: see `selfseg.load`.
        progress: whether to show progress bars on stderr.
        max_bad: share of unreadable images that is an error, in [0, 1].

    Returns:
        The page's path.

    Raises:
        ConfigError: for options that can't work.
        RunError: if the run has no prototypes, or no clusters with this k; see `selfseg.load` too.
        EmptyCollection: if there are no images, or none could be read.
        TooManyBadImages: if too many can't be read.
        StorageError: if the disk is full.

    Example:
        >>> concepts("runs/photos", "photos", top=5)  # doctest: +SKIP
    """
    run = Path(run)
    if top < 1:
        raise ConfigError(f"top is {top}; give how many segments of each concept to show, 1 or more")
    if not 0 <= min_share <= 1:
        raise ConfigError(f"min_share {min_share} is not a share of an image; give a value from 0 to 1, e.g. 0.01")
    embedder = load(run, device)
    if resolution is not None and resolution < 32:
        raise ConfigError(f"resolution is {resolution}; give the images' short side in px, 32 or more")
    resolution = resolution or embedder.resolution
    if crop is not None and (crop < 32 or (resolution is not None and crop > resolution)):
        raise ConfigError(f"a crop of {crop} px must be from 32 px to the resolution, {resolution}")
    clusters = None if k is None else load_clusters(run, k)
    vectors, groups = (clusters.centroids, clusters.groups) if clusters else (load_prototypes(run), None)
    position = clusters.position if clusters else 0.0
    if position and whole:
        raise ConfigError(
            f"the clusters with k = {k} depend on a pixel's place in its image (--position); leave out --whole"
        )
    if position and crop is not None:
        raise ConfigError(
            f"the clusters with k = {k} depend on a pixel's place in its image (--position); leave out crop = {crop}"
        )
    if vectors.shape[1] != embedder.dim + (4 if position else 0):
        raise RunError(f"the concepts of {run} have {vectors.shape[1]} dimensions, its embedder {embedder.dim}")
    native = copy.copy(embedder)  # shares the weights; images are resized here, so that pictures show what it saw
    native.resolution = None

    collection = collect(images, embedder)
    folder = run / "concepts"
    log = SkipLog(folder / "skipped.jsonl", len(collection), max_bad)
    search = Search(vectors.to(embedder.mean.device), top, min_share, groups)

    def embeddings(indices: Sequence[int], log: SkipLog, what: str) -> Generator[Embedded, None, None]:
        levels = embedder.config.channels is not None
        cut = partial(_cut, resolution=resolution, crop=crop, levels=levels)
        with closing(embed_images(native, collection, indices, log, what, progress, cut)) as found:
            for one in found:
                cells = one.embedding.mean((1, 2), keepdim=True) if whole else add_position(one.embedding, position)
                yield one._replace(embedding=cells)

    for one in embeddings(whole_images(collection, log), log, "concepts"):
        search.add(one.number, one.embedding)
    if not search.images:
        raise EmptyCollection(f"none of the {len(collection)} images in {collection.root} could be read")

    mark_output(folder)
    (folder / "concepts.json").unlink(missing_ok=True)  # until the new pictures are there
    pictures = folder / PICTURES
    mark_output(pictures)
    for old in pictures.glob("*.webp"):
        old.unlink()
    painter = painter_of(collection)
    drawn = _draw(search, embeddings, pictures, painter)
    values = {
        "source": "prototypes" if k is None else "clusters",
        "k": search.k,
        "images": str(collection.root),
        "count": search.images,
        "skipped": len(log.skipped),
        "resolution": resolution or "native",
        "crop": crop or "none",
        "top": top,
        "min_share": min_share,
        "whole": whole,
        "embedder": embedder_hash(run),
        **({"false_colours": painter.legend} if painter.legend else {}),
        **search.summary(),
        "concepts": [
            {
                **search.numbers(c),
                "segments": [
                    {
                        "image": collection.names[-segment.order],
                        "cosine": segment.cosine,
                        "share": segment.share,
                        "picture": drawn.get((c, rank)),
                    }
                    for rank, segment in enumerate(search.best(c))
                ],
            }
            for c in range(search.k)
        ],
    }
    write_json(folder / "concepts.json", values)
    found = read_concepts(run)
    if found is None:
        raise RunError(f"{folder / 'concepts.json'} disappeared while its page was written; run the command again")
    return write_concepts_page(run, found)


class Segment(NamedTuple):
    """A segment of a concept, in an order in which the better one is the larger.

    Attributes:
        large: whether it is large enough to be ranked first.
        cosine: between its vector and the concept's.
        order: minus the image's index: of equals the earlier image wins.
        share: of the image's cells.
        vector: (D,) float32, unit length.
    """

    large: bool
    cosine: float
    order: int
    share: float
    vector: Tensor


class Search:
    """The best segments of each concept, and counts. Its size does not depend on how many images it has seen.

    Args:
        vectors: (K, D) float, the concepts; a cell belongs to the nearest by cosine. Embeddings are on their device.
        top: how many segments of each are kept.
        min_share: smaller segments are ranked after all larger ones.
        groups: (M,) int64 of merged clusters: the (M, D) vectors are then what is merged, and a concept's own vector is
            the mean direction of its members.

    Example:
        >>> search = Search(torch.eye(2), top=1)
        >>> search.add(0, torch.tensor([[[1.0, 0.8]], [[0.0, 0.6]]]))  # two cells, both nearest to the first
        >>> search.best(0)[0].share, search.dead
        (1.0, (1,))
    """

    def __init__(self, vectors: Tensor, top: int, min_share: float = 0.0, groups: Tensor | None = None) -> None:
        self.members = F.normalize(vectors.float(), dim=1)
        self.groups = torch.arange(len(vectors)) if groups is None else groups
        self.groups = self.groups.to(vectors.device)
        self.k = int(self.groups.max()) + 1
        one_hot = F.one_hot(self.groups, self.k).to(self.members)
        self.vectors = self.members if groups is None else F.normalize(one_hot.T @ self.members, dim=1)
        self.top, self.min_share = top, min_share
        self.images = 0  # seen
        self._heaps: list[list[Segment]] = [[] for _ in range(self.k)]
        self._cells = torch.zeros(self.k, dtype=torch.int64)
        self._active = torch.zeros(self.k, dtype=torch.int64)  # images that each is active in
        self._sums = torch.zeros((self.k, vectors.shape[1]), dtype=torch.float64)  # of all segments' vectors

    def add(self, image: int, embedding: Tensor) -> None:
        """Look at an image.

        Args:
            image: its index, not seen before.
            embedding: (D, h, w) float, unit vectors.
        """
        cells = F.normalize(embedding.float().flatten(1).T, dim=1)  # (hw, D)
        found, place, count = torch.unique(
            self.groups[(cells @ self.members.T).max(1).indices], return_inverse=True, return_counts=True
        )
        if cells.is_cuda:  # where adding up by index has no order
            sums = F.one_hot(place, len(found)).to(cells).T @ cells
        else:
            sums = torch.zeros(len(found), cells.shape[1]).index_add_(0, place, cells)
        means = F.normalize(sums, dim=1)
        cosines = (means * self.vectors[found]).sum(1)
        found, count, means, cosines = found.cpu(), count.cpu(), means.cpu(), cosines.cpu()
        shares = count / len(cells)
        self.images += 1
        self._cells[found] += count
        self._active[found] += 1
        self._sums[found] += means.double()
        ranked = zip(found.tolist(), cosines.tolist(), shares.tolist(), means, strict=True)
        for concept, cosine, share, vector in ranked:
            segment = Segment(share >= self.min_share, cosine, -image, share, vector)
            heap = self._heaps[concept]
            if len(heap) < self.top:
                heapq.heappush(heap, segment._replace(vector=vector.clone()))
            elif segment[:3] > heap[0][:3]:
                heapq.heapreplace(heap, segment._replace(vector=vector.clone()))  # not a view of all of the image's

    def best(self, concept: int) -> list[Segment]:
        """A concept's best segments, at most `top`, the best first."""
        return sorted(self._heaps[concept], key=lambda segment: segment[:3], reverse=True)

    @property
    def dead(self) -> tuple[int, ...]:
        """The concepts that no cell of any image belongs to."""
        return tuple(torch.nonzero(self._active == 0).flatten().tolist())

    def numbers(self, concept: int) -> dict[str, Any]:
        """What is known about a concept.

        Returns:
            `concept`; `share` of all cells; `images` that it is active in; `coherence`, the mean cosine between two of
            all its segments (each image's mean counts once); `coherence_top`, between two of its best. Both None below
            two segments.
        """
        best = self._heaps[concept]
        top = torch.stack([segment.vector for segment in best]).double().sum(0) if best else None
        return {
            "concept": concept,
            "share": float(self._cells[concept] / max(1, int(self._cells.sum()))),
            "images": int(self._active[concept]),
            "coherence": _mean_cosine(self._sums[concept], int(self._active[concept])),
            "coherence_top": _mean_cosine(top, len(best)) if top is not None else None,
        }

    def summary(self) -> dict[str, Any]:
        """What is known about all: `active_per_image`, `dead`, and `coherence_any`, the mean cosine of any segments."""
        segments = int(self._active.sum())
        return {
            "active_per_image": segments / max(1, self.images),
            "dead": list(self.dead),
            "coherence_any": _mean_cosine(self._sums.sum(0), segments),
        }


def _mean_cosine(total: Tensor, count: int) -> float | None:
    """The mean cosine between two different ones of `count` unit vectors with the sum `total`."""
    if count < 2:
        return None
    return (float(total.square().sum()) - count) / (count * (count - 1))


def _cut(image: NDArray[np.uint8], resolution: int | None, crop: int | None, levels: bool) -> NDArray[np.uint8]:
    """The part of an image that is looked at, at the size that it is looked at."""
    if resolution is not None:
        image = resize_short_side(image, resolution, levels)
    if crop is None:
        return image
    top, left = max(0, (image.shape[0] - crop) // 2), max(0, (image.shape[1] - crop) // 2)
    return np.ascontiguousarray(image[top : top + crop, left : left + crop])


def _draw(
    search: Search,
    embeddings: Callable[[Sequence[int], SkipLog, str], Iterable[Embedded]],
    folder: Path,
    painter: Painter,
) -> dict[tuple[int, int], dict[str, Any]]:
    """Write the pictures of the best segments, each image read and embedded once.

    Returns:
        By concept and rank the picture's `file`, `width` and `height`; without those of images that went since.
    """
    wanted: dict[int, list[tuple[int, int]]] = {}
    for concept in range(len(search.vectors)):
        for rank, segment in enumerate(search.best(concept)):
            wanted.setdefault(-segment.order, []).append((concept, rank))
    number = sum(len(places) for places in wanted.values())
    longest = int(min(_LARGEST, max(_SMALLEST, math.sqrt(_BUDGET / (0.75 * number)))))
    colours = palette(len(search.vectors))
    log = SkipLog(None, len(wanted), limit=1.0)
    result: dict[tuple[int, int], dict[str, Any]] = {}

    def write(places: Sequence[tuple[int, int]], picture: NDArray[np.uint8], ids: NDArray[Any]) -> None:
        for concept, rank in places:
            drawn = draw_segment(picture, ids == concept, colours[concept])
            write_image(folder / _picture_name(concept, rank), drawn, quality=78)

    writer: WriteBehind[None] = WriteBehind()
    with writer:
        for one in embeddings(sorted(wanted), log, "pictures"):
            picture = fit_within(painter(one.seen), longest)
            size = picture.shape[0], picture.shape[1]
            ids = assign_pixels(one.embedding, search.members, size, search.groups)
            writer.call(write, wanted[one.number], picture, ids)
            for concept, rank in wanted[one.number]:
                file, size = _picture_name(concept, rank), picture.shape
                result[concept, rank] = {"file": file, "width": size[1], "height": size[0]}
    return result


def _picture_name(concept: int, rank: int) -> str:
    return f"{concept:04}-{rank:02}.webp"
