"""A folder with a file of every kind (`examples/odd_folder.py`): what of it is taken, and what is said of the rest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfseg import check_data
from selfseg.cli import main
from selfseg.data.reading.listing import list_images
from selfseg.data.reading.skipping import SkipLog, scan
from selfseg.data.reading.windows import as_measured, expand

SCRIPT = Path(__file__).resolve().parents[2] / "examples/odd_folder.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("odd")
    (root / "drawn").mkdir()
    y, x = np.mgrid[:320, :320]
    drawn = np.dstack([x * 0.7, y * 0.7, 255 * ((x - 160) ** 2 + (y - 160) ** 2 < 6400)]).astype(np.uint8)
    Image.fromarray(drawn).save(root / "drawn/a.png")
    subprocess.run([sys.executable, SCRIPT, root / "out", "--images", root / "drawn"], check=True)
    return root / "out"


@pytest.mark.parametrize(("kind", "count"), [("photographs", 16), ("five_channels", 8), ("gray16", 5), ("scenes", 1)])
def test_files_of_one_kind_are_one_collection(odd: Path, kind: str, count: int) -> None:
    images, _ = as_measured(list_images(odd / kind))
    assert len(images) == count
    shapes = {images.read(i).shape for i in range(count)}
    assert shapes == {(320, 320, {"five_channels": 5, "gray16": 1, "scenes": 4}.get(kind, 3))}


def test_what_is_refused_is_listed_with_its_reason_and_kinds_are_told(
    odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", str(odd / "everything"), "--sheet", str(tmp_path / "sheet.png")]) == 3
    captured = capsys.readouterr()
    out = " ".join(captured.out.split())
    assert "photographs: 18 files (hidden/link.jpg" in out
    assert "5 channels of uint16: 8 files (five_channels/array.npy" in out
    assert "1 file .heic" in " ".join(captured.err.split())
    lines = (tmp_path / "sheet.txt").read_text("utf-8").splitlines()
    reasons = {line.partition(": ")[0].rpartition("/")[2]: line.partition(": ")[2] for line in lines}
    assert len(lines) == len(reasons) == 21
    for name, reason in {
        "empty.jpg": "empty",
        "cut.jpg": "truncated",
        "a_text.png": "wrong-type",
        "a_heic.jpg": "wrong-type (a HEIC photograph, which isn't read; save it as JPEG",
        "broken_link.jpg": "missing",
        "bomb.tif": "too-large",
        "big_planar.btf": "unreadable (5 channels; selfseg reads a collection of such files as measured images",
        "named.ome.zarr": "wrong-type (a Zarr file is not a photograph; selfseg reads a collection of such files",
    }.items():
        assert reasons[name].startswith(reason)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[1] > 3 * 320  # twelve pictures, although half can't be read


def test_every_verb_says_how_many_images_it_leaves_out(
    odd: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "selfseg.told")
    kept = scan(list_images(odd / "everything"), SkipLog(tmp_path / "skipped.jsonl", 40, 0.6))
    assert len(kept) == 19
    assert "21 of 40 images can't be used and are left out: 10 wrong-type, " in caplog.text
    assert f"each is listed in {tmp_path / 'skipped.jsonl'}" in caplog.text


def test_bombs_among_measured_images_are_refused_and_never_cut_into_windows(odd: Path) -> None:
    images, told = as_measured(list_images(odd / "everything"), ["0", "1", "2", "3", "4"])
    assert len(images) < 50  # a million windows, were the Zarr opened
    assert "8 files of 5 channels of uint16" in told
    found = check_data(odd / "no_images", progress=False)
    assert len(found.splits[0].bad_images) == 8
    assert len(expand(list_images(odd / "no_images"))) == 8
