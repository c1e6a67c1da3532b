"""Names that lead out of a folder, in everything that can hold names: nothing outside is opened, read or written.

Python's audit hook sees every file that is opened. A picture and a text lie outside of the folder that is given; what
touches them is caught, whatever comes of it.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from selfseg.data.labelled.catalog import find_images, open_labelled
from selfseg.data.labelled.coco_json import inner_path, read_coco
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.listing import list_images
from selfseg.errors import SelfsegError
from selfseg.exchange.any_labels import find_labels
from torture.rows import Row

PROMISE = "nothing outside of what was given is read or written, whatever names say"

_watched: list[tuple[Path, list[str]]] = []
_hooked = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("open", "os.listdir", "os.scandir", "os.rename", "os.remove") and _watched:
        place = arguments[0]
        if isinstance(place, str | bytes | os.PathLike):
            text = os.path.normpath(os.path.join(os.getcwd(), os.fsdecode(place)))
            for folder, touched in _watched:
                if text.startswith(str(folder) + os.sep):
                    touched.append(text)


@contextmanager
def _watch(folder: Path) -> Iterator[list[str]]:
    global _hooked
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True
    touched: list[str] = []
    _watched.append((folder, touched))
    try:
        yield touched
    finally:
        _watched.remove((folder, touched))


def picture(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (24, 32, 3), np.uint8)).save(path)


def hostile(outside: Path) -> list[str]:
    """Names that lead to the secret, or would on some system."""
    secret = str(outside / "secret.jpg")
    return [
        "../outside/secret.jpg",
        "a/../../outside/secret.jpg",
        "./../outside/secret.jpg",
        "a/b/../../../outside/secret.jpg",
        "..\\outside\\secret.jpg",
        "a\\..\\..\\outside\\secret.jpg",
        secret,
        "/" + secret,
        "C:\\outside\\secret.jpg",
        "C:secret.jpg",
        "\\\\server\\share\\secret.jpg",
        "/dev/zero",
        "/proc/self/mem",
        "..",
        ".",
        "",
        " ",
        "a.jpg\0.png",
    ]


def _refused_or_empty(call: Callable[[], object], touched: list[str]) -> str:
    """What is wrong: another error than ours, or a touched file; "" if it held."""
    try:
        call()
    except SelfsegError:
        pass
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return f"opened {touched[0]}" if touched else ""


def run(work: Path, quick: bool) -> list[Row]:
    outside, inside = work / "outside", work / "inside"
    picture(outside / "secret.jpg")
    (outside / "secret.txt").write_text("secret\n")
    picture(inside / "a.jpg")
    names = hostile(outside)
    rows = []
    with _watch(outside) as touched:
        (outside / "secret.txt").read_text()
        rows.append(Row("that the watch sees what is opened outside", 1, bool(touched)))
        for what, call in (
            ("names in COCO JSON", _coco),
            ("members of zips", _zips),
            ("members of tar shards", _shards),
            ("images.json of a run from a stranger", _manifests),
            ("LabelMe, CVAT, Datumaro, Label Studio, YOLO: where the image lies", _tools),
            ("lists of images: the names of what is written", _lists),
        ):
            wrong, tries = [], 0
            for number, name in enumerate(names):
                for attempt in call(work / f"{call.__name__}{number}", inside, name):
                    tries += 1
                    touched.clear()
                    found = _refused_or_empty(attempt, touched)
                    if found:
                        wrong.append(f"{name!r}: {found}")
            rows.append(Row(what, tries, not wrong, "; ".join(wrong[:3])))
    rows.append(_written_names(work))
    return rows


def _coco(work: Path, inside: Path, name: str) -> Iterator[Callable[[], object]]:
    content = {
        "images": [{"id": 1, "file_name": name}],  # no size: it would have to be looked up in the image
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [],
    }
    text = json.dumps(content)

    def read() -> None:
        found = read_coco(work / "a.json", inside, text=text)
        for image in found.images:
            assert not os.path.isabs(image.name), image.name
            assert ".." not in Path(image.name).parts, image.name

    yield read

    def plain() -> None:
        assert ".." not in Path(inner_path(name)).parts

    yield plain


def _zips(work: Path, inside: Path, name: str) -> Iterator[Callable[[], object]]:
    if not name.strip("."):
        return
    work.mkdir()
    for kind in ("plain", "link"):
        path = work / f"{kind}.zip"
        with zipfile.ZipFile(path, "w") as packed:
            info = zipfile.ZipInfo("x")
            info.filename = name if kind == "plain" else "link.jpg"
            if kind == "link":
                info.external_attr = 0o120777 << 16
            packed.writestr(info, (inside / "a.jpg").read_bytes() if kind == "plain" else name.encode())

        def read(path: Path = path) -> None:
            images = list_images(path)
            for i in range(len(images)):
                _check_names(images)
                images.read(i)

        yield read

        def unpacked(path: Path = path) -> None:
            open_labelled(path, "all")

        yield unpacked


def _shards(work: Path, inside: Path, name: str) -> Iterator[Callable[[], object]]:
    work.mkdir()
    for kind in (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
        path = work / f"{ord(kind)}.tar"
        with tarfile.open(path, "w") as packed:
            data = (inside / "a.jpg").read_bytes()
            info = tarfile.TarInfo(name if kind == tarfile.REGTYPE else "link.jpg")
            info.type, info.linkname = kind, "" if kind == tarfile.REGTYPE else name
            info.size = len(data) if kind == tarfile.REGTYPE else 0
            packed.addfile(info, io.BytesIO(data))

        def read(path: Path = path) -> None:
            images = find_images(f"shards:{path}", path.parent / "cache")
            _check_names(images)
            for i in range(len(images)):
                images.read(i)

        yield read


def _manifests(work: Path, inside: Path, name: str) -> Iterator[Callable[[], object]]:
    images = list_images(inside)
    for listed in ({"gone": name}, {name: "a.jpg"}, {"a": [name, "", None]}):

        def restore(listed: dict[str, Any] = listed) -> None:
            try:
                found = images.restore(listed)
            except ValueError:  # which whoever reads the list turns into ours
                return
            _check_names(found)
            for i in range(len(found)):
                if found.version(i) is not None:
                    found.read(i)

        yield restore


def _tools(work: Path, inside: Path, name: str) -> Iterator[Callable[[], object]]:
    points = [[1, 1], [20, 1], [20, 20]]
    text = json.dumps(name)[1:-1].replace("\\u0000", "")
    forms: dict[str, dict[str, str]] = {
        "labelme": {
            "a.json": json.dumps(
                {
                    "imagePath": name,
                    "imageData": None,
                    "shapes": [{"label": "x", "shape_type": "polygon", "points": points}],
                }
            )
        },
        "cvat": {
            "annotations.xml": f'<annotations><image id="0" name="{text}" width="32" height="24">'
            '<polygon label="x" points="1,1;20,1;20,20"/></image></annotations>'
        },
        "datumaro": {
            "annotations/default.json": json.dumps(
                {
                    "categories": {"label": {"labels": [{"name": "x"}]}},
                    "items": [{"id": name, "image": {"path": name, "size": [24, 32]}, "annotations": []}],
                }
            )
        },
        "label studio": {
            "a.json": json.dumps([{"id": 1, "data": {"image": name}, "annotations": [{"id": 1, "result": []}]}])
        },
        "yolo": {"data.yaml": json.dumps({"path": os.path.dirname(name), "train": name, "val": name, "names": ["x"]})},
        "coco": {
            "annotations/instances_train.json": json.dumps(
                {
                    "images": [{"id": 1, "file_name": name, "height": 24, "width": 32}],
                    "categories": [{"id": 1, "name": "x"}],
                    "annotations": [],
                }
            )
        },
    }
    for form, files in forms.items():
        folder = work / form
        for file, content in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(content, encoding="utf-8", errors="replace")
        picture(folder / "images" / "a.jpg")

        def read(folder: Path = folder) -> None:
            from selfseg.data.labelled.catalog import parse_source

            for split in ("train", "all", "val"):
                try:
                    data = open_labelled(folder, split, find_labels)
                except SelfsegError:
                    continue
                _check_names(data.images)
                for i in range(len(data)):
                    data.images.read(i)
            assert parse_source(folder).root == folder

        yield read


def _lists(work: Path, inside: Path, name: str) -> Iterator[Callable[[], object]]:
    """A person's own list may name files anywhere; what is made of them must still be written inside."""
    if "outside" in name or name.startswith("/"):
        return
    work.mkdir()
    (work / "list.txt").write_text(f"{name}\n../inside/a.jpg\n", encoding="utf-8", errors="replace")

    def read() -> None:
        _check_names(list_images(work / "list.txt"))

    yield read


def _check_names(images: ImageCollection) -> None:
    for name in images.names:
        assert not os.path.isabs(name), name
        assert ".." not in name.split("/"), name
        assert "\0" not in name, name


def _written_names(work: Path) -> Row:
    """Of paths that lie all over the disk, the names under which results are written."""
    folder = work / "all over"
    places = ["a/b.jpg", "a/../c.jpg", "x/..jpg", "...jpg", "é/ü.png", "a b/c#.jpg", "-x.jpg", "~y.jpg"]
    paths = [folder / place for place in places] + [Path("/") / "b.jpg", Path("..") / "d.jpg"]
    wrong = ""
    try:
        images = list_images(paths)
        _check_names(images)
        assert len(set(images.names)) == len(images)
    except (AssertionError, SelfsegError) as error:
        wrong = str(error)
    return Row("names of what is written of paths all over the disk", len(paths), not wrong, wrong)
