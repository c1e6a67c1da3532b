"""From a folder to batches of views: keyed order, keyed augmentation, nothing that a resume has to remember.

Order: training is one stream of positions. Batch `step` holds the positions step * batch_size and on; position p is
image permutation(seed, epoch)[p % n] of epoch p // n. So every batch size works with every folder, no image is
dropped at an epoch's end, and to go on at `step` only `step` is needed. Images in shards
(`selfseg.data.reading.packed.shards`) are permuted within windows of a few shards, so that remote ones are
fetched about once an epoch.

Views: every sample is a pure function of (seed, epoch, image index), whatever the number of workers or processes.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing.context import BaseContext
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from selfseg.data.carrying import Carrier, Piped
from selfseg.data.labelled import mask_files
from selfseg.data.reading import images as image_files
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.packed.shards import WINDOW
from selfseg.data.regions import RegionCache
from selfseg.data.views.base import Crop, ViewPlan, make_views, prepare_image
from selfseg.errors import BadImage, ConfigError, DataError, SelfsegError, TooManyBadImages
from selfseg.storage.waiting import Patience
from selfseg.telling import tell
from selfseg.types import Batch, View

T = TypeVar("T")

Key = tuple[int, int]
"""(epoch, image index)."""

REASONS = (*image_files.REASONS, *(f"mask-{reason}" for reason in mask_files.REASONS))
"""Every word that tells why an image was skipped."""


def _order(n: int, seed: int, epoch: int, blocks: tuple[int, ...] = ()) -> NDArray[np.int64]:
    """An epoch's images in a drawn order; of more than `WINDOW` blocks that many drawn ones at a time, mixed."""
    # PCG64 by name: default_rng may change its generator with a release of numpy.
    rng = np.random.Generator(np.random.PCG64([seed, epoch]))
    if len(blocks) <= WINDOW:
        order = rng.permutation(n)
    else:
        ends, drawn, windows = np.cumsum(blocks), rng.permutation(len(blocks)), []
        for start in range(0, len(blocks), WINDOW):
            window = [np.arange(ends[b] - blocks[b], ends[b]) for b in drawn[start : start + WINDOW]]
            windows.append(rng.permutation(np.concatenate(window)))
        order = np.concatenate(windows)
    order.flags.writeable = False
    return order


