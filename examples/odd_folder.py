"""One folder with a file of every kind: what does selfseg read, what does it skip, and what does it say?

    python examples/odd_folder.py OUT                     # draws of photographs that scikit-image brings along
    python examples/odd_folder.py OUT --images PHOTOS     # draws of your own

It writes OUT/everything (all kinds side by side, as a folder that was collected over years) and OUT/KIND (the same
files again, one folder for each kind of measured images and one for photographs), which are what selfseg can make one
collection of. docs/odd_files.md shows what `selfseg data`, `train` and the rest answer.

Some files are broken on purpose: empty, cut, named wrongly, or bombs that claim to be far larger than they are.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tifffile
import tyro
import zarr
from numpy.typing import NDArray
from PIL import Image

from selfseg.errors import DataError, SelfsegError

SIDE = 320
Pixels = NDArray[Any]
Write = Callable[[Path, Pixels], None]


@dataclass(frozen=True)
class OddFolder:
    """Write the folder.

    Attributes:
        out: where to; it must be new or empty.
        images: folder of photographs to draw from; those of scikit-image if not given.
    """

    out: Annotated[Path, tyro.conf.Positional]
    images: Path | None = None


# What a photograph becomes. Every function writes (320, 320, 3) uint8 to a path.


def save(path: Path, rgb: Pixels, mode: str = "RGB", **settings: Any) -> None:
    """By Pillow, once converted to a mode."""
    Image.fromarray(rgb).convert(mode).save(path, **settings)


def turned(path: Path, rgb: Pixels) -> None:
    """A JPEG that lies on its side and says so in its EXIF, as phones write them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(rgb).copy()).save(path, exif=exif, quality=92)


def palette(path: Path, rgb: Pixels) -> None:
    """64 colours and an index for each pixel."""
    Image.fromarray(rgb).quantize(64).save(path)


