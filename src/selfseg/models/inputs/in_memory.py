"""Images that a program holds, as a collection: what is taken wherever a folder of images is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.measured import check_inside
from selfseg.data.reading.sniffing import MAX_PIXELS, MIN_SIDE
from selfseg.errors import BadImage, ConfigError, EmptyCollection
from selfseg.models.inputs.preparing import pixels_of
from selfseg.ops.channels import Channels

ROOT = Path("images in memory")
"""What messages and pages call the folder that such images have not."""


@dataclass(frozen=True, eq=False)
class ImagesInMemory(ImageCollection):
    """Images that are no files; `paths` lead nowhere, and say in messages which image is meant.

    Attributes:
        held: the images, each as `selfseg.models.inputs.preparing.pixels_of` takes it.
    """

    held: tuple[Any, ...] = ()

    def read(self, index: int, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
        """As of `ImageCollection`.

        Raises:
            BadImage: if a PIL image can't be decoded.
            ConfigError: if it is no image.
        """
        try:
            pixels = pixels_of(self.held[index], self.channels)
        except BadImage:
            raise
        except ConfigError as error:
            raise ConfigError(f"{self.names[index]}: {error}") from error
        except (OSError, SyntaxError, ValueError) as error:  # Pillow's, of a file that it opened before
            raise BadImage(self.paths[index], "unreadable", str(error)) from error
        if min(pixels.shape[:2]) < MIN_SIDE:
            raise BadImage(self.paths[index], "too-small", f"{pixels.shape[1]}x{pixels.shape[0]} px")
        if pixels.shape[0] * pixels.shape[1] > max_pixels:
            raise BadImage(self.paths[index], "too-large", f"{pixels.shape[1]}x{pixels.shape[0]} px")
        return pixels

    def check(self, index: int, max_pixels: int = MAX_PIXELS) -> None:
        """As `read`: there is nothing that could be known without it."""
        self.read(index, max_pixels)

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) of image `index` as `read` gives it."""
        try:
            height, width = self.read(index).shape[:2]
        except BadImage as error:
            raise OSError(str(error)) from error
        return height, width

    def version(self, index: int) -> dict[str, int | str] | None:
        """A digest of the pixels: other pixels under the same name are another image."""
        try:
            pixels = self.read(index)
        except BadImage:
            return None
        digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=8)
        digest.update(np.ascontiguousarray(pixels).data)
        return {"bytes": pixels.nbytes, "modified": digest.hexdigest()}

    @property
    def suffixes(self) -> frozenset[str]:
        """None: there are no files to look into."""
        return frozenset()

    def layout(self, index: int) -> None:
        """Nothing: there is no file that could say more than the pixels."""

    def vanished(self) -> None:
        """Nothing: there is no folder that could be away."""

    def measured(self, channels: Channels | None) -> Self:
        """As of `ImageCollection`."""
        return replace(self, channels=channels)

    def subset(self, indices: Iterable[int]) -> Self:
        """As of `ImageCollection`."""
        chosen = list(indices)
        return replace(
            self,
            paths=tuple(self.paths[i] for i in chosen),
            names=tuple(self.names[i] for i in chosen),
            held=tuple(self.held[i] for i in chosen),
        )


def hold(images: Any) -> ImagesInMemory:
    """Images in memory as a collection.

    Args:
        images: one image: an array, a tensor or a PIL image (`selfseg.models.inputs.preparing.pixels_of`); several: a
            sequence of these, in which files may stand, too; an array (N, H, W, 3) or a tensor (N, 3, H, W); or a
            mapping from names to images. Without names they are called 000000, 000001, ...

    Returns:
        The collection; nothing was copied.

    Raises:
        ConfigError: if something is none of these, or a name can't be one of a file.
        EmptyCollection: if there is none.
    """
    if isinstance(images, Mapping):
        names, held = tuple(images), tuple(images.values())
    else:
        held = tuple([images] if is_image(images) else images)
        names = tuple(f"{number:06d}" for number in range(len(held)))
    if not held:
        raise EmptyCollection("there are no images; give one or more")
    for name, image in zip(names, held, strict=True):
        if not isinstance(image, str | Path) and not is_image(image):
            raise ConfigError(
                f"{name!r} is no image: {_kind(image)}; give arrays (H, W, 3) uint8 RGB, tensors (3, H, W), PIL images "
                "or files"
            )
        _check_name(name)
    return ImagesInMemory(ROOT, tuple(ROOT / name for name in names), names, held=held)


def is_image(value: Any) -> bool:
    """Whether it is one image that a program holds: a PIL image, or an array or a tensor of two or three dimensions."""
    return isinstance(value, Image.Image) or (isinstance(value, np.ndarray | torch.Tensor) and value.ndim in (2, 3))


def is_held(images: Any) -> bool:
    """Whether these are images that a program holds, and no files: `hold` takes them."""
    if isinstance(images, np.ndarray | torch.Tensor):
        return images.ndim > 1
    if isinstance(images, Image.Image | Mapping):
        return True
    return isinstance(images, list | tuple) and any(not isinstance(one, str | Path) for one in images)


def _check_name(name: Any) -> None:
    try:
        parts = check_inside(name).split("/")
        if not all(part and part != "." and "\\" not in part for part in parts):
            raise ValueError(f"{name!r} is no name of a file")
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"images are named as files are, without a suffix, not {name!r}: {error}") from error


def _kind(value: Any) -> str:
    shape = f" of shape {tuple(value.shape)}" if isinstance(value, np.ndarray | torch.Tensor) else ""
    return f"{type(value).__name__}{shape}"
