"""How probable each prototype is at each pixel.

A pixel's scores are its cosines to the prototypes; a softmax of them at the temperature of the training makes them
probabilities: what ViCE's prediction (Karlsson et al., BMVC 2022, equation 3) and SlotCon's assignment (Wen et al.,
NeurIPS 2022, equation 1, here without its centre) are. For ViCE there is also where the centres of views are drawn,
BMVC's figure 8 on the right; its views, on the left, are RUN/pictures/views0.png.

Letters: H W pixels of a picture, D dimensions, h w cells, K prototypes.
"""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfseg.collection.assigning import cell_scores
from selfseg.collection.clusters import add_position, load_clusters
from selfseg.collection.false_colours import painter_of
from selfseg.collection.opening import Images, collect, load, plain_recipe, whole_images
from selfseg.collection.streaming import embed_images
from selfseg.data.reading.images import spread_indices
from selfseg.data.reading.skipping import SkipLog
from selfseg.data.views.content_centred import content_map, draw_centre
from selfseg.drawing.figures import figure
from selfseg.drawing.pictures import Picture, fit_within, hex_colour, overlay, palette
from selfseg.errors import ConfigError, EmptyCollection, RunError
from selfseg.models.prototypes import load_prototypes
from selfseg.pages.gallery import Gallery, Part, Row, Shown, write_gallery
from selfseg.storage.remote.places import at_places

_LONGEST = 400  # of a picture, in px
_BAND = 1 << 23  # scores held at a time
_CENTRES = 300  # that are drawn as dots
_COLDEST = 1e-6  # temperature; scores divided by less leave what float32 holds
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


class Maps(NamedTuple):
    """What is known of one image.

    Attributes:
        mean: (K,) float32, the mean probability of each prototype.
        best: (H, W) int64, the most probable prototype.
        sure: (H, W) float32, its probability.
        entropy: mean over pixels, in nats.
        chosen: the prototypes with the largest means, the largest first.
        probability: (N, H, W) float32 of the chosen ones.
    """

    mean: Tensor
    best: Tensor
    sure: Tensor
    entropy: float
    chosen: tuple[int, ...]
    probability: Tensor


