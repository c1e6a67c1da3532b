"""Maps of class indices as PNGs that every viewer shows in colours: VOC's way, a palette beside the values."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selfseg.drawing.pictures import encode
from selfseg.errors import ConfigError
from selfseg.storage.files import write_atomically

VOID_COLOUR = (0, 0, 0)
"""Of values without a colour, such as 255 for no class."""


def encode_index_png(values: NDArray[Any], colours: Sequence[Sequence[int]] | NDArray[np.uint8]) -> bytes:
    """A map of indices as the bytes of a PNG whose pixels are these values.

    Args:
        values: (H, W) uint8, which becomes a palette PNG of 8 bits; or uint16, which a palette can't hold: a gray one
            of 16 bits, without colours.
        colours: (C, 3) in [0, 255], of the values 0 to C - 1; all others are black.

    Returns:
        The file's bytes. `numpy.asarray(PIL.Image.open(...))` gives the values again; OpenCV gives the colours.

    Raises:
        ConfigError: if the values have another shape or type.

    Example:
        >>> data = encode_index_png(np.array([[0, 1, 255]], np.uint8), [(255, 0, 0), (0, 0, 255)])
        >>> image = Image.open(io.BytesIO(data))
        >>> image.mode, np.asarray(image).tolist(), image.convert("RGB").getpixel((1, 0))
        ('P', [[0, 1, 255]], (0, 0, 255))
    """
    if values.ndim != 2 or values.dtype not in (np.uint8, np.uint16):
        raise ConfigError(f"a map of indices is (H, W) uint8 or uint16, not {values.shape} {values.dtype}")
    if values.dtype == np.uint16:
        return encode(values, ".png")
    table = np.tile(np.array(VOID_COLOUR, np.uint8), (256, 1))
    known = np.asarray(colours, np.uint8).reshape(-1, 3)[:256]
    table[: len(known)] = known
    image = Image.fromarray(np.ascontiguousarray(values))
    image.putpalette(table.tobytes())  # makes mode P of mode L, and leaves the pixels
    file = io.BytesIO()
    image.save(file, "PNG", bits=8, compress_level=1)  # as quick as OpenCV, and as small
    return file.getvalue()


def write_index_png(path: Path, values: NDArray[Any], colours: Sequence[Sequence[int]] | NDArray[np.uint8]) -> None:
    """Write what `encode_index_png` gives, atomically."""
    data = encode_index_png(values, colours)
    write_atomically(path, lambda temporary: temporary.write_bytes(data))
