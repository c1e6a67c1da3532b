from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from selfseg.data.loader import REASONS
from selfseg.data.reading.listing import list_images
from selfseg.data.regions import Grid, NoRegions, ObjectMasks, Pixels, RegionCache, RegionSource, Superpixels
from selfseg.data.views.object_crops import ObjectCrops
from selfseg.errors import BadImage, ConfigError, EmptyCollection, StorageError


def noise(height: int = 40, width: int = 61, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@dataclass(frozen=True)
class Counting(Superpixels):
    """Superpixels that note each computation; `regions` stands in for the algorithm where given."""

    log: tuple[list[int], ...] = ([],)

    def compute(self, image: NDArray[np.uint8], name: str = "") -> NDArray[np.int32]:
        self.log[0].append(1)
        return super().compute(image)


def counting() -> Counting:
    return Counting(size=8, log=([],))


@pytest.mark.parametrize("source", [Superpixels(size=8), Grid(size=8), Pixels()])
@pytest.mark.parametrize("shape", [(1, 1), (40, 61), (7, 90)])
def test_regions_are_dense(source: RegionSource, shape: tuple[int, int]) -> None:
    regions = source.compute(noise(*shape))
    assert regions.shape == shape
    assert regions.dtype == np.int32
    assert np.bincount(regions.ravel()).min() > 0


def test_grid_and_pixels() -> None:
    np.testing.assert_array_equal(Grid(2).compute(noise(3, 5)), [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]])
    np.testing.assert_array_equal(Pixels().compute(noise(2, 3)), [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Superpixels(size=1),
        lambda: Superpixels(ruler=-1),
        lambda: Superpixels(iterations=0),
        lambda: Grid(size=0),
        lambda: Grid(size=1.5),  # type: ignore[arg-type]
    ],
)
def test_values_that_cannot_work(make: object) -> None:
    with pytest.raises(ConfigError, match=r"not (1|-1|0|1\.5)$"):
        make()  # type: ignore[operator]


def test_keys_differ_with_every_parameter() -> None:
    sources: list[RegionSource] = [
        Superpixels(), Superpixels(size=10), Superpixels(ruler=5.0), Superpixels(iterations=6),
        Grid(), Grid(size=10), Pixels(),
    ]  # fmt: skip
    assert len({source.key for source in sources}) == len(sources)
    assert Superpixels(ruler=10).key == Superpixels(ruler=10.0).key


@pytest.mark.parametrize("shape", [(1, 1), (40, 61), (300, 500)])
def test_the_second_time_comes_from_disk(tmp_path: Path, shape: tuple[int, int]) -> None:
    source = counting()
    image = noise(*shape)
    first = RegionCache(tmp_path, source).get(image)
    second = RegionCache(tmp_path, source).get(image)
    assert len(source.log[0]) == 1
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, source.compute(image))
    assert second.dtype == np.int32
    assert second.flags.writeable


def test_ids_beyond_16_bits_survive(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Many(Superpixels):
        def compute(self, image: NDArray[np.uint8], name: str = "") -> NDArray[np.int32]:
            return np.random.default_rng(0).permutation(image[:, :, 0].size).astype(np.int32).reshape(image.shape[:2])

    image = noise(300, 400)
    RegionCache(tmp_path, Many()).get(image)
    np.testing.assert_array_equal(RegionCache(tmp_path, Superpixels()).get(image), Many().compute(image))


def test_other_images_and_parameters_have_other_entries(tmp_path: Path) -> None:
    image = noise()
    changed = image.copy()
    changed[-1, -1, -1] ^= 1
    turned = image.reshape(61, 40, 3)  # the same bytes
    for each in (image, changed, turned):
        RegionCache(tmp_path, Superpixels(size=8)).get(each)
    RegionCache(tmp_path, Superpixels(size=9)).get(image)
    assert len(entries(tmp_path)) == 4


@pytest.mark.parametrize("damage", ["empty", "cut", "header", "content", "folder"])
def test_a_damaged_entry_is_made_anew(tmp_path: Path, damage: str) -> None:
    source, image = counting(), noise()
    expected = RegionCache(tmp_path, source).get(image)
    (path,) = entries(tmp_path)
    sound = path.read_bytes()
    middle = len(sound) // 2
    damaged = {
        "empty": b"",
        "cut": sound[:-3],
        "header": b"x" + sound[1:],
        "content": sound[:middle] + bytes([sound[middle] ^ 255]) + sound[middle + 1 :],
        "folder": b"",
    }[damage]
    path.write_bytes(damaged)
    if damage == "folder":
        path.unlink()
        path.parent.rmdir()
    np.testing.assert_array_equal(RegionCache(tmp_path, source).get(image), expected)
    assert path.read_bytes() == sound
    RegionCache(tmp_path, source).get(image)
    assert len(source.log[0]) == 2


def test_without_a_folder_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source, image = counting(), noise()
    cache = RegionCache(None, source)
    np.testing.assert_array_equal(cache.get(image), cache.get(image))
    assert len(source.log[0]) == 2
    assert entries(tmp_path) == []


@pytest.mark.parametrize("source", [Grid(size=8), Pixels()])
def test_what_is_quicker_made_than_read_is_not_stored(tmp_path: Path, source: RegionSource) -> None:
    image = noise()
    np.testing.assert_array_equal(RegionCache(tmp_path, source).get(image), source.compute(image))
    assert entries(tmp_path) == []


def test_no_regions_cost_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RegionCache, "_path", None)  # nothing is hashed
    ids = RegionCache(tmp_path, NoRegions()).get(noise())
    assert ids.shape == (0, 0)
    assert ids.dtype == np.int32
    assert entries(tmp_path) == []


