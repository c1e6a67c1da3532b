import numpy as np
import pytest

from selfseg.data.labelled.shapes import BadOutline
from selfseg.exchange.coding.brush_rle import packed
from selfseg.exchange.coding.brush_unpacking import unpacked
from selfseg.exchange.coding.runs import runs_of


def bits(text: str) -> list[int]:
    text = text.replace(" ", "")
    return np.packbits([int(c) for c in text.ljust(-(-len(text) // 8) * 8, "0")]).tolist()


@pytest.mark.parametrize("share", [0, 0.02, 0.5, 1])
def test_what_is_packed_comes_back(share: float) -> None:
    mask = np.random.default_rng(0).random((61, 83)) < share
    counts = runs_of(mask.astype(int), -1).get(1, np.array([mask.size]))
    np.testing.assert_array_equal(unpacked(packed(counts).tolist(), mask.shape), mask)


def test_a_run_longer_than_its_longest_piece() -> None:
    mask = np.zeros((300, 400), bool)
    mask[:250] = True
    np.testing.assert_array_equal(unpacked(packed(np.array([0, 100_000, 20_000])), mask.shape), mask)


def head(values: int) -> str:
    """Values of 8 bits; sizes of 3, 4, 8 and 16 bits."""
    return f"{values:032b} 00111 0010 0011 0111 1111"


def test_pieces_that_are_no_runs_and_soft_edges() -> None:
    # By hand: 8 values, first four of their own (alpha 200), then a run of four zeros.
    literal = "0 00 011" + "".join(f"{value:08b}" for value in (1, 2, 3, 200))
    run = "1 00 011 00000000"
    assert unpacked(bits(head(8) + literal + run), (1, 2)).tolist() == [[True, False]]
    assert unpacked(bits(head(8) + literal.replace(f"{200:08b}", f"{127:08b}") + run), (1, 2)).tolist() == [
        [False, False]
    ]


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (None, "no list of bytes"),
        ("text", "no list of bytes"),
        ([], "no list of bytes"),
        ([1, -1], "no list of bytes"),
        ([1, 256], "no list of bytes"),
        ([1.5], "no list of bytes"),
        ([0], "holds 0 values, but an image of 2x1 pixels has 8"),
        (bits(head(8)), "ends in the middle"),
        (bits(head(8) + "1 11 1111111111111111 00000000"), "longer than the mask"),
        (bits(head(8) + "0 00 111" + "1" * 16), "ends in the middle"),
    ],
)
def test_streams_that_are_none(stream: object, message: str) -> None:
    with pytest.raises(BadOutline, match=message):
        unpacked(stream, (1, 2))
