"""From what a person hands over (a file, an array, a PIL image) to the pixels that an embedder looks at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfseg.errors import ConfigError
from selfseg.ops.channels import Channels


def prepare_image(
    image: NDArray[Any] | str | Path | Any, resolution: int | None, channels: Channels | None
) -> NDArray[np.uint8]:
    """One image as an embedder looks at it.

    Args:
        image: as of `pixels_of`.
        resolution: short side in px that it is resized to; None = as it is.
        channels: how measured images are read; None = photographs.

    Returns:
        (H, W, C) uint8, contiguous.

    Raises:
        BadImage, ConfigError: as `pixels_of`.
    """
    from selfseg.data.reading.images import resize_short_side

    pixels = pixels_of(image, channels)
    if resolution is not None:
        pixels = resize_short_side(pixels, resolution, channels is not None)
    return np.ascontiguousarray(pixels)


def pixels_of(image: NDArray[Any] | str | Path | Any, channels: Channels | None) -> NDArray[np.uint8]:
    """The pixels of whatever is an image, at its own size.

    Args:
        image: a file; a PIL image of a photograph; or an array: of photographs (H, W, 3) uint8 RGB. Of measured images
            (H, W, C) uint8 levels as a collection's `read` gives them, or (H, W, F) values of any other type as they
            are in a file of all F channels. Or a tensor of the same with its channels first: (3, H, W) uint8, or of
            photographs float in [0, 1].
        channels: how measured images are read; None = photographs.

    Returns:
        (H, W, C) uint8.

    Raises:
        BadImage: if a file can't be read.
        ConfigError: if an array is of another kind.
    """
    # Imported here: an embedder that is only run on tensors must not need the readers.
    from PIL import Image

    from selfseg.data.reading.decoding import from_pillow
    from selfseg.data.reading.images import read_image
    from selfseg.data.reading.measured import read_levels

    wanted = "(H, W, 3) uint8" if channels is None else f"(H, W, {len(channels)}) uint8 levels or (H, W, {channels.of})"
    if isinstance(image, str | Path):
        pixels = read_image(Path(image)) if channels is None else read_levels(Path(image), channels)
    elif isinstance(image, Image.Image) and channels is None:
        pixels = from_pillow(image)
    else:
        pixels = np.asarray(_channels_last(image, channels is None) if isinstance(image, Tensor) else image)
        if channels is not None and pixels.ndim == 2:
            pixels = pixels[..., None]
        if channels is not None and pixels.ndim == 3 and pixels.dtype != np.uint8 and pixels.shape[2] == channels.of:
            pixels = channels.levels(pixels[..., list(channels.take)])
    count = 3 if channels is None else len(channels)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != count or not pixels.size:
        raise ConfigError(f"an image must be {wanted}, not {pixels.shape} {pixels.dtype}")
    return pixels


def _channels_last(image: Tensor, photograph: bool) -> NDArray[Any]:
    """A tensor (C, H, W) as an array (H, W, C); photographs in [0, 1] become bytes.

    Raises:
        ConfigError: if it has other than three dimensions, or values of a photograph are outside of [0, 1].
    """
    if image.ndim != 3:
        raise ConfigError(f"a tensor of an image must be (C, H, W), not {tuple(image.shape)}")
    pixels = image.detach().cpu().permute(1, 2, 0)
    if photograph and pixels.is_floating_point():
        if not bool(((pixels >= 0) & (pixels <= 1)).all()):
            raise ConfigError("a tensor of floats must be in [0, 1] to be a photograph; give uint8 for 0 to 255")
        pixels = (pixels.float() * 255).round().byte()
    return pixels.numpy()


def as_batch(images: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """Prepared images of one size, each (H, W, C) uint8, as (B, C, H, W) uint8 on a device."""
    if device.type == "cuda":
        pinned = torch.empty((len(images), *images[0].shape), dtype=torch.uint8, pin_memory=True)
        np.stack(images, out=pinned.numpy())
        # From pinned memory: it is not waited for.
        return pinned.to(device, non_blocking=True).permute(0, 3, 1, 2)
    if len(images) == 1:
        # Its first stride is 3 and not 3 H W, which convolutions notice: the last bits are not a larger batch's.
        return torch.from_numpy(images[0]).permute(2, 0, 1)[None].to(device)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(device)
