"""Rasters of any size: memory, seams, speed, and a call that is killed and repeated.

    python benchmarks/rasters.py RUN IMAGES WORK [--width 30000] [--height 20000]

RUN is trained and clustered, with names for its clusters (`selfseg name`), so that both `segment` and `apply` can be
measured. A raster is made of the photographs in IMAGES, enlarged twice and side by side; then

    whole     selfseg segment and selfseg apply: peak memory, seconds a megapixel
    killed    the same segment call, killed with -9 at a third and at two thirds and repeated: the same file?
    shifted   a part of the raster that begins elsewhere, so that its windows lie elsewhere: how many pixels agree?
    small     as many of the photographs, enlarged as much, as files of their own: seconds a megapixel

The result goes to benchmarks/results/rasters.json.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from selfseg.collection.large.mosaic import Mosaic
from selfseg.collection.opening import load

HERE = Path(__file__).resolve().parent
TILE = 256
ZOOM = 2


def bands(paths: list[Path], height: int, width: int) -> Iterator[NDArray[np.uint8]]:
    """Rows of photographs, all of the first one's size."""
    first = cv2.imread(str(paths[0]))
    h, w = first.shape[0] * ZOOM, first.shape[1] * ZOOM
    number = 0
    for y in range(0, height, h):
        row = []
        for _ in range(0, width, w):
            image = cv2.imread(str(paths[number % len(paths)]))[..., ::-1]
            number += 1
            row.append(cv2.resize(image, (w, h), interpolation=cv2.INTER_CUBIC))
        yield np.concatenate(row, axis=1)[: min(h, height - y), :width]


def make_raster(target: Path, paths: list[Path], height: int, width: int) -> None:
    """A tiled BigTIFF of photographs."""

    def tiles() -> Iterator[NDArray[np.uint8]]:
        waiting, done = np.zeros((0, width, 3), np.uint8), 0
        for band in bands(paths, height, width):
            waiting = np.concatenate([waiting, band])
            while len(waiting) >= TILE or (done + len(waiting) == height and len(waiting)):
                now, waiting = waiting[:TILE], waiting[TILE:]
                done += len(now)
                padded = np.zeros((TILE, -(-width // TILE) * TILE, 3), np.uint8)
                padded[: len(now), :width] = now
                for x in range(0, padded.shape[1], TILE):
                    yield np.ascontiguousarray(padded[:, x : x + TILE])

    with tifffile.TiffWriter(target, bigtiff=True) as file:
        shape = (height, width, 3)
        file.write(
            tiles(),
            shape=shape,
            dtype=np.uint8,
            tile=(TILE, TILE),
            compression="zlib",
            photometric="rgb",
            metadata=None,
        )


def selfseg(*words: str, megapixels: float = math.nan) -> dict[str, float]:
    """Run a command: seconds of a clock and of the processor (less changed by other work), the peak of memory."""
    started = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "selfseg", *words])
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"selfseg {' '.join(words)} ended with status {status}")
    seconds, processor = time.perf_counter() - started, usage.ru_utime + usage.ru_stime
    return {
        "seconds": seconds,
        "seconds_per_megapixel": seconds / megapixels,
        "processor_seconds_per_megapixel": processor / megapixels,
        "peak_gib": usage.ru_maxrss / 2**20,
    }


def digest(path: Path) -> str:
    """Of a file."""
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def kill_at(words: list[str], parts: Path, count: int) -> None:
    """Run a command and kill it as soon as so many bands of its map are there."""
    child = subprocess.Popen([sys.executable, "-m", "selfseg", *words])
    while child.poll() is None and len(list(parts.glob("band*.npz"))) < count:
        time.sleep(0.2)
    child.send_signal(signal.SIGKILL)
    child.wait()


def agreement(whole: Path, part: Path, top: int, left: int, margin: int) -> float:
    """The share of the pixels of a part, without a margin, that have the same label as in the whole map."""
    found, where = tifffile.imread(part), tifffile.imread(whole, key=0)
    height, width = found.shape
    same = where[top : top + height, left : left + width] == found
    return float(same[margin:-margin, margin:-margin].mean())


