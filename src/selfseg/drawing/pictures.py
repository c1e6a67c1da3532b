"""Pictures of embeddings, segments, regions and views, and their encoding.

Pictures are (H, W, 3) uint8 RGB arrays. Letters in shapes: H W pixels, D embedding dimension, h w embedding cells, K
clusters, V views.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfseg.drawing.false_colour import choose
from selfseg.errors import ConfigError
from selfseg.ops.geometry import bounds, invert
from selfseg.ops.pca import PcaBasis, fit_pca
from selfseg.storage.files import read_json, write_atomically, write_json
from selfseg.storage.tensors import read_tensors, write_tensors
from selfseg.types import Batch

Picture = NDArray[np.uint8]
Ids = NDArray[Any]

_NONE = (58, 60, 66)  # pixels without a region
_FRAME = (255, 214, 10)
_LIGHTER = (np.arange(256) * 0.5 + 0.5 * 255).astype(np.uint8)  # half of white over each value
_FADED = (226, 228, 232)  # background where there is a foreground


def palette(count: int) -> Picture:
    """Distinct colours, the same ones in every call: the first n of a longer palette are the palette of n.

    Each colour is the one of a fixed set that is farthest from all before it in the OKLab space, where equal distances
    look equal (Ottosson, "A perceptual color space for image processing", 2020). The set has 700 colours; after them
    it begins again.

    Args:
        count: how many.

    Returns:
        (count, 3) uint8 RGB.

    Example:
        >>> palette(3).shape
        (3, 3)
        >>> bool((palette(27)[:8] == palette(8)).all())
        True
    """
    colours = _all_colours()
    return colours[np.arange(count) % len(colours)]


@lru_cache
def _all_colours() -> Picture:
    """Up to 700 colours that are neither black, white nor gray, each the farthest from all before it."""
    hue, light, chroma = (
        grid.ravel()
        for grid in np.meshgrid(
            np.arange(72) * (math.tau / 72) + 4.4, np.linspace(0.45, 0.9, 10), (0.08, 0.12, 0.17), indexing="ij"
        )
    )
    lab = np.stack([light, chroma * np.cos(hue), chroma * np.sin(hue)], axis=1)
    # OKLab to linear sRGB, the matrices of the source.
    to_cone = np.array(
        [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
    )
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = (lab @ to_cone.T) ** 3 @ to_linear.T
    shown = ((linear >= 0) & (linear <= 1)).all(1)
    lab, linear = lab[shown], linear[shown]
    chosen = [int(np.argmax(lab[:, 0] * 0.2 + np.hypot(lab[:, 1], lab[:, 2])))]
    distance = np.full(len(lab), np.inf)
    while len(chosen) < min(700, len(lab)):
        distance = np.minimum(distance, np.square(lab - lab[chosen[-1]]).sum(1))
        chosen.append(int(distance.argmax()))
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    colours: Picture = np.rint(encoded[chosen] * 255).astype(np.uint8)
    colours.setflags(write=False)
    return colours


def hex_colour(colour: Iterable[int]) -> str:
    """A colour as HTML writes it.

    Example:
        >>> hex_colour((255, 128, 0))
        '#ff8000'
    """
    return "#" + "".join(f"{int(value):02x}" for value in colour)


def borders(ids: Ids) -> NDArray[np.bool_]:
    """The pixels whose right or lower neighbour has another id; (H, W) bool from (H, W) integers.

    Example:
        >>> borders(np.array([[0, 0, 1]])).tolist()
        [[False, True, False]]
    """
    edge = np.zeros(ids.shape, np.bool_)
    edge[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    edge[:-1] |= ids[:-1] != ids[1:]
    return edge


def overlay(image: Picture, ids: Ids, colours: Picture | None = None, strength: float = 0.6) -> Picture:
    """A photograph tinted by its segments, with light borders between them.

    Args:
        image: (H, W, 3) uint8 RGB.
        ids: (H, W) integers; a negative one means no segment and is left as it is.
        colours: (K, 3) uint8; the palette if None.
        strength: how much of the colour covers the photograph, in [0, 1].

    Returns:
        (H, W, 3) uint8.
    """
    if ids.shape != image.shape[:2]:
        raise ConfigError(f"ids of size {ids.shape} don't fit an image of size {image.shape[:2]}")
    if colours is None:
        colours = palette(int(ids.max(initial=0)) + 1)
    width = max(1, round(min(image.shape[:2]) / 400))
    edge = borders(ids).view(np.uint8)
    edge = cv2.dilate(edge, np.ones((width, width), np.uint8)) if width > 1 else edge
    negative = ids.dtype.kind == "i" and int(ids.min(initial=0)) < 0
    result = np.empty_like(image)
    # By OpenCV, which lets other threads run meanwhile and is ten times as fast as numpy by masks; in bands, because
    # several threads draw and a large image's copies would take hundreds of MB each.
    rows = max(1, (1 << 20) // image.shape[1])
    for start in range(0, image.shape[0], rows):
        band = slice(start, start + rows)
        # The photograph's gray under the colour: its own hues would shift the legend's.
        gray = cv2.cvtColor(cv2.cvtColor(image[band], cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        under = cv2.addWeighted(image[band], 0.3, gray, 0.7, 0)
        mixed = cv2.addWeighted(_painted(ids[band], colours), strength, under, 1 - strength, 0)
        if negative:
            cv2.copyTo(image[band], (ids[band] < 0).astype(np.uint8), mixed)
        cv2.copyTo(cv2.LUT(mixed, _LIGHTER), edge[band], mixed)
        result[band] = mixed
    return result


def _painted(ids: Ids, colours: Picture) -> Picture:
    """Each id's colour, (H, W, 3); that of 0 for negative ones."""
    if ids.dtype == np.uint8:
        table = np.zeros((1, 256, 3), np.uint8)
        table[0, : len(colours)] = colours[:256]
        return np.asarray(cv2.LUT(cv2.cvtColor(ids, cv2.COLOR_GRAY2RGB), table), np.uint8)
    painted: Picture = colours.take(ids if ids.dtype.kind == "u" else np.maximum(ids, 0), axis=0)
    return painted


