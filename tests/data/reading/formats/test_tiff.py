"""Every TIFF that tifffile writes comes back as it was, whole and in windows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from selfseg.data.reading.formats.base import Window
from selfseg.data.reading.formats.opening import open_pixels
from selfseg.data.reading.sniffing import Damage

H, W = 40, 60
# shape, axes (None: not told), dtype, what else the writer is told
COMBINATIONS: list[tuple[tuple[int, ...], str | None, str, dict[str, Any]]] = [
    ((H, W), None, "uint8", {}),
    ((H, W), None, "uint16", {"byteorder": ">"}),
    ((H, W), None, "float32", {"compression": "zlib", "predictor": True}),
    ((H, W), None, "float64", {"tile": (16, 16)}),
    ((H, W), None, "int16", {"bigtiff": True}),
    ((H, W), None, "uint32", {"compression": "lzw"}),
    ((H, W), None, "float16", {"rowsperstrip": 7}),
    ((H, W), None, "bool", {"photometric": "minisblack"}),
    ((H, W), None, "uint16", {"compression": "packbits", "rowsperstrip": 9}),
    ((H, W), None, "int8", {"compression": "zstd", "tile": (32, 16)}),
    ((H, W, 3), "YXS", "uint8", {"photometric": "rgb"}),
    ((H, W, 3), "YXS", "uint16", {"photometric": "rgb", "tile": (16, 32), "compression": "lzw", "predictor": True}),
    ((H, W, 3), "YXS", "float32", {"photometric": "rgb", "bigtiff": True, "byteorder": ">"}),
    ((H, W, 3), "YXS", "uint8", {"photometric": "rgb", "compression": "deflate", "rowsperstrip": 11}),
    ((3, H, W), "SYX", "uint8", {"photometric": "rgb", "planarconfig": "separate"}),
    ((3, H, W), "SYX", "uint16", {"photometric": "rgb", "planarconfig": "separate", "tile": (16, 16)}),
    ((5, H, W), "SYX", "uint16", {"photometric": "minisblack", "planarconfig": "separate"}),
    ((5, H, W), "SYX", "uint16", {"photometric": "minisblack", "planarconfig": "separate", "compression": "zlib"}),
    ((5, H, W), "SYX", "float32", {"planarconfig": "separate", "photometric": "minisblack", "tile": (32, 32)}),
    ((H, W, 5), "YXS", "uint16", {"photometric": "minisblack", "planarconfig": "contig"}),
    ((H, W, 5), "YXS", "uint8", {"photometric": "minisblack", "planarconfig": "contig", "tile": (16, 16)}),
    ((H, W, 7), "YXS", "float64", {"photometric": "minisblack", "planarconfig": "contig", "compression": "zstd"}),
    ((5, H, W), "CYX", "uint16", {"photometric": "minisblack"}),
    ((5, H, W), "CYX", "uint16", {"photometric": "minisblack", "ome": True}),
    ((5, H, W), "CYX", "uint16", {"photometric": "minisblack", "ome": True, "compression": "lzw", "tile": (16, 16)}),
    ((2, 3, H, W), "ZCYX", "uint8", {"photometric": "minisblack", "ome": True}),
    ((2, 3, 4, H, W), "TZCYX", "uint16", {"photometric": "minisblack", "imagej": True}),
    ((3, H, W), "ZYX", "uint16", {"photometric": "minisblack", "imagej": True}),
    ((2, H, W), "CYX", "float32", {"photometric": "minisblack", "imagej": True}),
    ((2, H, W, 3), "TYXS", "uint8", {"photometric": "rgb", "imagej": True}),
    ((2, 2, H, W, 3), "TZYXS", "uint8", {"photometric": "rgb", "compression": "zlib"}),
    ((2, 3, H, W), "TSYX", "uint8", {"photometric": "rgb", "planarconfig": "separate", "tile": (16, 16)}),
    ((4, H, W), None, "uint16", {"photometric": "minisblack"}),
    ((4, H, W), None, "uint16", {"photometric": "minisblack", "compression": "zlib"}),
    ((4, H, W), None, "uint8", {"photometric": "minisblack", "metadata": None}),
    ((4, H, W), None, "uint16", {"photometric": "minisblack", "metadata": None, "compression": "lzw", "bigtiff": True}),
    ((20, H, W), "TYX", "uint8", {"photometric": "minisblack", "byteorder": ">"}),
    ((6, H, W), "ZYX", "int32", {"photometric": "minisblack", "ome": True, "bigtiff": True}),
    ((3, 16, H, W), "CZYX", "uint16", {"photometric": "minisblack", "volumetric": True, "tile": (16, 16, 16)}),
    ((H, W, 5), None, "uint16", {"photometric": "minisblack"}),
    ((2, 3, H, W), "QCYX", "uint8", {"photometric": "minisblack", "truncate": True}),
    ((H, W), None, "int64", {"compression": "lzma"}),
]


def test_there_are_forty_combinations() -> None:
    assert len(COMBINATIONS) >= 40


@pytest.mark.parametrize(("shape", "axes", "dtype", "how"), COMBINATIONS, ids=range(len(COMBINATIONS)))
def test_what_was_written_is_read(
    tmp_path: Path, shape: tuple[int, ...], axes: str | None, dtype: str, how: dict[str, Any]
) -> None:
    values = (np.random.default_rng(0).random(shape) * (2 if dtype == "bool" else 100)).astype(dtype)
    if axes is not None and "metadata" not in how:
        how = how | {"metadata": {"axes": axes}}
    tifffile.imwrite(tmp_path / "a.tif", values, **how)
    letters = axes or {(H, W, 5): "YXC"}.get(shape, "I" * (len(shape) - 2) + "YX")
    pages = [i for i, letter in enumerate(letters) if letter not in "CSYX"]
    channels = [i for i, letter in enumerate(letters) if letter in "CS"]
    expected = values.transpose(*pages, letters.index("Y"), letters.index("X"), *channels).reshape(
        -1, H, W, int(np.prod([shape[i] for i in channels]))
    )
    file = open_pixels(tmp_path / "a.tif", 10_000)
    layout = file.layout
    assert (layout.height, layout.width, len(layout.channels)) == expected.shape[1:]
    assert len(layout.pages) == len(set(layout.pages)) == len(expected)
    for page, whole in enumerate(expected):
        found = file.read(page)
        assert found.dtype == layout.dtype == np.dtype(np.uint8 if dtype == "bool" else dtype)
        assert found.flags.c_contiguous
        assert found.flags.writeable
        np.testing.assert_array_equal(found, whole)
        for window in (Window(7, 13, 21, 40), Window(0, 0, 1, 1), Window(H - 3, W - 5, 3, 5)):
            part = whole[window.y : window.y + window.height, window.x : window.x + window.width]
            np.testing.assert_array_equal(file.read(page, window), part)
            np.testing.assert_array_equal(file.read(page, window, [part.shape[2] - 1, 0]), part[:, :, [-1, 0]])
        assert file.valid(page) is None
    file.close()
    file.close()


def test_names_of_pages_and_channels(tmp_path: Path) -> None:
    values = np.zeros((11, 3, H, W), np.uint16)
    names = {"axes": "ZCYX", "Channel": {"Name": ["DAPI", "GFP", "mCherry"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", values, photometric="minisblack", metadata=names)
    layout = open_pixels(tmp_path / "a.ome.tif", None).layout
    assert layout.kind == "OME-TIFF"
    assert layout.channels == ("DAPI", "GFP", "mCherry")
    assert layout.pages[::10] == ("z00", "z10")
    assert not layout.unnamed
    tifffile.imwrite(tmp_path / "b.tif", values[:4, 0], photometric="minisblack")
    plain = open_pixels(tmp_path / "b.tif", None).layout
    assert plain.unnamed
    assert plain.pages == ("page0", "page1", "page2", "page3")


@pytest.mark.parametrize(("count", "photometric"), [(4, "rgb"), (2, "minisblack")])
def test_alpha_tells_what_was_measured(tmp_path: Path, count: int, photometric: str) -> None:
    values = np.full((H, W, count), 200, np.uint8)
    values[:10, :, -1] = 0
    how: dict[str, Any] = {"photometric": photometric, "planarconfig": "contig", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "a.tif", values, **how)
    file = open_pixels(tmp_path / "a.tif", None)
    assert len(file.layout.channels) == count - 1
    assert file.layout.masked
    valid = file.valid(0, Window(5, 0, 10, W))
    assert valid is not None
    assert valid[:, 0].tolist() == [False] * 5 + [True] * 5
    values = np.full((H, W, 4), 7, np.uint8)  # the fourth channel is near infrared
    tifffile.imwrite(tmp_path / "b.tif", values, photometric="rgb", extrasamples=["unspecified"])
    assert len(open_pixels(tmp_path / "b.tif", None).layout.channels) == 4


def test_palettes_and_white_is_zero(tmp_path: Path) -> None:
    index = np.arange(H * W, dtype=np.uint8).reshape(H, W)
    palette = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", index, photometric="palette", colormap=palette)
    file = open_pixels(tmp_path / "a.tif", None)
    assert file.layout.colour
    np.testing.assert_array_equal(file.read(), (palette >> 8).T[index].astype(np.uint8))
    tifffile.imwrite(tmp_path / "b.tif", index, photometric="miniswhite")
    np.testing.assert_array_equal(open_pixels(tmp_path / "b.tif", None).read()[:, :, 0], 255 - index)


def test_the_largest_picture_of_a_pyramid(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (128, 128, 3)).astype(np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(values, photometric="rgb", tile=(32, 32), subifds=1, metadata=None)
        writer.write(values[::2, ::2], photometric="rgb", tile=(32, 32), subfiletype=1, metadata=None)
        writer.write(values[::8, ::8], photometric="rgb", subfiletype=1, metadata=None)
    file = open_pixels(tmp_path / "a.tif", None)
    assert file.layout.pages == ("",)
    np.testing.assert_array_equal(file.read(), values)


def test_only_touched_tiles_are_read(tmp_path: Path) -> None:
    values = np.arange(256 * 256, dtype=np.uint16).reshape(256, 256)
    tifffile.imwrite(tmp_path / "a.tif", values, tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        offset = tif.pages[0].dataoffsets[-1]  # type: ignore[union-attr]
    with open(tmp_path / "a.tif", "r+b") as stream:
        stream.seek(offset)
        stream.write(b"broken!!")
    file = open_pixels(tmp_path / "a.tif", None)
    np.testing.assert_array_equal(file.read(0, Window(0, 0, 192, 256))[:, :, 0], values[:192])
    with pytest.raises(Damage, match="unreadable"):
        file.read()


def test_a_file_that_was_cut_short(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((H, W), np.uint16))
    tifffile.imwrite(tmp_path / "b.tif", np.ones((H, W), np.uint16), tile=(16, 16), compression="zlib")
    for name in ("a.tif", "b.tif"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[:-20])
        with pytest.raises(Damage, match=r"truncated|unreadable"):
            open_pixels(tmp_path / name, None).read()
    for length in (0, 3, 7, 12, 60):
        (tmp_path / "a.tif").write_bytes(data[:length])
        with pytest.raises(Damage):
            open_pixels(tmp_path / "a.tif", None).read()


def test_broken_bytes_are_damage_and_nothing_else(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((3, H, W), np.uint16), photometric="minisblack", compression="lzw")
    data = (tmp_path / "a.tif").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(data)
        for place in rng.integers(0, len(data), 6):
            broken[place] = rng.integers(256)
        (tmp_path / "a.tif").write_bytes(broken)
        try:
            file = open_pixels(tmp_path / "a.tif", 10_000)
            file.read()
            file.valid()
            file.close()
        except Damage:
            pass
