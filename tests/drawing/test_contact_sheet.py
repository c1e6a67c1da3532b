import numpy as np
import pytest

from selfseg.drawing.contact_sheet import contact_sheet
from selfseg.drawing.pictures import palette


def colours_in(sheet: np.ndarray, count: int) -> list[int]:
    """Which of a palette's colours fill a box of the legend."""
    return [c for c, colour in enumerate(palette(count)) if (sheet == colour).all(2).sum() > 100]


def test_the_legend_names_all_of_few_classes_and_of_many_those_in_sight() -> None:
    image = np.full((40, 60, 3), 255, np.uint8)
    label = np.full((40, 60), 255, np.uint8)
    label[:, :20], label[:, 20:30] = 3, 7
    few = contact_sheet([("a", image, label)], [f"class {c}" for c in range(12)], [1 / 12] * 12)
    assert colours_in(few, 12) == list(range(12))
    many = contact_sheet([("a", image, label)], [f"class {c}" for c in range(150)])
    assert colours_in(many, 150) == [3, 7]


@pytest.mark.slow
def test_images_of_all_shapes_and_names_of_all_lengths() -> None:
    long, high = np.zeros((20, 900, 3), np.uint8), np.zeros((900, 20, 3), np.uint8)
    sheet = contact_sheet([("a/very" * 40, long, None), ("b", high, None)], title="title " * 300)
    assert sheet.dtype == np.uint8
    assert 320 < sheet.shape[0] < 450
    assert contact_sheet([], ["a"], [0.0]).shape[2] == 3