def outlines(image: Picture, ids: Ids, colour: tuple[int, int, int] = _FRAME) -> Picture:
    """A photograph with its regions' borders drawn, such as superpixels."""
    if ids.shape != image.shape[:2]:
        raise ConfigError(f"ids of size {ids.shape} don't fit an image of size {image.shape[:2]}")
    result = image.copy()
    result[borders(ids)] = colour
    return result


def highlight(image: Picture, mask: NDArray[np.bool_], colour: Iterable[int]) -> Picture:
    """A photograph in which everything but the mask is gray and recedes, with the mask's outline in `colour`.

    What is masked stands out by brightness: around a bright part the rest gets dark, around a dark part light.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    dark = bool(mask.any()) and float(gray[mask].mean()) < 80
    around = gray * 0.25 + 178 if dark else gray * 0.32 + 10
    result: Picture = np.repeat(around.astype(np.uint8)[..., None], 3, axis=2)
    result[mask] = image[mask]
    outline = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~mask
    result[outline] = tuple(int(v) for v in colour)
    return result


def fade_background(image: Picture, foreground: Tensor) -> Picture:
    """A photograph whose background fades to gray.

    Args:
        image: (H, W, 3) uint8.
        foreground: (h, w) float, probability of the foreground in [0, 1], of the same frame.

    Returns:
        (H, W, 3) uint8.
    """
    sure = cv2.resize(foreground.numpy(), (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)[:, :, None]
    faded = 0.15 * image.mean(2, keepdims=True) + 0.85 * np.array(_FADED, np.float32)
    return np.asarray(np.rint(sure * image + (1 - sure) * faded), np.uint8)


def pca_picture(embedding: Tensor, basis: PcaBasis, size: tuple[int, int]) -> Picture:
    """An embedding's first three principal components as red, green and blue, at (H, W) `size`."""
    return resize(basis.colour(embedding), size, smooth=True)


def save_basis(basis: PcaBasis, path: Path) -> None:
    """Write a basis as safetensors, atomically."""
    tensors = {field.name: getattr(basis, field.name).contiguous() for field in fields(basis)}
    write_tensors(path, tensors)


def load_basis(path: Path) -> PcaBasis:
    """Read what `save_basis` wrote; raises OSError, ValueError or KeyError if it is damaged."""
    tensors = read_tensors(path)
    return PcaBasis(**{field.name: tensors[field.name] for field in fields(PcaBasis)})


