import re

import cv2
import numpy as np
import pytest

from selfseg.errors import StorageError
from selfseg.pages.comparison import Drawing, Shown, colour_classes, write_comparison_page
from some_result import some_result


@pytest.fixture
def drawn(tmp_path):
    shown = [Shown("a.png", 0, np.full((6, 8, 3), 200, np.uint8), np.array([[0, 1, 255, 0]] * 3, np.uint8))]
    for name in ("one", "two"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.ones((3, 4), np.uint8))
        cv2.imwrite(str(tmp_path / f"{name}-embedding.png"), np.ones((3, 4, 3), np.uint8))
    drawings = [Drawing(name, "linear", (f"{name}.png",)) for name in ("one", "two")]
    drawings += [Drawing(name, "embedding", (f"{name}-embedding.png",)) for name in ("one", "two")]
    return tmp_path, shown, drawings


def test_the_page_has_every_row_and_picture_and_loads_nothing(drawn):
    folder, shown, drawings = drawn
    results = [some_result("two", 0.4), some_result("one", 0.3), some_result("colour", 0.1)]
    sources = {"one": "runs/one", "two": "runs/two"}
    page = write_comparison_page(folder, sources, results, shown, drawings, ("sky", "<b>road")).read_text("utf-8")
    rows = re.findall(r'<tr( class=own)?><th scope="row">([^<]+)</th>\s+<td><span( class=best)?>', page)
    assert rows == [(" class=own", "one", ""), (" class=own", "two", " class=best"), ("", "colour", "")]
    # photograph, labels and two rows of classes; photograph and two embeddings
    assert page.count('src="data:image/') == 4 + 3
    assert "&lt;b&gt;road" in page
    assert "<b>road" not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_a_picture_that_is_gone_is_named(drawn):
    folder, shown, drawings = drawn
    (folder / "two.png").unlink()
    with pytest.raises(StorageError, match=r"two\.png is gone"):
        write_comparison_page(folder, {"one": "a"}, [some_result("one", 0.3)], shown, drawings, ("sky", "road"))


def test_classes_have_their_colours_and_void_is_gray():
    colours = np.array([[255, 0, 0], [0, 255, 0]], np.uint8)
    picture = colour_classes(np.array([[0, 1, 255, 7]], np.uint8), colours)
    assert picture[0, :2].tolist() == colours.tolist()
    assert picture[0, 2].tolist() == picture[0, 3].tolist() == [60, 60, 60]