def test_many_may_write_at_once(tmp_path: Path) -> None:
    images = [noise(seed=seed) for seed in range(3)]
    expected = [Superpixels(size=8).compute(image) for image in images]

    def get(index: int) -> NDArray[np.int32]:
        return RegionCache(tmp_path, Superpixels(size=8)).get(images[index % 3])

    with ThreadPoolExecutor(8) as pool:
        for index, regions in enumerate(pool.map(get, range(60))):
            np.testing.assert_array_equal(regions, expected[index % 3])
    assert len(entries(tmp_path)) == 3  # and no temporary file


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        RegionCache(tmp_path / "file" / "cache", Superpixels(size=8)).get(noise())


# Masks from files

PHOTO = np.zeros((4, 6, 3), np.uint8)


def write_mask(folder: Path, values: object, name: str = "a", mode: str | None = None) -> None:
    path = folder / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values, np.uint8))
    (image if mode is None else image.convert(mode)).save(path)


def half(value: int) -> NDArray[np.uint8]:
    values = np.zeros((4, 6), np.uint8)
    values[:, 3:] = value
    return values


@pytest.mark.parametrize("value", [1, 7, 255])
@pytest.mark.parametrize("mode", [None, "P", "1"])
def test_one_value_is_one_object_whatever_it_is(tmp_path: Path, value: int, mode: str | None) -> None:
    write_mask(tmp_path, half(255 if mode == "1" else value), mode=mode)
    np.testing.assert_array_equal(ObjectMasks(tmp_path).compute(PHOTO, "a"), np.where(half(1), 0, -1))


def test_several_values_are_several_objects_and_255_is_void(tmp_path: Path) -> None:
    values = half(9)
    values[0], values[3] = 4, 255
    write_mask(tmp_path, values, "street/a")
    ids = ObjectMasks(tmp_path).compute(PHOTO, "street/a")
    np.testing.assert_array_equal(ids, np.select([values == 4, values == 9], [0, 1], -1))
    assert ids.dtype == np.int32


@pytest.mark.parametrize("scale", [2, 5])
def test_a_mask_of_the_same_proportions_is_brought_to_size(tmp_path: Path, scale: int) -> None:
    write_mask(tmp_path, np.kron(half(1), np.ones((scale, scale), np.uint8)))
    np.testing.assert_array_equal(ObjectMasks(tmp_path).compute(PHOTO, "a"), np.where(half(1), 0, -1))
    large = np.zeros((4 * scale * 3, 6 * scale * 3, 3), np.uint8)
    assert (ObjectMasks(tmp_path).compute(large, "a") == 0).mean() == 0.5


