import io
import json
import os
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin

from selfseg.data.reading.images import REASONS, ImageCollection, read_image, resize_short_side
from selfseg.data.reading.listing import list_images
from selfseg.data.reading.skipping import SkipLog, scan
from selfseg.errors import BadImage, ConfigError, DataError, EmptyCollection, TooManyBadImages
from selfseg.storage.files import mark_output


@pytest.fixture
def scene() -> np.ndarray:
    """(40, 60, 3) uint8: smooth, with four different corners, so that every rotation is another picture."""
    rows, columns = np.mgrid[:40, :60]
    image = np.stack([rows * 6, columns * 4, 255 - rows * 3 - columns * 2], axis=2)
    return image.astype(np.uint8)


def save(path: Path, pixels: np.ndarray | Image.Image, **options: object) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def reason_of(path: Path, **options: int) -> str:
    with pytest.raises(BadImage) as caught:
        read_image(path, **options)
    assert caught.value.reason in REASONS
    assert str(path) in str(caught.value)
    return caught.value.reason


# --- what comes out


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm"])
def test_lossless_formats_come_out_exactly(tmp_path: Path, scene: np.ndarray, suffix: str) -> None:
    pixels = read_image(save(tmp_path / f"a.{suffix}", scene))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    np.testing.assert_array_equal(pixels, scene)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.jpg", {"quality": 95}),
        ("a.JPEG", {"quality": 95, "progressive": True}),
        ("a.jpe", {"quality": 95, "subsampling": 2, "format": "JPEG"}),
        ("r.jpg", {"quality": 95, "restart_marker_rows": 1}),
        ("a.webp", {"quality": 95}),
    ],
)
def test_lossy_formats_come_out_closely(tmp_path: Path, scene: np.ndarray, name: str, options: dict) -> None:
    pixels = read_image(save(tmp_path / name, scene, **options))
    assert np.abs(pixels.astype(int) - scene).mean() < 3


def test_a_jpeg_decodes_as_pillow_decodes_it(photos: Path) -> None:
    for path in sorted(photos.glob("*.jpg")):
        with Image.open(path) as image:
            np.testing.assert_array_equal(read_image(path), np.array(image))


def test_gray_and_one_bit(tmp_path: Path, scene: np.ndarray) -> None:
    gray = scene[:, :, 0]
    np.testing.assert_array_equal(read_image(save(tmp_path / "g.png", gray)), np.dstack([gray] * 3))
    bits = read_image(save(tmp_path / "b.png", Image.fromarray(gray).point(lambda v: 255 * (v > 99), "1")))
    np.testing.assert_array_equal(bits[:, :, 1], np.where(gray > 99, 255, 0))


@pytest.mark.parametrize("adobe", [True, False])
def test_cmyk_jpegs_with_and_without_adobes_marker(tmp_path: Path, scene: np.ndarray, adobe: bool) -> None:
    stored = io.BytesIO()
    Image.fromarray(scene).convert("CMYK").save(stored, "JPEG", quality=95)
    data = stored.getvalue()
    expected = scene
    if not adobe:  # without the marker the same numbers are plain inks, not inverted ones
        start = data.index(b"\xff\xee")
        assert data[start + 4 : start + 9] == b"Adobe"
        data = data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]
        inks = 255 - np.array(Image.fromarray(scene).convert("CMYK"))
        expected = np.array(Image.fromarray(inks, "CMYK").convert("RGB"))
    (tmp_path / "a.jpg").write_bytes(data)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - expected).mean() < 4


