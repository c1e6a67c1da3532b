import gzip
import io
import pickle
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

import layouts
from selfseg.data.labelled.catalog import find_images, open_labelled
from selfseg.data.loader import StepSampler
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.listing import list_images
from selfseg.data.reading.packed import shards as shards_module
from selfseg.data.reading.packed.shards import KEPT, WINDOW, ShardCollection, open_shards
from selfseg.data.reading.skipping import SkipLog, scan
from selfseg.errors import BadImage, ConfigError, DataError, EmptyCollection

NAMES = tuple(f"part-{i // 2:03d}.tar/photo{i}" for i in range(6))


@pytest.fixture
def folder(photos: Path, tmp_path: Path) -> Path:
    """Three shards of two photographs each."""
    return layouts.shards(photos, tmp_path / "shards")


@pytest.fixture
def remote(folder: Path) -> Iterator[str]:
    """The same shards in fsspec's memory."""
    system = fsspec.filesystem("memory")
    for path in sorted(folder.iterdir()):
        system.pipe_file(f"/bucket/{path.name}", path.read_bytes())
    yield "shards:memory://bucket/part-{000..002}.tar"
    system.rm("/bucket", recursive=True)


def same(first: ImageCollection, second: ImageCollection) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(first.read(i), second.read(j)) for i, j in enumerate(range(len(second)))
    )


def test_images_are_those_that_went_in(photos: Path, folder: Path) -> None:
    images = find_images(f"shards:{folder}")
    assert images.names == NAMES
    assert images.blocks == (2, 2, 2)
    assert same(images, list_images(photos))
    assert images.size(0) == (90, 120)
    assert list_images(photos).blocks == ()


@pytest.mark.parametrize(
    "source", ["{}/part-{{000..002}}.tar", "{}/part-00{{0,1}}.tar|{}/part-002.tar", "{}/*.tar", "file://{}/part-*.tar"]
)
def test_ways_to_name_shards(photos: Path, folder: Path, source: str) -> None:
    found = [open_shards("shards:" + part.format(folder)) for part in source.split("|")]
    assert tuple(name.rpartition("/")[2] for part in found for name in part.names) == list_images(photos).names


def test_a_source_may_have_been_a_path(remote: str) -> None:
    assert "memory:/bucket" in str(Path(remote))  # one slash is lost
    assert open_shards(Path(remote)).names == NAMES


def test_samples_in_folders_and_hidden_files(tmp_path: Path) -> None:
    layouts.image(tmp_path / "a.png")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("deep/in/a.png", "deep/._a.png", "deep/a.jpeg.txt", f"{'long' * 60}/b.PNG"):
            tar.add(tmp_path / "a.png", name)
        tar.add(tmp_path, "folder.png", recursive=False)
    images = open_shards(f"shards:{tmp_path}/x.tar")
    assert images.names == ("x.tar/deep/in/a", f"x.tar/{'long' * 60}/b")
    assert images.blocks == (2,)
    assert images.read(1).shape == (*layouts.SIZE, 3)


def test_an_index_is_kept_until_the_shard_changes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    first = open_shards(f"shards:{folder}", cache)
    assert len(list(cache.glob("*.json"))) == 3
    scanned, scan_shard = [], shards_module._scan
    monkeypatch.setattr(shards_module, "_scan", lambda shard: scanned.append(shard) or scan_shard(shard))
    again = open_shards(f"shards:{folder}", cache)
    assert scanned == []
    assert again.names == first.names
    assert np.array_equal(again.places, first.places)
    next(cache.glob("*.json")).write_text("{")  # cut off by a crash
    shutil.copy(folder / "part-000.tar", folder / "part-002.tar")
    open_shards(f"shards:{folder}", cache)
    assert str(folder / "part-002.tar") in scanned
    assert len(scanned) in (1, 2)  # the cut one may be that of the changed shard


