"""Labelled folders whose label files hold colours."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import CLASSES
from selfseg.collection.check import check_data
from selfseg.data.labelled.catalog import open_labelled
from selfseg.data.labelled.classes_file import parse_classes
from selfseg.data.labelled.coloured import ColouredCodes, read_stored
from selfseg.data.labelled.labels import VOID, UnknownId
from selfseg.errors import LabelError

LIST = "0 sky 128 128 128\n1 ground 128 64 128\n2 ball 255 0 0\n3 house #00ff00\n255 void 0 0 0"
TABLE = np.array([[128, 128, 128], [128, 64, 128], [255, 0, 0], [0, 255, 0], *[[0, 0, 0]] * 252], np.uint8)
CODES = ColouredCodes(CLASSES, parse_classes(LIST, "").colours)


def label() -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 5, (9, 12)).astype(np.uint8)
    values[values == 4] = VOID
    return values


def saved(path: Path, pixels: np.ndarray, palette: np.ndarray | None = None) -> Path:
    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette(palette.astype(np.uint8).tobytes())
    image.save(path)
    return path


def test_rgb_and_transparent_files(tmp_path: Path) -> None:
    values = label()
    np.testing.assert_array_equal(CODES.apply(read_stored(saved(tmp_path / "a.png", TABLE[values]))), values)
    alpha = np.dstack([TABLE[values], np.full(values.shape, 255, np.uint8)])
    np.testing.assert_array_equal(CODES.apply(read_stored(saved(tmp_path / "b.png", alpha))), values)
    alpha[2, 3] = (7, 7, 7, 0)  # clear, of no listed colour: void
    alpha[2, 4] = (*TABLE[1], 0)  # clear, of a listed one: that
    expected = values.copy()
    expected[2, 3:5] = VOID, 1
    np.testing.assert_array_equal(CODES.apply(read_stored(saved(tmp_path / "c.png", alpha))), expected)
    alpha[4, 5, 3] = 128
    with pytest.raises(LabelError, match=r"d\.png is half transparent at x = 5, y = 4 \(alpha 128\)"):
        CODES.apply(read_stored(saved(tmp_path / "d.png", alpha)))


def test_palettes_of_colours_and_of_indices(tmp_path: Path) -> None:
    values = label()
    same = TABLE.copy()
    np.testing.assert_array_equal(CODES.apply(read_stored(saved(tmp_path / "same.png", values, same))), values)
    # Colours in another order: what a tool does that reduces RGB.
    order = np.array([VOID, 3, 0, 2, 1])
    place = np.zeros(256, np.uint8)
    place[order] = range(5)
    reduced = saved(tmp_path / "reduced.png", place[values], TABLE[order])
    np.testing.assert_array_equal(CODES.apply(read_stored(reduced)), values)
    # Colours that mean nothing: indices.
    other = np.random.default_rng(1).integers(1, 100, (256, 3))
    np.testing.assert_array_equal(CODES.apply(read_stored(saved(tmp_path / "other.png", values, other))), values)


def test_a_palette_in_the_order_of_the_classes_is_of_indices(tmp_path: Path) -> None:
    """Entry 255 is void, though its black, which the palette's end is filled with, is also a class's."""
    codes = ColouredCodes(("night", "day"), ((0, 0, 0, 0), (255, 255, 0, 1)))
    palette = np.zeros((256, 3), np.uint8)
    palette[1] = 255, 255, 0
    values = np.array([[0, 1, 255]], np.uint8)
    np.testing.assert_array_equal(codes.apply(read_stored(saved(tmp_path / "a.png", values, palette))), values)


def test_a_palette_with_two_meanings_is_refused(tmp_path: Path) -> None:
    palette = np.random.default_rng(1).integers(1, 100, (256, 3))
    palette[0] = 0  # black is void, but index 0 is sky
    with pytest.raises(LabelError, match=r"two ways: by its colours the palette's entry 0 is void, by its index 'sky'"):
        CODES.apply(read_stored(saved(tmp_path / "a.png", np.zeros((3, 4), np.uint8), palette)))


def test_gray_files_are_indices_unless_all_colours_are_gray(tmp_path: Path) -> None:
    values = label()
    path = saved(tmp_path / "a.png", values)
    np.testing.assert_array_equal(CODES.apply(read_stored(path)), values)
    binary = ColouredCodes(("back", "cell"), ((0, 0, 0, 0), (255, 255, 255, 1)))
    cells = (label() == 1).astype(np.uint8)
    for pixels in (cells * 255, cells, cells.astype(bool), np.repeat(cells[..., None] * 255, 3, axis=2)):
        np.testing.assert_array_equal(binary.apply(read_stored(saved(tmp_path / "b.png", pixels))), cells)
    with pytest.raises(UnknownId) as caught:
        binary.apply(read_stored(saved(tmp_path / "c.png", cells * 7)))
    assert caught.value.value == 7


def test_a_colour_without_a_meaning_is_named_with_its_place(tmp_path: Path) -> None:
    values = label()
    pixels = TABLE[values]
    pixels[6, 2] = (1, 2, 3)
    palette = TABLE.copy()
    palette[17] = (1, 2, 3)
    indices = values.copy()
    indices[6, 2] = 17
    for path in (saved(tmp_path / "a.png", pixels), saved(tmp_path / "b.png", indices, palette)):
        with pytest.raises(UnknownId) as caught:
            CODES.apply(read_stored(path))
        assert (caught.value.value, caught.value.at) == ((1, 2, 3), (2, 6))
    (tmp_path / "c.png").write_bytes(path.read_bytes()[:-40])
    with pytest.raises(LabelError, match="can't read the label"):
        CODES.apply(read_stored(tmp_path / "c.png"))


def recolour(root: Path) -> None:
    for path in root.glob("*/labels/*.png"):
        saved(path, TABLE[np.array(Image.open(path))])


def test_a_folder_with_colours_is_the_folder_with_indices(labelled: Path) -> None:
    plain = open_labelled(labelled, "val")
    labels = [plain.read_label(index) for index in range(len(plain))]
    recolour(labelled)
    (labelled / "classes.txt").write_text(LIST)
    data = open_labelled(labelled, "val")
    assert data.class_names == CLASSES
    for index, expected in enumerate(labels):
        np.testing.assert_array_equal(data.read_label(index), expected)
    assert data.cropped(64).read_label(0).shape == (64, 64)
    found = check_data(f"folder:{labelled}")
    assert found.healthy
    assert found.splits[0].void > 0

    path = labelled / "val" / "labels" / "scene7.png"
    pixels = np.array(Image.open(path))
    pixels[3, 5] = (9, 8, 7)
    saved(path, pixels)
    with pytest.raises(
        LabelError, match=r"scene7\.png holds the colour \(9, 8, 7\) at x = 5, y = 3, which .*classes\.txt"
    ):
        data.read_label(1)
    saved(path, pixels[:, :-20])
    with pytest.raises(LabelError, match=r"scene7\.png has 100x90 pixels"):
        data.read_label(1)


def test_a_folder_with_colours_that_nothing_explains_gets_a_list(labelled: Path) -> None:
    recolour(labelled)
    for names in (None, "\n".join(CLASSES)):
        if names is None:
            (labelled / "classes.txt").unlink()
        else:
            (labelled / "classes.txt").write_text(names)
        with pytest.raises(LabelError) as caught:
            open_labelled(labelled, "val")
        head, _, text = str(caught.value).partition("\n\n")
        assert "scene6.png holds colours, e.g. (0, 0, 0) at x = 0, y = 0" in head
        assert ("gives its classes none" if names else "there is no ") in head
        assert "in 10 of 10 files" in head
        assert text.startswith("0 class 0  #80")
        assert "% of the pixels" in text
        proposal = parse_classes(text, "")
        assert {colour[:3] for colour in proposal.colours} == {tuple(colour) for colour in TABLE.tolist()}
        # The proposal can be written as it is.
        (labelled / "classes.txt").write_text(text)
        assert open_labelled(labelled, "val").read_label(0).max() == 4


def test_photographs_as_labels_get_no_list(labelled: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (90, 120, 3)).astype(np.uint8)
    saved(labelled / "val" / "labels" / "scene6.png", noise)
    with pytest.raises(LabelError, match=r"\d+ colours are in 10 of 10 files, as after a resize or in a JPEG"):
        open_labelled(labelled, "val")