@at_places(runs=["run"])
def probabilities(
    run: Path | str,
    images: Images,
    count: int = 6,
    top: int = 3,
    k: int | None = None,
    temperature: float | None = None,
    device: str = "auto",
    progress: bool = True,
    max_bad: float = 0.05,
) -> Path:
    """Show how probable each prototype is at each pixel, as RUN/probabilities.html.

    For some images, spread evenly over the collection, it shows the most probable prototype of each pixel, how probable
    that is, and the maps of the prototypes that cover most of the image.

    Args:
        run: the run's folder.
        images: a folder, a list file, NAME:ROOT, paths, a collection, arrays, tensors or PIL images.
        count: how many images are shown.
        top: how many prototypes are shown of each image.
        k: the run's clusters with this k, which `selfseg.cluster` made; None = the run's prototypes.
        temperature: temperature of the softmax, at least 1e-6; None = that of the run's training, or 0.1 if its recipe
            has none.
        device: see `selfseg.load`.
        progress: whether to show a progress bar on stderr.
        max_bad: share of unreadable images that is an error, in [0, 1].

    Returns:
        The page's path.

    Raises:
        ConfigError: for options that can't work.
        RunError: if the run has no prototypes, or no clusters with this k; see `selfseg.load` too.
        EmptyCollection: if there are no images, or none could be read.
        TooManyBadImages: if too many can't be read.
        StorageError: if the page can't be written.
    """
    run = Path(run)
    if count < 1 or top < 1:
        raise ConfigError(f"count and top must be at least 1, not {count} and {top}")
    if temperature is not None and not temperature >= _COLDEST:
        raise ConfigError(f"temperature must be at least {_COLDEST:g}, not {temperature}")
    embedder = load(run, device)
    method = plain_recipe(run).get("method")
    recipe = method if isinstance(method, dict) else {}
    clusters = None if k is None else load_clusters(run, k)
    if clusters is not None and clusters.groups is not None:
        raise ConfigError(
            f"the clusters with k = {k} were merged and have no vectors of their own; cluster without merge"
        )
    vectors = load_prototypes(run) if clusters is None else clusters.centroids
    position = 0.0 if clusters is None else clusters.position
    word = "prototype" if clusters is None else "cluster"
    if vectors.shape[1] != embedder.dim + (4 if position else 0):
        raise RunError(f"the {word}s of {run} have {vectors.shape[1]} dimensions, its embedder {embedder.dim}")
    trained = recipe.get("teacher_temperature", recipe.get("temperature"))
    if not isinstance(trained, int | float) or not _COLDEST <= trained <= 1 / _COLDEST:  # a recipe of somebody else's
        trained = 0.1
    used = temperature or float(trained)
    collection = collect(images, embedder)
    painter = painter_of(collection)
    log = SkipLog(None, len(collection), max_bad)
    whole = whole_images(collection, log)
    wanted = [whole[i] for i in spread_indices(len(whole), count)]
    vectors = F.normalize(vectors.float(), dim=1).to(embedder.mean.device)
    colours = palette(len(vectors))
    seen: list[tuple[str, Picture, Maps]] = []
    centred: list[Row] = []
    shows_centres = clusters is None and recipe.get("views", {}).get("kind") == "ContentCentredViews"
    with torch.no_grad(), closing(embed_images(embedder, collection, wanted, log, "probabilities", progress)) as found:
        for one in found:
            picture, name = fit_within(painter(one.seen), _LONGEST), collection.names[one.number]
            size = (picture.shape[0], picture.shape[1])
            maps = probability_maps(add_position(one.embedding, position), vectors, used, size, top)
            seen.append((name, picture, maps))
            if shows_centres:
                content = content_map(picture) if painter.rgb else content_map(one.seen, rgb=False)
                content = np.asarray(cv2.resize(content, size[::-1], interpolation=cv2.INTER_LINEAR))
                centred.append(Row(name, _centres(picture, content, one.number, name, painter.word("photograph"))))
    if not seen:
        raise EmptyCollection(f"none of the {len(wanted)} images tried in {collection.root} could be read")
    # With many prototypes the largest probability may be a tenth: one scale for the page, up to its own largest.
    most = max(float(maps.sure.max()) for _, _, maps in seen)
    caption = painter.word("photograph")
    rows = [Row(name, _pictures(picture, maps, colours, name, word, most, caption)) for name, picture, maps in seen]
    sure = float(np.mean([float(maps.sure.mean()) for _, _, maps in seen]))
    entropy = float(np.mean([maps.entropy for _, _, maps in seen]))
    source = "given" if temperature else "that of the training" if trained else "the recipe names none"
    parts = [
        Part(
            "What each pixel is taken for, and how probable that is",
            f"In this order: the {caption}, the most probable {word} of each pixel, its probability, and the "
            f"probability of the {top} {word}s that cover most of the image. The colours end at the largest "
            f"probability on this page, {most:.2f}.",
            tuple(rows),
            3 + top,
            _scale(most),
        )
    ]
    if centred:
        parts.append(
            Part(
                "Where the centres of views are drawn",
                "How probable it is that a pixel becomes the centre of a training step's views, as a share of the most "
                f"probable pixel's, and {_CENTRES} centres that were drawn by it. The probability follows smoothed "
                "edges (ViCE, BMVC 2022, figure 8). Nothing here is learned.",
                tuple(centred),
                3,
                _scale(1.0),
            )
        )
    gallery = Gallery(
        brand=f"probability of the {word}s",
        title=run.resolve().name,
        facts=(
            (f"{word}s", str(len(vectors))),
            ("temperature", f"{used:g}"),
            ("mean of the largest probability", f"{sure:.2f}"),
            (f"{word}s that a pixel hesitates between", f"{math.exp(entropy):.1f}"),
        ),
        lead=(
            f"This is a softmax of each pixel's cosines to all {len(vectors)} {word}s. Its temperature ({used:g}, "
            f"{source}) decides how sure it looks. The order of the {word}s at a pixel comes from the network, but "
            "nothing calibrates how high the numbers are.",
            f"A guess would give each {word} {1 / len(vectors):.2g}. Where no {word} stands out, the embedding has no "
            "concept of its own for what is there.",
            *painter.note,
        ),
        parts=tuple(parts),
        source=f"the images in {collection.root}",
    )
    return write_gallery(run / "probabilities.html", gallery)