def test_transparency_lies_on_white(tmp_path: Path, scene: np.ndarray) -> None:
    alpha = np.full(scene.shape[:2], 255, np.uint8)
    alpha[:, :20], alpha[:, 20:30] = 0, 128
    pixels = read_image(save(tmp_path / "a.png", np.dstack([scene, alpha])))
    assert (pixels[:, :20] == 255).all()
    np.testing.assert_array_equal(pixels[:, 30:], scene[:, 30:])
    half = scene[:, 20:30] * (128 / 255) + 255 * (127 / 255)
    assert np.abs(pixels[:, 20:30] - half).max() <= 1


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_a_palettes_transparent_colour_lies_on_white(tmp_path: Path, suffix: str) -> None:
    indices = np.zeros((20, 30), np.uint8)
    indices[:, 15:] = 1
    image = Image.fromarray(indices, "P")
    image.putpalette([200, 10, 20, 30, 40, 220])
    opaque = read_image(save(tmp_path / f"o.{suffix}", image))
    assert opaque[5, 5].tolist() == [200, 10, 20]
    clear = read_image(save(tmp_path / f"t.{suffix}", image, transparency=0))
    assert clear[5, 5].tolist() == [255, 255, 255]
    assert clear[5, 20].tolist() == [30, 40, 220]


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_and_twelve_bits_are_not_black(tmp_path: Path, suffix: str, channels: int) -> None:
    ramp = np.repeat(np.linspace(0, 1, 60)[None, :, None], 40, axis=0) * np.array([1.0, 0.5, 0.25])[:channels]
    for top in (65535, 4095):
        path = tmp_path / f"{top}.{suffix}"
        stored = np.rint(ramp * top).astype(np.uint16)
        cv2.imwrite(str(path), stored[:, :, ::-1] if channels == 3 else stored[:, :, 0])
        expected = np.rint(ramp * 255)
        np.testing.assert_allclose(read_image(path), np.broadcast_to(expected, (40, 60, 3)), atol=1)


def test_sixteen_bit_transparency(tmp_path: Path) -> None:
    stored = np.full((20, 30, 4), 40000, np.uint16)
    stored[:, :10, 3], stored[:, 10:, 3] = 0, 65535
    cv2.imwrite(str(tmp_path / "a.png"), stored)
    pixels = read_image(tmp_path / "a.png")
    assert (pixels[:, :10] == 255).all()
    assert np.abs(pixels[:, 10:].astype(int) - 40000 // 257).max() <= 1


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 65535.0), (-3.0, 7.0)])
def test_float_tiffs(tmp_path: Path, low: float, high: float) -> None:
    values = np.repeat(np.linspace(low, high, 60, dtype=np.float32)[None], 40, axis=0)
    values[3, 0] = np.nan if low == 0 else low
    pixels = read_image(save(tmp_path / "a.tif", values))
    np.testing.assert_allclose(pixels[0, :, 2], np.linspace(0, 255, 60), atol=1)
    assert pixels[3, 0, 0] == 0


def test_an_unsupported_kind_says_so(tmp_path: Path, scene: np.ndarray) -> None:
    cv2.imwrite(str(tmp_path / "a.tif"), scene.astype(np.float32) / 255)  # colours as floats
    with pytest.raises(
        BadImage, match=r"unreadable \(a TIFF of a kind that is not supported, or broken; .*measured images"
    ):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_exif_orientation(tmp_path: Path, scene: np.ndarray, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"a.{suffix}", scene, exif=exif, **options)
    upright = Image.fromarray(scene)
    upright.getexif()[0x0112] = orientation
    expected = np.array(ImageOps.exif_transpose(upright))
    pixels = read_image(path)
    assert pixels.shape == expected.shape
    assert pixels.flags.c_contiguous
    assert np.abs(pixels.astype(int) - expected).mean() < (4 if suffix == "jpg" else 0.01)


def test_a_broken_exif_block_and_a_colour_profile_do_not_matter(tmp_path: Path, scene: np.ndarray) -> None:
    path = save(tmp_path / "a.png", scene, exif=b"Exif\0\0II*\0\xff\xff\xff\xff", icc_profile=b"not a profile")
    np.testing.assert_array_equal(read_image(path), scene)


def test_a_phones_multi_picture_jpeg_is_its_first_picture(tmp_path: Path, scene: np.ndarray) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(scene).save(path, "MPO", save_all=True, append_images=[Image.fromarray(255 - scene)], quality=95)
    assert np.abs(read_image(path).astype(int) - scene).mean() < 3
    assert len(scan(list_images(tmp_path), SkipLog(None, 1))) == 1


