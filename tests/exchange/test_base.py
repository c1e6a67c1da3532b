from pathlib import Path

import numpy as np
import pytest

from selfseg.data.labelled.legend import Legend
from selfseg.errors import ConfigError, LabelError
from selfseg.exchange.base import FORMATS, Format, NamedMask, find_format, load_part, read, write, write_formats
from selfseg.exchange.writing.writer import Writer

LEGEND = Legend.of(["a", "b"])
ONE = NamedMask("x.png", np.array([[0, 1, 255]], np.uint8))


@pytest.mark.parametrize("one", FORMATS.values(), ids=FORMATS)
def test_every_format_has_sentences_and_a_writer(one: Format) -> None:
    assert FORMATS[one.name] is find_format(one.name) is one
    assert "`" not in one.for_what + one.how_to_import + one.cannot_hold  # the page shows them as they are
    for sentence in (one.for_what, one.how_to_import, one.cannot_hold):
        assert sentence == "" or sentence[-1] in ".)"
    assert one.for_what
    assert one.how_to_import
    assert issubclass(load_part(one.writer), Writer)
    assert callable(load_part(one.reader))


def test_an_unknown_format_is_told_with_those_there_are(tmp_path: Path) -> None:
    for call in (
        lambda: write("pdf", [ONE], LEGEND, tmp_path / "out"),
        lambda: write_formats(["coco", "pdf"], [ONE], LEGEND, tmp_path / "out"),
        lambda: read("pdf", tmp_path),
    ):
        with pytest.raises(ConfigError, match="no format 'pdf'; there are palette, coco"):
            call()
    with pytest.raises(ConfigError, match="no format is given"):
        write_formats([], [ONE], LEGEND, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "mask", [np.zeros((2, 2, 3), np.uint8), np.zeros((0, 4), np.uint8), np.zeros((2, 2)), np.zeros((2, 2), bool)]
)
def test_a_mask_is_two_dimensions_of_whole_numbers(mask: np.ndarray) -> None:
    with pytest.raises(LabelError, match=r"x.png: a mask is \(H, W\) whole numbers"):
        NamedMask("x.png", mask)
    with pytest.raises(LabelError, match="needs the name"):
        NamedMask("", ONE.mask)


def test_the_size_is_height_and_width() -> None:
    assert ONE.size == (1, 3)