@pytest.mark.parametrize(("height", "width"), [(375, 500), (427, 640), (333, 500), (19, 1000)])
def test_rounding_to_whole_pixels_is_no_other_proportion(tmp_path: Path, height: int, width: int) -> None:
    write_mask(tmp_path, np.ones((height, width)))
    for short_side in (17, 100, 256):
        image = ObjectCrops(short_side=short_side).prepare(np.zeros((height, width, 3), np.uint8))
        assert (ObjectMasks(tmp_path).compute(image, "a") == 0).all()
    with pytest.raises(BadImage, match="other proportions"):
        ObjectMasks(tmp_path).compute(np.zeros((width, height, 3), np.uint8), "a")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (None, "mask-missing"),
        (np.zeros((4, 6)), "mask-empty"),
        (np.arange(72).reshape(4, 6, 3), "mask-colours"),
        (np.ones((6, 4)), "mask-wrong-size"),
    ],
)
def test_masks_that_cannot_be_used_say_why(tmp_path: Path, values: object, reason: str) -> None:
    if values is not None:
        write_mask(tmp_path, values)
    with pytest.raises(BadImage) as caught:
        ObjectMasks(tmp_path).compute(PHOTO, "a")
    assert caught.value.reason == reason
    assert reason in REASONS
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(BadImage, match="mask-unreadable"):
        ObjectMasks(tmp_path).compute(PHOTO, "a")


def test_what_a_run_found_decides_what_values_mean(tmp_path: Path) -> None:
    values = half(200)
    values[:, :2], values[0, 0] = 9, 5
    write_mask(tmp_path, values)
    several, one = (ObjectMasks(tmp_path, content=f"{kind} 12").compute(PHOTO, "a") for kind in ("index", "soft"))
    assert several.max() == 2
    np.testing.assert_array_equal(one, np.where(half(1), 0, -1))


def test_a_survey_tells_which_images_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a", "b", "c"):
        Image.fromarray(PHOTO.repeat(10, 0).repeat(10, 1)).save(tmp_path / "images" / f"{name}.png")
    write_mask(tmp_path / "masks", half(1), "b")
    write_mask(tmp_path / "masks", np.ones((4, 6)), "c")
    images = list_images(tmp_path / "images")
    found = ObjectMasks(tmp_path / "masks").survey(images)
    assert found.usable == (1,)
    assert {name: reason for name, (reason, _) in found.problems.items()} == {"a": "missing", "c": "full"}
    assert ObjectMasks(tmp_path / "masks", max_area=1.0).survey(images).usable == (1, 2)
    with pytest.raises(EmptyCollection, match="0 of 3 images have a usable mask"):
        ObjectMasks(tmp_path / "masks", min_area=0.6, max_area=0.7).survey(images)


def test_what_is_found_depends_on_every_byte_and_on_no_place(tmp_path: Path) -> None:
    for folder in ("here", "there"):
        write_mask(tmp_path / folder, half(1), "a")
        write_mask(tmp_path / folder, half(1), "b")
    here, there = ObjectMasks(tmp_path / "here"), ObjectMasks(tmp_path / "there")
    found = here.found("auto", ["a", "b"])
    assert found == there.found("auto", ["a", "b"])
    others = {here.found("soft", ["a", "b"]), here.found("auto", ["b", "a"]), here.found("auto", ["a"])}
    write_mask(tmp_path / "there", 1 - half(1), "b")
    others.add(there.found("auto", ["a", "b"]))
    (tmp_path / "there" / "b.png").unlink()
    others.add(there.found("auto", ["a", "b"]))
    assert len(others | {found}) == 6


def test_masks_are_never_cached_by_the_pixels_alone(tmp_path: Path) -> None:
    write_mask(tmp_path / "masks", half(1), "a")
    write_mask(tmp_path / "masks", 1 - half(1), "b")
    cache = RegionCache(tmp_path / "cache", ObjectMasks(tmp_path / "masks"))
    np.testing.assert_array_equal(cache.get(PHOTO, "a"), -1 - cache.get(PHOTO, "b"))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("source", [Superpixels(8), Grid(7), Pixels()])
def test_void_of_measured_channels_is_in_no_region(tmp_path: Path, source: Superpixels | Grid | Pixels) -> None:
    image = np.random.default_rng(0).integers(1, 256, (30, 41, 5), np.uint8)
    image[:9, :14] = 0
    cache = RegionCache(tmp_path, source, rgb=False)
    regions = cache.get(image)
    np.testing.assert_array_equal(regions < 0, ~image.any(2))
    assert np.bincount(regions[regions >= 0]).min() > 0  # dense
    np.testing.assert_array_equal(cache.get(image), regions)  # from disk, where it is kept


def test_three_channels_are_kept_apart_from_a_photograph(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(1, 256, (30, 41, 3), np.uint8)
    photograph = RegionCache(tmp_path, Superpixels(8)).get(image)
    channels = RegionCache(tmp_path, Superpixels(8), rgb=False).get(image)
    assert (photograph != channels).any()
    np.testing.assert_array_equal(RegionCache(tmp_path, Superpixels(8)).get(image), photograph)
