import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import layouts
from selfseg.data.labelled.catalog import (
    LabelledImages,
    Source,
    centre_square,
    find_images,
    open_labelled,
    parse_source,
)
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.listing import list_images
from selfseg.errors import ConfigError, DataError, EmptyCollection, LabelError


def test_pairs_names_and_values(labelled: Path) -> None:
    data = open_labelled(labelled, "val")
    assert len(data) == 4
    assert data.class_names == ("sky", "ground", "ball", "house")
    assert data.images.names == ("scene6", "scene7", "scene8", "scene9")
    for index in range(len(data)):
        label = data.read_label(index)
        assert label.dtype == np.uint8
        assert label.shape == data.images.read(index).shape[:2]
        assert set(np.unique(label)) == {0, 1, 2, 3, 255}
        assert label[45, 0] == 255


def test_plain_names_and_no_names(labelled: Path) -> None:
    (labelled / "classes.txt").write_text("sky\nground\nball\nhouse\n")
    assert open_labelled(labelled, "train").class_names == ("sky", "ground", "ball", "house")
    (labelled / "classes.txt").unlink()
    assert open_labelled(labelled, "train").class_names == ("class 0", "class 1", "class 2", "class 3")


@pytest.mark.parametrize(
    ("text", "words"), [("0 a\n2 b\n", "class 1"), ("0 a\n0 b\n", "twice"), ("\n", "no class"), ("255 void", "class 0")]
)
def test_classes_that_make_no_sense(labelled: Path, text: str, words: str) -> None:
    (labelled / "classes.txt").write_text(text)
    with pytest.raises(LabelError, match=words):
        open_labelled(labelled, "val")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", ["P", "L"])
def test_small_bit_depths_and_palettes_give_indices(labelled: Path, bits: int, mode: str) -> None:
    values = np.zeros((90, 120), np.uint8)
    values[:, 40:] = 1
    path = labelled / "val" / "labels" / "scene6.png"
    if mode == "P":
        image = Image.fromarray(values, "P")
        image.putpalette([9, 8, 7, 200, 100, 50])
        image.save(path, bits=bits)
    else:
        path.write_bytes(_gray_png(values, bits))
    np.testing.assert_array_equal(open_labelled(labelled, "val").read_label(0), values)


