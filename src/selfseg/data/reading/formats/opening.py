"""Open any file of pixels, by its content and suffix."""

from __future__ import annotations

from pathlib import Path

from selfseg.data.reading.formats.base import PixelFile
from selfseg.data.reading.sniffing import HEAD, Damage, sniff
from selfseg.storage.regular import open_regular


def open_pixels(path: Path, max_pixels: int | None) -> PixelFile:
    """Open a file and look at its header. Close it when it isn't needed any more.

    Args:
        path: a file, or the folder of a Zarr.
        max_pixels: a larger page (H * W) is refused before it is read; None = any, where only windows are read. What
            can only be decoded in one piece has Pillow's own bound then.

    Returns:
        The open file; its pixels weren't read.

    Raises:
        Damage: with a reason of `selfseg.data.reading.images`.
        OSError: if the file system refuses.
    """
    path = Path(path)
    if path.is_dir():
        from selfseg.data.reading.formats.zarrs import ZarrImage, is_zarr

        if path.suffix.lower() != ".zarr" and not is_zarr(path):
            raise IsADirectoryError(21, "a folder", str(path))
        return ZarrImage(path, max_pixels)
    with open_regular(path) as stream:
        kind = sniff(stream.read(HEAD), path.suffix)
    if kind == "TIFF":
        from selfseg.data.reading.formats.tiff import TiffImage

        return TiffImage(path, max_pixels)
    if kind == "NPY":
        from selfseg.data.reading.formats.npy import NpyFile

        return NpyFile(path, max_pixels)
    if kind == "DICOM":
        from selfseg.data.reading.formats.dicom import DicomImage

        return DicomImage(path, max_pixels)
    if kind == "HFA":
        from selfseg.data.reading.formats.rasters import RasterImage

        return RasterImage(path, "HFA", max_pixels)
    from selfseg.data.reading.formats.whole import WholeImage

    try:
        return WholeImage(path, kind, max_pixels)
    except Damage as damage:
        if kind != "JPEG2000" or max_pixels is not None or damage.reason != "too-large":
            raise
    from selfseg.data.reading.formats.rasters import RasterImage  # reads windows of a JPEG 2000

    return RasterImage(path, "JP2OpenJPEG", max_pixels)