@pytest.mark.parametrize("trailer", [b"\0" * 5000, b"SEFT trailer"])
def test_bytes_after_the_end_of_a_jpeg_do_not_matter(tmp_path: Path, scene: np.ndarray, trailer: bytes) -> None:
    path = save(tmp_path / "a.jpg", scene)
    expected = read_image(path)
    path.write_bytes(path.read_bytes() + trailer)
    np.testing.assert_array_equal(read_image(path), expected)
    assert len(scan(list_images(tmp_path), SkipLog(None, 1))) == 1


# --- what is refused


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "webp", "gif", "ppm"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.97])
def test_truncated_files(tmp_path: Path, photos: Path, suffix: str, kept: float, capfd) -> None:
    path = save(tmp_path / f"a.{suffix}", read_image(photos / "photo0.jpg"))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    assert reason_of(path) == "truncated"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("ending", [b"", b"\xff\xd9", b"\0" * 4000])
@pytest.mark.parametrize("lenient", [False, True])
def test_no_cut_jpeg_gets_through(tmp_path, photos, ending, lenient, monkeypatch, capfd) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    data = (photos / "photo0.jpg").read_bytes()
    for kept in (0.4, 0.7, 0.95):
        path = tmp_path / "a.jpg"
        path.write_bytes(data[: int(len(data) * kept)] + ending)
        assert reason_of(path) == "truncated"
    assert lenient == ImageFile.LOAD_TRUNCATED_IMAGES
    assert capfd.readouterr() == ("", "")


def test_truncated_deep_colours(tmp_path: Path, scene: np.ndarray, capfd) -> None:
    for suffix in ("png", "tif"):
        path = tmp_path / f"a.{suffix}"
        noise = np.random.default_rng(0).integers(0, 65535, scene.shape, np.uint16)
        cv2.imwrite(str(path), noise)
        path.write_bytes(path.read_bytes()[:9000])
        assert reason_of(path) == "truncated"
    assert capfd.readouterr() == ("", "")


def test_a_flipped_bit_in_a_png(tmp_path: Path, scene: np.ndarray) -> None:
    path = save(tmp_path / "a.png", scene)
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 30] ^= 4
    path.write_bytes(data)
    assert reason_of(path) == "unreadable"


def test_empty_missing_and_tiny(tmp_path: Path) -> None:
    (tmp_path / "e.jpg").touch()
    assert reason_of(tmp_path / "e.jpg") == "empty"
    assert reason_of(tmp_path / "gone.jpg") == "missing"
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere.png")
    assert reason_of(tmp_path / "link.png") == "missing"
    for size in ((1, 1), (7, 300)):
        assert reason_of(save(tmp_path / "s.png", Image.new("RGB", size))) == "too-small"
    (tmp_path / "folder.png").mkdir()
    assert reason_of(tmp_path / "folder.png") == "wrong-type"


def test_wrongly_named(tmp_path: Path, scene: np.ndarray) -> None:
    assert reason_of(save(tmp_path / "a.jpg", scene, format="PNG")) == "wrong-type"
    assert reason_of(save(tmp_path / "a.png", scene, format="JPEG")) == "wrong-type"
    (tmp_path / "page.jpg").write_text("<html>404 not found</html>")
    assert reason_of(tmp_path / "page.jpg") == "wrong-type"
    np.testing.assert_array_equal(read_image(save(tmp_path / "unnamed", scene, format="PNG")), scene)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_animated(tmp_path: Path, scene: np.ndarray, suffix: str) -> None:
    frames = [Image.fromarray(255 - scene)]
    path = save(tmp_path / f"a.{suffix}", scene, save_all=True, append_images=frames)
    assert reason_of(path) == "animated"


def test_a_tiffs_thumbnail_is_no_second_page(tmp_path: Path, scene: np.ndarray) -> None:
    thumbnail = Image.fromarray(np.ascontiguousarray(scene[::4, ::4]))
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[254] = 1
    thumbnail.encoderinfo = {"tiffinfo": info}
    path = save(tmp_path / "a.tif", scene, save_all=True, append_images=[thumbnail])
    np.testing.assert_array_equal(read_image(path), scene)


