"""Damaged and odd files: each is read right, or skipped, counted and listed with a reason; too many stop the run."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selfseg.data.reading.ahead import track_images
from selfseg.data.reading.images import REASONS, ImageCollection
from selfseg.data.reading.listing import list_images
from selfseg.data.reading.skipping import SkipLog, scan
from selfseg.data.reading.windows import as_measured
from selfseg.errors import BadImage, SelfsegError, TooManyBadImages
from torture.rows import Row

PROMISE = "every damaged or odd file is read right, or skipped, counted and listed with a reason"

READ, EITHER = "read", "either"
LOSSY = 14.0
"""The most that the mean of a lossy copy's pixels may differ from the original."""


@dataclass(frozen=True)
class Case:
    """A file.

    Attributes:
        name: of the file.
        data: its bytes.
        wanted: "read": its pixels are `picture`'s; "either": or it is skipped; else the reason for which it is skipped.
        loose: whether its pixels are turned, or its colours others, so that they aren't compared.
    """

    name: str
    data: bytes
    wanted: str
    loose: bool = False


def picture(seed: int = 0) -> NDArray[np.uint8]:
    """(48, 64, 3) smooth colours, which lossy formats keep."""
    y, x = np.mgrid[0:48, 0:64]
    channels = [127 + 90 * np.sin((x * a + y * b + seed) / 15) for a, b in ((1, 0.5), (0.3, 1), (0.7, -0.6))]
    return np.stack(channels, 2).astype(np.uint8)


