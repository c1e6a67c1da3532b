"""classes.txt as it is written, held against how it is read."""

from pathlib import Path

import numpy as np
import pytest

from selfseg.data.labelled.classes_file import parse_classes
from selfseg.data.labelled.legend import Legend
from selfseg.data.labelled.listed import list_classes
from selfseg.exchange import NamedMask, read, write

ODD = [
    "two\nlines",
    "# no comment",
    "9 lives",
    "paint #ff0000",
    "zone 1 2 3",
    "name, rgb",
    " a:",
    "a",
    "a;",
    "(1,2,3)",
    ",",
]


@pytest.mark.parametrize("count", [len(ODD), 253, 254, 255, 300])
@pytest.mark.parametrize("odd", [ODD, [f"zone {i} 2 3" for i in range(11)], [f"paint #ff00{i:02x}" for i in range(11)]])
def test_what_is_written_is_read(count: int, odd: list[str]) -> None:
    legend = Legend.of([*odd, *(f"class {i}" for i in range(count - len(odd)))], {odd[0]: (0, 0, 0), odd[1]: (9, 9, 9)})
    text, listed = list_classes(legend)
    found = parse_classes(text, "classes.txt")
    assert found.names == listed.names
    assert len(set(found.names)) == count
    assert listed.names[len(odd) :] == legend.names[len(odd) :], "plain names stay"
    if count <= 253:
        assert found.colours == (*((*one.colour, i) for i, one in enumerate(listed.classes)), (0, 0, 0, 255))


def test_names_and_colours_that_can_be_listed_stay() -> None:
    legend = Legend.of(["# no comment", "9 lives", "traffic light"])
    assert list_classes(legend)[1] == legend


def test_a_palette_without_legend_json_is_read_by_its_list(tmp_path: Path) -> None:
    legend = Legend.of(["paint #ff0000", "sky", "zone 1 2 3"])
    mask = np.array([[0, 1, 2, 255]], np.uint8)
    out = write("palette", [NamedMask("a.jpg", mask)], legend, tmp_path / "out")
    for name in ("legend.json", "labelmap.txt"):
        (out / name).unlink()
    found, masks = read("palette", out)
    assert found == list_classes(legend)[1]
    assert np.array_equal(next(masks).mask, mask)
