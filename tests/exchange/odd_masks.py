"""Masks that formats trip over, and names that files, lists and pages trip over."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfseg.data.labelled.legend import Legend
from selfseg.exchange.base import NamedMask

NAMES = (
    "plain.jpg",
    "plain.png",  # without suffix as the one before
    "monday/a b.jpg",
    "monday/a, b #2 'x' \"y\" & 100% + ü.jpg",
    "#hash.jpg",
    "<script>alert(1)<_script>.jpg",
    "שלום עולם.jpg",
    "صورة/٣.jpg",
    "../outside.jpg",
    "/etc/absolute.jpg",
    "back\\slash.jpg",
    "line\nend.jpg",
    " space at the ends .jpg",
    "a.b.c.jpg",
    "no suffix",
    "x" * 240 + ".jpg",
    "plain.png.png/inside.jpg",  # a folder with the name that a file has
    ".hidden.jpg",
)

CLASSES = (
    "road",
    "sky: blue",
    'the "<b>" & co',
    "#hash",
    "background",
    "عشب",
    " spaces ",
    "line\nend",
    "a,b;c",
    "spaces",
)


def legend() -> Legend:
    return Legend.of(CLASSES, {"road": (0, 0, 0), "background": (9, 9, 9), "عشب": (9, 9, 9)})


def odd_masks(void: int) -> dict[str, NDArray[Any]]:
    """By what is odd about them; class values 0 to 9, uint8 or uint16 as `void` needs."""
    random = np.random.default_rng(0)
    masks = {
        "one class": np.zeros((5, 7)),
        "void only": np.full((4, 6), void),
        "one pixel": np.full((1, 1), 3),
        "one pixel of void": np.full((1, 1), void),
        "a row": np.array([[0, 0, void, 1, 0]]),
        "a column": np.array([[9], [9], [void], [0]]),
    }
    single = np.full((9, 9), void)
    single[4, 4], single[0, 0], single[8, 8] = 1, 2, 3
    rings = np.zeros((25, 31))
    for inset in range(1, 12):  # holes in holes
        rings[inset:-inset, inset:-inset] = (inset % 2) * 4
    two_holes = np.full((12, 16), 1)
    two_holes[2:5, 2:5], two_holes[7:10, 2:6], two_holes[4:8, 9:13] = void, 2, void
    diagonal = np.full((8, 8), void)
    diagonal[np.arange(8), np.arange(8)] = 5
    touching = np.full((6, 6), 7)  # holes that touch each other, and the outside, at corners
    touching[1, 1] = touching[2, 2] = touching[3, 1] = touching[5, 5] = void
    hooked = np.zeros((5, 5))  # a region whose own outline meets itself
    hooked[0, 1] = hooked[1, 0] = hooked[3, 3] = hooked[4, 4] = void
    masks |= {
        "single pixels": single,
        "holes in holes": rings,
        "two holes": two_holes,
        "a diagonal": diagonal,
        "touching corners": touching,
        "touching itself": hooked,
        "chessboard": np.indices((15, 13)).sum(0) % 2 * 8,
        "noise": random.integers(0, 10, (23, 29)),
        "noise with void": np.where(random.random((40, 33)) < 0.4, void, random.integers(0, 3, (40, 33))),
        "large": np.kron(random.integers(0, 10, (9, 12)), np.ones((15, 16))),
    }
    return {name: mask.astype(np.uint8 if void == 255 else np.uint16) for name, mask in masks.items()}


def named(void: int = 255) -> Iterator[NamedMask]:
    """The odd masks under the odd names, and an image whose name is simple last."""
    masks = list(odd_masks(void).values())
    for i, name in enumerate(NAMES):
        yield NamedMask(name, masks[i % len(masks)])
    yield NamedMask("last.jpg", masks[-1])


def many_classes() -> tuple[Legend, list[NamedMask]]:
    """300 classes, whose masks are uint16 and have 65535 as void."""
    classes = Legend.of([f"class {i}" for i in range(300)])
    mask = np.arange(320, dtype=np.uint16).reshape(16, 20).repeat(3, 0).repeat(2, 1)
    mask[mask >= 300] = 65_535
    return classes, [NamedMask("all.png", mask), *half_of_many()]


def half_of_many() -> list[NamedMask]:
    """Masks of the 300 classes that have at most 200 of them."""
    row = np.arange(300, dtype=np.uint16)[None].repeat(3, 0)
    low, high = np.where(row < 200, row, 65_535), np.where(row >= 200, row, 65_535)
    return [NamedMask("low.png", low.astype(np.uint16)), NamedMask("high.png", high.astype(np.uint16))]