def test_a_bomb_is_refused_from_its_header(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.new("1", (20000, 20000)))  # 50 kB, 1.2 GB once decoded
    assert path.stat().st_size < 100_000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reason_of(path) == "too-large"
        with pytest.raises(EmptyCollection):
            scan(list_images(tmp_path), SkipLog(None, 1, limit=1))
    assert reason_of(save(tmp_path / "b.jpg", Image.new("RGB", (100, 50))), max_pixels=4999) == "too-large"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path, scene: np.ndarray) -> None:
    path = save(tmp_path / "a.png", scene)
    path.chmod(0)
    assert reason_of(path) == "no-permission"


def test_random_bytes_after_a_right_beginning_never_escape_as_another_error(tmp_path: Path, scene, capfd) -> None:
    random = np.random.default_rng(0)
    reasons = set()
    for suffix in ("jpg", "png", "bmp", "tif", "webp", "gif", "ppm"):
        data = save(tmp_path / f"whole.{suffix}", scene).read_bytes()
        for _ in range(20):
            broken = bytearray(data)
            for position in random.integers(4, len(data), 8):
                broken[position] = random.integers(256)
            path = tmp_path / f"a.{suffix}"
            path.write_bytes(broken)
            try:
                read_image(path)
            except BadImage as error:
                reasons.add(error.reason)
    assert reasons
    assert reasons <= set(REASONS)
    assert capfd.readouterr() == ("", "")


# --- collections


def test_a_folder_is_listed_recursively_in_one_order(tmp_path: Path) -> None:
    for name in (
        "b.jpg",
        "B.png",
        "a10.jpg",
        "a2.JPG",
        "sub/ä.png",
        "sub/z.tif",
        ".hidden.jpg",
        ".git/x.jpg",
        "note.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    images = list_images(str(tmp_path))
    assert images.names == ("B", "a10", "a2", "b", "sub/z", "sub/ä")
    assert len(images) == 6
    assert all(path.is_file() for path in images.paths)


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.jpg").touch()
    (tmp_path / "real" / "up").symlink_to(tmp_path)
    (tmp_path / "also").symlink_to(tmp_path / "real")
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "also").symlink_to(tmp_path / "real")
    assert list_images(tmp_path).names == ("real/a",)


def test_names_are_unique_and_stay_inside_of_an_output_folder(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "a.jpg.png", "b.v1.jpg", "b.v2.jpg"):
        (tmp_path / name).touch()
    names = list_images(tmp_path).names
    assert len(set(names)) == 5
    assert "b.v1" in names
    outside = ImageCollection(tmp_path, (tmp_path / ".." / "x.jpg", Path("/etc/x.jpg"), Path("/x.jpg")))
    for name in outside.names:
        assert not name.startswith("/")
        assert ".." not in name.split("/")
    assert len(set(outside.names)) == 3


def test_a_list_file(tmp_path: Path, photos: Path) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text(f"# mine\nphotos/photo3.jpg\n\n{photos}/photo1.jpg\nphotos/photo3.jpg\n")
    images = list_images(listing)
    assert images.names == ("photo3", "photo1")
    assert images.read(0).shape == (90, 120, 3)
    assert list_images([photos / "photo1.jpg"]).names == ("photo1",)