def _gray_png(values: np.ndarray, bits: int) -> bytes:
    """A gray PNG of `bits` per pixel, which Pillow cannot write."""
    import struct
    import zlib

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width = values.shape
    unpacked = np.unpackbits(values[:, :, None], axis=2)[:, :, 8 - bits :].reshape(height, width * bits)
    rows = np.packbits(unpacked, axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def test_a_value_outside_of_the_classes(labelled: Path) -> None:
    path = labelled / "val" / "labels" / "scene7.png"
    Image.fromarray(np.full((90, 120), 4, np.uint8)).save(path)
    with pytest.raises(LabelError, match=r"scene7\.png holds the value 4 but there are 4 classes.*255 = void"):
        open_labelled(labelled, "val").read_label(1)
    Image.fromarray(np.full((90, 120), 300, np.uint16)).save(path)
    with pytest.raises(LabelError, match="value 300"):
        open_labelled(labelled, "val").read_label(1)


def test_a_label_of_another_size_is_resampled_by_place(labelled: Path) -> None:
    path = labelled / "val" / "labels" / "scene7.png"
    full = np.array(Image.open(path))
    Image.fromarray(full[::2, ::2]).save(path)
    expected = full[::2, ::2].repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(open_labelled(labelled, "val").read_label(1), expected)
    Image.fromarray(full.repeat(3, axis=0).repeat(3, axis=1)).save(path)
    np.testing.assert_array_equal(open_labelled(labelled, "val").read_label(1), full)
    Image.fromarray(full[:, :119]).save(path)  # a pixel less is rounding
    assert open_labelled(labelled, "val").read_label(1).shape == (90, 120)


def test_a_label_of_other_proportions_is_refused(labelled: Path) -> None:
    path = labelled / "val" / "labels" / "scene7.png"
    Image.fromarray(np.zeros((45, 50), np.uint8)).save(path)
    with pytest.raises(LabelError, match=r"50x45.*120x90; both must have the same proportions"):
        open_labelled(labelled, "val").read_label(1)
    Image.fromarray(np.zeros((120, 90), np.uint8)).save(path)
    with pytest.raises(LabelError, match=r"90x120.*120x90 \(the label is not turned as the image is"):
        open_labelled(labelled, "val").read_label(1)


@pytest.mark.parametrize("turned", [3, 6, 8])
def test_labels_on_the_pixels_as_they_are_stored_are_turned_with_them(labelled: Path, turned: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turned
    picture = np.zeros((90, 120, 3), np.uint8)
    picture[:45, :60] = 255
    Image.fromarray(picture).save(labelled / "val" / "images" / "scene7.jpg", exif=exif, quality=95)
    Image.fromarray((picture[..., 0] > 0).astype(np.uint8)).save(labelled / "val" / "labels" / "scene7.png")
    if turned > 4:  # a label of the same proportions can't be told from one that was turned
        with pytest.raises(LabelError, match=r"turned by its EXIF orientation, .*labelled\?labels=unrotated"):
            open_labelled(labelled, "val").read_label(1)
    data = open_labelled(f"{labelled}?labels=unrotated", "val")
    label, image = data.read_label(1), data.images.read(1)
    assert label.shape == image.shape[:2]
    assert ((image[..., 0] > 127) == (label == 1)).mean() > 0.98
    assert open_labelled(labelled, "val").read_label(0).tolist() == data.read_label(0).tolist()


def test_a_label_of_colours_or_of_another_format(labelled: Path) -> None:
    path = labelled / "val" / "labels" / "scene6.png"
    Image.new("RGB", (120, 90), (0, 1, 0)).save(path)
    with pytest.raises(LabelError, match="colours"):
        open_labelled(labelled, "val").read_label(0)
    Image.new("L", (120, 90)).save(path, format="JPEG")
    with pytest.raises(LabelError, match="a lossy JPEG file"):
        open_labelled(labelled, "val").read_label(0)
    path.write_bytes(b"")
    with pytest.raises(LabelError, match="can't read"):
        open_labelled(labelled, "val").read_label(0)


def test_images_without_label_are_named(labelled: Path) -> None:
    for name in ("scene0", "scene3"):
        (labelled / "train" / "labels" / f"{name}.png").rename(labelled / "train" / "labels" / f"{name}.jpg")
    with pytest.raises(LabelError, match=r"2 of 6 .*scene0\.png.*scene3\.png.*\.jpg"):
        open_labelled(labelled, "train")


def test_missing_folders_say_what_there_is(labelled: Path, photos: Path) -> None:
    with pytest.raises(DataError, match=r"no split 'test' .*there is train, val"):
        open_labelled(labelled, "test")
    with pytest.raises(DataError, match="no split 'val'"):
        open_labelled(photos, "val")
    with pytest.raises(DataError, match="does not exist"):
        open_labelled(labelled / "no", "val")
    for path in (labelled / "val" / "images").iterdir():
        path.unlink()
    with pytest.raises(EmptyCollection):
        open_labelled(labelled, "val")


def test_real_labels(shared_data: Path) -> None:
    data = open_labelled(shared_data / "camvid", "val")
    assert len(data) == 101
    assert len(data.class_names) == 11
    assert data.class_names[0] == "Sky"
    assert data.read_label(0).shape == (360, 480)


def test_a_subset_keeps_names_and_pairs(labelled):
    data = open_labelled(labelled, "train")
    some = data.subset([4, 1])
    assert len(some) == 2
    assert some.images.names == (data.images.names[4], data.images.names[1])
    assert np.array_equal(some.images.read(0), data.images.read(4))
    assert np.array_equal(some.read_label(1), data.read_label(1))
    assert (some.class_names, some.root, some.split) == (data.class_names, data.root, "train")


def test_a_path_stays_a_path(labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (labelled, str(labelled), "some/where", "C:/data", "a:b"):
        assert parse_source(text).dataset is None
        assert parse_source(text).root == Path(text)
    strange = labelled.parent / "voc:here"  # a folder that looks like NAME:ROOT
    labelled.rename(strange)
    monkeypatch.chdir(strange.parent)
    assert parse_source("voc:here") == Source(None, Path("voc:here"))
    assert len(open_labelled("voc:here", "val")) == 4


def test_names_that_nobody_knows() -> None:
    with pytest.raises(ConfigError, match=r"no data set 'cityscapes'.* cityscapes19, cityscapes27"):
        parse_source("cityscapes:/data/cityscapes")
    with pytest.raises(ConfigError, match=r"no data set 'photos'.* voc, coco27"):
        find_images("photos:/data")
    with pytest.raises(ConfigError, match="voc:ROOT"):
        parse_source("voc:")


def test_a_named_split_is_for_images_only(tmp_path: Path) -> None:
    root = layouts.cityscapes(tmp_path)
    assert find_images(f"cityscapes19/val:{root}").names == ("frankfurt/frankfurt_000000_000019_leftImg8bit",)
    with pytest.raises(ConfigError, match="names a split"):
        open_labelled(f"cityscapes19/val:{root}", "val")
    with pytest.raises(DataError, match="no split 'nights'"):
        find_images(f"cityscapes19/nights:{root}")


def test_images_of_anything_else_are_listed_as_ever(photos: Path) -> None:
    assert find_images(photos) == list_images(photos)
    assert find_images([photos / "photo1.jpg"]).names == ("photo1",)


def test_label_maps_travel_to_workers(tmp_path: Path) -> None:
    data = open_labelled(f"camvid:{layouts.camvid(tmp_path, 'colours')}", "train")
    expected = data.read_label(0)  # its table is made now
    packed = pickle.dumps(data)
    assert len(packed) < 10_000  # without the table of colours
    np.testing.assert_array_equal(pickle.loads(packed).read_label(0), expected)


def test_a_crop_is_the_centre_of_image_and_label_resized_alike(labelled: Path) -> None:
    whole = open_labelled(labelled, "val")
    data = whole.cropped(60)
    assert (data.crop, whole.crop, len(data)) == (60, None, len(whole))
    for index in range(len(data)):
        image, label = data.images.read(index), data.read_label(index)
        assert (image.shape, image.dtype, label.shape, label.dtype) == ((60, 60, 3), np.uint8, (60, 60), np.uint8)
        # 120x90 is 80x60, of which 10 columns go on either side. Pillow takes the pixel under the centre, too.
        resized = Image.fromarray(whole.read_label(index)).resize((80, 60), Image.Resampling.NEAREST)
        assert np.array_equal(label, np.asarray(resized)[:, 10:70])
        # A new pixel covers 1.5 x 1.5 old ones, which are 3 x 3 halves.
        halves = whole.images.read(index).repeat(2, 0).repeat(2, 1).reshape(60, 3, 80, 3, 3)
        assert np.abs(image - halves.mean((1, 3))[:, 10:70]).max() <= 1
    part = data.subset([2, 0])
    assert np.array_equal(part.images.read(0), data.images.read(2))
    assert np.array_equal(part.read_label(0), data.read_label(2))
    assert part.images.names == ("scene8", "scene6")
    assert data.images.size(0) == (60, 60)


def test_a_crop_may_grow_and_upright_images_lose_above_and_below(tmp_path: Path) -> None:
    for kind in ("images", "labels"):
        (tmp_path / "val" / kind).mkdir(parents=True)
    label = np.arange(21, dtype=np.uint8)[:, None].repeat(10, 1)
    Image.fromarray(label).save(tmp_path / "val" / "labels" / "a.png")
    Image.fromarray(label[..., None].repeat(3, 2)).save(tmp_path / "val" / "images" / "a.png")
    data = open_labelled(tmp_path, "val").cropped(20)
    assert data.read_label(0)[:, 0].tolist() == [row // 2 for row in range(11, 31)]
    assert data.images.read(0).shape == (20, 20, 3)
    assert centre_square(label).shape == (10, 10)
    assert centre_square(label)[0, 0] == 5
    assert pickle.loads(pickle.dumps(data)).images.read(0).shape == (20, 20, 3)


def test_crops_that_can_not_be() -> None:
    whole = LabelledImages(Path(), "val", ImageCollection(Path(), ()), (), ("a",))
    with pytest.raises(ConfigError, match="a crop of 7 px is too small"):
        whole.cropped(7)
    with pytest.raises(ConfigError, match="cropped to 320 px already"):
        whole.cropped(320).cropped(320)
