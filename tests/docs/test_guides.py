"""The commands of README, tutorial and guides run, one after the other, on small copies of the images that they take.

A block below the comment `<!-- run -->` is run: Python as it is, and every line of the others as a command, which is
one of selfseg or `python` with a script of this repository. The studio, which serves until it is stopped, only shows
its help.
"""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
import rasterio
from rasterio.windows import Window

from selfseg.cli import main

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"<!-- run -->\n```(\w+)\n(.*?)\n```", re.DOTALL)
FOLLOWED = {"masks-to-coco": "examples/photographs"}
"""Pages that go on with what another page left; guides begin with the photographs of five-minutes."""
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))
    if "<!-- run -->" in page.read_text("utf-8") and page.stem not in FOLLOWED
]
TAKE_PHOTOS = ("guides", "tutorial", "README")  # pages, or folders of pages, that begin with a folder `photos`

LONGEST, MOST = 96, 3  # px of the photographs' long side, and images of a folder
FOLDERS = ("photos", "scenes", "cells", "photographs", "tissue", "labelled/*/images", "labelled/*/labels")
PHOTOGRAPHS = ("photos", "photographs", "labelled/*/images", "labelled/*/labels")

PYRAMID = ["--method.embedder.resolution", "64"]
VIEWS = [*PYRAMID, "--method.views.short-side", "64", "--method.views.size", "32", "--batch-size", "2"]
SMALLER = {  # options that make a command quick
    "pyramid": PYRAMID,
    "vice": VIEWS,
    "vice_scratch": VIEWS,
    "maskcontrast": VIEWS,
    "cluster": ["--points", "1000", "--no-propose"],
    "masks": ["--features.images", "3", "--features.size", "96", "--features.rounds", "1"],
}


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    for match in BLOCK.finditer(page.read_text("utf-8")):
        yield match[1], match[2].replace("\\\n", " ")


def shrink() -> None:
    """Fewer images in the folders that were written, and smaller ones of photographs and rasters."""
    here = Path()
    for file in here.glob("terrain/*.tif"):
        with rasterio.open(file) as raster:
            corner = Window(0, 0, LONGEST, LONGEST)
            values, about, names = raster.read(window=corner), raster.profile, raster.descriptions
        about.update(width=values.shape[2], height=values.shape[1])
        with rasterio.open(file, "w", **about) as raster:
            raster.write(values)
            raster.descriptions = names
    for folder in (found for pattern in FOLDERS for found in here.glob(pattern)):
        for file in sorted(folder.glob("*.*"))[MOST:]:
            file.unlink()
    for file in (found for pattern in PHOTOGRAPHS for found in here.glob(f"{pattern}/*.*")):
        image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        scale = LONGEST / max(image.shape[:2])
        if scale < 1:
            how = cv2.INTER_NEAREST if image.ndim == 2 else cv2.INTER_AREA
            cv2.imwrite(str(file), cv2.resize(image, None, fx=scale, fy=scale, interpolation=how))


def run_python(text: str) -> None:
    exec(compile(text, "a block of a guide", "exec"), {"__name__": "__main__"})
    shrink()


def run_script(words: list[str]) -> None:
    """What `python WORDS` does, in this process and on small images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words)
        patch.setattr(sys, "path", [*sys.path])
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")
    shrink()


def toy(words: list[str]) -> list[str]:
    """A command with less to do."""
    small = SMALLER.get(words[1] if words[0] == "train" else words[0], [])
    for option, value in (("--steps", "2"), ("--window", "64"), ("--merge", "30"), ("--seeds", "1")):
        if option in words:
            words[words.index(option) + 1] = value
    return [*words, *small]


def follow(page: Path) -> None:
    """Run a page's blocks in the present folder."""
    for language, text in blocks(page):
        if language == "python":
            run_python(text)
            continue
        for line in text.splitlines():
            command, *words = shlex.split(line, comments=True)
            if command == "source":
                continue
            if command == "python":
                run_script(words)
                continue
            assert command == "selfseg", line
            assert main([*words, "--help"] if words[0] == "studio" else toy(words)) == 0, line


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools with NumPy 2
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_guide_runs(page: Path, tmp_path: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if page.parent.name in TAKE_PHOTOS or page.stem in TAKE_PHOTOS:
        run_python(next(text for language, text in blocks(DOCS / "begin" / "five-minutes.md") if language == "python"))
    labelled.rename(tmp_path / "camvid")
    follow(page)
    for after, before in FOLLOWED.items():
        if page == DOCS / f"{before}.md":
            follow(page.with_name(f"{after}.md"))


def test_there_are_guides() -> None:
    there = {page.stem for page in PAGES} | set(FOLLOWED)
    assert {"README", "tutorial", "five-minutes", "drone-photographs", "compare-methods", "object-masks"} <= there
    assert {"photographs", "tissue", "terrain", "comparison", "masks-to-coco"} <= there
