"""Masks from any tool: each kind of file is read as what it means, or refused with the reason."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from selfseg.data.labelled.mask_files import REASONS, SUFFIXES, MaskFolder, survey
from selfseg.data.reading.listing import list_images
from selfseg.errors import BadImage, BadMask, ConfigError, DataError, EmptyCollection

H, W = 90, 120  # of the images of the fixture `photos`


def box(value: Any = 1, dtype: Any = np.uint8) -> np.ndarray:
    """A mask with a box of 40 x 50 pixels in the middle."""
    mask = np.zeros((H, W), dtype)
    mask[25:65, 35:85] = value
    return mask


def two_boxes(first: int, second: int, dtype: Any = np.uint8) -> np.ndarray:
    mask = np.zeros((H, W), dtype)
    mask[10:40, 10:50] = first
    mask[50:80, 60:110] = second
    return mask


def only(mask: np.ndarray) -> np.ndarray:
    """The ids of a single object where the mask is set."""
    return np.where(mask > 0, 0, -1)


def save(folder: Path, name: str, mask: np.ndarray, mode: str | None = None, **options: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if path.suffix == ".npy":
        np.save(path, mask)
        return path
    image = Image.fromarray(mask)
    if mode == "P":
        image = Image.fromarray(mask, "L")
        image.putpalette([i for k in range(256) for i in (k * 7 % 256, k * 31 % 256, k * 63 % 256)])
    elif mode is not None:
        image = image.convert(mode)
    image.save(path, **options)
    return path


def read(path: Path, **options: Any) -> np.ndarray:
    return MaskFolder(path.parent, **options).get(path.name.split(".")[0], H, W)


# --- what values mean ---


@pytest.mark.parametrize("suffix", sorted(set(SUFFIXES) - {".jpg", ".jpeg", ".webp"}))
@pytest.mark.parametrize("value", [1, 255])
def test_0_1_and_0_255_files_are_the_same_mask(suffix: str, value: int, tmp_path: Path) -> None:
    if suffix == ".pbm":
        path = save(tmp_path, "a.pbm", box(255), "1")
    else:
        path = save(tmp_path, f"a{suffix}", box(value))
    ids = read(path)
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids, only(box()))


@pytest.mark.parametrize("value", [7, 100, 200])
def test_any_single_value_is_the_object(value: int, tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(save(tmp_path, "a.png", box(value))), only(box()))


@pytest.mark.parametrize("mode", ["1", "LA", "RGB", "RGBA", "I;16", "bool", "float", "int64", "3d"])
def test_other_forms_of_a_binary_mask(mode: str, tmp_path: Path) -> None:
    if mode in ("bool", "float", "int64", "3d"):
        mask = {"bool": box() > 0, "float": box(1.0, np.float32), "int64": box(3, np.int64), "3d": box()[None]}[mode]
        path = save(tmp_path, "a.npy", mask)
    elif mode == "I;16":
        path = save(tmp_path, "a.png", box(1, np.uint16))
    else:
        path = save(tmp_path, "a.png", box(255), mode)
    np.testing.assert_array_equal(read(path), only(box()))


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "npy"])
def test_several_objects_keep_their_order(mode: str, tmp_path: Path) -> None:
    mask = two_boxes(5, 2, np.uint16 if mode == "I;16" else np.int64 if mode == "npy" else np.uint8)
    path = save(tmp_path, "a.npy" if mode == "npy" else "a.png", mask, "P" if mode == "P" else None)
    expected = np.where(mask == 2, 0, np.where(mask == 5, 1, -1))
    np.testing.assert_array_equal(read(path), expected)


def test_void_is_no_object_in_8_bits_and_an_id_in_16(tmp_path: Path) -> None:
    mask = two_boxes(1, 2)
    mask[-10:] = 255
    np.testing.assert_array_equal(
        read(save(tmp_path, "a.png", mask)), np.where(mask == 1, 0, np.where(mask == 2, 1, -1))
    )
    wide = mask.astype(np.uint16)
    assert read(save(tmp_path, "b.png", wide)).max() == 2


def test_many_objects_of_a_wide_file(tmp_path: Path) -> None:
    ids = np.arange(H * W).reshape(H, W).astype(np.uint16) // 54 + 1000  # 200 objects, none of them 0
    found = read(save(tmp_path, "a.png", ids), min_area=0)
    np.testing.assert_array_equal(found, np.arange(H * W).reshape(H, W) // 54)


def ramp() -> np.ndarray:
    """A soft mask, 0 to 255 from left to right, in many levels."""
    return np.tile(np.linspace(0, 255, W).round().astype(np.uint8), (H, 1))


def test_soft_masks_are_cut_at_the_threshold(tmp_path: Path) -> None:
    expected = np.where(ramp() >= 128, 0, -1)
    np.testing.assert_array_equal(read(save(tmp_path, "a.png", ramp())), expected)
    unit = ramp().astype(np.float32) / 255
    np.testing.assert_array_equal(read(save(tmp_path, "b.npy", unit)), expected)
    np.testing.assert_array_equal(read(save(tmp_path, "c.npy", unit * 255)), expected)
    np.testing.assert_array_equal(read(save(tmp_path, "d.tif", unit)), expected)
    np.testing.assert_array_equal(read(save(tmp_path, "e.png", ramp()), threshold=0.9), np.where(ramp() >= 230, 0, -1))


def test_a_jpeg_is_soft_because_its_edges_are_smeared(tmp_path: Path) -> None:
    ids = read(save(tmp_path, "a.jpg", box(255), quality=60))
    assert (ids != only(box())).mean() < 0.01
    assert ids.max() == 0


def test_the_kind_can_be_said(tmp_path: Path) -> None:
    dark = box(3)
    dark[40:50, 40:50] = 60  # a dark soft mask and an index mask look the same
    path = save(tmp_path, "a.png", dark)
    assert read(path).max() == 1
    with pytest.raises(BadMask, match="empty"):
        read(path, kind="soft")
    assert read(save(tmp_path, "b.png", ramp()), kind="index", min_area=0).max() > 100


def test_gray_of_2_and_4_bits_is_not_spread(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    mask = two_boxes(1, 3)
    for bits in (2, 4):
        rows = np.packbits(np.unpackbits(mask[..., None], axis=2)[..., 8 - bits :].reshape(H, -1), axis=1)
        raw = b"".join(b"\0" + row.tobytes() for row in rows)
        head = struct.pack(">IIBBBBB", W, H, bits, 0, 0, 0, 0)
        path = tmp_path / f"a{bits}.png"
        body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
        np.testing.assert_array_equal(read(path), np.where(mask == 1, 0, np.where(mask == 3, 1, -1)))


# --- what is refused ---


def broken(folder: Path, kind: str) -> Path:
    if kind == "truncated":
        path = save(folder, "a.png", np.random.default_rng(0).integers(0, 256, (H, W), np.uint8))
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "no image":
        path = folder / "a.png"
        path.write_text("not a picture")
    elif kind == "nothing":
        path = folder / "a.png"
        path.touch()
    elif kind == "pickle":
        path = folder / "a.npy"
        np.save(path, np.array([{"mask": 1}], object), allow_pickle=True)
    elif kind == "4d":
        path = save(folder, "a.npy", np.zeros((2, 3, 4, 5)))
    elif kind == "negative":
        path = save(folder, "a.npy", box(-1, np.int64))
    elif kind == "nan":
        path = save(folder, "a.npy", box(np.nan, np.float32))
    else:
        path = save(folder, "a.npy", box(1, np.complex64))
    return path


@pytest.mark.parametrize("kind", ["truncated", "no image", "nothing", "pickle", "4d", "negative", "nan", "complex"])
def test_what_can_not_be_decoded_is_unreadable(kind: str, tmp_path: Path) -> None:
    with pytest.raises(BadMask) as caught:
        read(broken(tmp_path, kind))
    assert caught.value.reason == "unreadable"
    assert caught.value.detail


@pytest.mark.parametrize(
    ("mask", "reason", "words"),
    [
        (np.zeros((H, W), np.uint8), "empty", ""),
        (np.full((H, W), 255, np.uint8), "full", "100.00%"),
        (np.ones((H, W), bool), "full", "100.00%"),
        (np.full((H, W), 0.4, np.float32), "empty", ""),
        (box()[:, :60], "wrong-size", "60x90 pixels, the image has 120x90"),
        (box().T.copy(), "wrong-size", "90x120 pixels, the image has 120x90"),
        (np.stack([box(9), box(5), box(1)], 2), "colours", "mode RGB"),
    ],
)
def test_what_is_no_mask_is_refused_with_the_reason(mask: np.ndarray, reason: str, words: str, tmp_path: Path) -> None:
    path = save(tmp_path, "a.png" if mask.dtype == np.uint8 else "a.npy", mask)
    with pytest.raises(BadMask) as caught:
        read(path)
    assert (caught.value.reason, caught.value.path) == (reason, str(path))
    assert words in caught.value.detail
    assert isinstance(caught.value, BadImage)  # whoever skips bad images skips these
    copy = pickle.loads(pickle.dumps(caught.value))  # as a loader process sends it
    assert (type(copy), copy.reason) == (BadMask, reason)


def test_small_masks_and_small_objects(tmp_path: Path) -> None:
    mask = np.zeros((H, W), np.uint8)
    mask[:10, :10] = 1  # 100 of 10,800
    path = save(tmp_path, "a.png", mask)
    with pytest.raises(BadMask) as caught:
        read(path)
    assert (caught.value.reason, caught.value.detail) == (
        "small",
        "0.93% of the image, at least 1.00% are needed",
    )
    assert read(path, min_area=0.005).max() == 0
    mask[20:60] = 2  # together they are large enough; the small one stays
    assert read(save(tmp_path, "b.png", mask)).max() == 1


def test_several_objects_may_fill_the_image(tmp_path: Path) -> None:
    mask = np.ones((H, W), np.uint8)
    mask[:, 60:] = 2
    np.testing.assert_array_equal(read(save(tmp_path, "a.png", mask)), mask.astype(int) - 1)


def test_masks_of_the_same_proportions_are_resized(tmp_path: Path) -> None:
    large = np.kron(two_boxes(1, 2), np.ones((3, 3), np.uint8))
    np.testing.assert_array_equal(read(save(tmp_path, "a.png", large)), two_boxes(1, 2).astype(int) - 1)
    small = box()[::3, ::3]
    assert (read(save(tmp_path, "b.png", small)) != only(box())).mean() < 0.05
    rounded = np.asarray(Image.fromarray(box(255)).resize((50, 38), Image.Resampling.NEAREST))  # 37.5 rounded
    assert (read(save(tmp_path, "c.png", rounded)) != only(box())).mean() < 0.05
    speck = np.zeros((3 * H, 3 * W), np.uint8)
    speck[0, 0], speck[60:150] = 1, 2  # the first is between the pixels that are kept
    assert set(np.unique(read(save(tmp_path, "d.png", speck)))) == {-1, 0}


def test_nothing_but_the_listed_reasons_and_a_missing_mask(tmp_path: Path) -> None:
    with pytest.raises(BadMask) as caught:
        MaskFolder(tmp_path).get("a", H, W)
    assert caught.value.reason == "missing"
    assert len(set(REASONS)) == 8


# --- which file ---


def test_names(photos: Path, tmp_path: Path) -> None:
    folder = MaskFolder(tmp_path / "m")
    assert folder.find("photo0") is None
    path = save(folder.path, "photo0.png", box())
    assert folder.find("photo0") == folder.find("photo0.jpg") == path
    exact = save(folder.path, "photo0.jpg.png", box())
    assert folder.find("photo0.jpg") == exact
    assert folder.find("photo0") == path
    deep = save(folder.path / "sub" / "sub", "v1.2.png", box())
    assert folder.find("sub/sub/v1.2") == folder.find("sub/sub/v1.2.jpg") == deep
    assert folder.find("v1.2") is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "binary"}, "must be auto, soft or index, not 'binary'"),
        ({"threshold": 0}, "threshold must be above 0 and at most 1, e.g. 0.5, not 0"),
        ({"threshold": 2}, "threshold must be above 0 and at most 1, e.g. 0.5, not 2"),
        ({"min_area": 0.5, "max_area": 0.5}, "min_area 0.5 and max_area 0.5"),
        ({"min_area": -0.1}, "min_area -0.1"),
    ],
)
def test_settings_that_can_not_work_are_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        MaskFolder(tmp_path, **options)


# --- a whole folder ---


def masks_for(photos: Path, folder: Path, make: Callable[[int], np.ndarray | None]) -> MaskFolder:
    for i in range(6):
        mask = make(i)
        if mask is not None:
            save(folder, f"photo{i}.png", mask)
    folder.mkdir(exist_ok=True)
    return MaskFolder(folder)


def test_a_survey_tells_what_can_be_used_and_why_the_rest_can_not(photos: Path, tmp_path: Path) -> None:
    made = [box(), box(255), two_boxes(1, 2), np.zeros((H, W), np.uint8), np.full((H, W), 1, np.uint8), None]
    result = survey(masks_for(photos, tmp_path / "m", lambda i: made[i]), list_images(photos))
    assert result.usable == (0, 1, 2)
    assert {name: reason for name, (reason, _) in result.problems.items()} == {
        "photo3": "empty",
        "photo4": "full",
        "photo5": "missing",
    }
    assert (result.objects, result.resized) == (4, 0)
    assert result.sentence() == "3 of 6 images have a usable mask (1 empty, 1 full, 1 missing)"


def test_one_soft_file_makes_dark_ones_soft_too(photos: Path, tmp_path: Path) -> None:
    dark = box(3)
    dark[40:50, 40:50] = 60
    result = survey(masks_for(photos, tmp_path / "m", lambda i: dark if i == 1 else ramp()), list_images(photos))
    assert result.folder.kind == "soft"
    assert result.problems["photo1"][0] == "empty"
    assert result.usable == (0, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda i: None, "6 missing"),
        (lambda i: np.zeros((H, W), np.uint8), "6 empty"),
        (lambda i: box()[:60], "6 wrong-size"),
    ],
)
def test_a_folder_without_any_usable_mask_is_refused(
    make: Callable[[int], np.ndarray | None], words: str, photos: Path, tmp_path: Path
) -> None:
    folder = masks_for(photos, tmp_path / "m", make)
    with pytest.raises(EmptyCollection, match=rf"0 of 6 images have a usable mask \({words}\).*docs/masks.md"):
        survey(folder, list_images(photos))


def test_no_folder_at_all(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is no folder.*selfseg masks"):
        survey(MaskFolder(tmp_path / "absent"), list_images(photos))


def test_two_images_of_one_name_need_masks_of_their_own(tmp_path: Path) -> None:
    photos, folder = tmp_path / "photos", tmp_path / "m"
    random = np.random.default_rng(0)
    for name in ("a.jpg", "a.png", "b.jpg"):
        save(photos, name, random.integers(0, 256, (H, W, 3), np.uint8))
    save(folder, "a.png", box())
    save(folder, "b.png", box())
    result = survey(MaskFolder(folder), list_images(photos))
    assert len(result.usable) == 1
    assert {reason for reason, _ in result.problems.values()} == {"ambiguous"}
    save(folder, "a.jpg.png", box())
    save(folder, "a.png.png", box())
    assert len(survey(MaskFolder(folder), list_images(photos)).usable) == 3


def test_an_image_turned_by_its_camera_has_an_upright_mask(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    image = np.random.default_rng(0).integers(0, 256, (W, H, 3), np.uint8)
    Image.fromarray(image).save(photos / "a.jpg", exif=exif)
    save(tmp_path / "m", "a.png", box())
    assert survey(MaskFolder(tmp_path / "m"), list_images(photos)).usable == (0,)


def test_a_bad_image_is_passed_over(photos: Path, tmp_path: Path) -> None:
    folder = masks_for(photos, tmp_path / "m", lambda i: box())
    (photos / "photo2.jpg").write_bytes(b"nothing")
    result = survey(folder, list_images(photos))
    assert 2 not in result.usable
    assert "photo2" not in result.problems
