"""Faults of what images are taken from: files that are none, odd names, thin pictures, lists."""

from __future__ import annotations

import codecs
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

from torture.first_version.bench import Bench, Seen, fault, passed

ODD = os.fsdecode(b"photo\xe9.png")


@fault(
    "a link that points to itself: traceback",
    "tests/storage/test_regular.py::test_a_folder_of_odd_things_is_listed_and_each_says_what_it_is",
)
def _link(bench: Bench) -> Seen:
    run = bench.run()
    (bench.work / "photos" / "self.jpg").symlink_to("self.jpg")
    done = bench.call("embed", run, "photos", "--out", "out", "--max-bad", "0.5")
    return passed(done, "skipped and listed")


@fault(
    "a pipe with an image's name: hangs",
    "tests/storage/test_regular.py::test_pipes_sockets_and_devices_are_no_files",
)
def _pipe(bench: Bench) -> Seen:
    run = bench.run()
    os.mkfifo(bench.work / "photos" / "pipe.png")
    return passed(
        bench.call("embed", run, "photos", "--out", "out", "--max-bad", "0.5", limit=20), "skipped and listed"
    )


@fault(
    "a thin image of 3000x8 px takes all memory",
    "tests/data/reading/test_images.py::test_a_thin_image_is_looked_at_with_fewer_pixels",
)
def _thin(bench: Bench) -> Seen:
    run = bench.run()
    path = run / "embedder" / "embedder.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"resolution": 256}))
    (bench.work / "thin").mkdir()
    Image.fromarray(np.full((8, 3000, 3), 99, np.uint8)).save(bench.work / "thin" / "thin.png")
    done = bench.call("embed", run, "thin", "--out", "out", data=3072, limit=120)
    seen = passed(done, f"{done.memory} MiB, {done.seconds:.0f} s")
    return Seen(True, f"more than 3 GiB; {seen.text}") if seen.fault else seen


@fault(
    "a file name that is not UTF-8: `embed` computes all, then UnicodeEncodeError",
    "tests/storage/test_files.py::test_names_that_are_no_utf_8_are_kept_in_json",
)
def _embed_name(bench: Bench) -> Seen:
    run = bench.run()
    (bench.work / "photos" / "0.png").rename(bench.work / "photos" / ODD)
    return passed(bench.call("embed", run, "photos", "--out", "out"))


@fault(
    "a file name that is not UTF-8: `report --images`",
    "tests/storage/test_files.py::test_names_that_are_no_utf_8_are_kept_in_json",
)
def _report_name(bench: Bench) -> Seen:
    run = bench.run()
    (bench.work / "photos" / "0.png").rename(bench.work / "photos" / ODD)
    return passed(bench.call("report", run, "--images", "photos"))


@fault(
    "images with unknown extensions are passed over without a word",
    "tests/data/test_odd_folder.py::test_what_is_refused_is_listed_with_its_reason_and_kinds_are_told",
    gone=True,
)
def _extensions(bench: Bench) -> Seen:
    run = bench.run()
    (bench.work / "photos" / "0.png").rename(bench.work / "photos" / "0.cr3")
    done = bench.call("embed", run, "photos", "--out", "out")
    return Seen(True if done.code == 0 and "cr3" not in done.said else False if done.code == 0 else None, done.words)


def _listed(bench: Bench, content: bytes) -> Seen:
    run = bench.run()
    (bench.work / "list.txt").write_bytes(content)
    done = bench.call("embed", run, "list.txt", "--out", "out", "--max-bad", "0.4")
    if done.crashed or done.code:
        return Seen(True, done.crashed or done.last)
    count = len(list((bench.work / "out").rglob("*.npy")))
    return Seen(count != 3, f"{count} of 3 images")


LISTED = "tests/data/reading/test_listing.py::test_lists_are_read_whatever_wrote_them"


@fault("a list with a byte order mark: its first image is missing", LISTED)
def _mark(bench: Bench) -> Seen:
    return _listed(bench, codecs.BOM_UTF8 + b"photos/0.png\r\nphotos/1.png\r\nphotos/2.png\r\n")


@fault("a list with quotes: images are missing", LISTED)
def _quotes(bench: Bench) -> Seen:
    return _listed(bench, b'"photos/0.png"\nphotos/1.png\nphotos/2.png\n')


@fault("a list with tabs: images are missing", LISTED)
def _tabs(bench: Bench) -> Seen:
    return _listed(bench, b"photos/0.png\t3\nphotos/1.png\nphotos/2.png\n")


@fault("a list with backslashes: images are missing", LISTED)
def _backslashes(bench: Bench) -> Seen:
    return _listed(bench, b"photos\\0.png\nphotos/1.png\nphotos/2.png\n")


@fault("a list with comments: images are missing", LISTED, gone=True)
def _comments(bench: Bench) -> Seen:
    return _listed(bench, b"# mine\nphotos/0.png\nphotos/1.png\nphotos/2.png\n")


@fault(
    "index PNGs of `segment` are gray: viewers show black",
    "tests/drawing/test_palette_png.py::test_values_survive_and_viewers_show_colours",
    gone=True,
)
def _palette(bench: Bench) -> Seen:
    run = bench.run()
    done = bench.call("segment", run, "photos", "--out", "out", "-k", "3")
    files: list[Path] = sorted((bench.work / "out" / "index").glob("*.png"))
    if done.code or not files:
        return Seen(None, done.last)
    modes = {Image.open(file).mode for file in files}
    return Seen(modes != {"P"}, f"mode {', '.join(modes)}")