def test_sources_without_images_say_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(EmptyCollection, match="empty"):
        list_images(tmp_path)
    (tmp_path / "film.mp4").touch()
    with pytest.raises(EmptyCollection, match=r"1 with \.mp4"):
        list_images(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        list_images(tmp_path / "no")
    with pytest.raises(DataError, match="is not a kind of file"):
        list_images(tmp_path / "film.mp4")
    (tmp_path / "list.txt").write_text("# nothing\n")
    with pytest.raises(EmptyCollection, match="names no image"):
        list_images(tmp_path / "list.txt")


def test_scan_finds_what_reading_would_find(tmp_path: Path, photos: Path) -> None:
    whole = (photos / "photo0.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[:2000])
    (photos / "zero.jpg").touch()
    (photos / "page.jpg").write_text("<html>")
    Image.new("RGB", (1, 1)).save(photos / "dot.png")
    Image.new("RGB", (30, 30)).save(photos / "film.gif", save_all=True, append_images=[Image.new("RGB", (30, 30), 9)])
    images = list_images(photos)
    log = SkipLog(tmp_path / "run" / "skipped.jsonl", len(images), limit=0.5)
    good = scan(images, log)
    assert good.names == tuple(f"photo{i}" for i in range(6))
    assert log.skipped == {
        "cut": "truncated",
        "dot": "too-small",
        "film": "animated",
        "page": "wrong-type",
        "zero": "empty",
    }
    entries = [json.loads(line) for line in (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()]
    assert [entry["name"] for entry in entries] == ["cut", "dot", "film", "page", "zero"]
    assert all(set(entry) == {"name", "reason", "detail", "time"} for entry in entries)


def test_names_survive_the_loss_of_a_namesake(photos: Path) -> None:
    (photos / "photo0.png").touch()
    good = scan(list_images(photos), SkipLog(None, 7, limit=0.5))
    assert good.names[0] == "photo0.jpg"


def test_too_many_bad_images_stop_the_run(tmp_path: Path) -> None:
    log = SkipLog(tmp_path / "skipped.jsonl", total=40)
    log.add("a", "truncated")
    log.add("b", "empty")  # exactly 5 %
    with pytest.raises(TooManyBadImages) as caught:
        log.add("c", "empty", "0 bytes")
    for words in ("3 of 40", "2 empty", "1 truncated", str(tmp_path / "skipped.jsonl"), "--max-bad"):
        assert words in str(caught.value)
    assert len((tmp_path / "skipped.jsonl").read_text().splitlines()) == 3
    with pytest.raises(ConfigError, match=r"--max-bad must be a fraction .*, not 5"):
        SkipLog(None, 10, limit=5)


def test_a_resumed_run_lists_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "skipped.jsonl"
    SkipLog(path, 100).add("a", "empty")
    with path.open("a") as stream:
        stream.write('{"name": "torn')  # killed while writing
    resumed = SkipLog(path, 100)
    resumed.add("a", "empty")
    resumed.add("b\udcff", "truncated")
    resumed.add("b\udcff", "truncated")
    lines = path.read_text().splitlines()
    assert len(lines) == 3
    assert json.loads(lines[2])["name"] == "b\udcff"
    assert len(resumed.skipped) == 2


@pytest.mark.parametrize(
    ("shape", "short", "expected"),
    [
        ((90, 120), 45, (45, 60)),
        ((10, 400), 20, (20, 800)),
        ((8, 1000), 1, (1, 125)),
        ((3, 8), 3, (3, 8)),
    ],
)
def test_resize_short_side(shape: tuple[int, int], short: int, expected: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 77, np.uint8)
    resized = resize_short_side(image, short)
    assert resized.shape == (*expected, 3)
    assert (resized == 77).all()
    with pytest.raises(ConfigError, match="0 px"):
        resize_short_side(image, 0)


def test_real_photographs_all_read(shared_data: Path) -> None:
    images = list_images(shared_data / "camvid" / "val" / "images")
    assert len(scan(images, SkipLog(None, len(images), limit=0))) == 101
    assert images.read(0).shape == (360, 480, 3)


def test_folders_that_selfseg_wrote_are_passed_over(photos: Path) -> None:
    before = list_images(photos).names
    mark_output(photos / "run" / "pictures")
    Image.new("RGB", (20, 20)).save(photos / "run" / "pictures" / "views0.png")
    assert list_images(photos).names == before
    # Named itself, it is what the user wants.
    assert list_images(photos / "run" / "pictures").names == ("views0",)


def test_a_thin_image_is_looked_at_with_fewer_pixels() -> None:
    """Of 8 x 20,000 pixels, 320 x 800,000 would be made: 768 MB, and a network's memory for that."""
    small = resize_short_side(np.zeros((8, 20_000, 3), np.uint8), 320)
    assert small.shape[0] * small.shape[1] <= 1.01 * 32 * 320**2
    assert abs(small.shape[1] / small.shape[0] / 2500 - 1) < 0.05
    assert resize_short_side(np.zeros((10, 320, 3), np.uint8), 320).shape == (320, 10_240, 3)  # not thin
