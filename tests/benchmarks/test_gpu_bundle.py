"""What is carried to a machine with a GPU: the choice of packages and images. Nothing is downloaded here."""

from __future__ import annotations

import importlib
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(name="bundle")
def _bundle(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu_bundle")


def test_what_is_missing_is_found_with_what_it_needs(bundle: ModuleType) -> None:
    needs = {
        "tyro": [
            "docstring_parser>=0.15",
            "numpy",
            "colorama; sys_platform == 'win32'",
            "tomli; python_version < '3.11'",
        ],
        "docstring-parser": ["Typing.Extensions", "ruff; extra == 'dev'"],
        "typing-extensions": [],
        "exceptions": ["tyro"],  # a circle
    }
    asked = []

    def download(requirement: Requirement) -> list[str]:
        asked.append(str(requirement))
        return needs[requirement.name.lower().replace("_", "-").replace(".", "-")]

    found = bundle.collect(["torch>=2.11", "Tyro>=0.9", "exceptions", "tyro"], download)
    assert found == ["tyro", "exceptions", "docstring-parser", "typing-extensions"]
    assert asked[0] == "Tyro>=0.9"


def test_our_own_requirements_leave_few_to_carry(bundle: ModuleType) -> None:
    found = bundle.collect(bundle.own_requirements(), lambda _: [])
    assert {"tyro", "pyyaml", "tensorboard"} <= set(found)
    assert not {"torch", "numpy", "opencv-python-headless", "lightning", "imagecodecs", "zarr"} & set(found)
    asked = bundle.carried(bundle.own_requirements())
    assert any(each.startswith("torch") for each in asked)
    assert not any(each.startswith(("imagecodecs", "zarr", "pydicom")) for each in asked)


def test_a_wheel_tells_what_it_needs(bundle: ModuleType, tmp_path: Path) -> None:
    wheel = tmp_path / "thing-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(
            "thing-1.dist-info/METADATA", "Name: thing\nRequires-Dist: a>=1\nRequires-Dist: b; extra == 'x'\n"
        )
        archive.writestr("thing/_vendor/other.dist-info/METADATA", "Name: other\nRequires-Dist: c\n")
    assert bundle.requirements_of(wheel) == ["a>=1", "b; extra == 'x'"]


def test_a_bundle_that_can_not_be_carried_is_refused(bundle: ModuleType) -> None:
    bundle.check_size({"wheels": 40.0, "images": 20.0})
    with pytest.raises(bundle.BundleError, match=r"61\.5 MiB.*at most 60.*wheels \(41\.5 MiB\)"):
        bundle.check_size({"wheels": 41.5, "images": 20.0})


def test_without_images_it_says_what_is_needed(
    bundle: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert bundle.main(["--data", str(tmp_path / "nowhere"), "--out", str(out)]) == 1
    assert "camvid" in capsys.readouterr().err
    assert not out.exists()


def test_images_are_drawn_evenly_with_their_labels(bundle: ModuleType, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for split, count in (("train", 9), ("val", 5)):
        for kind, suffix in (("images", "png"), ("labels", "png")):
            (data / "camvid" / split / kind).mkdir(parents=True)
            for number in range(count):
                pixels = np.full((8, 8, 3) if kind == "images" else (8, 8), number, np.uint8)
                Image.fromarray(pixels).save(data / "camvid" / split / kind / f"{number}.{suffix}")
    (data / "camvid" / "classes.txt").write_text("0 road\n")
    (data / "imagenet1000" / "train" / "images").mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (8, 8)).save(data / "imagenet1000" / "train" / "images" / f"{number}.jpg")
    out = tmp_path / "images"
    bundle.copy_images(data, out, 4)
    names = [path.relative_to(out).as_posix() for path in sorted(out.rglob("*")) if path.is_file()]
    assert [name for name in names if "train/images" in name] == [f"camvid/train/images/{n}.jpg" for n in (0, 4, 8)]
    assert [name for name in names if "train/labels" in name] == [f"camvid/train/labels/{n}.png" for n in (0, 4, 8)]
    assert [name for name in names if "val/images" in name] == ["camvid/val/images/0.jpg"]
    assert [name for name in names if name.startswith("photographs")] == [f"photographs/{n}.jpg" for n in (0, 1, 2)]


def test_what_is_carried_of_the_repository_needs_nothing_else_of_it(bundle: ModuleType, tmp_path: Path) -> None:
    bundle.copy_code(BENCHMARKS.parent, tmp_path / "out")
    assert (tmp_path / "out" / "pyproject.toml").is_file()
    assert (tmp_path / "out" / "benchmarks" / "gpu.py").is_file()
    assert not (tmp_path / "out" / "benchmarks" / "results").exists()
    tests = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out" / "tests").rglob("*.py")}
    assert {"tests/conftest.py", "tests/tiny.py", "tests/ops/regions/test_slic.py"} <= tests
    assert not [name for name in tests if "/policy/" in name]  # they read docs/, which stays behind
