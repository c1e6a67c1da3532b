"""DICOM, with the files that pydicom's own wheel carries."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from selfseg.data.reading.formats.base import Window
from selfseg.data.reading.formats.opening import open_pixels
from selfseg.data.reading.sniffing import Damage

FILES = Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.mark.parametrize(
    "name",
    [
        "MR_small.dcm",
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
    ],
)
def test_however_it_is_packed_it_is_the_same_image(name: str) -> None:
    file = open_pixels(FILES / name, 10_000)
    expected = pydicom.dcmread(FILES / "MR_small.dcm").pixel_array[:, :, None]
    assert (file.layout.kind, file.layout.dtype, file.layout.channels) == ("DICOM", np.int16, ("",))
    np.testing.assert_array_equal(file.read(), expected)
    np.testing.assert_array_equal(file.read(0, Window(3, 5, 20, 30)), expected[3:23, 5:35])


def test_a_ct_has_hounsfield_units() -> None:
    file = open_pixels(FILES / "CT_small.dcm", None)
    data = pydicom.dcmread(FILES / "CT_small.dcm")
    assert file.layout.dtype == np.float32
    np.testing.assert_array_equal(file.read()[:, :, 0], data.pixel_array * np.float32(1) + np.float32(-1024))
    assert file.layout.nodata == -2000 - 1024
    assert file.layout.details["modality"] == "CT"


def test_frames_are_pages_and_ybr_is_rgb() -> None:
    file = open_pixels(FILES / "examples_ybr_color.dcm", None)
    assert file.layout.pages[::29] == ("frame00", "frame29")
    assert file.layout.colour
    np.testing.assert_array_equal(file.read(7), pydicom.dcmread(FILES / "examples_ybr_color.dcm").pixel_array[7])


@pytest.mark.parametrize("name", ["SC_rgb_rle_16bit_2frame.dcm", "SC_rgb_jpeg_gdcm.dcm", "examples_palette.dcm"])
def test_colours(name: str) -> None:
    layout = open_pixels(FILES / name, None).layout
    assert layout.colour
    assert len(layout.channels) == 3
    assert open_pixels(FILES / name, None).read().max() > 200


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    data = pydicom.dcmread(FILES / "MR_small_RLE.dcm")
    data.decompress()
    data.PhotometricInterpretation = "MONOCHROME1"
    data.save_as(tmp_path / "a.dcm")
    np.testing.assert_array_equal(open_pixels(tmp_path / "a.dcm", None).read()[:, :, 0], ~data.pixel_array)


def test_padding_is_no_data(tmp_path: Path) -> None:
    data = pydicom.dcmread(FILES / "CT_small.dcm")
    data.add_new("PixelPaddingRangeLimit", "SS", 200)
    data.add_new("PixelPaddingValue", "SS", -2000)
    data.save_as(tmp_path / "a.dcm")
    file = open_pixels(tmp_path / "a.dcm", None)
    assert file.layout.masked
    assert file.layout.nodata is None
    np.testing.assert_array_equal(file.valid(), data.pixel_array > 200)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("MR_truncated.dcm", "truncated"),
        ("reportsi.dcm", "unreadable"),
        ("rtplan.dcm", "unreadable"),
        ("no_meta.dcm", "wrong-type"),
        ("image_dfl.dcm", "unreadable"),
        ("badVR.dcm", "unreadable"),
        ("SC_rgb_small_odd.dcm", "too-small"),
    ],
)
def test_what_is_no_image_says_so(name: str, reason: str) -> None:
    with pytest.raises(Damage) as caught:
        open_pixels(FILES / name, None).read()
    assert caught.value.reason == reason


@pytest.mark.parametrize(("rows", "frames"), [(65_535, 1), (64, 99_999), (64, -1), (64, 10**9)])
def test_lying_headers(tmp_path: Path, rows: int, frames: int) -> None:
    data = pydicom.dcmread(FILES / "MR_small.dcm")
    data.Rows, data.Columns, data.NumberOfFrames = rows, rows, frames
    data.save_as(tmp_path / "a.dcm")
    with pytest.raises(Damage, match=r"truncated|too-large|unreadable"):
        open_pixels(tmp_path / "a.dcm", None).read()
