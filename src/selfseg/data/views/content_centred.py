"""Several augmented views of one image, which share a part of it and the ids of its regions.

The plan is ViCE's: R. Karlsson et al., "ViCE: Improving Dense Representation Learning by Superpixelization and
Contrasting Cluster Assignment", BMVC 2022, section 3.2 and Algorithm 1 (arXiv 2111.12460).

Where the paper leaves a choice, ours is
- what a view shows of beyond the image is black before its colours change, as in the reference implementation, has no
  region, and so no part in the loss. `outside="clip"` keeps views inside instead: a square that is too large is cut to
  the image's shorter side, one that would stick out is pushed back in. Then half of the views of a 320 px square at 256
  px are all of it.
- the covered area of a view's mask is uniform in [0, `mask_area`]: the paper gives only the maximum (25 %).
- noise is painted after blur and colour, so that it stays noise, as the uint8 equivalent of U(-1, 1) after the
  usual normalisation; what is outside of the masks is still normalised by the embedder alone.
- a region counts as present in a view if it owns at least one cell of the view's region map.

Frames: boxes are (x0, y0, x1, y1) in whole pixels of the prepared image; the cell (row, column) of a map of n x n
cells looks at the point ((column + 1/2) / n, (row + 1/2) / n) of its view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from selfseg.data.reading.images import scale_to
from selfseg.data.regions import Pixels, RegionSource, Superpixels
from selfseg.data.views import augment
from selfseg.data.views.base import Crop, Ids, Image, without_void
from selfseg.data.views.settings import check_jitter, check_settings, check_stride
from selfseg.errors import ConfigError
from selfseg.ops.geometry import Box, crop_affine, sample_ids
from selfseg.ops.levels import among_measured, flip, measured, resize, with_channels

CONTENT_FLOOR = 0.005
"""What a pixel without any edge near it weighs when a centre is drawn; one inside of edges weighs 1."""
CONTENT_SIGMA = 4.0
"""Standard deviation in pixels of the smoothing of edges; the paper gives none."""


@dataclass(frozen=True)
class ContentCentredViews:
    """ViCE's views: squares of different sizes around one point with content, all of which hold that point.

    Attributes:
        views: number of views.
        size: side of every view in pixels; the paper uses 256 (low resolution) and 512 (high resolution).
        zoom: range of the crop's side as a multiple of `size`. The reference implementation has (0.5, 1.5) everywhere.
        outside: what happens to a square that reaches beyond the image: "fill" makes what lies outside black, "clip"
            keeps the square inside of the image.
        short_side: the shorter side of the prepared image in pixels; None keeps the image's own size.
        centre_square: whether only the central square of the image is used (the low-resolution protocol).
        shortest: with `short_side` None, a smaller image is enlarged until its shorter side has this length.
        longest: a larger image is reduced until its longer side has this length.
        regions: where the region ids come from.
        mask_area: the largest fraction of a view that noise may cover, in [0, 1).
        protect: the fraction of the common regions that noise spares in all views, in [0, 1].
        jitter: strengths of brightness, contrast, saturation and hue.
        jitter_probability: probability of changing a view's colours.
        gray_probability: probability of taking a view's colours away.
        blur_probability: probability of blurring a view.
        blur_sigma: range of the blur's standard deviation in pixels of the view.
        flip_probability: probability of mirroring a view left to right.
        region_stride: region ids are taken at the centres of `region_stride` x `region_stride` blocks of pixels; more
            than 1 serves pooling at an embedding's own stride. Must divide `size`.

    Raises:
        ConfigError: if a value can't work.

    Example:
        >>> plan = ContentCentredViews(views=2, size=32, short_side=48)
        >>> image = plan.prepare(np.zeros((60, 80, 3), np.uint8))
        >>> ids = np.arange(48 * 48, dtype=np.int32).reshape(48, 48) // 96
        >>> first, second = plan.make(image, ids, np.random.default_rng(0))
        >>> first.image.shape, first.to_image.shape, first.regions.shape
        ((32, 32, 3), (2, 3), (32, 32))
        >>> set(np.unique(first.regions)) == set(np.unique(second.regions))
        True
    """

    views: int = 5
    size: int = 256
    zoom: tuple[float, float] = (0.5, 2.0)
    outside: Literal["fill", "clip"] = "fill"
    short_side: int | None = 320
    centre_square: bool = True
    shortest: int | None = None
    longest: int | None = 2048
    regions: RegionSource = Superpixels(20)  # noqa: RUF009 (frozen)
    mask_area: float = 0.25
    protect: float = 0.25
    jitter: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 0.2)
    jitter_probability: float = 0.8
    gray_probability: float = 0.2
    blur_probability: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    flip_probability: float = 0.5
    region_stride: int = 1

    WHEN_MISSING: ClassVar[dict[str, Any]] = {"outside": "clip"}  # in recipes from before there was a choice

    def __post_init__(self) -> None:
        check_settings(
            self,
            counts=("views", "size"),
            lengths=("short_side", "shortest", "longest"),
            fractions=("protect", "jitter_probability", "gray_probability", "blur_probability", "flip_probability"),
            ranges=("zoom", "blur_sigma"),
        )
        check_jitter(self.jitter)
        check_stride(self.size, self.region_stride)
        if self.region_stride > 1 and isinstance(self.regions, Pixels):
            raise ConfigError(
                f"region_stride {self.region_stride} looks at one pixel in {self.region_stride**2}, hardly ever at the "
                "same one in all views; use region_stride 1, or Grid regions of some pixels"
            )
        if self.outside not in ("fill", "clip"):
            raise ConfigError(f'outside is "fill" or "clip", not {self.outside!r}')
        if not 0 <= self.mask_area < 1:
            raise ConfigError(f"mask_area is a fraction in [0, 1), not {self.mask_area}")

    def prepare(self, image: Image, rgb: bool = True) -> Image:
        """The source image of the views: cut to its central square and resized as configured.

        Args:
            image: (H, W, 3) RGB uint8 of any size, or (H, W, C) levels.
            rgb: whether it is a photograph.

        Returns:
            (H', W', 3) or (H', W', C) uint8, at least one pixel.
        """
        height, width = image.shape[:2]
        if self.centre_square:
            # Cut first: the centre of a 8 x 2000 image resized to 320 lines would be 80,000 pixels wide on the way.
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            image = image[top : top + side, left : left + side]
            height = width = side
        scale = 1.0
        if self.short_side is not None:
            scale = scale_to(self.short_side, height, width)
        elif self.shortest is not None:
            scale = max(1.0, scale_to(self.shortest, height, width))
        if self.longest is not None:
            scale = min(scale, self.longest / max(height, width))
        return _resize(image, max(1, round(width * scale)), max(1, round(height * scale)), rgb)

    def make(self, image: Image, regions: Ids, rng: np.random.Generator, rgb: bool = True) -> tuple[Crop, ...]:
        """The views of one image, a pure function of `rng`.

        Args:
            image: (H, W, 3) RGB uint8 from `prepare`, or (H, W, C) levels.
            regions: (H, W) int32, dense from 0; -1 = none.
            rng: the only source of chance.
            rgb: whether the image is a photograph.

        Returns:
            `views` crops. The ids other than -1 are the same in all of them.

        Raises:
            ConfigError: if the regions are not those of the image.
        """
        height, width = image.shape[:2]
        if regions.shape != (height, width):
            raise ConfigError(
                f"regions are {regions.shape} but the image is {(height, width)}; compute them on `prepare`'s result"
            )
        centre = draw_centre(content_map(image, rgb), rng)
        boxes = self.place(centre, (height, width), rng)
        flips: list[bool] = (rng.random(self.views) < self.flip_probability).tolist()
        shown = []
        for box, mirrored in zip(boxes, flips, strict=True):
            view = _resize(cut(image, box), self.size, self.size, rgb)
            shown.append(flip(view) if mirrored else view)

        def ids_of(side: int) -> list[Ids]:
            return [
                without_void(sample_ids(regions, box, (side, side), mirrored), view, rgb)
                for box, mirrored, view in zip(boxes, flips, shown, strict=True)
            ]

        seen = ids_of(self.size)
        kept = seen if self.region_stride == 1 else ids_of(self.size // self.region_stride)
        masked, common = self.choose_masks(seen, kept, rng)
        # Ids that are not kept become -1 by one look-up; -1 itself finds the extra last entry.
        names = np.where(common, np.arange(len(common), dtype=np.int32), np.int32(-1))
        crops = []
        for box, mirrored, plain, ids, cells_ids, table in zip(boxes, flips, shown, seen, kept, masked, strict=True):
            view = self.change_appearance(plain, rng, rgb)
            noise = np.take(table, ids)
            view = augment.paint_noise(view, noise, rng, rgb)
            affine = crop_affine(box, (height, width), mirrored)
            crops.append(Crop(view, affine, np.take(names, cells_ids), noise))
        return tuple(crops)

    def place(self, centre: tuple[int, int], image_size: tuple[int, int], rng: np.random.Generator) -> list[Box]:
        """The views' squares.

        The first sits on the centre; the others around it, one per angular sector, by up to half of their own side.

        Args:
            centre: (x, y), a pixel of the image.
            image_size: (H, W).
            rng: the source of chance.

        Returns:
            `views` boxes, each with the pixel `centre` inside; inside of the image if views are clipped.
        """
        height, width = image_size
        sides = np.rint(rng.uniform(*self.zoom, self.views) * self.size).astype(int)
        clip = self.outside == "clip"
        sides = np.clip(sides, 1, min(height, width) if clip else None)
        sector = 2 * math.pi / max(1, self.views - 1)
        angles = (np.arange(self.views) + rng.random(self.views)) * sector
        radii = rng.random(self.views) * sides / 2
        radii[0] = 0
        boxes = []
        for side, angle, radius in zip(sides.tolist(), angles.tolist(), radii.tolist(), strict=True):
            corner = []
            for point, offset, length in zip(
                centre, (radius * math.cos(angle), radius * math.sin(angle)), (width, height), strict=True
            ):
                low, high = point - side + 1, point  # around the centre
                if clip:  # and in the image: never empty, because the centre is in the image
                    low, high = max(0, low), min(high, length - side)
                corner.append(min(max(round(point + offset - side / 2), low), high))
            boxes.append((corner[0], corner[1], corner[0] + side, corner[1] + side))
        return boxes

    def choose_masks(
        self, seen: list[Ids], kept: list[Ids], rng: np.random.Generator
    ) -> tuple[list[NDArray[np.bool_]], NDArray[np.bool_]]:
        """Which regions are painted over in each view, and which ids remain for the loss.

        Args:
            seen: per view, (size, size) int32 ids of its pixels.
            kept: per view, the ids that the loss will see; `seen` itself if `region_stride` is 1.
            rng: the source of chance.

        Returns:
            Per view a table (N + 1,) bool of the ids painted over, and one of the ids that are in every view and
            painted over in none. N is the number of ids; the last entry is false and stands for -1.
        """
        count = 1 + max(int(ids.max()) for ids in (*seen, *kept))
        areas = [_areas(ids, count) for ids in seen]
        present = areas if kept is seen else [_areas(ids, count) for ids in kept]
        common = np.zeros(count + 1, bool)
        common[:count] = np.logical_and.reduce([area > 0 for area in present])
        masked = [np.zeros(count + 1, bool) for _ in seen]
        if self.mask_area == 0:
            return masked, common
        candidates = rng.permutation(np.flatnonzero(common))
        free = np.ones(count, bool)
        free[candidates[: math.ceil(self.protect * len(candidates))]] = False
        for area, table in zip(areas, masked, strict=True):
            budget = rng.random() * self.mask_area * self.size**2
            order = rng.permutation(np.flatnonzero((area > 0) & free))
            covered = np.cumsum(area[order])
            table[order[: np.searchsorted(covered, budget, side="right")]] = True
            common &= ~table
        return masked, common

    def change_appearance(self, view: Image, rng: np.random.Generator, rgb: bool = True) -> Image:
        """Colour jitter, gray and blur, each with its probability.

        Args:
            view: (H, W, 3) RGB uint8, or (H, W, C) levels.
            rng: the source of chance.
            rgb: whether the view is of a photograph.

        Returns:
            As `view`; may be `view` itself.
        """
        return augment.change_appearance(view, self, rng, rgb)


def cut(image: Image, box: Box) -> Image:
    """A box of an image, black where it reaches beyond, which is void of measured channels.

    Args:
        image: (H, W, 3) RGB uint8, or (H, W, C) levels.
        box: that has at least one pixel of the image.

    Returns:
        (y1 - y0, x1 - x0, 3 or C) uint8.
    """
    x0, y0, x1, y1 = box
    height, width = image.shape[:2]
    part = image[max(0, y0) : y1, max(0, x0) : x1]
    edges = max(0, -y0), max(0, y1 - height), max(0, -x0), max(0, x1 - width)
    if not any(edges):
        return part
    filled: Image = with_channels(cv2.copyMakeBorder(part, *edges, cv2.BORDER_CONSTANT, value=(0, 0, 0)), part)
    return filled


def content_map(image: Image, rgb: bool = True) -> NDArray[np.float32]:
    """How much there is to see around each pixel: smoothed Canny edges.

    Args:
        image: (H, W, 3) RGB uint8, or (H, W, C) levels, whose edges are the mean of those of each channel.
        rgb: whether the image is a photograph.

    Returns:
        (H, W) float32 in [0, 1] + CONTENT_FLOOR, not normalised to a sum of 1; 0 where void, unless all is.

    Example:
        >>> plain = content_map(np.full((9, 9, 3), 50, np.uint8))
        >>> bool((plain == np.float32(CONTENT_FLOOR)).all())
        True
    """
    edges = _edges(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)) if rgb else _edges_of_channels(image)
    # Smoothed at half resolution, in a fifth of the time; against full resolution the chance of any set of pixels to
    # hold the centre changes by less than 0.01 (total variation).
    height, width = edges.shape
    half = cv2.resize(edges, ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA)
    half = cv2.GaussianBlur(half, (0, 0), CONTENT_SIGMA / 2)
    smooth = cv2.resize(half, (width, height), interpolation=cv2.INTER_LINEAR)
    content: NDArray[np.float32] = smooth * np.float32(1 / 255) + np.float32(CONTENT_FLOOR)
    where = None if rgb else measured(image)
    return content if where is None or not where.any() else content * where


_NEIGHBOURS = np.ones((3, 3), np.uint8)


def _edges(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Wide edges of one channel, (H, W) uint8: 0 or 255."""
    return np.asarray(cv2.dilate(cv2.Canny(cv2.blur(gray, (3, 3)), 10, 50), _NEIGHBOURS), np.uint8)


