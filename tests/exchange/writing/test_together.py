import errno
import os
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from exchange import odd_masks
from selfseg.data.labelled.legend import Legend
from selfseg.errors import ConfigError, EmptyCollection, LabelError, StorageError
from selfseg.exchange.base import FORMATS, NamedMask, write, write_formats
from selfseg.storage import files

LEGEND = Legend.of(["a", "b"])
ONE = NamedMask("x.png", np.array([[0, 1, 255]], np.uint8))


def contents(path: Path) -> dict[str, bytes]:
    if path.is_file():
        return {path.name: path.read_bytes()}
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("per", ["class", "component"])
def test_together_is_as_each_alone(tmp_path: Path, per: str) -> None:
    masks = list(odd_masks.named())
    together = write_formats(list(FORMATS), masks, odd_masks.legend(), tmp_path / "all", per=per)
    for name, path in together.items():
        alone = write(name, iter(masks), odd_masks.legend(), tmp_path / "alone" / path.name, per=per)
        assert contents(alone) == contents(path) != {}


def test_each_format_gets_a_folder_or_a_zip(tmp_path: Path) -> None:
    found = write_formats(["palette", "cvat"], [ONE], LEGEND, tmp_path)
    assert found == {"palette": tmp_path / "palette", "cvat": tmp_path / "cvat.zip"}
    found = write_formats({"coco": {"shapes": "polygons"}, "palette": {}}, [ONE], LEGEND, tmp_path, zipped=True)
    assert found == {"coco": tmp_path / "coco.zip", "palette": tmp_path / "palette.zip"}


def test_one_mask_is_held_at_a_time(tmp_path: Path) -> None:
    alive: list[weakref.ref[object]] = []
    most = 0

    def stream() -> Iterator[NamedMask]:
        nonlocal most
        for i in range(20):
            mask = np.full((50, 60), i % 2, np.uint8)
            alive.append(weakref.ref(mask))
            yield NamedMask(f"{i}.png", mask)
            del mask
            most = max(most, sum(ref() is not None for ref in alive))

    write_formats(list(FORMATS), stream(), LEGEND, tmp_path)
    assert len(alive) == 20
    assert most <= 2


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    write_formats(list(FORMATS), [ONE], LEGEND, tmp_path)
    before = contents(tmp_path)

    def broken() -> Iterator[NamedMask]:
        yield NamedMask("other.png", ONE.mask)
        raise RuntimeError("a reader failed")

    with pytest.raises(RuntimeError, match="a reader failed"):
        write_formats(list(FORMATS), broken(), LEGEND, tmp_path)
    assert contents(tmp_path) == before
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".tmp-")]


def test_a_second_time_replaces_the_first(tmp_path: Path) -> None:
    write_formats(list(FORMATS), [ONE, NamedMask("gone.png", ONE.mask)], LEGEND, tmp_path)
    write_formats(list(FORMATS), [ONE], LEGEND, tmp_path)
    assert not [name for name in contents(tmp_path) if "gone" in name]


def test_names_differ(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"two masks are called 'x\.png'"):
        write("coco", [ONE, ONE], LEGEND, tmp_path / "out")


@pytest.mark.parametrize(("value", "kind"), [(2, np.uint8), (254, np.uint8), (-1, np.int16), (65_535, np.uint16)])
def test_a_value_that_the_legend_does_not_name_is_refused(tmp_path: Path, value: int, kind: type) -> None:
    mask = NamedMask("odd.png", np.array([[0, value]], kind))
    with pytest.raises(LabelError, match=rf"odd.png: the mask holds {value}; .* 0 to 1, and void is 255"):
        write("palette", [ONE, mask], LEGEND, tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_no_mask_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EmptyCollection):
        write("palette", [], LEGEND, tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_an_unknown_option_is_told_before_anything_is_read(tmp_path: Path) -> None:
    def never() -> Iterator[NamedMask]:
        raise AssertionError("read")
        yield

    with pytest.raises(ConfigError, match=r"the format coco has no option 'shape'; it has images, per, shapes"):
        write("coco", never(), LEGEND, tmp_path / "out", shape="rle")


@pytest.mark.parametrize("failing", ["prepare", "rename"])
def test_either_all_are_written_or_none(failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_formats(["palette", "cvat", "coco"], [ONE], LEGEND, tmp_path)
    before, rename = contents(tmp_path), os.rename

    def no_space(path: Path, mode: int) -> None:
        if path.suffix == ".zip":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fails(source: Path, target: Path) -> None:
        if Path(target).name == "coco" and not Path(source).name.endswith("-old"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    with monkeypatch.context() as patch:
        if failing == "prepare":
            patch.setattr(Path, "chmod", no_space)
        else:
            patch.setattr(files, "_exchange", lambda one, other: False)
            patch.setattr(os, "rename", fails)
            patch.setattr(os, "replace", fails)
        with pytest.raises(StorageError):
            write_formats(["palette", "cvat", "coco"], [NamedMask("other.png", ONE.mask)], LEGEND, tmp_path)
    assert contents(tmp_path) == before
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".tmp-")]