def probability_maps(embedding: Tensor, vectors: Tensor, temperature: float, size: tuple[int, int], top: int) -> Maps:
    """The probability of each vector at each pixel: cosines, resized bilinearly, then a softmax.

    Args:
        embedding: (D, h, w) float.
        vectors: (K, D) unit rows, on its device.
        temperature: above 0.
        size: (H, W).
        top: N, how many maps to keep; at most K are.

    Returns:
        The maps, on the CPU.

    Example:
        >>> cells = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
        >>> found = probability_maps(cells, torch.eye(2), 0.1, (1, 2), top=1)
        >>> found.best.tolist(), found.chosen
        ([[0, 1]], (0,))
    """
    scores = cell_scores(embedding, vectors).permute(2, 0, 1)[None]  # (1, K, h, w)
    count, h = scores.shape[1:3]
    height, width = size
    wide = F.interpolate(scores, (h, width), mode="bilinear", align_corners=False)[0]  # (K, h, W)
    place = ((torch.arange(height, device=scores.device) + 0.5) * (h / height) - 0.5).clamp(0, h - 1)
    above = place.floor().long()
    band = max(1, _BAND // (count * width))

    def bands() -> Any:
        for start in range(0, height, band):
            rows = above[start : start + band]
            share = (place[start : start + band] - rows)[None, :, None]
            part = torch.lerp(wide[:, rows], wide[:, (rows + 1).clamp(max=h - 1)], share)
            yield (part / temperature).softmax(0)  # (K, rows, W)

    total = scores.new_zeros(count, dtype=torch.float64)
    best, sure, entropy = [], [], 0.0
    for part in bands():
        total += part.sum((1, 2), dtype=torch.float64)
        largest = part.max(0)
        best.append(largest.indices.cpu())
        sure.append(largest.values.cpu())
        entropy += float(torch.special.entr(part).sum(dtype=torch.float64))
    mean = (total / (height * width)).float().cpu()
    chosen = mean.topk(min(top, count)).indices.tolist()
    maps = torch.cat([part[chosen].cpu() for part in bands()], dim=1)
    return Maps(mean, torch.cat(best), torch.cat(sure), entropy / (height * width), tuple(chosen), maps)


def _pictures(
    picture: Picture, maps: Maps, colours: Picture, name: str, word: str, most: float, caption: str
) -> tuple[Shown, ...]:
    ids = maps.best.numpy().astype(np.int32)
    shown = [
        Shown(figure(picture, name), caption),
        Shown(figure(overlay(picture, ids, colours), f"{name}: the most probable {word}"), f"most probable {word}"),
        Shown(
            figure(_heat(maps.sure.numpy() / most), f"{name}: probability of the most probable {word}"),
            f"its probability, mean {float(maps.sure.mean()):.2f}",
        ),
    ]
    for number, probability in zip(maps.chosen, maps.probability, strict=True):
        drawn = figure(_heat(probability.numpy() / most), f"{name}: probability of {word} {number}")
        shown.append(Shown(drawn, f"{word} {number}, {float(maps.mean[number]):.1%}"))
    return tuple(shown)


def _centres(picture: Picture, content: NDArray[np.float32], number: int, name: str, caption: str) -> tuple[Shown, ...]:
    rng = np.random.Generator(np.random.PCG64([0, number]))
    dots = picture.copy()
    for _ in range(_CENTRES):
        centre = draw_centre(content, rng)
        cv2.circle(dots, centre, 3, (20, 20, 22), -1, cv2.LINE_AA)
        cv2.circle(dots, centre, 2, (255, 214, 10), -1, cv2.LINE_AA)
    return (
        Shown(figure(picture, name), caption),
        Shown(figure(_heat(content / content.max()), f"{name}: where centres are drawn"), "probability of a centre"),
        Shown(figure(dots, f"{name}: {_CENTRES} drawn centres"), f"{_CENTRES} drawn centres"),
    )


def _scale(most: float) -> tuple[tuple[str, str], ...]:
    """The legend of `_heat`, of numbers from 0 to `most`."""
    return tuple((f"{tick * most:.2g}", hex_colour(_heat(np.array([[tick]]))[0, 0])) for tick in _TICKS)


def _heat(values: NDArray[Any]) -> Picture:
    """Numbers in [0, 1] as colours from dark blue to yellow: (H, W) to (H, W, 3)."""
    gray = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(cv2.applyColorMap(gray, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB), np.uint8)
