from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfseg.data.labelled.labels import VOID, ColourMap, LabelMap, UnknownId, read_label_file
from selfseg.errors import ConfigError, LabelError


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_ids_become_classes(kind: type) -> None:
    codes = LabelMap.of(("a", "b", "c"), {7: 2, 9: 0, 200: 1}, void=(3,))
    values = np.random.default_rng(0).choice([7, 9, 200, 3, 255], (40, 50)).astype(kind)
    expected = np.vectorize({7: 2, 9: 0, 200: 1, 3: VOID, 255: VOID}.get)(values)
    result = codes.apply(values)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(("value", "kind"), [(8, np.uint8), (254, np.uint8), (300, np.uint16), (65535, np.uint16)])
def test_an_id_that_nobody_knows_is_named(value: int, kind: type) -> None:
    codes = LabelMap.of(("a", "b"), {7: 0, 9: 1})
    values = np.full((4, 4), 7, kind)
    values[2, 1] = value
    with pytest.raises(UnknownId) as caught:
        codes.apply(values)
    assert caught.value.value == value


def test_ids_above_a_byte() -> None:
    codes = LabelMap.of(("a", "b"), {26001: 1, 1000: 0})
    np.testing.assert_array_equal(codes.apply(np.array([[26001, 1000, 255]], np.uint16)), [[1, 0, VOID]])


def test_a_map_may_use_255_as_a_class() -> None:
    codes = LabelMap.of(("a",), {255: 0}, void=(0,))
    np.testing.assert_array_equal(codes.apply(np.array([[0, 255]], np.uint8)), [[VOID, 0]])


def test_as_many_classes_as_a_byte_holds() -> None:
    codes = LabelMap.indices(tuple(f"class {i}" for i in range(255)))
    every = np.arange(256, dtype=np.uint8)[None]
    np.testing.assert_array_equal(codes.apply(every), every)
    with pytest.raises(ConfigError, match="1 to 255 classes, not 256"):
        LabelMap.indices(tuple(f"class {i}" for i in range(256)))


def test_maps_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match="no class 2 among 2"):
        LabelMap.of(("a", "b"), {0: 2})
    with pytest.raises(ConfigError, match="no class 1 among 1"):
        ColourMap(("a",), ((0, 0, 0, 1),))
    with pytest.raises(ConfigError, match="uint8 or uint16"):
        LabelMap.of(("a",), {0: 0}).apply(np.zeros((2, 2), np.int64))
    with pytest.raises(ConfigError, match=r"\(H, W, 3\) uint8"):
        ColourMap(("a",), ((0, 0, 0, 0),)).apply(np.zeros((2, 2), np.uint8))


def test_colours_become_classes() -> None:
    colours = ((0, 0, 0, VOID), (255, 255, 255, 0), (1, 2, 3, 1), (3, 2, 1, 252))
    codes = ColourMap(tuple(f"class {i}" for i in range(253)), colours)
    chosen = np.random.default_rng(1).integers(0, 4, (30, 20))
    values = np.array([colour[:3] for colour in colours], np.uint8)[chosen]
    np.testing.assert_array_equal(codes.apply(values), np.array([colour[3] for colour in colours])[chosen])
    np.testing.assert_array_equal(codes.apply(values[:, ::-1]), codes.apply(values)[:, ::-1])  # not contiguous
    values[7, 5] = (1, 2, 4)
    values[9, 0] = (9, 9, 9)
    with pytest.raises(UnknownId) as caught:
        codes.apply(values)
    assert caught.value.value == (1, 2, 4)


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_stored_indices(tmp_path: Path, mode: str) -> None:
    stored = np.arange(12, dtype=np.uint16 if mode == "I;16" else np.uint8).reshape(3, 4)
    stored[0, 0] = 40000 if mode == "I;16" else 200
    image = Image.fromarray(stored)
    if mode == "P":
        image.putpalette(list(range(256)) * 3)
    image.save(tmp_path / "a.png")
    values = read_label_file(tmp_path / "a.png")
    assert values.dtype == stored.dtype
    np.testing.assert_array_equal(values, stored)


def test_stored_colours(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 255, (5, 6, 3), np.uint8)
    Image.fromarray(stored).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_label_file(tmp_path / "a.png", colours=True), stored)
    with pytest.raises(LabelError, match="holds colours"):
        read_label_file(tmp_path / "a.png")


def test_a_file_of_matlab_without_labels(tmp_path: Path) -> None:
    from scipy.io import savemat

    savemat(tmp_path / "a.mat", {"GTinst": np.zeros((2, 2))})
    with pytest.raises(LabelError, match=r"a\.mat has no GTcls\.Segmentation"):
        read_label_file(tmp_path / "a.mat")
    (tmp_path / "b.mat").write_bytes(b"no such thing")
    with pytest.raises(LabelError, match=r"can't read the label .*b\.mat"):
        read_label_file(tmp_path / "b.mat")
