"""Images in a zip, read where they lie: nothing is unpacked.

The list of members is read once; each image is then found by its offset, so that several processes may read at once.
A zip is not trusted: a name that leads out of it, a link, an encrypted member, and one that unpacks to more than an
image may have are refused, and of each member no more is unpacked than it said.
"""

from __future__ import annotations

import calendar
import io
import os
import shutil
import stat
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from selfseg.data.labelled.labels import upright_size
from selfseg.data.reading.decoding import MAX_PIXELS, SUFFIXES, Damage, as_bad_image, decode, sniff
from selfseg.data.reading.images import check_stream
from selfseg.data.reading.packed.base import GONE, PackedImages
from selfseg.data.reading.packed.slices import read_part
from selfseg.data.reading.sniffing import HEAD
from selfseg.errors import BadImage, DataError, EmptyCollection
from selfseg.storage.files import OUTPUT_MARKER
from selfseg.storage.waiting import is_there

_LARGEST = 16  # bytes per pixel, as of files
_HEAD = 30  # bytes of a member's own header, before its name
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True, eq=False)
class ZippedImages(PackedImages):
    """Images in a zip; `paths` are ARCHIVE.zip/MEMBER, which no file system opens.

    Attributes:
        archive: the file.
        places: (N, 5) int64: of each image its header's offset, packed bytes, bytes, method and CRC; an offset of -1:
            the image is gone.
    """

    archive: Path = Path()
    places: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 5), np.int64))

    @property
    def blocks(self) -> tuple[int, ...]:
        """All images lie in one file, and are photographs: measured images need files of their own."""
        return (len(self),)

    @property
    def packing(self) -> str:
        """What packs them, in words."""
        return "the zip"

    def read(self, index: int, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
        """Image `index` as (H, W, 3) uint8 RGB; raises BadImage as `read_image` does."""
        path = self.paths[index]
        data = self._bytes(index, max_pixels)
        try:
            return decode(data, path.suffix, max_pixels)
        except Damage as damage:
            raise as_bad_image(path, damage) from damage.__cause__

    def check(self, index: int, max_pixels: int = MAX_PIXELS) -> None:
        """Unpack image `index` and judge it without decoding; raises BadImage as `check_image` does."""
        path = self.paths[index]
        data = self._bytes(index, max_pixels)
        try:
            if not check_stream(io.BytesIO(data), path.suffix, max_pixels):
                decode(data, path.suffix, max_pixels)
        except Damage as damage:
            raise as_bad_image(path, damage) from damage.__cause__

    def version(self, index: int) -> dict[str, int | str] | None:
        """As of `ImageCollection`: the member's bytes and its checksum."""
        offset, _, size, _, crc = self.places[index].tolist()
        return None if offset == GONE else {"bytes": size, "modified": crc}

    def vanished(self) -> Path | None:
        """The zip, if it can't be reached."""
        return None if is_there(self.archive) else self.archive

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) as `read` gives it, from the image's header; raises OSError if that can't be read."""
        try:
            return upright_size(io.BytesIO(self._bytes(index, MAX_PIXELS)))
        except BadImage as error:
            raise OSError(str(error)) from error

    def _bytes(self, index: int, max_pixels: int) -> bytes:
        path = self.paths[index]
        offset, packed, size, method, crc = self.places[index].tolist()
        if offset == GONE:
            raise BadImage(path, "missing")
        if not size:
            raise BadImage(path, "empty")
        if size > _LARGEST * max_pixels or packed > size + 1024:
            raise BadImage(path, "too-large", f"a member that unpacks to {size} bytes")
        try:
            head = read_part(path, str(self.archive), offset, _HEAD)
            names = int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
            data = read_part(path, str(self.archive), offset + _HEAD + names, packed)
        except FileNotFoundError as error:
            raise BadImage(path, "missing", "the zip is gone") from error
        if method == zipfile.ZIP_DEFLATED:
            try:
                head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, HEAD)
                sniff(head, path.suffix)  # before the memory for all of it is taken
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
            except Damage as damage:
                raise as_bad_image(path, damage) from None
            except zlib.error as error:
                raise BadImage(path, "unreadable", f"its packed bytes are damaged: {error}") from error
        if len(data) != size or zlib.crc32(data) != crc:
            raise BadImage(path, "unreadable", "its bytes are not those that were packed; is the zip damaged?")
        return data


def open_zip(archive: Path) -> tuple[ZippedImages, Counter[str]]:
    """The images in a zip, in the order of their names, and how many other files there are by suffix.

    Raises:
        DataError: if the zip can't be read, or has members that are not to be trusted.
        EmptyCollection: if it holds no image.
    """
    others: Counter[str] = Counter()
    found: list[tuple[str, zipfile.ZipInfo]] = []
    members = members_of(archive)
    names = [PurePosixPath(info.filename) for info in members]
    ours = {name.parent for name in names if name.name == OUTPUT_MARKER} - {PurePosixPath()}  # folders of results
    for info, name in zip(members, names, strict=True):
        suffix = name.suffix.lower()
        if any(part.startswith((".", "__MACOSX")) for part in name.parts) or not ours.isdisjoint(name.parents):
            continue
        if suffix not in SUFFIXES:
            others[suffix or "no suffix"] += 1
        elif info.compress_type not in _METHODS:
            raise DataError(f"{archive}: {info.filename} is packed by a method that is not read; unpack the zip")
        else:
            found.append((info.filename, info))
    if not found:
        have = ", ".join(f"{count} with {suffix}" for suffix, count in others.most_common(5))
        raise EmptyCollection(f"{archive} holds no image" + (f", only files {have}" if have else "; it is empty"))
    found.sort(key=lambda item: item[0])
    places = [[i.header_offset, i.compress_size, i.file_size, i.compress_type, i.CRC] for _, i in found]
    paths = tuple(archive / name for name, _ in found)
    return ZippedImages(archive, paths, archive=archive, places=np.array(places, np.int64)), others


def unpack(archive: Path, out: Path) -> None:
    """Unpack a zip into an empty folder, with the members' times; as `open_zip`, it is not trusted.

    Raises:
        DataError: as `members_of`, if a member can't be read or is larger than an image may be, or if all together
            leave less than a tenth of the disk's free bytes.
    """
    members = members_of(archive)
    total, free = sum(info.file_size for info in members), shutil.disk_usage(out).free
    if total > 0.9 * free:
        raise DataError(f"{archive} unpacks to {total} bytes, but there are only {free} free at {out}")
    try:
        with zipfile.ZipFile(archive) as opened:
            for info in members:
                if info.file_size > _LARGEST * MAX_PIXELS:
                    raise DataError(f"{archive}: {info.filename} unpacks to {info.file_size} bytes")
                place = out / PurePosixPath(info.filename.replace("\\", "/"))
                place.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(info) as member, open(place, "wb") as file:
                    shutil.copyfileobj(member, file)
                written = calendar.timegm((*info.date_time, 0, 0, 0))
                os.utime(place, (written, written))
    except (OSError, ValueError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"can't unpack {archive}: {error}") from error


def members_of(archive: Path) -> list[zipfile.ZipInfo]:
    """The files in a zip, each with a name that stays inside of a folder.

    Raises:
        DataError: if the zip can't be read, or a member's name leads out of it, is there twice, is a link or encrypted.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [info for info in opened.infolist() if not info.is_dir()]
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise DataError(f"can't read the zip {archive}: {error}") from error
    seen: set[str] = set()
    for info in members:
        name = PurePosixPath(info.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or not name.parts or name.parts[0].endswith(":"):
            raise DataError(f"{archive} holds the name {info.filename!r}, which leads out of it; it is not opened")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise DataError(f"{archive} holds a link, {info.filename!r}; it is not opened")
        if info.flag_bits & 1:
            raise DataError(f"{archive}: {info.filename} is encrypted; unpack it first")
        if str(name) in seen:
            raise DataError(f"{archive} holds {info.filename!r} twice")
        seen.add(str(name))
    return members