def stored_basis(run: Path, embedder: str, embeddings: Callable[[], Iterable[Tensor]]) -> PcaBasis:
    """The run's one basis of PCA colours, so that a colour means the same in every picture of an embedder.

    Args:
        run: the run's folder; the basis is `RUN/pictures/pca.safetensors`.
        embedder: the hash of the embedder; another one's basis is fitted anew.
        embeddings: gives (D, h, w) embeddings to fit the basis on; called only when needed.
    """
    path, note = run / "pictures" / "pca.safetensors", run / "pictures" / "pca.json"
    with suppress(OSError, ValueError, KeyError, AttributeError):  # none yet, or damaged: it is fitted anew
        if read_json(note).get("embedder") == embedder:
            return load_basis(path)
    samples = []
    for i, embedding in enumerate(embeddings()):
        vectors = embedding.flatten(1).T
        drawn = np.random.default_rng((0, i)).permutation(len(vectors))[:2000]
        samples.append(vectors[torch.from_numpy(np.sort(drawn))])
    basis = fit_pca(torch.cat(samples), n=min(3, samples[0].shape[1]))
    save_basis(basis, path)
    write_json(note, {"embedder": embedder})
    return basis


def draw_views(
    batch: Batch, image_index: int = 0, height: int = 224, paint: Callable[[NDArray[np.uint8]], Picture] | None = None
) -> Picture:
    """The generated views of one image side by side, and under each what all of them share.

    Of views with regions, the shared ones: a region has the same colour in every view; what is not shared is dark.
    Of views without, the common part of the image as this view shows it, stretched to the view's size and turned back
    if the view is mirrored; its frame is drawn into the view. Painted noise is seen as it is.

    Args:
        batch: V views of B images; images uint8 or float in [0, 1].
        image_index: the image's position in the batch, in [0, B).
        height: of one view in the picture, in pixels.
        paint: makes a picture of (H, W, C) levels; None = views are of photographs, or what differs in the batch's
            first views decides how other than three channels are drawn.

    Returns:
        (2 height + gap, W, 3) uint8.
    """
    if not 0 <= image_index < len(batch.index):
        raise ConfigError(f"image_index is {image_index}; the batch has {len(batch.index)} images")
    images = [_to_picture(view.image[image_index]) for view in batch.views]
    if paint is None and images[0].shape[2] != 3:
        pixels = np.concatenate(
            [_to_picture(image)[::4, ::4].reshape(-1, images[0].shape[2]) for image in batch.views[0].image]
        )
        seen = pixels[pixels.any(1)]
        paint = choose([f"channel {c}" for c in range(images[0].shape[2])], sample=seen)
    images = images if paint is None else [paint(image) for image in images]
    sizes = [(height, max(1, round(height * image.shape[1] / image.shape[0]))) for image in images]
    uppers = [resize(image, size, smooth=True) for image, size in zip(images, sizes, strict=True)]
    if all(view.regions.numel() for view in batch.views):
        regions = [view.regions[image_index].cpu().numpy() for view in batch.views]
        lowers = _shared_regions(regions, sizes)
    else:
        affines = [view.to_image[image_index : image_index + 1].float().cpu() for view in batch.views]
        uppers, lowers = _shared_part(uppers, affines)
    columns = [
        np.concatenate([upper, np.full((6, upper.shape[1], 3), 255, np.uint8), lower])
        for upper, lower in zip(uppers, lowers, strict=True)
    ]
    return tile(columns, columns=len(columns))


def _shared_regions(regions: list[Ids], sizes: list[tuple[int, int]]) -> list[Picture]:
    """The regions that are in every view, each map at its (H, W) size."""
    common = np.unique(regions[0])
    for ids in regions[1:]:
        common = np.intersect1d(common, ids)
    common = common[common >= 0]
    colours = palette(len(common))
    pictures = []
    for ids, size in zip(regions, sizes, strict=True):
        place = np.searchsorted(common, ids) if len(common) else np.zeros(ids.shape, np.int64)
        known = np.isin(ids, common)
        local = np.where(known, np.minimum(place, max(len(common) - 1, 0)), -1).astype(np.int32)
        local = cv2.resize(local.astype(np.float32), size[::-1], interpolation=cv2.INTER_NEAREST).astype(np.int32)
        picture = np.full((*size, 3), _NONE, np.uint8)
        if len(common):
            picture[local >= 0] = colours[local[local >= 0]]
            picture[borders(local)] = (255, 255, 255)
        pictures.append(picture)
    return pictures


