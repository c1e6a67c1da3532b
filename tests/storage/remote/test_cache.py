import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from selfseg.errors import ConfigError, StorageError, Unreachable
from selfseg.storage.remote.cache import Cache, bytes_of
from selfseg.storage.remote.connecting import Missing, persist, repeated, stamp_at


def test_a_file_is_fetched_once_and_again_when_it_changes(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe_file("/b/a.JPG", b"one")
    cache, fetched, get = Cache.of_environment(), [], type(memory).get_file

    def counting(self: Any, path: str, *rest: Any, **options: Any) -> Any:
        fetched.append(path)
        time.sleep(0.01)
        return get(self, path, *rest, **options)

    monkeypatch.setattr(type(memory), "get_file", counting)
    stamp = stamp_at("memory://b/a.JPG")
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: cache.fetch("memory://b/a.JPG", stamp), range(16)))
    assert len(fetched) == 1
    (path,) = paths
    assert path.suffix == ".jpg"
    assert path.read_bytes() == b"one"
    memory.pipe_file("/b/a.JPG", b"three")
    assert cache.fetch("memory://b/a.JPG", stamp_at("memory://b/a.JPG")).read_bytes() == b"three"
    with pytest.raises(Missing):
        cache.fetch("memory://b/gone.jpg", stamp)


def test_what_was_not_used_for_longest_goes_first(memory: Any) -> None:
    cache = Cache(Cache.of_environment().folder, 500)
    for i in range(8):
        memory.pipe_file(f"/b/{i}.png", bytes(100))
    stamps = {i: stamp_at(f"memory://b/{i}.png") for i in range(8)}
    paths = {i: cache.fetch(f"memory://b/{i}.png", stamps[i]) for i in range(8)}
    assert all(path.exists() for path in paths.values())  # just used: the limit waits for them
    for i, path in paths.items():
        os.utime(path, (time.time() - 1000 + i, path.stat().st_mtime))
    cache.fetch("memory://b/0.png", stamps[0])  # used again
    assert cache.trim() <= 450
    assert [i for i, path in paths.items() if path.exists()] == [0, 5, 6, 7]


def test_a_copy_that_was_dropped_before_it_was_opened_is_fetched_again(memory: Any) -> None:
    memory.pipe_file("/b/a", b"abc")
    drops = [1, 1]

    def read(path: Path) -> bytes:
        if drops:
            drops.pop()
            path.unlink()
        return path.read_bytes()

    assert Cache.of_environment().use("memory://b/a", stamp_at("memory://b/a"), read) == b"abc"


def test_what_fails_for_a_while_is_repeated_and_counted(memory: Any) -> None:
    before, failures = repeated(), [OSError("reset"), TimeoutError("slow")]

    def ask() -> str:
        if failures:
            raise failures.pop()
        return "answer"

    assert persist(ask, "s3://b/a") == "answer"
    assert repeated() == before + 2
    with pytest.raises(Unreachable, match=r"can't reach s3://b/a: no route \(3 attempts"):
        persist(lambda: (_ for _ in ()).throw(OSError("no route")), "s3://b/a")


def test_what_can_not_pass_is_not_repeated(memory: Any) -> None:
    class NoCredentialsError(Exception):
        pass

    for error, kind in (
        (FileNotFoundError("no"), Missing),
        (PermissionError("no"), PermissionError),
        (NoCredentialsError("no"), Unreachable),
    ):
        asked = []

        def ask(error: Exception = error, asked: list[int] = asked) -> None:
            asked.append(1)
            raise error

        with pytest.raises(kind):
            persist(ask, "s3://b/a")
        assert len(asked) == 1


def test_a_full_disk_is_told_as_one(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe_file("/b/a", b"abc")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(memory), "get_file", full)
    with pytest.raises(StorageError, match="no space left"):
        Cache.of_environment().fetch("memory://b/a", stamp_at("memory://b/a"))


def test_sizes() -> None:
    assert (bytes_of("20G"), bytes_of("1.5 MiB"), bytes_of("12")) == (20 << 30, 3 << 19, 12)
    with pytest.raises(ConfigError, match="'much' is not a size"):
        bytes_of("much")