@lru_cache(maxsize=2)
def _permutation(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return _order(n, seed, epoch)


def image_at(position: int, n: int, seed: int) -> Key:
    """Which image stands at a position of the stream.

    Args:
        position: at least 0.
        n: number of images, at least 1.
        seed: at least 0.

    Returns:
        (epoch, index); every index occurs once per epoch.

    Example:
        >>> sorted(image_at(position, 3, seed=0) for position in range(6))
        [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    """
    epoch, place = divmod(position, n)
    return epoch, int(_permutation(n, seed, epoch)[place])


class StepSampler(Sampler[list[Key]]):
    """The keys of each step's batch, or of one process's contiguous part of it.

    Args:
        n: number of images.
        batch_size: images per step over all processes.
        start_step: the first step.
        stop_step: one past the last step.
        seed: of the order.
        rank: this process.
        world_size: number of processes.
        blocks: `ImageCollection.blocks`, which add up to n, or empty.

    Raises:
        ConfigError: if a value can't work.

    Example:
        >>> whole = list(StepSampler(n=5, batch_size=4, start_step=0, stop_step=3, seed=0))
        >>> len(whole), len(whole[0])
        (3, 4)
        >>> resumed = list(StepSampler(n=5, batch_size=4, start_step=2, stop_step=3, seed=0))
        >>> resumed == whole[2:]
        True
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        start_step: int,
        stop_step: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        blocks: tuple[int, ...] = (),
    ) -> None:
        if blocks and sum(blocks) != n:
            raise ConfigError(f"blocks of {sum(blocks)} images are not the {n} images")
        if n < 1:
            raise ConfigError(f"there must be at least 1 image, not {n}")
        if batch_size < 1 or world_size < 1 or batch_size % world_size:
            raise ConfigError(
                f"the batch size ({batch_size}, over all processes) must be a multiple of the number of processes "
                f"({world_size}); use {max(1, round(batch_size / max(1, world_size))) * max(1, world_size)}"
            )
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank must be in [0, {world_size}), not {rank}")
        if seed < 0 or start_step < 0:
            raise ConfigError(f"seed ({seed}) and start_step ({start_step}) must be at least 0")
        self.n = n
        self.blocks = blocks
        self.batch_size = batch_size
        self.start_step = start_step
        self.stop_step = stop_step
        self.seed = seed
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return max(0, self.stop_step - self.start_step)

    def __iter__(self) -> Iterator[list[Key]]:
        part = self.batch_size // self.world_size
        # Not image_at: its cache would hash the blocks for every image, and there may be thousands.
        order = lru_cache(maxsize=2)(lambda epoch: _order(self.n, self.seed, epoch, self.blocks))
        for step in range(self.start_step, self.stop_step):
            first = step * self.batch_size + self.rank * part
            places = (divmod(position, self.n) for position in range(first, first + part))
            yield [(epoch, int(order(epoch)[place])) for epoch, place in places]


@dataclass(frozen=True)
class Sample:
    """The views of one image.

    Attributes:
        crops: V crops.
        index: the image's position in the collection; the stand-in's, if there is one.
        skipped: (index, reason) of each image that could not be used.
    """

    crops: tuple[Crop, ...]
    index: int
    skipped: tuple[tuple[int, str], ...] = ()


class ViewDataset(Dataset[Sample]):
    """The views of each image under each epoch's key.

    An image that can't be read, or whose mask can't be used, is replaced by the next one that can, with a key of its
    own, and is reported.

    Args:
        images: what to train on.
        plan: how an image becomes views.
        seed: of the augmentation, at least 0.
        cache: gives the region ids of a prepared image, by its pixels or its name. It knows whether images are
            photographs or measured channels (`RegionCache.rgb`), and so does the plan by it.
        patience: seconds to wait for a folder of images, masks or regions that has vanished as a whole; 0 = its images
            are skipped.
    """

    def __init__(
        self, images: ImageCollection, plan: ViewPlan, seed: int, cache: RegionCache, patience: float = 0.0
    ) -> None:
        self.images = images
        self.plan = plan
        self.seed = seed
        self.cache = cache
        self.patience = patience

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: Key) -> Sample:
        """One sample, a pure function of `key` and the files.

        Args:
            key: (epoch, image index).

        Returns:
            The views, as numpy arrays.

        Raises:
            TooManyBadImages: if no image of the collection can be used.
            DataError: if a folder stays away for longer than `patience`.
        """
        epoch, index = key
        worker = get_worker_info()
        patience = Patience(self.patience, DataError, loud=worker is None or worker.id == 0)
        n = len(self.images)
        skipped: list[tuple[int, str]] = []
        for step in range(n):
            candidate = (index + step) % n
            try:
                source, regions = patience.outlast(partial(self._read, candidate), self._vanished)
            except BadImage as error:
                skipped.append((candidate, error.reason))
                continue
            entropy = [self.seed, epoch, candidate]
            if skipped:
                # The stand-in's own turn in this epoch must not give the same views. The index is raised by one
                # because numpy fills a short key with zeros.
                entropy.append(index + 1)
            rng = np.random.Generator(np.random.PCG64(entropy))
            crops = make_views(self.plan, source, regions, rng, self.cache.rgb)
            return Sample(crops, candidate, tuple(skipped))
        first, reason = skipped[0]
        raise TooManyBadImages(
            f"none of the {n} images can be used any more; for example {self.images.paths[first]}: {reason}. "
            "Check that their folder is still there"
        )

    def _read(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        source = prepare_image(self.plan, self.images.read(index), self.cache.rgb)
        return source, self.cache.get(source, self.images.names[index])

    def _vanished(self) -> Path | None:
        return self.images.vanished() or self.cache.vanished()


def collate(samples: Sequence[Sample]) -> Batch:
    """The batch of some samples.

    Args:
        samples: B of them, with the same number of views and the same sizes.

    Returns:
        A batch of V views: images (B, C, H, W) uint8 in channels-last memory, C = 3 of photographs, `to_image`
        (B, 2, 3) float32, `regions` (B, H / region_stride, W / region_stride) int64.
    """
    views = []
    for crops in zip(*(sample.crops for sample in samples), strict=True):
        image = torch.from_numpy(np.stack([crop.image for crop in crops])).permute(0, 3, 1, 2)
        to_image = torch.from_numpy(np.stack([crop.to_image for crop in crops]))
        regions = torch.from_numpy(np.stack([crop.regions for crop in crops], dtype=np.int64))
        views.append(View(image, to_image, regions))
    index = torch.tensor([sample.index for sample in samples])
    return Batch(tuple(views), index, tuple(pair for sample in samples for pair in sample.skipped))


def make_loader(
    dataset: Dataset[T],
    sampler: StepSampler,
    workers: int = 0,
    pin_memory: bool = False,
    prefetch: int = 2,
    collate_fn: Callable[[Sequence[T]], Any] = cast(Any, collate),  # noqa: B008
) -> DataLoader[T]:
    """A loader of batches in the sampler's order.

    Worker processes are started by a fork server (spawned, where there is none), never by forking this process: it
    may hold a GPU and threads, and a fork with threads can hang. So the first batch comes a few seconds late, once per
    run. A script needs no guard around its top level, unless what it trains with is defined in itself.

    Args:
        dataset: the samples, by key.
        sampler: the keys of each batch.
        workers: number of processes; 0 reads in this one.
        pin_memory: whether batches are put in page-locked memory, for a faster way to a GPU.
        prefetch: batches that each worker prepares ahead.
        collate_fn: makes a batch of samples.

    Returns:
        An iterable of what `collate_fn` returns, of `Batch` unless told otherwise.

    Raises:
        ConfigError: if `workers` is negative or `prefetch` less than 1.
    """
    if workers < 0 or prefetch < 1:
        raise ConfigError(f"workers ({workers}) must be at least 0 and prefetch ({prefetch}) at least 1")
    if workers == 0:
        cv2.setNumThreads(1)
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=Carrier(collate_fn, workers * sampler.world_size),
        pin_memory=pin_memory,
        prefetch_factor=prefetch if workers else None,
        persistent_workers=workers > 0,
        worker_init_fn=_start_worker,
        multiprocessing_context=_worker_context() if workers else None,
        # Without its own generator the loader draws from torch's global one, and a resumed run would differ.
        generator=torch.Generator().manual_seed(sampler.seed),
    )


def iterate(loader: DataLoader[Any]) -> Generator[Any, None, None]:
    """The loader's batches, whatever its `collate_fn` makes of samples.

    Raises:
        SelfsegError: what a worker process raised, without the traceback that the loader puts into its message.
        DataError: if a worker process was killed or has ended.
    """
    batches: Iterator[Any] = iter(())
    try:
        batches = _begin(loader)
        for batch in batches:
            if isinstance(batch, Piped):
                tell(batch.sentence())
                batch = batch.unpacked()
            yield batch
    except SelfsegError as error:
        kind = type(error)
        sentence = str(error).rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2].rstrip()
        raise kind(sentence) from error
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        codes = [worker.exitcode for worker in getattr(batches, "_workers", ())]
        raise DataError(_why_ended([code for code in codes if code])) from error


def _begin(loader: DataLoader[Any]) -> Iterator[Any]:
    """Start the worker processes, if there are any; they run the main script only where what they are sent needs it."""
    if not loader.num_workers:
        return iter(loader)
    try:
        assert loader.multiprocessing_context is not None
        loader.multiprocessing_context.Lock()  # before torch begins with what it can't finish
        try:
            with _without_main():
                return iter(loader)
        except OSError:
            raise
        except Exception:  # what is defined in the main script can't be sent without it
            return iter(loader)
    except OSError as error:  # no shared memory for locks, no more processes, ...
        tell(f"loader processes can't be started ({error}): images are read in this process, which is slower")
        cv2.setNumThreads(1)
        return iter(DataLoader(loader.dataset, batch_sampler=loader.batch_sampler, collate_fn=loader.collate_fn))


@contextmanager
def _without_main() -> Iterator[None]:
    """While inside, processes that are started don't run this one's main script, which may lack a guard."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _why_ended(codes: Sequence[int]) -> str:
    """A sentence on loader processes that have ended, by their exit codes; of a signal it is negative."""
    code = codes[0] if codes else -signal.SIGKILL
    if code > 0:
        return (
            f"a loader process ended as it began (exit code {code}); its message is above. If it has run your "
            'script once more, put what the script does under `if __name__ == "__main__":`, or give --workers 0'
        )
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"a loader process was killed ({name}); if memory was short, give fewer --workers"


def refuse_second_run() -> None:
    """End a process that has only begun and runs the main script again, because that lacks a guard.

    Raises:
        ConfigError: if this is one.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ConfigError(
            "this script is run again by each process that it starts; put what it does under "
            '`if __name__ == "__main__":`, or give workers=0'
        )


def _worker_context() -> BaseContext:
    """The fork server with this module already imported (by `preloading`), or spawn where there is no fork."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["selfseg.data.preloading"])
    return context


def _start_worker(_: int) -> None:
    # Ctrl+C reaches every process of the terminal; the main one decides what to do and stops the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # torch's own watch looks at the parent, which is the fork server: a killed training would leave its workers behind.
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_with, args=(parent.sentinel,), daemon=True).start()
    # As many processes as cores: threads of each would only get in each other's way.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _exit_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