def saved(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    stream = io.BytesIO()
    (image or Image.fromarray(picture())).save(stream, kind, **options)  # type: ignore[arg-type]
    return stream.getvalue()


FORMATS = {
    "jpg": ("JPEG", {"quality": 95}),
    "png": ("PNG", {}),
    "bmp": ("BMP", {}),
    "tif": ("TIFF", {}),
    "webp": ("WEBP", {"lossless": True}),
    "ppm": ("PPM", {}),
    "jp2": ("JPEG2000", {}),
    "gif": ("GIF", {}),
}


def cases() -> list[Case]:
    """All of them."""
    found: list[Case] = []
    rng = np.random.default_rng(20)
    for suffix, (kind, options) in FORMATS.items():
        data = saved(kind, **options)
        found += [
            Case(f"whole.{suffix}", data, READ, loose=kind == "GIF"),
            Case(f"UPPER.{suffix.upper()}", data, READ, loose=kind == "GIF"),
            Case(f"empty.{suffix}", b"", "empty"),
            Case(f"byte.{suffix}", data[:1], EITHER if kind == "WEBP" else "truncated"),
            Case(f"head.{suffix}", data[:20], EITHER),
            Case(f"half.{suffix}", data[: len(data) // 2], EITHER if kind in ("GIF", "JPEG2000") else "truncated"),
            Case(f"nearly.{suffix}", data[:-40], EITHER),
            Case(f"trailing.{suffix}", data + b"\0" * 3000, EITHER if kind in ("GIF", "JPEG2000") else READ),
            Case(f"other.{suffix}", saved("PNG" if kind != "PNG" else "JPEG"), "wrong-type"),
            Case(f"noise.{suffix}", rng.bytes(3000), "wrong-type"),
            Case(f"zeros.{suffix}", bytes(3000), "wrong-type"),
        ]
        for number in range(3):
            harmed = bytearray(data)
            place = int(rng.integers(len(data) // 3, len(data) - 40))
            harmed[place : place + 24] = rng.bytes(24)
            found.append(Case(f"harmed{number}.{suffix}", bytes(harmed), EITHER, loose=True))
    return found + _pngs() + _jpegs() + _others() + _names()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _pngs() -> list[Case]:
    plain = saved("PNG")
    at = plain.index(b"IDAT") - 4
    text = plain[:33] + struct.pack(">I", 4) + b"tEXt" + b"a\0bc" + b"\0\0\0\0" + plain[33:]
    flipped = bytearray(plain)
    flipped[at + 40] ^= 255
    frames = [Image.fromarray(picture(seed)) for seed in (0, 9)]
    deep = Image.fromarray(picture()[..., 0].astype(np.uint16) * 257)
    return [
        Case("checksum-of-pixels.png", bytes(flipped), "unreadable"),
        Case("checksum-of-text.png", text, EITHER),
        Case("no-end.png", plain[:-12], "truncated"),
        Case("no-pixels.png", plain[:33] + plain[-12:], EITHER),
        Case("profile.png", plain[:33] + _chunk(b"iCCP", b"broken") + plain[33:], EITHER),
        Case("animated.png", saved("PNG", save_all=True, append_images=[frames[1]]), "animated"),
        Case("sixteen.png", saved("PNG", deep), READ, loose=True),
        Case("one-bit.png", saved("PNG", Image.fromarray(picture()[..., 0]).convert("1")), READ, loose=True),
        Case("palette.png", saved("PNG", frames[0].quantize(64)), READ, loose=True),
        Case("alpha.png", saved("PNG", frames[0].convert("RGBA")), READ),
        Case("gray-alpha.png", saved("PNG", frames[0].convert("LA")), READ, loose=True),
        Case("small.png", saved("PNG", Image.new("RGB", (7, 100))), "too-small"),
    ]


def _jpegs() -> list[Case]:
    plain = Image.fromarray(picture())
    found = [
        Case("progressive.jpg", saved("JPEG", progressive=True, quality=95), READ),
        Case("cmyk.jpg", saved("JPEG", plain.convert("CMYK"), quality=95), READ, loose=True),
        Case("gray.jpg", saved("JPEG", plain.convert("L"), quality=95), READ, loose=True),
        Case("twice.jpg", saved("JPEG", quality=95) * 2, READ),
        Case("no-end.jpg", saved("JPEG")[:-2], "truncated"),
        Case("closed-again.jpg", saved("JPEG")[: len(saved("JPEG")) // 2] + b"\xff\xd9", "truncated"),
        Case("start-only.jpg", b"\xff\xd8\xff\xd9", EITHER),
        Case("broken-exif.jpg", saved("JPEG", quality=95, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + bytes(30)), READ),
    ]
    for turned in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turned
        found.append(Case(f"turned{turned}.jpg", saved("JPEG", exif=exif, quality=95), READ, loose=turned > 1))
    return found


def _others() -> list[Case]:
    pages = [Image.fromarray(picture(seed)) for seed in (0, 9)]
    floats = picture()[..., 0].astype(np.float32) / 255
    floats[3:9, 4:20], floats[20, 20], floats[21, 21] = np.nan, np.inf, -np.inf
    array = io.BytesIO()
    np.save(array, picture())
    objects = io.BytesIO()
    np.save(objects, np.array([{}], object))
    return [
        Case("moving.gif", saved("GIF", save_all=True, append_images=[pages[1]]), "animated"),
        Case("moving.webp", saved("WEBP", save_all=True, append_images=[pages[1]]), "animated"),
        Case("pages.tif", saved("TIFF", save_all=True, append_images=[pages[1]]), "animated"),
        Case("floats.tif", saved("TIFF", Image.fromarray(floats)), READ, loose=True),
        Case("lzw.tif", saved("TIFF", compression="tiff_lzw"), READ),
        Case("array.npy", array.getvalue(), "wrong-type"),
        Case("objects.npy", objects.getvalue(), "wrong-type"),
        Case("page.jpg", b"<!DOCTYPE html><html>404 Not Found</html>", "wrong-type"),
        Case("pointer.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "wrong-type"),
        Case("zip.png", b"PK\x03\x04" + bytes(60), "wrong-type"),
        Case("film.jpg", b"\0\0\0\x18ftypmp42" + bytes(60), "wrong-type"),
        Case("phone.jpg", b"\0\0\0\x18ftypheic" + bytes(60), "wrong-type"),
        Case("drawing.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "wrong-type"),
        Case("program.bmp", b"\x7fELF" + bytes(200), "wrong-type"),
    ]


def _names() -> list[Case]:
    data = saved("JPEG", quality=95)
    names = [
        "a b",
        "é",
        "日本",
        "😀",
        "a\nb",
        "a\tb",
        "'q'",
        '"q"',
        "a\\b",
        "%41",
        "-x",
        "[1]",
        "*",
        "a#b",
        "a..b",
        "~",
    ]
    names += [os.fsdecode(b"\xe9t\xe9"), "n" * 240, "$(id)", "<b>", "a|b", "a:b", "CON", "x.tar"]
    return [Case(f"{name}.jpg", data, READ) for name in names]


SPECIAL = ("pipe.jpg", "socket.png", "device.jpg", "self.jpg", "gone.jpg")
"""Made in the folder itself; none is a file."""


def lay_out(folder: Path, chosen: list[Case]) -> None:
    """Write the files, and what is none."""
    folder.mkdir(parents=True)
    for case in chosen:
        (folder / case.name).write_bytes(case.data)
    os.mkfifo(folder / "pipe.jpg")
    inside = os.open(folder, os.O_RDONLY)  # the name of a socket is short, whatever the folder's is
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"/proc/self/fd/{inside}/socket.png")
    os.close(inside)
    (folder / "device.jpg").symlink_to("/dev/zero")
    (folder / "self.jpg").symlink_to("self.jpg")
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "circle").symlink_to(".")
    (folder / "folder.jpg").mkdir()
    (folder / ".hidden.jpg").write_bytes(b"x")
    (folder / "Thumbs.db").write_bytes(b"x")


def run(work: Path, quick: bool) -> list[Row]:
    folder, chosen = work / "images", cases()
    lay_out(folder, chosen)
    images = list_images(folder)
    by_path = {str(folder / case.name): case for case in chosen}
    log = SkipLog(work / "skipped.jsonl", len(images), 1.0)
    usable = scan(images, log)
    pixels = dict(track_images(usable, range(len(usable)), log, "corpus", progress=False))
    read = {str(usable.paths[i]): image for i, image in pixels.items()}
    wrong = []
    original = picture().astype(float)
    for name, path in zip(images.names, map(str, images.paths), strict=True):
        case, reason = by_path.get(path), log.skipped.get(name)
        if (path in read) == (reason is not None):
            wrong.append(f"{name}: neither or both of read and skipped")
        elif reason is not None and reason not in REASONS:
            wrong.append(f"{name}: no reason {reason}")
        elif case is None:
            if reason not in ("wrong-type", "unreadable", "missing"):
                wrong.append(f"{name}: {reason}")
        elif case.wanted not in (EITHER, reason or READ):
            wrong.append(f"{name}: {reason or READ} instead of {case.wanted}")
        elif reason is None and not case.loose:
            image = read[path]
            if image.shape != original.shape or np.abs(image - original).mean() > LOSSY:
                wrong.append(f"{name}: other pixels")
    listed = [json.loads(line) for line in (work / "skipped.jsonl").read_text(encoding="utf-8").splitlines()]
    named = {entry["name"]: entry["reason"] for entry in listed}
    count = len(chosen) + len(SPECIAL)
    rows = [
        Row("read right, or skipped for the right reason", count, not wrong and len(images) == count, "; ".join(wrong)),
        Row("counted and listed with the reason", len(log.skipped), named == log.skipped, f"{len(named)} are skipped"),
        _stops(images),
    ]
    rows += [_changing(work / how, how) for how in ("vanish", "change", "lock")]
    if not quick:
        rows.append(_measured(work, images))
    return rows


def _stops(images: ImageCollection) -> Row:
    """At the share that is set, and not before."""
    wrong = []
    bad = SkipLog(None, len(images), 1.0)
    scan(images, bad)
    share = len(bad.skipped) / len(images)
    for limit, stops in ((share - 0.01, True), (0.05, True), (share + 0.001, False)):
        try:
            scan(images, SkipLog(None, len(images), limit))
            stopped = False
        except TooManyBadImages as error:
            stopped = "Repair or remove them" in str(error)
        if stopped != stops:
            wrong.append(f"at {limit:.3f}")
    return Row("above the share that was set it stops, below it does not", 3, not wrong, "; ".join(wrong))


def _changing(work: Path, how: str) -> Row:
    """Files that vanish, change or can't be read any more after the first look, in the middle of a pass."""
    work.mkdir()
    for i in range(30):
        (work / f"{i:02d}.jpg").write_bytes(saved("JPEG", Image.fromarray(picture(i)), quality=95))
    straight = {i: image for i, image in enumerate(map(list_images(work).read, range(30)))}
    images = list_images(work)
    log = SkipLog(None, 30, 1.0)
    usable = scan(images, log)
    found: dict[int, NDArray[np.uint8]] = {}
    harmed = range(20, 30)
    for i, image in track_images(usable, range(30), log, "corpus", progress=False):
        found[i] = image
        if i == 2:
            for victim in harmed:
                path = work / f"{victim:02d}.jpg"
                if how == "vanish":
                    path.unlink()
                elif how == "change":
                    path.write_bytes(b"\xff\xd8\xff" + bytes(100))
                else:
                    path.unlink()
                    os.mkfifo(path)
    same = all(np.array_equal(image, straight[i]) for i, image in found.items())
    lost = set(range(30)) - set(found)
    told = {int(name) for name in log.skipped}
    ok = same and lost == told and set(range(20)) <= set(found) and bool(lost)
    reasons = ", ".join(sorted(set(log.skipped.values())))
    return Row(f"files that {how} in the middle of a pass", len(harmed), ok, f"{len(lost)} skipped: {reasons}")


def _measured(work: Path, images: ImageCollection) -> Row:
    """The same folder read as measured images: whatever the survey makes of it, no error but ours."""
    wrong = []
    for number, words in enumerate(((), ("0",))):
        try:
            measured, _ = as_measured(images, words)
            log = SkipLog(work / f"measured{number}.jsonl", len(measured), 1.0)
            for i in range(len(measured)):
                try:
                    measured.check(i)
                    measured.read(i)
                except BadImage as error:
                    log.add(measured.names[i], error.reason, error.detail)
        except SelfsegError:
            continue
        except Exception as error:
            wrong.append(f"{words}: {type(error).__name__}: {error}")
    shutil.rmtree(work / "images")
    return Row("read as measured images", 2 * len(images), not wrong, "; ".join(wrong))