def _edges_of_channels(image: Image) -> NDArray[np.uint8]:
    """The mean of the channels' edges, (H, W) uint8, but for the edge of what is void."""
    total = np.zeros(image.shape[:2], np.float32)
    for channel in range(image.shape[2]):
        cv2.accumulate(_edges(np.ascontiguousarray(image[..., channel])), total)
    total /= image.shape[2]
    where = measured(image)
    if where is not None:
        total *= cv2.erode(where.astype(np.uint8), np.ones((7, 7), np.uint8))  # what blur, Canny and dilation reach
    return np.rint(total).astype(np.uint8)


def draw_centre(content: NDArray[np.float32], rng: np.random.Generator) -> tuple[int, int]:
    """One pixel, with a probability in proportion to its content.

    Args:
        content: (H, W) float32, positive.
        rng: two numbers are drawn.

    Returns:
        (x, y) in pixels.
    """
    # First the row, then the pixel in the row: the same law as one cumulative sum over all pixels, in less time.
    rows = np.cumsum(content.sum(1, dtype=np.float64))
    y = min(int(np.searchsorted(rows, rng.random() * rows[-1], side="right")), len(rows) - 1)
    columns = np.cumsum(content[y], dtype=np.float64)
    x = min(int(np.searchsorted(columns, rng.random() * columns[-1], side="right")), len(columns) - 1)
    return x, y


def _resize(image: Image, width: int, height: int, rgb: bool = True) -> Image:
    """The image at another size, without aliasing; equal to itself at its own size."""
    old_height, old_width = image.shape[:2]
    if (old_height, old_width) == (height, width):
        return np.ascontiguousarray(image)
    if not rgb:
        return among_measured(image, lambda each: _resize(each, width, height))
    resized: Image
    if width >= old_width and height >= old_height:
        resized = resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        return resized
    if 2 * width >= old_width and 2 * height >= old_height:
        # The mean of four samples per pixel: as near to Pillow's antialiased resize as INTER_AREA is (1 level r.m.s.),
        # in half of its time.
        image = resize(image, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
    resized = resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return resized


def _areas(ids: Ids, count: int) -> NDArray[np.int64]:
    """(count,) cells of each id; -1 is not counted."""
    areas: NDArray[np.int64] = np.bincount(ids.ravel() + 1, minlength=count + 1)[1:]
    return areas
