"""Small files that claim to be huge, or unpack to it: refused before their memory is taken.

All are read in one process of its own, whose peak of resident memory is reset before each; what a bomb may take is
`MOST` above what the process holds.
"""

from __future__ import annotations

import io
import json
import os
import resource
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from torture.rows import Row

PROMISE = "files that claim to be huge are refused before memory is taken"

MOST = 96 << 20
"""Bytes that reading a bomb may take, at the most."""

SECONDS = 20
"""That it may last; on a machine that does other work, too."""


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *further: bytes, data: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    image = chunk(b"IDAT", data or zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(further) + image + chunk(b"IEND", b"")


def tiff(*entries: tuple[int, int, int, int], next_directory: int = 0, tail: bytes = b"") -> bytes:
    """A little-endian TIFF of one directory; entries are (tag, type, count, value)."""
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", next_directory) + tail


def _strip(width: int, height: int, compression: int, count: int, offset: int = 200) -> list[tuple[int, int, int, int]]:
    return [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, compression),
        (262, 3, 1, 1),
        (273, 4, 1, offset),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, count),
    ]


def zeros(size: int) -> bytes:
    """So many zeros as zlib packs them, a thousandth of their size."""
    packer, found = zlib.compressobj(9), []
    for _ in range(size >> 20):
        found.append(packer.compress(bytes(1 << 20)))
    return b"".join(found) + packer.flush()


