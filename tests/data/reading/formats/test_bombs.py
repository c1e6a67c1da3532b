"""Files that claim more than they are: refused by their header, in little memory and time."""

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import tifffile
import zarr

from selfseg.data.reading.formats.opening import open_pixels
from selfseg.data.reading.sniffing import Damage


def tiff(*pages: list[tuple[int, int, int, int]], chain: tuple[int, ...] = (), tail: bytes = b"") -> bytes:
    """A TIFF of directories of (tag, type, count, value); `chain` overwrites where each leads."""
    data = b"II*\0" + struct.pack("<I", 8)
    for i, tags in enumerate(pages):
        following = len(data) + 2 + 12 * len(tags) + 4
        last = i == len(pages) - 1
        target = chain[i] if i < len(chain) else 0 if last else following
        data += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
        data += struct.pack("<I", target)
    return data + tail


def page(height: int, width: int, *more: tuple[int, int, int, int]) -> list[tuple[int, int, int, int]]:
    plain = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
    own = {tag[0] for tag in more}
    return [tag for tag in plain if tag[0] not in own] + list(more)


def huge(path: Path) -> None:
    path.write_bytes(tiff(page(10**6, 10**6, (273, 4, 1, 8), (278, 4, 1, 10**6), (279, 4, 1, 4_000_000_000))))


def huge_tile(path: Path) -> None:
    tile = ((322, 4, 1, 46_336), (323, 4, 1, 46_336), (324, 4, 1, 8), (325, 4, 1, 100), (259, 3, 1, 8))
    path.write_bytes(tiff(page(9000, 9000, *tile), tail=bytes(200)))


def huge_strip(path: Path) -> None:
    more = ((273, 4, 1, 8), (278, 4, 1, 40_000), (279, 4, 1, 100), (259, 3, 1, 5))
    path.write_bytes(tiff(page(40_000, 40_000, *more), tail=bytes(200)))


def loop(path: Path) -> None:
    one = page(40, 40, (273, 4, 1, 8), (279, 4, 1, 1600))
    path.write_bytes(tiff(one, one, chain=(8 + 6 + 12 * len(one), 8), tail=bytes(2000)))


def million_pages(path: Path) -> None:
    entry = struct.pack("<HHHII", 1, 256, 4, 1, 40)
    size = len(entry) + 4
    count = 1_000_000
    links = np.arange(1, count + 1, dtype="<u4") * size + 8
    table = np.zeros((count, size), np.uint8)
    table[:, :-4] = np.frombuffer(entry, np.uint8)
    table[:, -4:] = links[:, None].view(np.uint8)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + table.tobytes())


def long_tables(path: Path) -> None:
    more = ((322, 4, 1, 16), (323, 4, 1, 16), (324, 4, 500_000_000, 8), (325, 4, 500_000_000, 8))
    path.write_bytes(tiff(page(40, 40, *more)))


def many_planes(path: Path) -> None:
    xml = b'<OME xmlns="x"><Image ID="Image:0"><Pixels SizeX="40" SizeY="40" SizeC="1" SizeZ="1" SizeT="1000000000" '
    xml += b'DimensionOrder="XYZTC" Type="uint8"><TiffData/></Pixels></Image></OME>\0'
    one = page(40, 40, (273, 4, 1, 8), (279, 4, 1, 1600))
    offset = 8 + 6 + 12 * (len(one) + 1)
    path.write_bytes(tiff([*one, (270, 2, len(xml), offset)], tail=xml + bytes(2000)))


def entities(path: Path) -> None:
    xml = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">]><OME>&a;</OME>\0'
    one = page(40, 40, (273, 4, 1, 8), (279, 4, 1, 1600))
    path.write_bytes(tiff([*one, (270, 2, len(xml), 8 + 6 + 12 * (len(one) + 1))], tail=xml + bytes(2000)))


def lying_shape(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8), description='{"shape": [9000, 64, 64]}', metadata=None)


def jpeg_in_tile(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8), tile=(64, 64), compression="jpeg")
    data = path.read_bytes()
    place = data.index(b"\xff\xc0") + 5
    path.write_bytes(data[:place] + struct.pack(">HH", 65_000, 65_000) + data[place + 4 :])


def deflated(path: Path) -> None:
    packed = zlib.compress(bytes(1 << 27), 9)
    more = ((322, 4, 1, 64), (323, 4, 1, 64), (259, 3, 1, 8), (325, 4, 1, len(packed)))
    offset = 8 + 6 + 12 * len(page(64, 64, *more, (324, 4, 1, 8)))
    path.write_bytes(tiff(page(64, 64, *more, (324, 4, 1, offset)), tail=packed))


def npy(header: str) -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header) + 1) + header.encode() + b"\n"


def lying_npy(path: Path) -> None:
    path.write_bytes(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000)}") + bytes(5000))


def npy_of_objects(path: Path) -> None:
    path.write_bytes(npy("{'descr': '|O', 'fortran_order': False, 'shape': (100, 100)}") + bytes(5000))


def jpeg2000(path: Path) -> None:
    siz = struct.pack(">HHIIIIIIIIH", 41, 0, 10**6, 10**6, 0, 0, 10**6, 10**6, 0, 0, 1) + b"\7\1\1"
    path.write_bytes(b"\xff\x4f\xff\x51" + siz + bytes(100) + b"\xff\xd9")


