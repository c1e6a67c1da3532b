"""What a collection's files are, and how measured images are read."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.listing import list_images
from selfseg.data.reading.measured import ImagePlace, Part
from selfseg.data.reading.skipping import SkipLog, scan
from selfseg.data.reading.surveying import may_be_measured, pick, survey
from selfseg.data.reading.windows import expand, is_large, side_by_side
from selfseg.errors import BadImage, ConfigError, EmptyCollection


def write(path: Path, values: np.ndarray, **options: object) -> None:
    tifffile.imwrite(path, values, photometric="minisblack", **options)


def five(seed: int, height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(seed).integers(1000, 3000, (height, width, 5)).astype(np.uint16)


def names(folder: Path, *words: str, pages: str = "auto") -> ImageCollection:
    images = list_images(folder)
    return expand(images.measured(survey(images, words, pages).channels))


def test_files_that_are_never_cut_into_windows_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = ImageCollection(tmp_path, (tmp_path / "a.JPG", tmp_path / "b.tif"))
    with caplog.at_level("INFO", "selfseg.told"):
        expand(images)
        assert not caplog.messages
        expand(images, 64)
    assert caplog.messages == [
        "windows of 64 px: only files that can be read in parts are cut, such as TIFF; "
        "those named .jpg are looked at whole"
    ]


def test_eight_bit_formats_need_no_look(tmp_path: Path) -> None:
    for suffix, looked in ((".jpg", False), (".bmp", False), (".png", True), (".tif", True), (".npy", True)):
        assert may_be_measured(ImageCollection(tmp_path, (tmp_path / f"a{suffix}",))) is looked


@pytest.mark.parametrize("kind", ["gray", "colours", "alpha"])
def test_eight_bit_pictures_are_photographs(tmp_path: Path, kind: str) -> None:
    shape = {"gray": (30, 40), "colours": (30, 40, 3), "alpha": (30, 40, 4)}[kind]
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full(shape, 40 * i + 9, np.uint8))
    found = survey(list_images(tmp_path))
    assert not found.measured
    assert found.channels is None
    assert found.warning() == ""


def test_many_channels_are_measured_images(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path / f"{i}.tif", five(i), planarconfig="contig")
    found = survey(list_images(tmp_path))
    assert found.measured
    assert found.channels is not None
    assert (found.channels.of, len(found.channels), found.channels.dtype) == (5, 5, "uint16")
    assert all(1000 <= low < 1010 for low in found.channels.low)
    assert all(2990 < high <= 3000 for high in found.channels.high)
    assert "5 of 5 channels" in found.sentence()


def test_dead_and_hot_pixels_are_not_in_the_range(tmp_path: Path) -> None:
    for i in range(3):
        values = five(i, 200, 200)
        values[i, 7] = 65535
        values[i, 9] = 0
        write(tmp_path / f"{i}.tif", values, planarconfig="contig")
    channels = survey(list_images(tmp_path)).channels
    assert channels is not None
    assert min(channels.low) >= 1000
    assert max(channels.high) <= 3000


def test_sixteen_bit_colours_have_one_range_and_stay_colours(tmp_path: Path) -> None:
    for i in range(3):
        values = np.dstack([np.full((30, 40), value + 10 * i) for value in (1000, 2000, 3000)]).astype(np.uint16)
        values[::2] += 50
        cv2.imwrite(str(tmp_path / f"{i}.png"), values[..., ::-1])
    channels = survey(list_images(tmp_path)).channels
    assert channels is not None
    assert channels.colour
    assert len(set(channels.low)) == len(set(channels.high)) == 1
    images = names(tmp_path)
    assert images.rgb
    red, green, blue = images.read(0)[0, 0]
    assert red < green < blue


def test_files_that_can_all_be_photographs_are(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((30, 40, 3), 4000, np.uint16))
    cv2.imwrite(str(tmp_path / "deep2.png"), np.full((30, 40, 3), 4000, np.uint16))
    cv2.imwrite(str(tmp_path / "plain.png"), np.full((30, 40, 3), 40, np.uint8))
    found = survey(list_images(tmp_path))
    assert found.channels is None
    assert "8-bit RGB photographs" in found.warning()


def test_the_kind_that_most_files_are_is_taken(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"many{i}.tif", five(i), planarconfig="contig")
    cv2.imwrite(str(tmp_path / "photo.jpg"), np.full((30, 40, 3), 40, np.uint8))
    images = list_images(tmp_path)
    found = survey(images)
    assert "the other 1 is skipped" in found.warning()
    log = SkipLog(None, 4, 1.0)
    left = scan(images.measured(found.channels), log)
    assert log.skipped == {"photo": "channels"}
    assert left.read(0).shape == (40, 60, 5)


def test_channels_are_chosen_by_number_and_by_name(tmp_path: Path) -> None:
    options = {"ome": True, "metadata": {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP", "TRITC", "Cy5", "DIC"]}}}
    for i in range(2):
        tifffile.imwrite(tmp_path / f"{i}.ome.tif", five(i).transpose(2, 0, 1), photometric="minisblack", **options)
    images = list_images(tmp_path)
    assert images.names == ("0", "1")
    channels = survey(images, ["dic", "0"]).channels
    assert channels is not None
    assert (channels.names, channels.take) == (("DIC", "DAPI"), (4, 0))
    with pytest.raises(ConfigError, match=r"no channel 'NIR'; the files have 0 \(DAPI\), 1 \(GFP\)"):
        survey(images, ["NIR"])
    with pytest.raises(ConfigError, match="twice"):
        pick(["0", "red"], ["red"])


def test_what_nobody_can_open_is_no_collection(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0nonsense")
    with pytest.raises(EmptyCollection, match="none of the 1 files"):
        survey(list_images(tmp_path))


def test_no_data_is_void_and_not_in_the_range(tmp_path: Path) -> None:
    values = five(0)[..., :2].astype(np.float32)
    values[:10] = np.nan
    np.save(tmp_path / "a.npy", values)
    images = names(tmp_path)
    assert images.channels is not None
    assert min(images.channels.low) >= 1000
    levels = images.read(0)
    assert not levels[:10].any()
    assert levels[10:].min() >= 1


def test_a_single_missing_channel_is_not_void(tmp_path: Path) -> None:
    values = five(0)[..., :2].astype(np.float32)
    values[:10, :, 1] = np.nan
    np.save(tmp_path / "a.npy", values)
    levels = names(tmp_path).read(0)
    assert levels.min() >= 1
    assert len(set(levels[:10, :, 1].ravel())) == 1


def test_pages_of_a_stack_are_images_of_their_own(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 4000, (20, 30, 40)).astype(np.uint16)
    write(tmp_path / "a.tif", stack, metadata={"axes": "ZYX"})
    images = names(tmp_path)
    assert len(images) == 20
    assert images.names[:2] == ("a/z00", "a/z01")
    again = images.restore(images.located())
    assert (again.parts, again.names, again.paths) == (images.parts, images.names, images.paths)
    assert len(names(tmp_path, pages="first")) == len(names(tmp_path, pages="max")) == 1
    highest = names(tmp_path, pages="max")
    assert highest.channels is not None
    np.testing.assert_array_equal(highest.read(0), highest.channels.levels(stack.max(0)[..., None]))


def test_few_unnamed_pages_are_channels(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", five(0).transpose(2, 0, 1))
    images = names(tmp_path)
    assert (len(images), images.read(0).shape) == (1, (40, 60, 5))
    assert len(names(tmp_path, pages="all")) == 5


def test_windows_cover_an_image_side_by_side() -> None:
    for height, width, side in ((250, 80, 100), (100, 100, 100), (1000, 333, 64)):
        covered = np.zeros((height, width), int)
        for y, x, h, w in side_by_side(height, width, side):
            covered[y : y + h, x : x + w] += 1
        assert covered.min() == 1
        assert covered.max() <= 4
    assert is_large(250, 250, 100)
    assert not is_large(100, 150, 100)
    assert not is_large(5000, 5000, None)
    assert is_large(20_000, 20_000, None)


def test_large_images_are_cut_or_kept(tmp_path: Path) -> None:
    values = five(0, 150, 250)
    write(tmp_path / "a.tif", values, planarconfig="contig", tile=(64, 64))
    images = list_images(tmp_path)
    images = images.measured(survey(images).channels)
    assert images.channels is not None
    cut, kept = expand(images, 100), expand(images, 100, cut=False)
    assert cut.names == tuple(f"a/y{y}-x{x}" for y in (0, 50) for x in (0, 75, 150))
    expected = images.channels.levels(values)
    np.testing.assert_array_equal(cut.read(4), expected[50:150, 75:175])
    assert cut.size(4) == (100, 100)
    assert kept.is_large(0)
    assert not cut.is_large(0)
    assert kept.size(0) == (150, 250)
    np.testing.assert_array_equal(kept.read_window(0, cut.part(4).window), expected[50:150, 75:175])
    assert expand(images, 200) is images


def test_a_window_of_a_photograph_is_the_photograph_there(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (150, 250, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb")
    images = expand(list_images(tmp_path), 100)
    np.testing.assert_array_equal(images.read(4), image[50:150, 75:175])
    scan(images, SkipLog(None, len(images), 0.0))


def test_the_place_of_an_image_is_read_back_or_refused() -> None:
    for value in ("a.tif", ["a.tif", "2", None], ["a.tif", "", [0, 8, 100, 100]]):
        assert ImagePlace.of_json(value).to_json() == value
    assert ImagePlace.of_json("a.tif").part == Part()
    for wrong in (3, ["a.tif"], ["a.tif", "0", [1, 2]], ["a.tif", "0", "x"]):
        with pytest.raises(ValueError, match=r"is no place|not enough|invalid literal|unpack|missing"):
            ImagePlace.of_json(wrong)


def test_a_file_that_changes_its_kind_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", five(0), planarconfig="contig")
    images = names(tmp_path)
    write(tmp_path / "a.tif", five(0)[..., :4], planarconfig="contig")
    with pytest.raises(BadImage, match="4 channels of uint16; the collection has 5 of uint16") as caught:
        images.read(0)
    assert caught.value.reason == "channels"
