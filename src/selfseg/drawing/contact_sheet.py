"""One picture of a labelled data set: some of its images under their labels, and a legend."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from selfseg.drawing.pictures import Picture, fit_within, overlay, palette, tile

_WIDTH = 320  # of an image, in px; the longer side
_TEXT = 14  # px
_LINE = 22
_CAPTION = 36
_INK, _PAPER = (28, 30, 34), (255, 255, 255)
_MOST_NAMED = 40  # with more classes only those in sight are in the legend
_VOID = 255


def contact_sheet(
    pictures: Sequence[tuple[str, Picture, NDArray[np.uint8] | None]],
    classes: Sequence[str] = (),
    shares: Sequence[float] = (),
    title: str = "",
    columns: int = 3,
    note: str = "",
) -> Picture:
    """Images side by side with their labels.

    Args:
        pictures: (caption, image, label) each: image (H, W, 3) uint8 RGB; label (H, W) uint8 classes, 255 = void (shown
            without colour), or None for an image alone.
        classes: C names.
        shares: of the labelled pixels, in [0, 1], C of them; shown in the legend.
        title: above all.
        columns: pairs of image and label side by side, at most.
        note: below the title, smaller.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    colours = palette(len(classes))
    cells = [_cell(caption, image, label, colours) for caption, image, label in pictures]
    parts = [tile(cells, min(columns, len(cells)), gap=8)] if cells else []
    width = max([640, *(part.shape[1] for part in parts)])
    if title:
        parts.insert(0, _text_line(title, width, size=17, height=30))
    if note:
        parts.insert(1 if title else 0, _text_line(note, width, _TEXT, _LINE))
    if classes:
        parts.append(_legend(classes, shares, colours, _in_sight(pictures, len(classes)), width))
    margin = 12
    sheet = np.full((sum(p.shape[0] + margin for p in parts) + margin, width + 2 * margin, 3), 255, np.uint8)
    y = margin
    for part in parts:
        sheet[y : y + part.shape[0], margin : margin + part.shape[1]] = part
        y += part.shape[0] + margin
    return sheet


def _cell(caption: str, image: Picture, label: NDArray[np.uint8] | None, colours: Picture) -> Picture:
    small = fit_within(image, _WIDTH)
    height, width = small.shape[:2]
    shown = [small]
    if label is not None:
        ids = cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST_EXACT).astype(np.int16)
        shown.append(overlay(small, np.where(ids == _VOID, -1, ids), colours, strength=0.75))
    pair = tile(shown, len(shown), gap=2)
    return np.concatenate([pair, _text_line(caption, pair.shape[1], _TEXT, _CAPTION - 14)])


def _in_sight(pictures: Sequence[tuple[str, Picture, NDArray[np.uint8] | None]], count: int) -> list[int]:
    if count <= _MOST_NAMED:
        return list(range(count))
    seen = np.zeros(256, np.int64)
    for *_, label in pictures:
        if label is not None:
            seen += np.bincount(label.ravel(), minlength=256)
    return [int(c) for c in np.flatnonzero(seen[:count])]


def _legend(
    classes: Sequence[str], shares: Sequence[float], colours: Picture, chosen: Sequence[int], width: int
) -> Picture:
    """Colour, name and share of some classes, in columns."""
    entries = [f"{classes[c]}  {_percent(shares[c])}" if len(shares) else classes[c] for c in chosen]
    font = _font(_TEXT)
    each = int(max(font.getlength(entry) for entry in entries) if entries else 0) + 40
    columns = max(1, min(width // each, len(entries)))
    rows = math.ceil(len(entries) / columns)
    note = f"{len(chosen)} of {len(classes)} classes are in these images" if len(chosen) < len(classes) else ""
    image = Image.new("RGB", (width, (rows + bool(note)) * _LINE + 4), _PAPER)
    draw = ImageDraw.Draw(image)
    for place, (c, entry) in enumerate(zip(chosen, entries, strict=True)):
        x, y = place // rows * each, place % rows * _LINE
        draw.rectangle((x, y + 3, x + 20, y + _LINE - 4), fill=tuple(int(v) for v in colours[c]), outline=_INK)
        draw.text((x + 26, y + 1), entry, _INK, font)
    if note:
        draw.text((0, rows * _LINE + 2), note, _INK, font)
    return np.asarray(image)


def _percent(share: float) -> str:
    if 0 < share < 0.0001:
        return "< 0.01 %"
    return f"{100 * share:.2f} %" if share < 0.1 else f"{100 * share:.1f} %"


def _text_line(text: str, width: int, size: int, height: int) -> Picture:
    """A line of text, its beginning cut off where it is too long: names differ at their end."""
    font = _font(size)
    if len(text) > width:  # no letter is narrower than a pixel, and measuring long texts takes long
        text = "..." + text[-width:]
    while text and font.getlength(text) > width:
        text = "..." + text.removeprefix("...")[1:] if len(text) > 4 else ""
    image = Image.new("RGB", (width, height), _PAPER)
    ImageDraw.Draw(image).text((0, 2), text, _INK, font)
    return np.asarray(image)


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
