"""The labelled photographs of the studio's pictures, as a person's stand-in needs them."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from selfseg.data.labelled.catalog import open_labelled

pytest.importorskip("skimage")
pytest.importorskip("sklearn")
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(name="photographs")
def _photographs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("studio_photographs")


@pytest.mark.slow
def test_images_and_labels_are_a_labelled_folder_in_which_every_class_occurs(
    photographs: ModuleType, tmp_path: Path
) -> None:
    images = photographs.draw(tmp_path, 1)
    labels = images.with_name("labels")
    names = sorted(path.name for path in images.iterdir())
    assert len(names) == len(photographs.PHOTOGRAPHS)
    assert sorted(path.name for path in labels.iterdir()) == names
    values = np.stack([np.asarray(Image.open(labels / name)) for name in names])
    assert values.shape[1:] == np.asarray(Image.open(images / names[0])).shape[:2]
    assert set(np.unique(values)) == set(range(len(photographs.CLASSES)))
    assert (values == photographs.CLASSES.index("void")).mean() < 0.05
    read = open_labelled(tmp_path, "train")
    assert tuple(read.class_names) == photographs.CLASSES


def test_an_outline_encloses_what_it_names(photographs: ModuleType) -> None:
    (cat,) = (one for one in photographs.PHOTOGRAPHS if one.name == "cat")
    label = photographs.label_of(cat, photographs.open_photograph(cat).size)
    assert photographs.CLASSES[label.getpixel((257, 240))] == "cat"  # its nose
    assert photographs.CLASSES[label.getpixel((430, 100))] == "wall"


def test_crops_lie_in_the_photograph_and_are_the_same_in_each_call(photographs: ModuleType) -> None:
    for size in ((640, 427), (512, 600)):
        boxes = list(photographs.crops(2, size, 6))
        assert boxes == list(photographs.crops(2, size, 6))
        for left, top, right, bottom in boxes:
            assert 0 <= left < right <= size[0] + 1e-6
            assert 0 <= top < bottom <= size[1] + 1e-6
            assert (right - left) / (bottom - top) == pytest.approx(4 / 3)