def test_bad_shards_are_refused(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "part-001.tar").read_bytes()
    for data in (whole[:700], whole[: len(whole) // 2], gzip.compress(whole), b"no tar" * 200):
        (folder / "part-001.tar").write_bytes(data)
        with pytest.raises(DataError, match=r"part-001\.tar is damaged or no plain tar"):
            open_shards(f"shards:{folder}")
    with pytest.raises(DataError, match=r"there is no shard .*part-003\.tar"):
        open_shards(f"shards:{folder}/part-{{002..003}}.tar")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there is no shard in"):
        open_shards(f"shards:{tmp_path}/empty")
    with tarfile.open(tmp_path / "texts.tar", "w") as tar:
        tar.add(__file__, "a.txt")
    with pytest.raises(EmptyCollection, match="none of the 1 shards"):
        open_shards(f"shards:{tmp_path}/texts.tar")
    with pytest.raises(ConfigError, match="images only"):
        open_labelled(f"shards:{folder}", "val")
    with pytest.raises(DataError, match="can't open nosuch://"):
        open_shards("shards:nosuch://bucket/a.tar")


def test_bad_images_are_found_before_the_run(tmp_path: Path) -> None:
    whole = io.BytesIO()
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(whole, "PNG")
    contents = {"a": whole.getvalue(), "b": b"", "c": whole.getvalue()[:-12], "d": b"text, no image at all"}
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, data in contents.items():
            info = tarfile.TarInfo(f"{name}.png")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    log = SkipLog(None, 4, limit=1)
    images = scan(open_shards(f"shards:{tmp_path}/x.tar"), log)
    assert images.names == ("x.tar/a",)
    assert log.skipped == {"x.tar/b": "empty", "x.tar/c": "truncated", "x.tar/d": "wrong-type"}
    assert images.read(0).shape == (20, 20, 3)


def test_a_collection_is_restored_with_what_is_gone(photos: Path, folder: Path) -> None:
    images = open_shards(f"shards:{folder}")
    files = {name: f"{name}.jpg" for name in images.names}
    (folder / "part-001.tar").unlink()
    with pytest.raises(BadImage, match="the shard is gone"):
        images.read(2)
    layouts.shards(photos, folder, each=6, first=7)  # a new shard, which is none of the run's
    restored = open_shards(f"shards:{folder}").restore(files)
    assert (restored.names, restored.blocks) == (images.names, images.blocks)
    assert np.array_equal(restored.read(5), images.read(5))
    for index in (2, 3):
        with pytest.raises(BadImage) as caught:
            restored.read(index)
        assert caught.value.reason == "missing"
        assert restored.version(index) is None


def test_subsets_and_copies_in_other_processes(photos: Path, folder: Path) -> None:
    images = pickle.loads(pickle.dumps(open_shards(f"shards:{folder}").subset([4, 5, 1])))
    assert (images.names, images.blocks) == ((NAMES[4], NAMES[5], NAMES[1]), (2, 1))
    assert same(images, list_images([photos / f"photo{i}.jpg" for i in (4, 5, 1)]))


@pytest.mark.parametrize("kept", [1, KEPT])
def test_remote_shards_are_copied_and_dropped(
    photos: Path, remote: str, tmp_path: Path, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards_module, "KEPT", kept)
    cache = tmp_path / "cache"
    images = scan(open_shards(remote, cache), SkipLog(None, 6))
    assert images.names == NAMES
    for index in (0, 5, 1, 2, 4, 3):
        assert np.array_equal(images.read(index), list_images(photos).read(index))
        assert len(list(cache.glob("*.tar"))) <= kept
    assert len(list(cache.glob("*.tar"))) == min(3, kept)


def test_remote_images_by_themselves(photos: Path, remote: str) -> None:
    assert same(open_shards(remote), list_images(photos))


def test_a_connection_is_tried_again_and_then_stops(
    remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = open_shards(remote)
    monkeypatch.setenv("SELFSEG_REMOTE_ATTEMPTS", "3")
    monkeypatch.setenv("SELFSEG_REMOTE_PAUSE", "0.001")
    monkeypatch.setenv("SELFSEG_CACHE", str(tmp_path))
    system = type(fsspec.filesystem("memory"))
    good, failures = system.cat_file, [1, 1]

    def flaky(*arguments: object, **options: object) -> bytes:
        if failures.pop():
            raise TimeoutError("no answer")
        return good(*arguments, **options)

    monkeypatch.setattr(system, "cat_file", flaky)
    failures[:] = [0, 1, 1]
    assert images.read(0).shape == (90, 120, 3)
    failures[:] = [1, 1, 1]
    with pytest.raises(DataError, match="no answer"):  # no BadImage: it would be skipped
        images.read(0)


def test_a_remote_shard_that_changed_is_refused(remote: str, tmp_path: Path) -> None:
    images = open_shards(remote, tmp_path / "cache")
    fsspec.filesystem("memory").pipe_file("/bucket/part-000.tar", b"x" * 500)
    with pytest.raises(DataError, match="has changed since it was indexed"):
        images.read(0)
    fsspec.filesystem("memory").rm("/bucket/part-001.tar")
    with pytest.raises(DataError, match=r"there is no shard memory://bucket/part-001\.tar"):
        images.read(2)


def test_each_epoch_shows_every_image_once_a_few_shards_at_a_time() -> None:
    blocks = tuple(3 + i % 4 for i in range(3 * WINDOW + 2))
    n, shard_of = sum(blocks), np.repeat(np.arange(len(blocks)), blocks)
    keys = [key for batch in StepSampler(n, 1, 0, 2 * n, seed=5, blocks=blocks) for key in batch]
    orders = [[index for epoch, index in keys if epoch == wanted] for wanted in (0, 1)]
    for order in orders:
        assert sorted(order) == list(range(n))
        seen = shard_of[order].tolist()
        rank = {shard: place for place, shard in enumerate(dict.fromkeys(seen))}
        windows = [rank[shard] // WINDOW for shard in seen]
        assert windows == sorted(windows)  # no shard of the next window before the last image of this one
        assert list(rank) != sorted(rank)  # drawn
        assert np.mean(np.diff(seen) != 0) > 0.5  # mixed within a window
    assert orders[0] != orders[1]


def test_an_order_of_shards_is_resumed_and_divided() -> None:
    blocks = (2,) * (2 * WINDOW)
    whole = list(StepSampler(sum(blocks), 6, 0, 20, seed=1, blocks=blocks))
    assert list(StepSampler(sum(blocks), 6, 7, 20, seed=1, blocks=blocks)) == whole[7:]
    parts = [list(StepSampler(sum(blocks), 6, 0, 20, seed=1, rank=r, world_size=2, blocks=blocks)) for r in (0, 1)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole
    few = (16, 16)  # no more shards than a window: the order of any collection
    assert list(StepSampler(32, 6, 0, 20, seed=1, blocks=few)) == list(StepSampler(32, 6, 0, 20, seed=1))
    with pytest.raises(ConfigError, match="blocks of 32 images are not the 31"):
        StepSampler(31, 6, 0, 20, seed=1, blocks=few)


def test_version_tells_a_changed_shard(folder: Path) -> None:
    images = open_shards(f"shards:{folder}")
    changed = replace(images, stamps=(("1", "later"), *images.stamps[1:]))
    assert isinstance(changed, ShardCollection)
    assert images.version(0) != changed.version(0)
    assert images.version(2) == changed.version(2)