def bombs(work: Path, size: int) -> list[Path]:
    """Write them, those that unpack to `size` bytes; each is a file that its name says how to read."""
    work.mkdir(parents=True, exist_ok=True)
    packed = zeros(size)
    jpeg = io.BytesIO()
    Image.new("RGB", (16, 16)).save(jpeg, "JPEG")
    wide = bytearray(jpeg.getvalue())
    at = wide.index(b"\xff\xc0") + 5
    wide[at : at + 4] = struct.pack(">HH", 65500, 65500)
    exif = b"Exif\0\0" + tiff((0x010E, 2, 0xFFFFFFFF, 8), (0x8769, 4, 1, 8), next_directory=8)
    with_exif = jpeg.getvalue()[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg.getvalue()[2:]
    text = b"text\0\0" + packed
    small = tiff(*_strip(64, 64, 8, len(packed)), tail=b"")
    header = str({"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**6)}).encode()
    files: dict[str, bytes] = {
        "sides.png": png(1_000_000, 1_000_000),
        "text.png": png(16, 16, chunk(b"zTXt", text), data=zlib.compress(bytes(16 * 49))),
        "itext.png": png(16, 16, chunk(b"iTXt", b"t\0\1\0\0\0" + packed), data=zlib.compress(bytes(16 * 49))),
        "profile.png": png(16, 16, chunk(b"iCCP", b"p\0\0" + packed), data=zlib.compress(bytes(16 * 49))),
        "pixels.png": png(16, 16, data=packed),
        "exif.png": png(16, 16, chunk(b"eXIf", exif[6:]), data=zlib.compress(bytes(16 * 49))),
        "length.png": b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 0x7FFFFFFF) + b"IHDR" + bytes(40),
        "sides.jpg": bytes(wide),
        "exif.jpg": with_exif,
        "sides.gif": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"," + bytes(20) + b";",
        "sides.bmp": b"BM" + struct.pack("<IHHIIiiHH24x", 90, 0, 0, 54, 40, 1 << 30, 1 << 30, 1, 24),
        "sides.ppm": b"P6\n999999 999999\n255\n" + bytes(64),
        "digits.pgm": b"P5\n" + b"9" * 100_000 + b" 9\n255\n",
        "sides.webp": b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\0" * 4 + b"\xff" * 6,
        "sides.tif": tiff(*_strip(1 << 31, 1 << 31, 1, 64)),
        "strip.tif": small + bytes(200 - len(small)) + packed,
        "count.tif": tiff(*_strip(64, 64, 1, 64)[:-1], (279, 4, 0xFFFFFFFF, 8)),
        "words.tif": tiff(*_strip(64, 64, 1, 64), (270, 2, 0xFFFFFFFF, 8)),
        "circle.tif": tiff(*_strip(64, 64, 1, 64), next_directory=8),
        "lzw.tif": tiff(*_strip(100_000, 100_000, 5, 64)),
        "shape.npy": b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header,
        "header.npy": b"\x93NUMPY\x02\0" + struct.pack("<I", 0xFFFFFFF0) + header,
        "length.dcm": bytes(128) + b"DICM" + b"\x02\0\x10\0UN\0\0" + struct.pack("<I", 0xFFFFFFF0),
        "nested.json": b'{"images":' + b"[" * 200_000,
        "digits.json": b'{"images": [' + b"1" * 1_000_000 + b'], "categories": [1], "annotations": []}',
        "sides.json": json.dumps(_coco({"size": [10**9, 10**9], "counts": [10**18]}, 10**9)).encode(),
        "runs.json": json.dumps(_coco({"size": [64, 64], "counts": [0, 10**15]}, 64)).encode(),
        "text-runs.json": json.dumps(_coco({"size": [64, 64], "counts": "o" * 100_000}, 64)).encode(),
        "far.json": json.dumps(_coco([[0, 0, 1e300, 0, 1e300, 1e300]], 64)).encode(),
        "nested.yaml": b"names: " + b"[" * 100_000,
        "aliases.yaml": b"a: &a [x,x,x,x,x,x,x,x,x]\n"
        + b"".join(b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(12))
        + b"names: *m\n",
    }
    for name, data in files.items():
        (work / name).write_bytes(data)
    for name, head in (("long.jpg", jpeg.getvalue()), ("long.png", png(16, 16)), ("long.npy", files["shape.npy"])):
        (work / name).write_bytes(head)
        os.truncate(work / name, 20 << 30)  # a file with a hole: no disk is used
    for name in ("long.txt", "classes.txt"):
        (work / name).write_bytes(b"a.jpg\n")
        os.truncate(work / name, 20 << 30)
    with zipfile.ZipFile(work / "many.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", png(16, 16, data=packed))
        with archive.open("b.jpg", "w") as member:
            for _ in range(size >> 20):
                member.write(bytes(1 << 20))
    data = bytearray((work / "many.zip").read_bytes())
    (work / "sizes.zip").write_bytes(data.replace(struct.pack("<I", size), struct.pack("<I", 1000)))
    with tarfile.open(work / "member.tar", "w") as shard:
        info = tarfile.TarInfo("a.jpg")
        shard.addfile(info)
        info = tarfile.TarInfo("b.jpg")
        info.size = 8 << 40
        shard.fileobj.write(info.tobuf(tarfile.GNU_FORMAT))  # type: ignore[union-attr]
    with tarfile.open(work / "names.tar", "w") as shard:
        info = tarfile.TarInfo("././@LongLink")
        info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
        shard.fileobj.write(info.tobuf(tarfile.GNU_FORMAT))  # type: ignore[union-attr]
    for name, (height, width) in (("thin.png", (8, 20_000)), ("thinner.png", (300_000, 8))):
        Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(work / name)
    return sorted(work.iterdir())


def _coco(outline: object, side: int) -> dict[str, object]:
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "height": side, "width": side}],
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": outline}],
    }


