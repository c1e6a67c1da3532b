"""What a file is, by its name and its first bytes; and the error of a file that is no usable image."""

from __future__ import annotations

import os
from collections.abc import Collection

MIN_SIDE = 8
"""Images with a shorter side below this many pixels are "too-small"."""

MAX_PIXELS = 178_956_970
"""Images with more pixels are "too-large", decided from the header (Pillow's own bound against decompression bombs)."""

SUFFIXES = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".btf": "TIFF",
    ".tf8": "TIFF",
    ".webp": "WEBP",
    ".gif": "GIF",
    ".pgm": "PPM",
    ".ppm": "PPM",
    ".pbm": "PPM",
    ".pnm": "PPM",
    ".jp2": "JPEG2000",
    ".j2k": "JPEG2000",
    ".jpx": "JPEG2000",
    ".avif": "AVIF",
}
"""What is taken for a photograph, and the format that its content must have."""

MEASURED = {".npy": "NPY", ".dcm": "DICOM", ".dicom": "DICOM", ".img": "HFA", ".zarr": "ZARR"}
"""Suffixes of measured images, and their formats; a `.zarr` is a folder. TIFFs can be either."""

WINDOWED = frozenset((".tif", ".tiff", ".btf", ".tf8", ".jp2", ".j2k", ".jpx", *MEASURED))
"""Suffixes of files of which a window can be read, or that may have several pages."""

HEAD = 264
"""Bytes of a file's beginning that tell its format: a DICOM file's mark comes after 128 bytes of anything."""

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"BM", "BMP"),
    *((b"P%d" % i, "PPM") for i in range(1, 7)),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),  # a bare codestream
    (b"\x93NUMPY", "NPY"),
    (b"EHFA_HEADER_TAG", "HFA"),
)
_HEIF = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevx", b"mif1", b"msf1")


def stem_of(name: str) -> str:
    """A file's name without its suffix, and without the ".ome" of OME-TIFF and OME-Zarr before it.

    Example:
        >>> stem_of("day 1/cells.ome.tif"), stem_of("a.b.png")
        ('day 1/cells', 'a.b')
    """
    stem, suffix = os.path.splitext(name)
    if suffix.lower() in WINDOWED and stem.lower().endswith(".ome"):
        return stem[: -len(".ome")]
    return stem


class Damage(Exception):
    """Why bytes are no usable image: `reason` is one of the words of `selfseg.data.reading.images`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def sniff(head: bytes, suffix: str) -> str:
    """The format that a file's content has, which must be the one that its name promises.

    Args:
        head: the first `HEAD` bytes, or all of a shorter file. 16 are enough for photographs.
        suffix: the name's suffix with its dot, in any case; a suffix outside of `SUFFIXES` and `MEASURED` promises
            nothing.

    Returns:
        A value of `SUFFIXES` or `MEASURED`.

    Raises:
        Damage: "empty", "truncated" or "wrong-type".
    """
    if not head:
        raise Damage("empty", "0 bytes")
    expected = SUFFIXES.get(suffix.lower(), MEASURED.get(suffix.lower()))
    found = next((name for magic, name in _MAGIC if head.startswith(magic)), None)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        found = "WEBP"
    elif head[4:8] == b"ftyp":
        if head[8:12] in (b"avif", b"avis") or (expected == "AVIF" and head[8:12] in (b"mif1", b"msf1", b"miaf")):
            found = "AVIF"
        elif head[8:12] in _HEIF:
            raise Damage("wrong-type", "a HEIC photograph, which isn't read; save it as JPEG, PNG or AVIF")
    elif head[128:132] == b"DICM":  # the oldest files have no mark; anything could be taken for one of those
        found = "DICOM"
    if found is None:
        if any(magic.startswith(head) for magic, _ in _MAGIC):
            raise Damage("truncated", f"{len(head)} bytes")
        raise Damage("wrong-type", f"no known image format: begins with {head[:8]!r}")
    if expected is not None and found != expected:
        raise Damage("wrong-type", f"named {suffix} but the content is {found}")
    return found


def words_of(error: BaseException) -> str:
    """A library's error in one line of at most 200 characters."""
    return (str(error) or type(error).__name__).split("\n")[0][:200]


def companions(names: Collection[str]) -> set[str]:
    """Those of a listing that are `a.npy` beside `a.jpg`: features or labels of that image, and no image.

    Example:
        >>> sorted(companions(["a.jpg", "a.npy", "b.npy"]))
        ['a.npy']
    """
    ends = [os.path.splitext(name) for name in names]
    stems = {stem for stem, suffix in ends if suffix.lower() in SUFFIXES}
    return {stem + suffix for stem, suffix in ends if suffix.lower() == ".npy" and stem in stems}