def see_through(path: Path, rgb: Pixels) -> None:
    """A PNG whose left quarter is transparent."""
    alpha = np.full(rgb.shape[:2], 255, np.uint8)
    alpha[:, : SIDE // 4] = 0
    Image.fromarray(np.dstack([rgb, alpha])).save(path)


def gray16(path: Path, rgb: Pixels) -> None:
    """A PNG of 16 bits, as X-ray scanners and depth cameras write them."""
    Image.fromarray(light(rgb).astype(np.uint16) * 257).save(path)


def tiff(path: Path, rgb: Pixels, **settings: Any) -> None:
    """By tifffile."""
    tifffile.imwrite(path, rgb, photometric="rgb", **settings)


def light(rgb: Pixels) -> Pixels:
    """(H, W) float32 of how light it is, from 0 to 255."""
    return rgb.mean(2, dtype=np.float32)


def five(rgb: Pixels) -> Pixels:
    """(H, W, 5) uint16: the colours, their inverse and their edges, as an instrument would have counted them."""
    gray = light(rgb)
    edges = np.abs(np.gradient(gray, axis=0)) + np.abs(np.gradient(gray, axis=1))
    channels = np.dstack([rgb.astype(np.float32), 255 - gray, np.minimum(255, edges * 4)])
    return (channels * np.array([9, 7, 11, 5, 13]) + np.array([400, 900, 250, 1500, 100])).astype(np.uint16)


def interleaved(path: Path, rgb: Pixels, **settings: Any) -> None:
    """Five channels, those of a pixel side by side."""
    tifffile.imwrite(path, five(rgb), photometric="minisblack", planarconfig="contig", **settings)


def planar(path: Path, rgb: Pixels, **settings: Any) -> None:
    """Five channels, one after the other."""
    planes = np.ascontiguousarray(five(rgb).transpose(2, 0, 1))
    tifffile.imwrite(path, planes, photometric="minisblack", planarconfig="separate", **settings)


def ome(path: Path, rgb: Pixels) -> None:
    """Five channels with names."""
    metadata = {"axes": "CYX", "Channel": {"Name": ["red", "green", "blue", "inverse", "edges"]}}
    tifffile.imwrite(path, five(rgb).transpose(2, 0, 1), ome=True, metadata=metadata, photometric="minisblack")


def ome_zarr(path: Path, rgb: Pixels) -> None:
    """Five channels in chunks, with names."""
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", data=five(rgb).transpose(2, 0, 1), chunks=(1, 128, 128))
    axes = [{"name": "c", "type": "channel"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    scale = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    group.attrs["omero"] = {"channels": [{"label": name} for name in ("red", "green", "blue", "inverse", "edges")]}


def missing_chunks(path: Path, rgb: Pixels) -> None:
    """Zarr 3 of five channels whose last rows of chunks were never written."""
    array = zarr.create_array(
        path, shape=(SIDE, SIDE, 5), chunks=(80, 80, 5), dtype="uint16", dimension_names=["y", "x", "channel"]
    )
    array[:240] = five(rgb)[:240]


def npy(path: Path, rgb: Pixels) -> None:
    """Five channels as NumPy saves them."""
    np.save(path, five(rgb))


def imagej(path: Path, rgb: Pixels) -> None:
    """A hyperstack of four slices, each darker than the one before."""
    slices = np.stack([light(rgb) * share * 250 for share in (1.0, 0.8, 0.6, 0.4)]).astype(np.uint16)
    tifffile.imwrite(path, slices, imagej=True, metadata={"axes": "ZYX"})


def with_nan(path: Path, rgb: Pixels) -> None:
    """Floats, of which a corner was not measured."""
    values = light(rgb) / 255
    values[: SIDE // 4, : SIDE // 4] = np.nan
    tifffile.imwrite(path, values, compression="zlib", predictor=True)


def geotiff(path: Path, rgb: Pixels) -> None:
    """Four bands with a place on the earth, of which a corner has the no-data value."""
    bands = (five(rgb)[..., :4] // 4).astype(np.int16)
    bands[: SIDE // 3, : SIDE // 3] = -9999
    key = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633)  # a projection, by its EPSG number
    tags = [
        (33550, "d", 3, (10.0, 10.0, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 500_000.0, 5_400_000.0, 0.0), True),
        (34735, "H", len(key), key, True),
        (42113, "s", 6, "-9999", True),
    ]
    tifffile.imwrite(path, bands, photometric="minisblack", planarconfig="contig", extratags=tags, metadata=None)


def pydicoms(name: str, path: Path, rgb: Pixels) -> None:
    """One of the files that pydicom's wheel brings along for its tests."""
    from pydicom.data import get_testdata_file

    found = get_testdata_file(name, download=False)
    if not isinstance(found, str):
        raise DataError(f"this version of pydicom doesn't bring {name} along")
    shutil.copyfile(found, path)


# What is broken, or no image.


def words(text: bytes, path: Path, rgb: Pixels) -> None:
    """Any bytes."""
    path.write_bytes(text)


def cut(path: Path, rgb: Pixels) -> None:
    """A JPEG of which the download broke off."""
    save(path, rgb, quality=92)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def bomb_tiff(path: Path, rgb: Pixels) -> None:
    """134 bytes that claim 1,000,000 x 1,000,000 pixels."""
    entries = [(256, 4, 10**6), (257, 4, 10**6), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    entries += [(278, 4, 10**6), (279, 4, 4_000_000_000)]
    table = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(12))


def bomb_zarr(path: Path, rgb: Pixels) -> None:
    """A million chunks of 1000 x 1000 pixels, none of which is there."""
    zarr.create_array(path, shape=(10**6, 10**6), chunks=(1000, 1000), dtype="uint8")


def bomb_chunk(path: Path, rgb: Pixels) -> None:
    """One chunk of 10^12 pixels."""
    zarr.create_array(path, shape=(10**6, 10**6), chunks=(10**6, 10**6), dtype="uint8")


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)
NAMED_SECRETLY = "hidden/.thumbnail.jpg"

FILES: dict[str, tuple[tuple[str, Write], ...]] = {
    "photographs": (
        ("plain.jpg", partial(save, quality=92)),
        ("on_its_side.jpg", turned),
        ("gray.jpg", partial(save, mode="L", quality=92)),
        ("for_print.jpg", partial(save, mode="CMYK", quality=92)),
        ("plain.png", save),
        ("palette.png", palette),
        ("see_through.png", see_through),
        ("web.webp", partial(save, quality=90)),
        ("windows.bmp", save),
        ("small.avif", partial(save, quality=80)),
        ("wavelets.jp2", save),
        ("graphics.gif", save),
        ("lzw.tif", partial(tiff, compression="lzw")),
        ("big.btf", partial(tiff, bigtiff=True)),
        ("tiles.tif", partial(tiff, tile=(128, 128), compression="zlib", predictor=True)),
        ("planes.tif", lambda path, rgb: tiff(path, rgb.transpose(2, 0, 1), planarconfig="separate")),
    ),
    "five_channels": (
        ("interleaved.tif", interleaved),
        ("planar.tif", planar),
        ("tiled.tif", partial(interleaved, tile=(64, 64), compression="zstd", predictor=True)),
        ("big_planar.btf", partial(planar, bigtiff=True, compression="deflate")),
        ("named.ome.tif", ome),
        ("named.ome.zarr", ome_zarr),
        ("chunks_missing.zarr", missing_chunks),
        ("array.npy", npy),
    ),
    "gray16": (("scan.png", gray16), ("stack.tif", imagej)),
    "floats": (("not_a_number.tif", with_nan),),
    "scenes": (("no_data.tif", geotiff),),
    "dicom": (
        ("ct.dcm", partial(pydicoms, "CT_small.dcm")),
        ("mr.dcm", partial(pydicoms, "MR_small_RLE.dcm")),
    ),
    "no_images": (
        ("empty.jpg", partial(words, b"")),
        ("cut.jpg", cut),
        ("a_text.png", partial(words, b"This is a text, whatever its name says.\n")),
        ("a_jpeg.png", lambda path, rgb: save(path, rgb, format="JPEG")),
        ("phone.heic", partial(words, HEIC)),
        ("a_heic.jpg", partial(words, HEIC)),
        ("notes.txt", partial(words, b"ask Anna\n")),
        ("camera.xyz", partial(words, bytes(100))),
        ("camera_2.xyz", partial(words, bytes(100))),
        ("README", partial(words, b"no suffix\n")),
        ("bomb.tif", bomb_tiff),
        ("bomb.zarr", bomb_zarr),
        ("bomb_chunk.zarr", bomb_chunk),
    ),
}
"""The files of each kind, and what writes them."""


def photographs(folder: Path | None) -> list[Pixels]:
    """(320, 320, 3) uint8 each: the middle square of every photograph, made smaller."""
    if folder is None:
        from skimage import data

        found = [getattr(data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket", "retina")]
    else:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        if not paths:
            raise DataError(f"{folder} holds no JPEG and no PNG to draw from")
        found = [np.asarray(Image.open(path).convert("RGB")) for path in paths[:: max(1, len(paths) // 40)]]
    squares = []
    for rgb in found:
        side = min(rgb.shape[:2])
        top, left = ((length - side) // 2 for length in rgb.shape[:2])
        square = Image.fromarray(rgb[top : top + side, left : left + side, :3])
        squares.append(np.asarray(square.resize((SIDE, SIDE), Image.Resampling.LANCZOS)))
    return squares


def write(out: Path, folder: Path | None) -> None:
    """Write OUT/everything and a folder for each kind."""
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out} is not empty; give a new folder")
    drawn = photographs(folder)
    everything = out / "everything"
    number = 0
    for kind, files in FILES.items():
        own = out / kind
        own.mkdir(parents=True)
        (everything / kind).mkdir(parents=True)
        for name, writer in files:
            writer(own / name, drawn[number % len(drawn)])
            copy = shutil.copytree if (own / name).is_dir() else shutil.copyfile
            copy(own / name, everything / kind / name)
            number += 1
    hidden = everything / NAMED_SECRETLY
    hidden.parent.mkdir()
    save(hidden, drawn[0])
    os.symlink("../photographs/plain.jpg", everything / "hidden/link.jpg")
    os.symlink("../photographs", everything / "hidden/link_to_a_folder")
    os.symlink("nowhere.jpg", everything / "hidden/broken_link.jpg")


if __name__ == "__main__":
    asked = tyro.cli(OddFolder, description=__doc__)
    try:
        write(asked.out, asked.images)
    except SelfsegError as error:
        raise SystemExit(f"error: {error}") from error
