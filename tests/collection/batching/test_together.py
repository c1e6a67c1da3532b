"""Images of one shape are looked at together, and come out in their order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from selfseg.collection.batching import together as module
from selfseg.collection.batching.room import Room
from selfseg.collection.batching.together import embed_together, together
from selfseg.models.embedder import Embedder, EmbedderConfig

SIZES = ((40, 60), (60, 40), (40, 60), (33, 77), (40, 60), (60, 40), (40, 60), (96, 32))


@pytest.mark.slow
def test_batches_of_one_shape_give_the_same_in_the_same_order() -> None:
    torch.manual_seed(0)
    embedder = Embedder(EmbedderConfig(output_stride=32, dim=8, resolution=48)).eval()
    shapes: list[tuple[int, tuple[int, ...]]] = []

    def embed(images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        shapes.append((len(images), images[0].shape))
        return embedder.embed_prepared(images)

    images = [np.full((*size, 3), 10 * number, np.uint8) for number, size in enumerate(SIZES)]

    def all_of(window: int, pixels: int = 1) -> list[tuple[NDArray[np.uint8], torch.Tensor]]:
        shapes.clear()
        return list(embed_together(embed, iter(images), embedder.prepare, lambda _: pixels, Room(3), window))

    whole = all_of(window=100)
    assert max(count for count, _ in shapes) == 3
    assert len(shapes) < 8
    for (image, embedding), expected in zip(whole, images, strict=True):
        assert image is expected
        torch.testing.assert_close(embedding, embedder.embed(image), rtol=0, atol=1e-5)
    for narrow in (all_of(window=1), all_of(window=100, pixels=module.WINDOW_PIXELS + 1)):
        assert [image is expected for (image, _), expected in zip(narrow, images, strict=True)] == [True] * 8
        assert {count for count, _ in shapes} == {1}


def test_a_batch_that_does_not_fit_is_halved_and_no_image_is_lost() -> None:
    tried: list[int] = []

    def work(some: Sequence[int]) -> list[int]:
        tried.append(len(some))
        if len(some) > 2:
            raise torch.cuda.OutOfMemoryError("too much")
        return [10 * each for each in some]

    found = together(work, iter(range(12)), lambda n: n, lambda _: (48, 48), lambda _: 1, Room(5))
    assert list(found) == [(number, 10 * number) for number in range(12)]
    assert tried == [5, 2, 2, 1, 2, 2, 2, 1]  # what did not fit once is not tried again


def test_the_window_holds_two_batches_however_many_images_are_asked_for() -> None:
    tried: list[int] = []

    def work(some: Sequence[int]) -> Sequence[int]:
        tried.append(len(some))
        return some

    list(together(work, iter(range(600)), lambda n: n, lambda n: (8, 8 + n % 2), lambda _: 1, Room(300)))
    assert tried == [300, 300]


def test_none_is_a_result_too() -> None:
    found = together(
        lambda some: [None] * len(some), iter(range(5)), lambda n: n, lambda _: (1, 1), lambda _: 1, Room(2)
    )
    assert [item for item, _ in found] == [0, 1, 2, 3, 4]