def changes_at(path: Path, mosaic: Mosaic) -> dict[str, float]:
    """How often the label changes from a column of pixels to the next: where windows begin, and everywhere.

    With a seam it would change more often where they begin.
    """
    found = tifffile.imread(path, key=0)
    changes = (found[:, 1:] != found[:, :-1]).mean(0)
    begin = [column * mosaic.cell - 1 for column in mosaic.columns if 0 < column * mosaic.cell < found.shape[1]]
    return {"where windows begin": float(changes[begin].mean()), "everywhere": float(changes.mean())}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--width", type=int, default=30_000)
    parser.add_argument("--height", type=int, default=20_000)
    parser.add_argument("-k", type=int, default=27)
    parser.add_argument("--part", type=int, default=8000, help="side of the part that is looked at again, in px")
    arguments = parser.parse_args()
    run, work, height, width = arguments.run, arguments.work, arguments.height, arguments.width
    paths = sorted(path for path in arguments.images.iterdir() if path.suffix == ".jpg")
    raster = work / "raster" / "raster.tif"
    raster.parent.mkdir(parents=True, exist_ok=True)
    if not raster.exists():
        make_raster(raster, paths, height, width)
    megapixels = height * width / 1e6
    result: dict[str, Any] = {"width": width, "height": height, "file_mb": round(raster.stat().st_size / 1e6)}

    segment = ["segment", str(run), str(raster.parent), "-k", str(arguments.k)]
    result["segment"] = selfseg(*segment, "--out", str(work / "segment"), megapixels=megapixels)
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    apply = ["apply", str(run), str(raster.parent)]
    result["apply"] = selfseg(*apply, "--out", str(work / "apply"), megapixels=megapixels)
    sys.stdout.write(json.dumps(result) + "\n")

    made = work / "segment" / "index" / "raster.tif"
    again = work / "killed" / "index" / "raster.tif"
    for share in (1, 2):
        windows = height * 2 // 1024
        kill_at([*segment, "--out", str(work / "killed")], again.with_name("raster.tif.parts"), windows * share // 3)
    selfseg(*segment, "--out", str(work / "killed"))
    result["killed_twice_same_file"] = digest(made) == digest(again)

    side = min(arguments.part, height, width)
    mosaic = Mosaic.of(load(run, "cpu", window=1024), (height, width))
    unit = mosaic.cell * mosaic.phase  # windows begin at multiples of it, in a map of the whole as of the part
    top, left = 5 * unit, 11 * unit
    result["label_changes"] = changes_at(made, mosaic)
    part = work / "part" / "part.tif"
    part.parent.mkdir(exist_ok=True)
    pixels = tifffile.imread(raster, selection=(slice(top, top + side), slice(left, left + side), slice(None)))
    tifffile.imwrite(part, pixels, tile=(TILE, TILE), compression="zlib", photometric="rgb")
    words = ["segment", str(run), str(part.parent), "-k", str(arguments.k), "--window", "1024"]
    selfseg(*words, "--out", str(work / "shifted"))
    result["shifted_agreement"] = agreement(made, work / "shifted" / "index" / "part.tif", top, left, 1024)

    small = work / "small"
    small.mkdir(exist_ok=True)
    for number, path in enumerate(paths[:100]):
        image = cv2.imread(str(path))
        cv2.imwrite(str(small / f"{number:03}.png"), cv2.resize(image, None, fx=ZOOM, fy=ZOOM))
    few = sum(cv2.imread(str(path)).shape[0] * cv2.imread(str(path)).shape[1] for path in small.iterdir()) / 1e6
    words = ["segment", str(run), str(small), "-k", str(arguments.k)]
    result["small"] = selfseg(*words, "--out", str(work / "small_out"), megapixels=few)
    result["date"] = datetime.date.today().isoformat()
    result["command"] = " ".join(sys.argv[1:])
    (HERE / "results" / "rasters.json").write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