def _shared_part(views: list[Picture], affines: list[Tensor]) -> tuple[list[Picture], list[Picture]]:
    """The views with the frame of what all of them show, and that part of each; affines are (1, 2, 3) to the image."""
    corners = torch.cat([bounds(affine) for affine in affines])  # (V, 4) in the image's [-1, 1]
    low, high = corners[:, :2].amax(0), corners[:, 2:].amin(0)
    framed, parts = [], []
    for view, affine in zip(views, affines, strict=True):
        size = np.array(view.shape[1::-1])
        to_view = invert(affine)[0]  # axis-aligned: x and y apart
        ends = (torch.stack([low, high], 1) * to_view.diagonal()[:, None] + to_view[:, 2:] + 1).numpy() / 2
        (x0, x1), (y0, y1) = np.clip(np.rint(np.sort(ends, 1) * size[:, None]), 0, size[:, None]).astype(int).tolist()
        framed.append(view.copy())
        parts.append(np.full_like(view, _NONE))
        if (high > low).all() and x1 > x0 and y1 > y0:
            part = view[y0:y1, x0:x1]
            part = part[:, ::-1] if to_view[0, 0] < 0 else part
            parts[-1] = resize(np.ascontiguousarray(part), view.shape[:2])
            cv2.rectangle(framed[-1], (x0, y0), (x1 - 1, y1 - 1), _FRAME, 2)
    return framed, parts


def tile(pictures: list[Picture], columns: int, gap: int = 6) -> Picture:
    """Pictures in rows on white, each cell as large as the largest picture."""
    height, width = max(p.shape[0] for p in pictures), max(p.shape[1] for p in pictures)
    rows = math.ceil(len(pictures) / columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return sheet


def resize(picture: Picture, size: tuple[int, int], smooth: bool = True) -> Picture:
    """A picture at (H, W) `size`: area means downwards, bilinear upwards, or the nearest pixel if not smooth."""
    if picture.shape[:2] == tuple(size):
        return picture
    method = cv2.INTER_AREA if size[0] < picture.shape[0] else cv2.INTER_LINEAR
    resized = cv2.resize(picture, (size[1], size[0]), interpolation=method if smooth else cv2.INTER_NEAREST)
    return np.asarray(resized, np.uint8)


def fit_within(picture: Picture, longest: int) -> Picture:
    """A picture reduced so that its longer side is at most `longest` pixels."""
    factor = longest / max(picture.shape[:2])
    if factor >= 1:
        return picture
    return resize(picture, (max(1, round(picture.shape[0] * factor)), max(1, round(picture.shape[1] * factor))))


def encode(picture: NDArray[Any], kind: str, quality: int = 82) -> bytes:
    """A picture as a file's bytes.

    Args:
        picture: (H, W, 3) uint8 RGB, or (H, W) uint8 or uint16.
        kind: ".png", ".jpg" or ".webp".
        quality: of JPEG and WebP, 1 to 100.
    """
    options = {".jpg": [cv2.IMWRITE_JPEG_QUALITY, quality], ".webp": [cv2.IMWRITE_WEBP_QUALITY, quality]}
    pixels = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    worked, data = cv2.imencode(kind, pixels, options.get(kind, []))
    if not worked:
        raise ConfigError(f"a picture of shape {picture.shape} can't be written as {kind}")
    return bytes(data.tobytes())


def write_image(path: Path, picture: NDArray[Any], quality: int = 92) -> None:
    """Write a picture atomically; the suffix says the format (.png, .jpg, .webp)."""
    data = encode(picture, path.suffix.lower(), quality)
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def data_uri(picture: Picture, quality: int = 82) -> str:
    """A picture as a data URI (WebP), to be put into a page."""
    return data_uri_of(encode(picture, ".webp", quality), "webp")


def data_uri_of(data: bytes, kind: str) -> str:
    """A picture's file as a data URI; `kind` is what follows image/ in its type."""
    return f"data:image/{kind};base64," + base64.b64encode(data).decode("ascii")


def _to_picture(image: Tensor) -> Picture:
    """(C, H, W) uint8, or float in [0, 1], to (H, W, C) uint8."""
    if image.dtype != torch.uint8:
        image = image.detach().float().clamp(0, 1).mul(255).round()
    return np.ascontiguousarray(image.to(torch.uint8).permute(1, 2, 0).cpu().numpy())
