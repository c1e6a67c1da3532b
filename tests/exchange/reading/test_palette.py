import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfseg.errors import DataError, LabelError
from selfseg.exchange import read

VALUES = np.array([[0, 1, 255], [1, 1, 0]], np.uint8)
TABLE = np.array([[9, 8, 7], [128, 64, 128], *[[0, 0, 0]] * 254], np.uint8)


def save(path: Path, pixels: np.ndarray, palette: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette(palette.tobytes())
    image.save(path)


@pytest.mark.parametrize("home", ["SegmentationClass", "train/labels/sub", "."])
@pytest.mark.parametrize("kind", ["gray", "palette", "colours"])
@pytest.mark.parametrize("listed", ["classes.txt", "plain classes.txt", "labelmap.txt", "legend.json"])
def test_every_list_explains_every_kind_of_file(listed: str, kind: str, home: str, tmp_path: Path) -> None:
    entries = [{"value": 0, "name": "sky", "colour": "#090807"}, {"value": 1, "name": "road", "colour": "#804080"}]
    text = {
        "classes.txt": "0 sky 9 8 7\n1 road 128,64,128\n255 void 0 0 0",
        "plain classes.txt": "sky\nroad",
        "labelmap.txt": "sky:9,8,7::\nroad:128,64,128::",
        "legend.json": json.dumps({"void": 255, "classes": entries}),
    }[listed]
    (tmp_path / listed.removeprefix("plain ")).write_text(text)
    pixels = {"gray": VALUES, "palette": VALUES, "colours": TABLE[VALUES]}[kind]
    save(tmp_path / home / "a b.png", pixels, TABLE if kind == "palette" else None)
    save(tmp_path / "SegmentationObject" / "a b.png", VALUES + 7)
    legend, masks = read("palette", tmp_path)
    assert legend.names == ("sky", "road")
    if kind == "colours" and listed == "plain classes.txt":
        with pytest.raises(
            LabelError, match=r"a b\.png: it holds colours \(mode RGB\), and the list of classes has none"
        ):
            list(masks)
        return
    if kind == "colours" and listed in ("labelmap.txt", "legend.json"):
        with pytest.raises(LabelError, match=r"a b\.png: the colour \(0, 0, 0\) at x = 2, y = 0 is none of the listed"):
            list(masks)
        return
    (one,) = masks
    np.testing.assert_array_equal(one.mask, VALUES)
    assert one.name == {"train/labels/sub": "sub/a b.png"}.get(home, "a b.png")


def test_what_can_not_be_used(tmp_path: Path) -> None:
    save(tmp_path / "labels" / "a.png", VALUES)
    save(tmp_path / "labels" / "b.png", VALUES + np.uint8(5))
    (tmp_path / "labels" / "c.png").write_bytes(b"no PNG")
    Image.fromarray(VALUES).save(tmp_path / "labels" / "d.png", format="JPEG")
    with pytest.raises(DataError, match=r"holds no legend\.json, labelmap\.txt or classes\.txt"):
        read("palette", tmp_path)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    left_out: list[str] = []
    assert [one.name for one in read("palette", tmp_path, left_out=left_out)[1]] == ["a.png"]
    assert "b.png: " in left_out[0]
    assert "the mask holds 5" in left_out[0] or "holds 6" in left_out[0]
    assert "can't read the label" in left_out[1]
    assert "is a lossy JPEG file" in left_out[2]
    (tmp_path / "legend.json").write_text('{"classes": 3}')
    with pytest.raises(LabelError, match=r"legend\.json"):
        read("palette", tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "classes.txt").write_text("a\nb\n")
    with pytest.raises(LabelError, match="holds no label PNG"):
        read("palette", tmp_path / "other")


def test_an_image_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packed = zlib.compressobj(1)
    rows = b"".join(packed.compress(bytes(7_501 * 100)) for _ in range(600)) + packed.flush()
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    assert (tmp_path / "bomb.png").stat().st_size < 2_000_000
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(LabelError, match=r"bomb\.png.*3600000000 pixels"):
        list(read("palette", tmp_path)[1])
