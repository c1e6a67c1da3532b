"""The nearest objects of a query, in a folder without labels.

W. Van Gansbeke et al., "Unsupervised Semantic Segmentation by Contrasting Object Mask Proposals", ICCV 2021 (arXiv
2102.06191), figure 4: an object is the mean embedding of what stands out in an image (section E;
`selfseg.evaluation.protocols.object_vectors`), and those nearest to it are shown. Their queries were chosen by hand;
ours are drawn unless they are named.

Letters: O objects of the collection, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfseg.collection.false_colours import painter_of
from selfseg.collection.opening import Images, collect, load, whole_images
from selfseg.data.reading.ahead import map_images
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.skipping import SkipLog
from selfseg.drawing.figures import figure
from selfseg.drawing.pictures import fit_within
from selfseg.errors import ConfigError, EmptyCollection
from selfseg.evaluation.protocols.object_vectors import Finder, Objects, mask_finder, saliency_finder
from selfseg.pages.concepts import draw_segment
from selfseg.pages.gallery import Gallery, Part, Row, Shown, write_gallery
from selfseg.storage.remote.places import at_places

_LONGEST = 320  # of a picture, in px
_QUERY, _FOUND = (255, 214, 10), (64, 196, 255)
_NEIGHBOURS = 48  # a collection's 48th part: what lies nearer in the list may be frames of one video


class _Object(NamedTuple):
    image: int  # in the collection
    number: int  # in the image
    share: float  # of the image's pixels


class Found(NamedTuple):
    """A neighbour.

    Attributes:
        place: among the objects.
        cosine: to the query.
    """

    place: int
    cosine: float


@at_places(runs=["run"], reads=["masks"])
def nearest(
    run: Path | str,
    images: Images,
    masks: Path | None = None,
    queries: Sequence[str] = (),
    count: int = 8,
    top: int = 6,
    apart: int = 0,
    min_share: float = 0.005,
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
    max_bad: float = 0.05,
) -> Path:
    """Show the objects that a run finds nearest to some objects, as RUN/nearest.html; no labels are needed.

    Args:
        run: the run's folder.
        images: a folder, a list file, NAME:ROOT, paths, a collection, arrays, tensors or PIL images.
        masks: folder of masks that say what an object is (`selfseg masks` makes one); None = the run's saliency head.
        queries: names of images, whose largest objects are the queries; if empty, queries are drawn at random.
        count: how many queries are drawn, each from another image.
        top: how many neighbours are shown of each query, each from another image.
        apart: neighbours lie at least this many images from the query and from each other, in the collection's order.
            Take more than 1 for frames of a video, where the next frame shows the same thing.
        min_share: objects that are a smaller share of their image than this are left out.
        seed: seed of the random choice of queries.
        device: see `selfseg.load`.
        progress: whether to show progress bars on stderr.
        max_bad: share of unreadable images that is an error, in [0, 1].

    Returns:
        The page's path.

    Raises:
        ConfigError: for options that can't work, an unknown query, or a run that doesn't know where objects are.
        EmptyCollection: if there are no images, or fewer than two objects in them.
        BadMask: if a mask can't be used.
        RunError, TooManyBadImages, StorageError: see `selfseg.concepts`.
    """
    run = Path(run)
    if count < 1 or top < 1 or apart < 0 or not 0 <= min_share < 1:
        raise ConfigError(
            f"need count and top >= 1, apart >= 0 and min_share in [0, 1), not {count}, {top}, {apart} and {min_share}"
        )
    embedder = load(run, device)
    if masks is None and embedder.saliency_head is None:
        raise ConfigError(
            f"{run} has no saliency head, so that nothing says where objects are; give a folder of masks with --masks "
            "(`selfseg masks IMAGES --out MASKS` makes one)"
        )
    finder = saliency_finder(embedder, Objects()) if masks is None else mask_finder(embedder.embed, masks)
    collection = collect(images, embedder)
    log = SkipLog(None, len(collection), max_bad)
    unknown = [name for name in queries if name not in collection.names]
    if unknown:
        some = ", ".join(collection.names[:3])
        raise ConfigError(f"no image {unknown[0]!r} in {collection.root}; there are e.g. {some}")
    objects: list[_Object] = []
    parts: list[Tensor] = []
    whole = whole_images(collection, log)
    with closing(map_images(collection, whole, lambda _, image: image, log, "objects", progress)) as read:
        for index, image in read:
            found = finder(image, "", collection.names[index])
            for number in range(len(found.weight)):
                share = float((found.ids == number).mean())
                total = torch.einsum("hw,dhw->d", found.weight[number], found.embedding)
                if share >= min_share and bool(total.norm() > 0):
                    objects.append(_Object(index, number, share))
                    parts.append(F.normalize(total, dim=0))
    if len(objects) < 2:
        raise EmptyCollection(
            f"{len(objects)} objects of at least {min_share:.1%} of their image in {collection.root}: there is nothing "
            "to compare; give other --masks, or a lower --min-share"
        )
    vectors = torch.stack(parts)  # (O, D)
    asked = _named(objects, collection.names, queries) if queries else _drawn(objects, count, seed)
    rows, close, shown = [], 0, 0
    wanted = {query: neighbours(vectors, [one.image for one in objects], query, top, apart) for query in asked}
    pictures = _draw(collection, finder, objects, wanted)
    for query, results in wanted.items():
        name = collection.names[objects[query].image]
        row = [Shown(figure(pictures[query, True], f"query: {name}"), "query", marked=True)]
        for one in results:
            other = collection.names[objects[one.place].image]
            caption = f"{one.cosine:.2f}"
            row.append(Shown(figure(pictures[one.place, False], f"{other}, cosine {one.cosine:.2f}"), caption))
            close += abs(objects[one.place].image - objects[query].image) <= max(1, len(collection) // _NEIGHBOURS)
            shown += 1
        rows.append(Row(name, tuple(row), f"object of {objects[query].share:.1%} of the image"))
    notes = []
    if shown and close > shown / 2:
        notes.append(
            f"{close} of the {shown} neighbours lie right beside their query in the folder. If these are frames of a "
            f"video, they show the same object again, which says little: give e.g. --apart {len(collection) // 12 + 2}."
        )
    chosen = "named" if queries else f"drawn with seed {seed}, not chosen by how well they come out"
    anything = _mean_cosine(vectors)
    gallery = Gallery(
        brand="nearest objects",
        title=run.resolve().name,
        facts=(
            ("objects", f"{len(objects):,}"),
            ("images", f"{len(collection) - len(log.skipped):,}"),
            ("objects by", "the saliency head" if masks is None else "masks"),
            ("cosine of any two", f"{anything:.2f}"),
        ),
        lead=(
            "Each row begins with a query; then come the objects of other images whose mean embedding is nearest to "
            f"its own, with the cosine. The queries are {chosen}. No label was used.",
            f"On average two objects here have a cosine of {anything:.2f}, so only what is far above that is near. "
            "Look whether neighbours show the same kind of thing. How often they do on labelled images is measured by "
            "selfseg evaluate --protocols retrieval.",
            *painter_of(collection).note,
        ),
        parts=(Part("Queries and the objects nearest to them", "", tuple(rows), 1 + top),),
        source=f"the images in {collection.root}",
        notes=notes,
    )
    return write_gallery(run / "nearest.html", gallery)


def neighbours(vectors: Tensor, images: Sequence[int], query: int, top: int, apart: int) -> list[Found]:
    """The nearest objects of one, of equals the earlier; one of an image, none of the query's.

    Args:
        vectors: (O, D) unit rows.
        images: O, which image each object is of.
        query: which object.
        top: how many, if there are.
        apart: the least distance of their images from the query's and each other's; at least 1 in any case.

    Returns:
        The nearest first.

    Example:
        >>> vectors = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
        >>> [found.place for found in neighbours(vectors, [0, 0, 1, 2], query=0, top=2, apart=0)]
        [2, 3]
    """
    cosines = vectors @ vectors[query]
    taken = [images[query]]
    found: list[Found] = []
    for place in torch.sort(cosines, descending=True, stable=True).indices.tolist():
        if len(found) == top:
            break
        if all(abs(images[place] - other) >= max(1, apart) for other in taken):
            taken.append(images[place])
            found.append(Found(place, float(cosines[place])))
    return found


def _drawn(objects: Sequence[_Object], count: int, seed: int) -> list[int]:
    """Objects of different images, drawn."""
    rng = np.random.Generator(np.random.PCG64(seed))
    chosen: dict[int, int] = {}
    for place in rng.permutation(len(objects)).tolist():
        if len(chosen) < count:
            chosen.setdefault(objects[place].image, place)
    return sorted(chosen.values())


def _named(objects: Sequence[_Object], names: Sequence[str], queries: Sequence[str]) -> list[int]:
    """The largest object of each named image."""
    chosen = []
    for name in dict.fromkeys(queries):
        own = [place for place, one in enumerate(objects) if names[one.image] == name]
        if not own:
            raise ConfigError(f"there is no object in {name!r}, so that nothing can be near it; name another image")
        chosen.append(max(own, key=lambda place: objects[place].share))
    return chosen


def _draw(
    collection: ImageCollection, finder: Finder, objects: Sequence[_Object], wanted: dict[int, list[Found]]
) -> dict[tuple[int, bool], NDArray[np.uint8]]:
    """The picture of each (object, whether as a query), its image read and its objects found once more."""
    needed = {(query, True) for query in wanted} | {(one.place, False) for each in wanted.values() for one in each}
    by_image: dict[int, list[tuple[int, bool]]] = {}
    for place, is_query in sorted(needed):
        by_image.setdefault(objects[place].image, []).append((place, is_query))
    drawn, painter = {}, painter_of(collection)
    for index, places in by_image.items():
        image = collection.read(index)
        ids = finder(image, "", collection.names[index]).ids
        small = fit_within(painter(image), _LONGEST)
        size = (small.shape[1], small.shape[0])
        for place, is_query in places:
            mask = cv2.resize((ids == objects[place].number).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
            drawn[place, is_query] = draw_segment(small, mask.astype(bool), _QUERY if is_query else _FOUND)
    return drawn


def _mean_cosine(vectors: Tensor) -> float:
    """Of two different ones of some unit vectors."""
    count = len(vectors)
    return float((vectors.double().sum(0).square().sum() - count) / (count * (count - 1)))
