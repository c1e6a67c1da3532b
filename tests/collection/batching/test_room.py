"""How many images fit into a memory that is measured, by a memory of which we know what it holds."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from selfseg.collection.batching.room import AUTO, MOST, Batching, CardMemory, Room, once_more
from selfseg.errors import ConfigError, RunError

MIB = 1 << 20


class Card:
    """A memory in which a batch takes `fixed` bytes and `each` a pixel, and others have their part of it.

    Args:
        size: bytes in all.
        fixed: that any batch takes.
        each: bytes a pixel.
    """

    def __init__(self, size: int, fixed: int, each: float) -> None:
        self.size, self.fixed, self.each, self.others, self.last = size, fixed, each, 0, 0
        self.batches: list[int] = []
        self.fullest = 0

    def free(self) -> int:
        return self.size - self.others

    def begin(self) -> None:
        self.last = 0

    def taken(self) -> int:
        return self.last

    def work(self, pixels: int) -> object:
        def look(some: Sequence[int]) -> list[int]:
            needs = int(self.fixed + self.each * pixels * len(some))
            self.batches.append(len(some))
            if needs > self.free():
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            self.last, self.fullest = needs, max(self.fullest, needs)
            return list(some)

        return look


def all_of(room: Room, card: Card, count: int, pixels: int) -> list[int]:
    """The numbers of so many images of so many pixels, as the room lets them be looked at."""
    done: list[int] = []
    while len(done) < count:
        some = list(range(len(done), min(count, len(done) + room.fitting(pixels))))
        done += room.run(card.work(pixels), some, pixels)  # type: ignore[arg-type]
    return done


@pytest.mark.parametrize("fixed", [0, 100 * MIB])
def test_one_then_two_then_a_share_of_what_is_free(fixed: int) -> None:
    card = Card(1000 * MIB, fixed, each=200.0)
    room = Room(MOST, card)
    pixels = 100_000  # 19 MiB an image
    assert all_of(room, card, 200, pixels) == list(range(200))
    assert card.batches[:3] == [1, 2, 8]
    most = max(card.batches)
    exact = int((0.6 * 1000 * MIB - fixed) / (200 * pixels))
    assert 0.8 * exact <= most <= exact
    assert card.fullest <= 0.6 * 1000 * MIB


def test_small_images_are_not_more_than_64() -> None:
    card = Card(10_000 * MIB, MIB, 1.0)
    all_of(Room(MOST, card), card, 500, 1000)
    assert max(card.batches) == 64


def test_images_of_other_sizes_are_told_from_what_is_known() -> None:
    card = Card(1000 * MIB, 50 * MIB, each=200.0)
    room = Room(MOST, card)
    for number in range(100):  # hardly two of one size
        pixels = 50_000 + 7919 * number % 100_000
        assert all_of(room, card, 9, pixels) == list(range(9))
    assert card.fullest <= 0.65 * 1000 * MIB
    assert sum(card.batches) / len(card.batches) > 6  # 9 at once, but in the beginning


def test_when_others_take_the_memory_half_as_many_are_tried_and_none_is_lost() -> None:
    card = Card(1000 * MIB, 0, each=200.0)
    room = Room(MOST, card)
    all_of(room, card, 100, 100_000)
    before = max(card.batches)
    card.batches.clear()
    card.others = 850 * MIB  # 7 images fit
    assert all_of(room, card, 100, 100_000) == list(range(100))
    assert card.batches[0] == before
    assert card.batches[1] == before // 2
    assert card.batches.count(before) == 1
    assert max(card.batches[3:]) <= 7


def test_what_does_not_fit_alone_is_tried_twice_and_then_told() -> None:
    card = Card(10 * MIB, 0, each=200.0)
    with pytest.raises(RunError, match=r"one image of 100,000 pixels.*--device cpu"):
        Room(8).run(card.work(100_000), [0, 1], 100_000)  # type: ignore[arg-type]
    assert card.batches == [2, 1, 1]


def test_an_error_of_another_kind_is_what_it_is() -> None:
    def work(some: Sequence[int]) -> list[int]:
        raise RuntimeError("no such kernel")

    with pytest.raises(RuntimeError, match="kernel"):
        Room(8).run(work, [0, 1], 1)


def test_once_more_after_memory_ran_out() -> None:
    calls: list[int] = []

    def work(number: int) -> int:
        calls.append(number)
        if len(calls) == 1:
            raise RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")
        return number

    assert once_more(work, 7) == 7
    with pytest.raises(ZeroDivisionError):
        once_more(lambda: 1 / 0)


def test_what_batch_may_say() -> None:
    assert not AUTO.applies(torch.device("cpu"))
    assert AUTO.applies(torch.device("cuda"))
    assert Batching(5, on_cpu=True).room(torch.device("cpu")).fitting(10**9) == 5
    assert Batching(on_cpu=True).room(torch.device("cpu")).fitting(480 * 360) == 32
    for wrong in (0, -1, True, 2.5, "many"):
        with pytest.raises(ConfigError, match="--batch"):
            Batching(wrong)  # type: ignore[arg-type]


@pytest.mark.gpu
def test_a_real_card_is_measured_and_is_never_too_small() -> None:
    device = torch.device("cuda")
    memory = CardMemory(device)
    memory.begin()
    kept = torch.empty(64 * MIB, dtype=torch.uint8, device=device)
    assert 64 * MIB <= memory.taken() < 100 * MIB
    assert memory.free() > 0
    each = int(0.3 * memory.free())
    tried: list[int] = []

    def work(some: Sequence[int]) -> list[int]:
        tried.append(len(some))
        torch.empty(each * len(some), dtype=torch.uint8, device=device)
        return list(some)

    assert Room(8).run(work, list(range(10)), 1) == list(range(10))
    assert tried[0] == 8
    assert max(tried[1:]) <= 4
    tried.clear()
    assert AUTO.room(device).run(work, list(range(10)), 1000) == list(range(10))
    assert tried[:2] == [1, 2]
    del kept
