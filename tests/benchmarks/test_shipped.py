"""Benchmarks run in a clean clone, with nothing beside it."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from selfseg.data.labelled.catalog import open_labelled
from selfseg.data.reading.listing import list_images

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(name="shipped")
def _shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("shipped")
    monkeypatch.setattr(module, "CAMVID", tmp_path / "nowhere")
    monkeypatch.setattr(module, "BUILD", tmp_path / "build")
    return module


def test_what_the_packages_ship_is_enough(shipped: ModuleType) -> None:
    pytest.importorskip("skimage")
    assert len(list_images(shipped.photographs())) == 10
    root = shipped.labelled()
    assert [len(open_labelled(root, split)) for split in ("train", "val")] == [10, 10]
