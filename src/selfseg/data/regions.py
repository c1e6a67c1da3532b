"""Where regions come from: superpixels, a grid, single pixels, masks in files or nowhere; and a cache of them on disk.

A region source is a frozen configuration with `compute(image, name)` and a `key` that changes whenever the same image
would get other regions. `image` is what the view plan's `prepare` returned, `name` the image's name in its collection
(`selfseg.data.reading.images.ImageCollection`), which only sources that read files look at. Of measured channels
(`selfseg.ops.levels`) an image is (H, W, C) levels, and void pixels are in no region: `RegionCache` sees to that.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, TypeAlias, cast, get_args

import numpy as np
from numpy.typing import NDArray
from tyro.conf import Suppress, arg

from selfseg.data.labelled.mask_files import Kind, MaskFolder, MaskSurvey, survey
from selfseg.data.reading.images import ImageCollection
from selfseg.errors import BadImage, BadMask, ConfigError
from selfseg.ops.geometry import sample_ids
from selfseg.ops.levels import measured
from selfseg.ops.regions.slic import ALGORITHM_VERSION, check_parameters, slic
from selfseg.storage.files import OUTPUT_MARKER, storage_errors, write_atomically
from selfseg.storage.waiting import vanished_output


@dataclass(frozen=True)
class Superpixels:
    """SLIC superpixels; see `selfseg.ops.regions.slic.slic`.

    Attributes:
        size: mean spacing, in pixels of the image that `compute` gets; at least 2.
        ruler: compactness: the difference in CIELAB (L in 0..100) that weighs as much as `size` pixels. For measured
            channels, 100 is their whole range (`slic` describes the scale).
        iterations: rounds of assignment and update.

    Raises:
        ConfigError: if a value can't work.
    """

    size: int = 20
    ruler: float = 10.0
    iterations: int = 5

    def __post_init__(self) -> None:
        check_parameters(self.size, self.ruler, self.iterations)

    @property
    def key(self) -> str:
        """Everything that the regions depend on, but for the image."""
        return f"superpixels-v{ALGORITHM_VERSION}-{self.size}-{float(self.ruler)!r}-{self.iterations}"

    def compute(self, image: NDArray[np.uint8], name: str = "", rgb: bool = True) -> NDArray[np.int32]:
        """Regions of (H, W, 3) uint8 RGB, or of (H, W, C) levels: (H, W) int32 ids, dense from 0; -1 = void."""
        return slic(image, self.size, self.ruler, self.iterations, rgb=rgb)


@dataclass(frozen=True)
class Grid:
    """Square cells, the last ones cut off at the right and bottom edge: what superpixels have to beat.

    Attributes:
        size: side of a cell in pixels, at least 1.

    Raises:
        ConfigError: if `size` can't work.
    """

    size: int = 20

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or int(self.size) != self.size or self.size < 1:
            raise ConfigError(f"a grid's size must be a whole number of at least 1 pixel, not {self.size!r}")

    @property
    def key(self) -> str:
        """Everything that the regions depend on, but for the image."""
        return f"grid-v1-{self.size}"

    def compute(self, image: NDArray[np.uint8], name: str = "") -> NDArray[np.int32]:
        """Regions of an (H, W, C) uint8 image: (H, W) int32 ids, dense from 0 in raster order."""
        height, width = _image_size(image)
        columns = -(-width // self.size)
        rows = np.arange(height, dtype=np.int32) // self.size
        return rows[:, None] * np.int32(columns) + np.arange(width, dtype=np.int32) // self.size


@dataclass(frozen=True)
class Pixels:
    """Each pixel is a region of its own."""

    @property
    def key(self) -> str:
        """Everything that the regions depend on, but for the image."""
        return "pixels-v1"

    def compute(self, image: NDArray[np.uint8], name: str = "") -> NDArray[np.int32]:
        """Regions of an (H, W, C) uint8 image: (H, W) int32 ids, 0 to H * W - 1 in raster order."""
        height, width = _image_size(image)
        return np.arange(height * width, dtype=np.int32).reshape(height, width)


RegionSource: TypeAlias = Superpixels | Grid | Pixels
"""What a plan of superpixel views can be told to take."""


@dataclass(frozen=True)
class ObjectMasks:
    """Objects that lie in files, whatever made them; `selfseg.data.labelled.mask_files` tells what may be in a file.

    Attributes:
        folder: where the masks lie, with the images' subfolders, or what `selfseg masks` wrote.
        values: what the values of a file mean: "auto", "soft" (value / 255) or "index" (each value an object).
        threshold: from which value on a soft mask is the object, in (0, 1].
        min_area: share of an image that its objects must cover together, in [0, 1). Images with less are not used.
        max_area: share of an image that a single object may cover, in (0, 1].
        content: what a run found in the folder, see `found`; filled in when it begins, so that masks of other content
            make another run.

    Raises:
        ConfigError: if a value can't work.
    """

    folder: Annotated[Path, arg(aliases=["--masks"])] = Path("masks")
    values: Kind = "auto"
    threshold: float = 0.5
    min_area: float = 0.01
    max_area: float = 0.95
    content: Annotated[str, Suppress] = ""

    def __post_init__(self) -> None:
        # Not with `folder`, which on the command line is a stand-in until it is given.
        MaskFolder(Path(), self.values, self.threshold, self.min_area, self.max_area)

    @property
    def key(self) -> str:
        """Everything that the regions depend on, but for the image."""
        return f"masks-v1-{self.folder}-{self.values}-{float(self.threshold)!r}-{self.content}"

    def _reader(self) -> MaskFolder:
        found = self.content.partition(" ")[0]
        kind = found if found in get_args(Kind) else self.values
        return MaskFolder(self.folder, cast(Kind, kind), self.threshold, self.min_area, self.max_area)

    def survey(self, images: ImageCollection) -> MaskSurvey:
        """Read all masks once, see `selfseg.data.labelled.mask_files.survey`."""
        return survey(replace(self, content="")._reader(), images)

    def found(self, kind: Kind, names: Sequence[str]) -> str:
        """What `content` has to be for a run on these images.

        Args:
            kind: what the values mean, from `survey`.
            names: of the images, in the run's order.

        Returns:
            "KIND DIGEST", the digest over the bytes of all masks; of a mask that is missing, over its absence.
        """
        reader, digest = self._reader(), hashlib.blake2b(digest_size=8)
        for name in names:
            path = reader.find(name)
            content = b"" if path is None else path.read_bytes()
            digest.update(f"{name}\0{len(content)}\0".encode())
            digest.update(content)
        return f"{kind} {digest.hexdigest()}"

    def vanished(self) -> Path | None:
        """The folder, if it can't be reached or is empty."""
        try:
            with os.scandir(self._reader().folder) as entries:
                return None if next(entries, None) is not None else self.folder
        except OSError:
            return self.folder

    def compute(self, image: NDArray[np.uint8], name: str = "") -> NDArray[np.int32]:
        """The objects of the image `name`, whatever their area: which images are used is `survey`'s business.

        Args:
            image: (H, W, C) uint8: the whole image, at any size.
            name: of the image in its collection.

        Returns:
            (H, W) int32 ids, dense from 0 in the order of the file's values; -1 = background or void.

        Raises:
            BadImage: if the mask can't be used; the reason is "mask-" and one of
                `selfseg.data.labelled.mask_files.REASONS`.
        """
        try:
            ids = self._reader().read(name)
        except BadMask as error:
            raise BadImage(error.path, f"mask-{error.reason}", error.detail) from error
        (height, width), (rows, columns) = _image_size(image), ids.shape
        # Each side was rounded to whole pixels once on either way.
        if abs(rows * width - columns * height) > (rows + columns + height + width) / 2:
            detail = f"{columns}x{rows} pixels have other proportions than the image's {width}x{height}"
            raise BadImage(self.folder / name, "mask-wrong-size", detail)
        return sample_ids(ids, (0, 0, columns, rows), (height, width))


