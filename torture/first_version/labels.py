"""Faults of labels and of what is measured with them."""

from __future__ import annotations

import json
import shutil
from typing import Any

import numpy as np
from PIL import Image

from torture.first_version.bench import Bench, Done, Seen, fault, refused

RESULTS = "tests/evaluation/measure/test_results.py"
MEASURE = ("--protocols", "linear", "--device", "cpu", "--seeds", "1")


def _evaluate(bench: Bench, data: object) -> Done:
    return bench.call("evaluate", bench.run(), data, *MEASURE)


def _first_line(done: Done, *words: str) -> Seen:
    """A result that means little must say so before its first number."""
    if done.crashed or done.code:
        return Seen(None, done.crashed or done.last)
    text = done.words.lower()
    found = [text.find(word) for word in words]
    table = text.find("| run |") if "| run |" in text else text.find("miou")
    told = all(at >= 0 for at in found) and (table < 0 or max(found) < table)
    return Seen(not told, done.words[:160])


@fault(
    "binary masks of 0 and 255 give mIoU 1.000",
    "tests/data/labelled/datasets/test_folders.py::test_0_and_255_with_names_are_asked_for",
)
def _binary(bench: Bench) -> Seen:
    done = _evaluate(bench, bench.labelled(factor=255))
    seen = refused(done, "0 and 255")
    return Seen(True, f"exit 0, {done.words[:150]}") if done.code == 0 else seen


@fault(
    "a named class has not one pixel, and nothing says so",
    f"{RESULTS}::test_a_result_says_first_what_makes_it_mean_little",
)
def _absent(bench: Bench) -> Seen:
    return _first_line(_evaluate(bench, bench.labelled("background\nroad\nunicorn\n")), "unicorn")


@fault("more than half is void, and nothing says so", f"{RESULTS}::test_a_result_says_first_what_makes_it_mean_little")
def _half_void(bench: Bench) -> Seen:
    def void(label: Any) -> Any:
        label[:, 30:] = 255
        return label

    return _first_line(_evaluate(bench, bench.labelled(val=void)), "void")


def _all_void(bench: Bench) -> object:
    return bench.labelled(val=lambda label: np.full_like(label, 255))


@fault(
    "`evaluate`: a split whose labels are all void has mIoU 0.0, exit 0",
    f"{RESULTS}::test_a_split_whose_labels_are_all_void_has_no_result",
)
def _void(bench: Bench) -> Seen:
    return refused(_evaluate(bench, _all_void(bench)), "void")


@fault("`compare`: the same", f"{RESULTS}::test_a_split_whose_labels_are_all_void_has_no_result")
def _void_compared(bench: Bench) -> Seen:
    data = _all_void(bench)
    return refused(bench.call("compare", bench.run(), data, "--out", "out", *MEASURE), "void")


@fault(
    "`data`: of the same folder it says that all is there",
    "tests/collection/test_check.py::test_a_split_that_is_all_void_is_told",
)
def _void_checked(bench: Bench) -> Seen:
    done = bench.call("data", _all_void(bench), "--sheet", "sheet.png")
    if done.crashed:
        return Seen(True, done.crashed)
    return Seen(done.code == 0, f"exit {done.code}: {done.words[-150:]}")


@fault(
    "classes.txt with `-1 a`, `0 b` counts as two classes",
    "tests/data/labelled/test_classes_file.py::test_numbers_below_0_are_no_names",
)
def _below_0(bench: Bench) -> Seen:
    return refused(_evaluate(bench, bench.labelled("-1 a\n0 b\n")), "-1")


@fault(
    "an image that EXIF rotates and a label that isn't: only that sizes differ",
    "tests/data/labelled/test_catalog.py::test_labels_on_the_pixels_as_they_are_stored_are_turned_with_them",
)
def _rotated(bench: Bench) -> Seen:
    data = bench.labelled()
    path = data / "val" / "images" / "val0.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path.with_suffix(".jpg"), exif=exif)
    path.unlink()
    done = _evaluate(bench, data)
    if done.crashed or done.code == 0:
        return Seen(None, done.crashed or "exit 0")
    return Seen(not ("exif" in done.words.lower() and "unrotated" in done.words.lower()), done.last)


@fault(
    "links in names of classes go into Markdown tables as they are",
    f"{RESULTS}::test_names_make_no_links_and_no_code_of_a_table",
)
def _names(bench: Bench) -> Seen:
    hostile = "[road](javascript:alert())"
    run, data = bench.run(), bench.labelled(f"background\n{hostile}\n")
    done = bench.call("compare", run, data, "--out", "out", *MEASURE, limit=200)
    tables = list((bench.work / "out").glob("*.md"))
    if done.code or not tables:
        return Seen(None, done.crashed or done.last)
    raw = [table.name for table in tables if hostile in table.read_text()]
    return Seen(bool(raw), f"raw in {', '.join(raw)}" if raw else "escaped")


def _coco(bench: Bench, **changed: Any) -> object:
    """A folder in COCO's layout."""
    root = bench.work / "coco"
    (root / "annotations").mkdir(parents=True)
    photos = bench.work / "photos"
    for split in ("train2017", "val2017"):
        shutil.copytree(photos, root / split)
        box = {"bbox": [10, 24, 26, 28], "area": 728, "iscrowd": 0, "category_id": 1}
        outline = [[10, 24, 36, 24, 36, 52, 10, 52]]
        content: dict[str, Any] = {
            "images": [{"id": n + 1, "file_name": f"{n}.png", "height": 64, "width": 96} for n in range(2)],
            "categories": [{"id": 1, "name": "thing"}],
            "annotations": [{**box, "id": n + 1, "image_id": n + 1, "segmentation": outline} for n in range(2)],
        }
        for kind, (place, value) in changed.items():
            content["annotations" if kind == "segmentation" else "images"][place][kind] = value
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


TRANSFER = ("--device", "cpu", "--steps", "1", "--batch-size", "1", "--workers", "0")


@fault(
    "`transfer coco-1x` with a polygon of four numbers: TypeError",
    "tests/data/labelled/test_coco_json.py::test_an_annotation_that_can_not_be_used",
    gone=True,
)
def _polygon(bench: Bench) -> Seen:
    bench.run()
    data = _coco(bench, segmentation=(0, [[10, 24, 36, 52]]))
    return refused(bench.call("transfer", "coco-1x", "random", data, "--out", "out", *TRANSFER, limit=30), "polygon")


@fault(
    "COCO JSON: `../` in file_name reads outside of the folder",
    "tests/data/labelled/test_coco_json.py::test_names_that_lead_elsewhere",
    gone=True,
)
def _outside(bench: Bench) -> Seen:
    bench.run()
    data = _coco(bench, file_name=(0, "../../photos/0.png"))
    return refused(bench.call("transfer", "coco-1x", "random", data, "--out", "out", *TRANSFER, limit=30), "leads out")
