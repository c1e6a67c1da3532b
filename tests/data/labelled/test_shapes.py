import numpy as np
import pytest

from selfseg.data.labelled.shapes import BadOutline, box_of, fill, fill_window, points, runs, spread, unpack_counts

SQUARE = np.array([[1, 1], [4, 1], [4, 3], [1, 3]], float)


def around_pixels(mask: np.ndarray) -> list[np.ndarray]:
    """Every pixel's own square."""
    return [np.array([[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1]], float) for y, x in np.argwhere(mask)]


def test_an_outline_along_the_pixels_edges_gives_these_pixels() -> None:
    mask = np.random.default_rng(0).random((23, 31)) < 0.4
    np.testing.assert_array_equal(fill(around_pixels(mask), mask.shape), mask)


def test_a_ring_inside_of_a_ring_is_a_hole() -> None:
    outer = np.array([[0, 0], [6, 0], [6, 5], [0, 5]], float)
    expected = np.ones((5, 6), bool)
    expected[1:3, 1:4] = False
    for ring in (SQUARE, SQUARE[::-1]):
        np.testing.assert_array_equal(fill([outer, ring], (5, 6)), expected)
    # The same as one ring that runs into the hole and back on the same line.
    keyhole = np.concatenate([outer[:1], SQUARE, SQUARE[:1], outer[:1], outer[1:]])
    np.testing.assert_array_equal(fill([keyhole], (5, 6)), expected)


def test_slanted_edges_by_the_pixels_centres() -> None:
    triangle = np.array([[0.2, 0.1], [29.3, 7.7], [11.1, 24.9]])
    y, x = np.mgrid[:26, :32] + 0.5
    sides = []
    for (ax, ay), (bx, by) in zip(triangle, np.roll(triangle, -1, axis=0), strict=True):
        sides.append((bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0)
    np.testing.assert_array_equal(fill([triangle], (26, 32)), sides[0] & sides[1] & sides[2])


def test_what_lies_outside_is_cut_off() -> None:
    large = np.array([[-30, -5], [90, -5], [90, 2], [-30, 2]], float)
    np.testing.assert_array_equal(fill([large], (4, 5)), np.repeat([[True], [True], [False], [False]], 5, axis=1))
    assert not fill([large + 200], (4, 5)).any()
    (rows, columns), inside = fill_window([SQUARE], (1000, 1000))
    assert (rows, columns, inside.shape) == (slice(1, 3), slice(1, 4), (2, 3))
    assert inside.all()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([10, 10, 10, 15], r"2 points, which enclose nothing.*a box is written by its four corners"),
        ([1, 2], "1 points"),
        ([], "0 points"),
        ([1, 2, 3, 4, 5, 6, 7], "7 numbers"),
        ([1, 2, 3, float("nan"), 5, 6], "not a finite number"),
        ([1, 2, 3, float("inf"), 5, 6], "not a finite number"),
        ([1, 2, 3, 10**400, 5, 6], "a list of numbers"),
        ([1, 2, "3", 4, 5, 6], "a list of numbers"),
        ([[1, 2], [3, 4], [5, 6]], "a list of numbers"),
        ([[1, 2], [3]], "a list of numbers"),
        ([1, 2, None, 4, 5, 6], "a list of numbers"),
        ({"x": 1}, "a list of numbers"),
        ("1,2,3,4,5,6", "a list of numbers"),
        ([1, 2, 3, 4, 1e9, 6], r"\(1e\+09, 6\) lies far outside of the image of 20x10"),
    ],
)
def test_polygons_that_are_none(value: object, message: str) -> None:
    with pytest.raises(BadOutline, match=message):
        points(value, (10, 20))


def test_run_lengths_as_pycocotools_writes_them() -> None:
    coder = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for share in (0, 0.01, 0.5, 0.99, 1):
        for size in ((1, 1), (37, 53), (900, 1200)):
            mask = rng.random(size) < share
            counts = coder.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
            for stored in (counts, counts.decode()):
                np.testing.assert_array_equal(spread(runs(stored, mask.size), size), mask)


def test_run_lengths_by_columns_and_by_rows() -> None:
    lengths = runs([1, 2, 3], 6)
    np.testing.assert_array_equal(spread(lengths, (2, 3)), [[0, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(spread(lengths, (2, 3), by_rows=True), [[0, 1, 1], [0, 0, 0]])
    assert box_of(spread(lengths, (2, 3))) == (0, 0, 2, 2)
    assert box_of(np.zeros((2, 3), bool)) is None


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([1, 2], "3 pixels in all, but the mask has 6"),
        ([], "0 pixels in all"),
        ([7, -1], "a run of -1"),
        ([1e9, 1], "whole numbers"),
        ([1 << 62, 1], "a run of 4611686018427387904"),
        (None, "whole numbers"),
        ("a", "end in the middle of a number"),
        ("é", "can't hold"),
        ("\x01", "can't hold"),
        ("ooooooooo0", "beyond 32 bits"),
        ("2", "2 pixels in all"),
    ],
)
def test_run_lengths_that_are_none(counts: object, message: str) -> None:
    with pytest.raises(BadOutline, match=message):
        runs(counts, 6)


def test_differences_of_run_lengths_begin_with_the_fourth() -> None:
    # By hand: 5, 2, 7, 2 + 1 = 3, 7 - 3 = 4; -3 is 29 in five bits, "M".
    assert unpack_counts("5271M").tolist() == [5, 2, 7, 3, 4]