def zarr_chunk(path: Path) -> None:
    zarr.create_array(path, shape=(10**6, 10**6), chunks=(10**6, 10**6), dtype="uint8")


def zarr_pages(path: Path) -> None:
    zarr.create_array(path, shape=(10**9, 64, 64), chunks=(1, 64, 64), dtype="uint8")


def zarr_empty(path: Path) -> None:
    zarr.create_array(path, shape=(10**6, 10**6), chunks=(1000, 1000), dtype="uint8")


def zarr_one_chunk(path: Path) -> None:
    zarr.create_array(path, shape=(10**6, 10**6), chunks=(1000, 1000), dtype="uint8")[:1000, :1000] = 7


def sparse(path: Path) -> None:
    tiles = 245 * 245
    more = ((322, 4, 1, 4096), (323, 4, 1, 4096), (259, 3, 1, 8), (324, 4, tiles, 200), (325, 4, tiles, 200))
    path.write_bytes(tiff(page(10**6, 10**6, *more), tail=bytes(4 * tiles + 200)))


def zarr_zstd(path: Path) -> None:
    zarr.create_array(path, data=np.ones((64, 64), np.uint8), chunks=(64, 64))
    (path / "c/0/0").write_bytes(numcodecs.Zstd().encode(bytes(1 << 27)))


def zarr_blosc(path: Path) -> None:
    zarr.create_array(path, data=np.ones((64, 64), np.uint8), chunks=(64, 64), compressors=zarr.codecs.BloscCodec())
    (path / "c/0/0").write_bytes(numcodecs.Blosc("zstd").encode(bytes(1 << 27)))


def zarr_gzip(path: Path) -> None:
    zarr.create_array(path, data=np.ones((64, 64), np.uint8), chunks=(64, 64), compressors=zarr.codecs.GzipCodec())
    (path / "c/0/0").write_bytes(numcodecs.GZip(9).encode(bytes(1 << 27)))


BOMBS: list[tuple[Callable[[Path], None], str]] = [
    (huge, ".tif"),
    (huge_tile, ".tif"),
    (huge_strip, ".tif"),
    (loop, ".tif"),
    (million_pages, ".tif"),
    (long_tables, ".tif"),
    (many_planes, ".tif"),
    (entities, ".tif"),
    (lying_shape, ".tif"),
    (jpeg_in_tile, ".tif"),
    (lying_npy, ".npy"),
    (npy_of_objects, ".npy"),
    (jpeg2000, ".jp2"),
    (jpeg2000, ".j2k"),
    (zarr_chunk, ".zarr"),
    (zarr_pages, ".zarr"),
    (zarr_empty, ".zarr"),
    (zarr_one_chunk, ".zarr"),
    (sparse, ".tif"),
    (zarr_zstd, ".zarr"),
    (zarr_blosc, ".zarr"),
    (zarr_gzip, ".zarr"),
]

SCRIPT = """
import sys, time
from pathlib import Path
import tifffile, zarr, imagecodecs, rasterio, pydicom.pixels, numpy
from selfseg.data.reading.formats.opening import open_pixels
from selfseg.data.reading.formats.base import Window
from selfseg.data.reading.sniffing import Damage
def peak():  # KiB; ru_maxrss would be that of the process that started this one
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
before = peak()
for name in sys.argv[1:]:
    for most in (10_000_000, None):
        start = time.perf_counter()
        try:
            file = open_pixels(Path(name), most)
            file.read(0, Window(0, 0, 16, 16))
            word = "read"
        except Damage as damage:
            word = f"{damage.reason}"
        taken = time.perf_counter() - start
        print(Path(name).name, most, word, round(taken, 2))
print("peak", peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory as Linux tells it")
def test_bombs_are_refused_in_little_memory(tmp_path: Path) -> None:
    paths = []
    for i, (write, suffix) in enumerate(BOMBS):
        path = tmp_path / f"{i:02d}-{write.__name__}{suffix}"
        write(path)
        paths.append(path)
    done = subprocess.run([sys.executable, "-c", SCRIPT, *map(str, paths)], capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    refused = {(name, most) for name, most, word, _ in lines[:-1] if word != "read"}
    for path in paths:
        assert (path.name, "10000000") in refused, done.stdout
        assert (path.name, "None") in refused, done.stdout
    assert all(float(taken) < 10 for *_, taken in lines[:-1]), done.stdout
    assert int(lines[-1][1]) < 100_000, done.stdout  # KiB


def test_a_deflate_bomb_gives_no_more_than_its_tile(tmp_path: Path) -> None:
    deflated(tmp_path / "a.tif")
    file = open_pixels(tmp_path / "a.tif", None)
    try:
        assert file.read().shape == (64, 64, 1)
    except Damage:
        pass


@pytest.mark.parametrize(("write", "suffix"), [(huge, ".tif"), (loop, ".tif"), (lying_npy, ".npy"), (jpeg2000, ".j2k")])
def test_reasons(tmp_path: Path, write: Callable[[Path], None], suffix: str) -> None:
    write(tmp_path / f"a{suffix}")
    with pytest.raises(Damage) as caught:
        open_pixels(tmp_path / f"a{suffix}", 10_000_000)
    assert caught.value.reason == ("unreadable" if write is loop else "too-large")
    assert caught.value.detail
