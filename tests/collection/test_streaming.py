"""A folder's images as a stream: in order, bounded, and gone when it is left."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from selfseg.collection import streaming
from selfseg.collection.batching.room import AUTO, Batching
from selfseg.collection.streaming import WriteBehind, embed_images
from selfseg.data.reading import ahead
from selfseg.data.reading.ahead import map_ahead, map_images, track_images
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.listing import list_images
from selfseg.data.reading.skipping import SkipLog
from selfseg.errors import TooManyBadImages
from selfseg.models.embedder import Embedder, EmbedderConfig

SIZES = ((40, 60), (60, 40), (40, 60), (33, 77), (40, 60), (60, 40), (40, 60), (96, 32))


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> ImageCollection:
    """Eight images of four sizes, each of its own grey, and a broken one in the middle."""
    for number, (height, width) in enumerate(SIZES):
        Image.fromarray(np.full((height, width, 3), 10 * number, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "3b.png").write_bytes(b"no image")
    return list_images(tmp_path)


@pytest.fixture(name="embedder")
def _embedder() -> Embedder:
    torch.manual_seed(0)
    return Embedder(EmbedderConfig(output_stride=32, dim=8, resolution=48)).eval()


def test_images_come_in_order_and_what_is_broken_is_listed(folder: ImageCollection) -> None:
    log = SkipLog(None, len(folder), limit=0.2)
    found = list(track_images(folder, range(len(folder)), log, "read", progress=False))
    assert [i for i, _ in found] == [0, 1, 2, 3, 5, 6, 7, 8]
    assert [int(image[0, 0, 0]) for _, image in found] == [0, 10, 20, 30, 40, 50, 60, 70]
    assert list(log.skipped) == ["3b"]
    with pytest.raises(TooManyBadImages):
        list(track_images(folder, range(len(folder)), SkipLog(None, len(folder), limit=0.0), "read", progress=False))


def test_a_function_of_images_comes_in_order_too(folder: ImageCollection) -> None:
    def slow_at_first(i: int, image: NDArray[np.uint8]) -> int:
        time.sleep(0.05 if i == 0 else 0)
        return int(image[0, 0, 0])

    log = SkipLog(None, len(folder), limit=0.2)
    found = list(map_images(folder, [0, 1, 4, 5], slow_at_first, log, "grey", progress=False, threads=3))
    assert found == [(0, 0), (1, 10), (5, 40)]


def test_embedding_a_stream_is_embedding_each(folder: ImageCollection, embedder: Embedder) -> None:
    log = SkipLog(None, len(folder), limit=0.2)
    for one in embed_images(embedder, folder, range(len(folder)), log, "embed", progress=False):
        assert torch.equal(one.embedding, embedder.embed(folder.read(one.number)))
        assert min(one.seen.shape[:2]) == 48


def test_little_is_read_ahead_and_large_images_less() -> None:
    started: list[int] = []

    def read(number: int) -> int:
        started.append(number)
        return number

    def most_ahead(pixels: int) -> int:
        started.clear()
        with closing(map_ahead(read, 100, 4, lambda _: pixels)) as results:
            for _ in range(20):
                next(results)
            time.sleep(0.02)
            return len(started) - 20

    assert most_ahead(pixels=1) <= 16
    assert most_ahead(pixels=ahead._PIXELS) <= 4
    assert most_ahead(pixels=10 * ahead._PIXELS) <= 2
    started.clear()
    with closing(map_ahead(read, 100, 4, lambda _: 1)) as results:  # nothing is known of the first
        next(results)
        assert len(started) <= 4


def test_who_leaves_a_stream_early_leaves_no_thread(folder: ImageCollection) -> None:
    before = threading.active_count()
    for _ in track_images(folder, range(len(folder)), SkipLog(None, 9, limit=1.0), "read", progress=False):
        break

    def interrupted() -> None:
        for _ in track_images(folder, range(len(folder)), SkipLog(None, 9, limit=1.0), "read", progress=False):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


@pytest.mark.parametrize("batch", [AUTO, Batching(3, on_cpu=True)])
def test_an_error_of_the_network_stops_the_readers(
    folder: ImageCollection, embedder: Embedder, batch: Batching, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(images: object) -> torch.Tensor:
        raise RuntimeError("no")

    monkeypatch.setattr(embedder, "embed_prepared", fail)
    before = threading.active_count()
    log = SkipLog(None, 9, limit=1.0)
    stream = embed_images(embedder, folder, range(len(folder)), log, "embed", progress=False, batch=batch)
    with pytest.raises(RuntimeError, match="no") as kept:  # and with it what its frames hold
        next(stream)
    assert kept.value.__traceback__ is not None
    assert threading.active_count() == before


def test_little_is_held_that_waits_to_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "usable_cores", lambda: 8)
    monkeypatch.setattr(streaming, "_BYTES_BEHIND", 50)
    lock, held, most = threading.Lock(), 0, 0

    def write(values: NDArray[np.uint8]) -> None:
        nonlocal held
        time.sleep(0.002)
        with lock:
            held -= values.nbytes

    writer: WriteBehind[None] = WriteBehind()
    with writer:
        for _ in range(20):
            with lock:
                held += 60
                most = max(most, held)
            writer.call(write, np.zeros(60, np.uint8))
    assert most <= 4 * 50 + 60
    assert held == 0


def test_what_is_written_behind_is_finished_in_order() -> None:
    finished: list[int] = []

    def write(number: int) -> int:
        time.sleep(0.02 if number == 0 else 0)
        return number

    with WriteBehind(finished.append) as writer:
        for number in range(20):
            writer.call(write, number)
    assert finished == list(range(20))


def test_an_error_of_a_write_is_raised_and_nothing_begins_after_it() -> None:
    begun: list[int] = []

    def write(number: int) -> None:
        begun.append(number)
        if number == 3:
            raise OSError("the disk is full")

    def work() -> None:
        writer: WriteBehind[Any] = WriteBehind()
        with writer:
            for number in range(1000):
                writer.call(write, number)
                time.sleep(0.001)

    with pytest.raises(OSError, match="full"):
        work()
    assert len(begun) < 200


def test_an_error_of_the_body_is_what_is_told() -> None:
    def work() -> None:
        with WriteBehind() as writer:
            writer.call(lambda: 1 / 0)
            raise ValueError("body")

    with pytest.raises(ValueError, match="body"):
        work()


def test_a_cpu_can_put_images_together_too(folder: ImageCollection, embedder: Embedder) -> None:
    log = SkipLog(None, len(folder), limit=0.2)
    batch = Batching(3, on_cpu=True)
    found = list(embed_images(embedder, folder, range(len(folder)), log, "embed", progress=False, batch=batch))
    assert [one.number for one in found] == [0, 1, 2, 3, 5, 6, 7, 8]
    assert list(log.skipped) == ["3b"]
    for one in found:
        torch.testing.assert_close(one.embedding, embedder.embed(folder.read(one.number)), rtol=0, atol=1e-5)


@pytest.mark.gpu
def test_on_a_gpu_batches_give_what_single_images_give(folder: ImageCollection, embedder: Embedder) -> None:
    log = SkipLog(None, len(folder), limit=0.2)
    cpu = {i: embedder.embed(image) for i, image in track_images(folder, range(len(folder)), log, "read", False)}
    embedder = embedder.to("cuda")
    for one in embed_images(embedder, folder, range(len(folder)), log, "embed", progress=False):
        assert one.embedding.is_cuda
        torch.testing.assert_close(one.embedding.cpu(), cpu[one.number], rtol=0, atol=5e-3)