@dataclass(frozen=True)
class NoRegions:
    """No regions, for methods that don't ask for any: neither hashed nor stored, and a view carries no ids."""

    @property
    def key(self) -> str:
        """Everything that the regions depend on, but for the image."""
        return "none-v1"

    def compute(self, image: NDArray[np.uint8], name: str = "") -> NDArray[np.int32]:
        """A (0, 0) int32 array, whatever the image."""
        return np.zeros((0, 0), np.int32)


AnyRegions: TypeAlias = RegionSource | ObjectMasks | NoRegions
"""Every region source that a view plan may have."""


def _image_size(image: NDArray[np.uint8]) -> tuple[int, int]:
    if image.ndim != 3:
        raise ConfigError(f"image must be (H, W, 3) or (H, W, C), not {image.shape}")
    return image.shape[0], image.shape[1]


class RegionCache:
    """Regions of images, computed once and kept on disk.

    An entry is found by the image's pixels and the source's key, so that renamed files, other parameters and newer
    algorithms need no care. Entries are lossless, some 20 kB for an image of 427 x 320, and written atomically:
    any number of processes may share a folder, and it may be deleted at any time. A damaged entry is made anew.
    Only superpixels are stored; the others are quicker made than read.

    Args:
        folder: where entries are kept, made when first needed; None keeps nothing.
        source: what computes the regions; of `NoRegions` there is nothing to keep.
        rgb: whether images are photographs; False for measured channels.
        within: a folder of results that must be there before anything is written, or it is taken to have vanished.

    Raises:
        StorageError: by `get`, if an entry can't be written.
    """

    def __init__(self, folder: Path | None, source: AnyRegions, rgb: bool = True, within: Path | None = None) -> None:
        self.folder = folder if isinstance(source, Superpixels) else None
        self.within = within
        self.source = source
        self.rgb = rgb

    def get(self, image: NDArray[np.uint8], name: str = "") -> NDArray[np.int32]:
        """The regions of a prepared image.

        Args:
            image: (H, W, 3) uint8 RGB, or (H, W, C) levels.
            name: of the image in its collection; sources that read files need it.

        Returns:
            (H, W) int32 ids, dense from 0, -1 = none, as of all void pixels; (0, 0) of `NoRegions`.

        Raises:
            BadImage: by a source that reads files, if the image's can't be used.
        """
        if self.folder is None:
            return self._compute(image, name)
        path = self._path(self.folder, image)
        height, width = _image_size(image)
        regions = _read(path, height, width)
        if regions is None:
            regions = self._compute(image, name)
            content = _pack(regions)
            if self.within is not None:
                with storage_errors(path):
                    os.stat(self.within / OUTPUT_MARKER)
            write_atomically(path, lambda temporary: temporary.write_bytes(content))
        return regions

    def vanished(self) -> Path | None:
        """What regions need and can't be reached: the folder of masks, or the one that entries are kept within."""
        if isinstance(self.source, ObjectMasks) and (masks := self.source.vanished()) is not None:
            return masks
        return None if self.within is None or self.folder is None else vanished_output(self.within)

    def _compute(self, image: NDArray[np.uint8], name: str) -> NDArray[np.int32]:
        if self.rgb:
            return self.source.compute(image, name)
        if isinstance(self.source, Superpixels):
            return self.source.compute(image, name, rgb=False)
        regions = self.source.compute(image, name)
        where = measured(image) if regions.size else None
        if where is None:
            return regions
        kept = np.where(where, regions, np.int32(-1))
        there = np.bincount(kept.ravel() + 1, minlength=2)[1:] > 0  # ids become dense again
        names = np.append(np.cumsum(there, dtype=np.int32) - np.int32(1), np.int32(-1))  # the last is what -1 finds
        return np.take(names, kept)

    def _path(self, folder: Path, image: NDArray[np.uint8]) -> Path:
        key = self.source.key if self.rgb else f"{self.source.key}-channels"
        digest = hashlib.blake2b(f"{key} {image.shape} {image.dtype} ".encode(), digest_size=16)
        digest.update(np.ascontiguousarray(image).data)
        name = digest.hexdigest()
        return folder / name[:2] / f"{name}.regions"


