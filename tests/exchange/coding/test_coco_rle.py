import numpy as np
import pytest
from numpy.typing import NDArray

from selfseg.exchange.coding.coco_rle import compressed
from selfseg.exchange.coding.runs import runs_of

coco = pytest.importorskip("pycocotools.mask")

RANDOM = np.random.default_rng(0)
MASKS = {
    "one pixel": np.ones((1, 1)),
    "full": np.ones((7, 5)),
    "noise": RANDOM.random((31, 17)) < 0.5,
    "blocks": np.kron(RANDOM.random((5, 6)) < 0.5, np.ones((40, 50))),
    "large": np.arange(3000 * 2000).reshape(3000, 2000) > 2_500_000,  # counts of many groups
    "begins within": np.eye(9),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_the_text_is_that_of_pycocotools(mask: NDArray[np.float64]) -> None:
    labels = np.asarray(mask, np.uint8)
    text = compressed(runs_of(labels.T, ignored=0)[1])
    assert text == coco.encode(np.asfortranarray(labels))["counts"].decode()
