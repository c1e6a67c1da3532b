import zipfile
from pathlib import Path

import numpy as np
import pytest

from exchange import odd_masks
from exchange.reading_back import by_colour, of_cvat, same
from selfseg.data.labelled.legend import Legend
from selfseg.errors import LabelError
from selfseg.exchange.base import NamedMask, write
from selfseg.exchange.writing.cvat import voc_colours
from selfseg.exchange.writing.names import FileNames

OBJECTS = {tuple(colour): i for i, colour in enumerate(voc_colours(256).tolist())}


def objects(file: Path, name: str) -> np.ndarray:
    with zipfile.ZipFile(file) as archive:
        return by_colour(archive.read(f"SegmentationObject/{name}.png"), OBJECTS)


def test_every_mask_comes_back(tmp_path: Path) -> None:
    masks, legend = list(odd_masks.named()), odd_masks.legend()
    out, names = write("cvat", masks, legend, tmp_path / "out.zip"), FileNames(".png")
    same(of_cvat(out, legend), masks, names.place)


def test_many_classes_come_back(tmp_path: Path) -> None:
    legend, masks = odd_masks.many_classes()[0], odd_masks.half_of_many()
    same(of_cvat(write("cvat", masks, legend, tmp_path / "out.zip"), legend), masks, lambda name: name[:-4])


def test_objects_are_classes_or_regions(tmp_path: Path) -> None:
    masks = [NamedMask("x.png", np.array([[1, 255, 1], [0, 0, 0]], np.uint8))]
    found = {}
    for per in ("class", "component"):
        out = write("cvat", masks, Legend.of(["a", "b"]), tmp_path / f"{per}.zip", per=per)
        found[per] = objects(out, "x").tolist()
    assert found == {"class": [[2, 0, 2], [1, 1, 1]], "component": [[2, 0, 3], [1, 1, 1]]}


def test_an_image_of_too_many_regions_gets_an_object_per_class(tmp_path: Path) -> None:
    mask = (np.indices((20, 20)).sum(0) % 2).astype(np.uint8)
    out = write("cvat", [NamedMask("x.png", mask)], Legend.of(["a", "b"]), tmp_path / "out.zip", per="component")
    assert (objects(out, "x") == mask + 1).all()


def test_too_many_classes_in_an_image_are_refused(tmp_path: Path) -> None:
    legend, masks = odd_masks.many_classes()
    with pytest.raises(LabelError, match=r"all.png has 300 classes, and CVAT's masks can hold 255 in one image"):
        write("cvat", masks, legend, tmp_path / "out.zip")


@pytest.mark.parametrize(("names", "first"), [(["road"], "background"), (["background", "no class"], "no class 2")])
def test_what_has_no_class_is_listed_first(tmp_path: Path, names: list[str], first: str) -> None:
    masks = [NamedMask("x.png", np.array([[0, 255]], np.uint8))]
    out = write("cvat", masks, Legend.of(names), tmp_path / "out.zip")
    with zipfile.ZipFile(out) as archive:
        lines = archive.read("labelmap.txt").decode().splitlines()
    assert lines[1] == f"{first}:0,0,0::"
    assert [line.split(":")[0] for line in lines[2:]] == names


def test_the_colours_of_voc() -> None:
    # Of the development kit's colour map: aeroplane, bicycle, ..., tvmonitor, and the border 255.
    expected = {
        1: (128, 0, 0),
        2: (0, 128, 0),
        8: (64, 0, 0),
        15: (192, 128, 128),
        20: (0, 64, 128),
        255: (224, 224, 192),
    }
    assert {i: tuple(voc_colours(256)[i].tolist()) for i in expected} == expected
    assert len(OBJECTS) == 256