_HEADER = struct.Struct("<8sIII")  # magic, height, width, bytes of an id
_MAGIC = b"regions1"


def _pack(regions: NDArray[np.int32]) -> bytes:
    # Neighbours mostly have the same id, so that differences are mostly 0: small, and quick to unpack. They wrap
    # around in 16 bits, and so does their running sum. The largest number stands for -1.
    dtype = "<u2" if regions.max() < 2**16 - 1 else "<u4"
    difference = np.diff(regions.ravel().astype(dtype), prepend=np.zeros(1, dtype))
    header = _HEADER.pack(_MAGIC, *regions.shape, difference.itemsize)
    return header + zlib.compress(difference.data, 6)


def _read(path: Path, height: int, width: int) -> NDArray[np.int32] | None:
    """The entry, or None if there is none that is sound (zlib's checksum is over all of it)."""
    try:
        content = path.read_bytes()
        magic, *size, itemsize = _HEADER.unpack_from(content)
        if magic != _MAGIC or size != [height, width] or itemsize not in (2, 4):
            return None
        dtype = np.dtype(f"<u{itemsize}")
        difference = np.frombuffer(zlib.decompress(content[_HEADER.size :]), dtype)
        regions = np.cumsum(difference, dtype=dtype).astype(np.int32).reshape(height, width)
        if itemsize == 2:
            regions[regions == 2**16 - 1] = -1
        return regions
    except (OSError, ValueError, struct.error, zlib.error):
        return None
