"""Order and samples are pure functions of their keys, whatever reads them."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from selfseg.data.loader import Sample, StepSampler, ViewDataset, collate, image_at, make_loader
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.listing import list_images
from selfseg.data.regions import Grid, RegionCache
from selfseg.data.views.content_centred import ContentCentredViews
from selfseg.errors import ConfigError, TooManyBadImages
from selfseg.types import Batch

PLAN = ContentCentredViews(views=3, size=32, short_side=40, regions=Grid(8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(6):
        image = rng.integers(0, 256, (40 + number, 60, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
    return tmp_path


def _dataset(images: ImageCollection, seed: int = 0, plan: ContentCentredViews = PLAN) -> ViewDataset:
    return ViewDataset(images, plan, seed, RegionCache(None, plan.regions))


def _batches(loader: DataLoader[Sample]) -> list[Batch]:
    return [batch for batch in loader if isinstance(batch, Batch)]


def _same(first: Batch, second: Batch) -> bool:
    return (
        torch.equal(first.index, second.index)
        and first.skipped == second.skipped
        and all(
            torch.equal(a.image, b.image) and torch.equal(a.to_image, b.to_image) and torch.equal(a.regions, b.regions)
            for a, b in zip(first.views, second.views, strict=True)
        )
    )


def test_every_epoch_holds_every_image_once_in_another_order() -> None:
    sampler = StepSampler(n=10, batch_size=4, start_step=0, stop_step=10, seed=1)
    keys = [key for batch in sampler for key in batch]
    assert len(sampler) == 10
    orders = [[index for epoch, index in keys if epoch == wanted] for wanted in range(4)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


def test_the_first_place_is_uniform_over_seeds_and_epochs() -> None:
    counts = Counter(image_at(epoch * 5, 5, seed)[1] for seed in range(40) for epoch in range(50))
    assert sum((counts[i] - 400) ** 2 / 400 for i in range(5)) < 18.5  # chi square, 4 degrees of freedom, p = 0.001


def test_the_order_stays_what_it_was() -> None:
    # A run resumed with a newer version must go on with the same images.
    assert [image_at(p, 5, seed=0)[1] for p in range(10)] == [2, 4, 3, 0, 1, 1, 4, 3, 0, 2]


@pytest.mark.parametrize("batch_size", [1, 3, 4, 25])
def test_a_resume_needs_only_the_step(batch_size: int) -> None:
    whole = list(StepSampler(7, batch_size, 0, 9, seed=3))
    assert list(StepSampler(7, batch_size, 5, 9, seed=3)) == whole[5:]
    assert all(len(batch) == batch_size for batch in whole)


def test_processes_share_the_batch_in_order() -> None:
    whole = list(StepSampler(7, 6, 0, 4, seed=0))
    parts = [list(StepSampler(7, 6, 0, 4, seed=0, rank=rank, world_size=3)) for rank in range(3)]
    assert [[key for batch in batches for key in batch] for batches in zip(*parts, strict=True)] == whole


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"batch_size": 5, "world_size": 2}, "use 4"),
        ({"n": 0}, "image"),
        ({"rank": 1}, "rank"),
        ({"seed": -1}, "seed"),
    ],
)
def test_values_that_can_not_work_are_refused(values: dict[str, int], words: str) -> None:
    arguments = {"n": 7, "batch_size": 4, "start_step": 0, "stop_step": 3, "seed": 0} | values
    with pytest.raises(ConfigError, match=words):
        StepSampler(**arguments)


def test_samples_depend_on_the_key_alone(folder: Path) -> None:
    images = list_images(folder)
    one, two = _dataset(images), _dataset(images)
    two[(0, 1)]  # what was read before does not matter
    assert _same(collate([one[(4, 2)]]), collate([two[(4, 2)]]))
    assert not _same(collate([one[(4, 2)]]), collate([one[(5, 2)]]))
    assert not _same(collate([one[(4, 2)]]), collate([_dataset(images, seed=1)[(4, 2)]]))


def test_a_batch_keeps_its_contract(folder: Path) -> None:
    dataset = _dataset(list_images(folder), plan=ContentCentredViews(2, 32, region_stride=4, regions=Grid(8)))
    batch = collate([dataset[(0, index)] for index in (3, 1)])
    assert len(batch.views) == 2
    assert batch.index.tolist() == [3, 1]
    for view in batch.views:
        assert view.image.shape == (2, 3, 32, 32)
        assert view.image.dtype == torch.uint8
        assert view.image.is_contiguous(memory_format=torch.channels_last)
        assert view.to_image.shape == (2, 2, 3)
        assert view.to_image.dtype == torch.float32
        assert view.regions.shape == (2, 8, 8)
        assert view.regions.dtype == torch.int64
    assert torch.equal(batch.views[0].image[1].permute(1, 2, 0), torch.from_numpy(dataset[(0, 1)].crops[0].image))


@pytest.mark.slow
def test_workers_and_resumes_give_the_same_batches(folder: Path) -> None:
    dataset = _dataset(list_images(folder))
    here = _batches(make_loader(dataset, StepSampler(6, 4, 0, 5, seed=0)))
    there = _batches(make_loader(dataset, StepSampler(6, 4, 2, 5, seed=0), workers=2))
    assert len(here) == 5
    assert all(_same(a, b) for a, b in zip(here[2:], there, strict=True))


def test_a_loader_leaves_the_global_generator_alone(folder: Path) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    _batches(make_loader(_dataset(list_images(folder)), StepSampler(6, 4, 0, 2, seed=0)))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_interrupt_does_not_reach_the_workers(folder: Path) -> None:
    dataset = _dataset(list_images(folder))
    loader = make_loader(dataset, StepSampler(6, 2, 0, 40, seed=0), workers=1, prefetch=1)
    batches = iter(loader)
    next(batches)
    (worker,) = batches._workers  # type: ignore[attr-defined]
    os.kill(worker.pid, signal.SIGINT)
    time.sleep(0.2)
    assert worker.is_alive()
    assert len(list(batches)) == 39


def test_another_image_stands_in_for_a_bad_one(folder: Path) -> None:
    images = list_images(folder)
    for number in (2, 3):
        images.paths[number].write_bytes(b"no image")
    dataset = _dataset(images)
    ordinary, first, second = dataset[(0, 4)], dataset[(0, 3)], dataset[(0, 2)]
    assert (first.index, second.index) == (4, 4)
    assert [index for index, _ in first.skipped] == [3]
    assert [index for index, _ in second.skipped] == [2, 3]
    assert _same(collate([second]), collate([dataset[(0, 2)]]))
    # The same image three times in an epoch, but never the same views.
    affines = [collate([sample]).views[0].to_image for sample in (ordinary, first, second)]
    assert not any(torch.equal(affines[i], affines[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    batch = collate([ordinary, first, second])
    assert [index for index, _ in batch.skipped] == [3, 2, 3]
    assert all(reason for _, reason in batch.skipped)


def test_the_stand_in_of_image_zero_differs_from_its_ordinary_turn(folder: Path) -> None:
    images = list_images(folder)
    dataset = _dataset(images)
    ordinary = collate([dataset[(0, 1)]])
    images.paths[0].unlink()
    stand_in = collate([dataset[(0, 0)]])
    assert stand_in.index.tolist() == ordinary.index.tolist() == [1]
    assert not torch.equal(stand_in.views[0].image, ordinary.views[0].image)


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_bad_images_is_an_error(folder: Path, workers: int) -> None:
    images = list_images(folder)
    for path in images.paths:
        path.unlink()
    loader = make_loader(_dataset(images), StepSampler(6, 2, 0, 2, seed=0), workers=workers)
    with pytest.raises(TooManyBadImages, match="none of the 6 images"):
        next(iter(loader))
