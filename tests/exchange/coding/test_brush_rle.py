import numpy as np
import pytest
from numpy.typing import NDArray

from exchange.reading_back import unpacked
from selfseg.exchange.coding.brush_rle import packed
from selfseg.exchange.coding.runs import runs_of

RANDOM = np.random.default_rng(0)
MASKS = {
    "one pixel": np.ones((1, 1)),
    "full": np.ones((7, 5)),
    "noise": RANDOM.random((31, 17)) < 0.5,
    "runs of more than 65,536 values": np.repeat([0, 1, 0, 1], [16_384, 16_384, 40_000, 65_537])[None],
    "every size of length": np.repeat(np.arange(40) % 2, np.arange(1, 41))[None],
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_the_mask_comes_back_in_all_four_channels(mask: NDArray[np.float64]) -> None:
    labels = np.asarray(mask, np.uint8)
    values = unpacked(packed(runs_of(labels, ignored=0)[1])).reshape(*labels.shape, 4)
    assert (values == 255 * labels[..., None]).all()


def test_bits_by_hand() -> None:
    # 8 values; words of 8 bits; lengths of 3, 4, 8, 16 bits; a run of the first size, 4 times 0; the same of 255.
    bits = f"{8:032b}" + "00111" + "0010" + "0011" + "0111" + "1111"
    bits += "1" + "00" + "011" + "00000000" + "1" + "00" + "011" + "11111111"
    expected = np.packbits(np.array([int(bit) for bit in bits], np.uint8))
    assert packed(np.array([1, 1])).tolist() == expected.tolist()
