import io
import json
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal
from PIL import Image

from faulty_proxy import FaultyProxy
from remote_servers import http_folder
from selfseg.data.labelled.catalog import find_images
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.listing import list_images
from selfseg.data.reading.remote import RemoteImages
from selfseg.data.reading.skipping import SkipLog, scan
from selfseg.data.reading.windows import expand, find_channels
from selfseg.errors import BadImage, DataError, EmptyCollection, Unreachable
from selfseg.storage.remote.connecting import repeated


def png(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("SELFSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SELFSEG_REMOTE_PAUSE", "0.001")
    system = fsspec.filesystem("memory")
    system.store.clear()
    for i, name in enumerate(("b.png", "a/c.png", "a.png", ".hidden/x.png", "notes.txt", "out/mask.png")):
        system.pipe_file(f"/bucket/photos/{name}", png(i))
    system.pipe_file("/bucket/photos/out/.selfseg-output", b"")
    yield system
    system.store.clear()


@pytest.fixture
def local(memory: Any, tmp_path: Path) -> ImageCollection:
    for path in memory.find("/bucket/photos"):
        target = tmp_path / "local" / path.removeprefix("/bucket/photos/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(memory.cat_file(path))
    return list_images(tmp_path / "local")


def test_a_folder_at_a_url_is_the_folder(local: ImageCollection) -> None:
    remote = list_images("memory://bucket/photos/")
    assert isinstance(remote, RemoteImages)
    assert remote.names == local.names
    assert remote.located() == local.located()
    for i in range(len(local)):
        assert_array_equal(remote.read(i), local.read(i))
        assert remote.size(i) == local.size(i)
        remote.check(i)
    part = pickle.loads(pickle.dumps(remote.subset([2, 0])))
    assert_array_equal(part.read(0), local.read(2))
    assert part.version(0) != part.version(1)


def test_a_pattern_a_list_a_zip_and_single_urls(memory: Any, local: ImageCollection) -> None:
    assert list_images("memory://bucket/photos/*.png").names == ("a", "b")
    assert list_images("memory://bucket/photos/**/c.png").names == ("a/c",)
    memory.pipe_file("/bucket/list.txt", b"# mine\nphotos/b.png\nmemory://bucket/photos/a/c.png\n")
    listed = find_images("memory://bucket/list.txt")
    assert listed.names == ("b", "a/c")
    assert_array_equal(listed.read(1), local.read(local.names.index("a/c")))
    assert list_images(["memory://bucket/photos/b.png"]).names == ("b",)
    with pytest.raises(DataError, match="both URLs and paths"):
        list_images(["memory://bucket/photos/b.png", "x.png"])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("p/b.png", memory.cat_file("/bucket/photos/b.png"))
    memory.pipe_file("/bucket/all.zip", packed.getvalue())
    zipped = list_images("memory://bucket/all.zip")
    assert zipped.names == ("p/b",)
    assert_array_equal(zipped.read(0), local.read(local.names.index("b")))


def test_an_earlier_list_is_restored_and_what_is_gone_is_missing(memory: Any) -> None:
    before = list_images("memory://bucket/photos")
    memory.rm("/bucket/photos/b.png")
    restored = list_images("memory://bucket/photos").restore(json.loads(json.dumps(before.located())))
    assert restored.names == before.names
    gone = restored.names.index("b")
    assert restored.version(gone) is None
    for ask in (restored.read, restored.check):
        with pytest.raises(BadImage) as caught:
            ask(gone)
        assert caught.value.reason == "missing"
    with pytest.raises(BadImage, match="missing"):  # it went after it was listed
        before.read(gone)


def test_what_may_not_be_read_is_skipped_and_a_dead_server_stops(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    images = list_images("memory://bucket/photos")
    get = type(memory).get_file

    def refusing(self: Any, path: str, *rest: Any, **options: Any) -> Any:
        if path.endswith("/b.png"):
            raise PermissionError("AccessDenied")
        return get(self, path, *rest, **options)

    monkeypatch.setattr(type(memory), "get_file", refusing)
    log = SkipLog(None, len(images), 0.5)
    assert scan(images, log).names == ("a", "a/c")
    assert log.skipped == {"b": "no-permission"}

    def dead(*_: Any, **__: Any) -> None:
        raise ConnectionError("refused")

    monkeypatch.setattr(type(memory), "get_file", dead)
    memory.pipe_file("/bucket/photos/new.png", png(9))
    with pytest.raises(Unreachable, match=r"memory://bucket/photos/new.png: refused \(6 attempts"):
        list_images("memory://bucket/photos").check(3)


def test_hostile_and_doubled_names_are_left_out(memory: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find = type(memory).find

    def hostile(self: Any, *arguments: Any, **options: Any) -> Any:
        found = find(self, *arguments, **options)
        for name in ("/bucket/photos/../../evil.png", "/bucket/photos//etc/evil.png", "/elsewhere/evil.png"):
            found[name] = {"name": name, "size": 5, "type": "file"}
        return found

    monkeypatch.setattr(type(memory), "find", hostile)
    assert list_images("memory://bucket/photos").names == ("a", "a/c", "b")


def test_nothing_there_is_one_sentence(memory: Any) -> None:
    with pytest.raises(Unreachable, match="nothing at memory://bucket/wrong"):
        list_images("memory://bucket/wrong")
    memory.pipe_file("/bucket/texts/a.txt", b"x")
    with pytest.raises(EmptyCollection, match=r"holds no image, only files 1 with \.txt"):
        list_images("memory://bucket/texts")


def test_measured_images_and_windows_of_a_raster(memory: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "tiffs").mkdir()
    for name in ("a", "b"):
        values = rng.integers(0, 4000, (5, 96, 128), np.uint16)
        tifffile.imwrite(tmp_path / "tiffs" / f"{name}.tif", values, photometric="minisblack", planarconfig="separate")
        memory.pipe_file(f"/bucket/tiffs/{name}.tif", (tmp_path / "tiffs" / f"{name}.tif").read_bytes())
    local, remote = list_images(tmp_path / "tiffs"), list_images("memory://bucket/tiffs")
    channels = find_channels(local, (), "auto", None, 0)[0]
    assert channels == find_channels(remote, (), "auto", None, 0)[0]
    assert channels is not None
    one, other = (expand(images.measured(channels), 32) for images in (local, remote))
    assert one.names == other.names
    assert len(one) > 2
    assert one.located() == other.located()
    assert_array_equal(one.read(3), other.read(3))
    assert_array_equal(one.read(3), other.restore(other.located()).read(3))


@pytest.mark.parametrize("faults", [[""], ["", "500", "500", "", "cut", "", "drop", "slow"]])
def test_a_folder_over_http_also_where_connections_break(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: list[str]
) -> None:
    pytest.importorskip("aiohttp", reason="needs the extra remote: pip install 'selfseg[remote]'")
    monkeypatch.setenv("SELFSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SELFSEG_REMOTE_PAUSE", "0.01")
    folder = tmp_path / "web" / "photos"
    (folder / "sub dir").mkdir(parents=True)
    for i, name in enumerate(("a & b.png", "sub dir/c#1.png", "d%20e.png", "é.png")):
        (folder / name).write_bytes(png(i))
    local, before = list_images(folder), repeated()
    with http_folder(tmp_path / "web") as server, FaultyProxy(server, faults, delay=0.05) as proxy:
        remote = list_images(f"{proxy.url}/photos/")
        assert remote.names == local.names
        for i in range(len(local)):
            assert_array_equal(remote.read(i), local.read(i))
        asked = proxy.done.total()
        remote.read(0)
        assert proxy.done.total() == asked  # from the cache
        broken = sum(proxy.done[fault] for fault in ("500", "cut", "drop"))
    # aiohttp asks once more by itself where a kept connection turns out to be closed.
    assert (0 < repeated() - before <= broken) if len(faults) > 1 else repeated() == before