def read(path: Path) -> str:
    """Read one as the verbs would; "read", or the error's first words."""
    from selfseg.data.labelled.catalog import find_images
    from selfseg.data.labelled.classes_file import read_classes
    from selfseg.data.labelled.coco_json import read_coco
    from selfseg.data.labelled.labels import upright_size
    from selfseg.data.labelled.values import NoValues, read_values
    from selfseg.data.reading.formats.opening import open_pixels
    from selfseg.data.reading.images import check_image, read_image
    from selfseg.data.reading.listing import list_images
    from selfseg.data.reading.sniffing import Damage
    from selfseg.errors import SelfsegError
    from selfseg.exchange.any_labels import find_labels
    from selfseg.models.inputs.preparing import prepare_image

    said: list[str] = []

    def attempt(call: Callable[[], object]) -> None:
        try:
            call()
            said.append("read")
        except (SelfsegError, Damage, NoValues, OSError) as error:
            said.append(str(error).replace(str(path), path.name)[:60])

    suffix = path.suffix
    if path.name == "classes.txt":
        attempt(lambda: read_classes(path))
    elif suffix == ".txt":
        attempt(lambda: list_images(path))
    elif suffix == ".json":
        attempt(lambda: read_coco(path, path.parent))
    elif suffix == ".yaml":
        folder = path.parent / path.stem
        folder.mkdir(exist_ok=True)
        (folder / "data.yaml").write_bytes(path.read_bytes())
        from selfseg.data.labelled.catalog import parse_source

        attempt(lambda: find_labels(parse_source(folder), "train"))
    elif suffix in (".zip", ".tar"):

        def members() -> None:
            images = find_images(path if suffix == ".zip" else f"shards:{path}")
            for i in range(len(images)):
                attempt(lambda i=i: images.check(i))  # type: ignore[misc]
                attempt(lambda i=i: images.read(i))  # type: ignore[misc]

        attempt(members)
    else:
        attempt(lambda: check_image(path))
        attempt(lambda: upright_size(path))
        attempt(lambda: read_values(path) and None)
        attempt(lambda: prepare_image(read_image(path), 320, None) is None)

        def measured() -> None:
            file = open_pixels(path, None)
            try:
                if file.layout.height * file.layout.width < 1 << 20:
                    file.read()
            finally:
                file.close()

        attempt(measured)
    return "; ".join(dict.fromkeys(said))


def _memory(what: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(f"{what}:"))


def child(folder: Path) -> None:
    """Read every file of a folder, and print a line of JSON for each."""
    limit = _memory("VmSize") + (4 << 30)  # so that a bomb that goes off ends this process and not the machine
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    warm = folder.parent / "warm.png"
    for path in [warm, *sorted(folder.iterdir())]:
        Path("/proc/self/clear_refs").write_text("5")
        before, begin = _memory("VmRSS"), time.perf_counter()
        try:
            said = read(path)
        except BaseException as error:
            said = f"NOT OURS {type(error).__name__}: {error}"[:150]
        line = {"name": path.name, "said": said, "grown": _memory("VmHWM") - before}
        print(json.dumps({**line, "seconds": time.perf_counter() - begin}), flush=True)


def run(work: Path, quick: bool) -> list[Row]:
    folder = work / "bombs"
    count = len(bombs(folder, (128 if quick else 512) << 20))
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(work / "warm.png")
    root = Path(__file__).resolve().parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", f"from torture.parts.bombs import child, Path; child(Path({str(folder)!r}))"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")][1:]  # without the warm one
    wrong = [f"{line['name']}: {line['said']}" for line in lines if line["said"].startswith("NOT OURS")]
    large = [f"{line['name']}: {line['grown'] >> 20} MiB" for line in lines if line["grown"] > MOST]
    slow = [f"{line['name']}: {line['seconds']:.0f} s" for line in lines if line["seconds"] > SECONDS]
    heaviest = max(lines, key=lambda line: line["grown"], default={"name": "none", "grown": 0})
    died = "" if len(lines) == count else f"{count - len(lines)} not reached: {ended.stderr[-300:]}"
    peak = f"the most: {heaviest['grown'] >> 20} MiB, {heaviest['name']}"
    return [
        Row("each ends in an error of selfseg's, or is read", count, not wrong and not died, "; ".join([*wrong, died])),
        Row(f"each takes less than {MOST >> 20} MiB", count, not large, "; ".join(large) or peak),
        Row(f"each takes less than {SECONDS} s", count, not slow, "; ".join(slow)),
    ]
