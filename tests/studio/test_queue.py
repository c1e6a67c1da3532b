"""The queue: unsure, common, unlike each other, unlike what was answered."""

import numpy as np
import pytest

from selfseg.errors import ConfigError
from selfseg.studio import queue
from selfseg.studio.queue import doubt_of, next_questions

AXES = np.eye(4, dtype=np.float32)


def regions(*kinds: int) -> dict[str, np.ndarray]:
    """Regions of a few kinds, all of one area, in images of four."""
    count = len(kinds)
    return {
        "vectors": AXES[list(kinds)],
        "areas": np.full(count, 0.25, np.float32),
        "first": np.append(np.arange(0, count, 4), count),
    }


def test_doubt() -> None:
    assert doubt_of(np.array([[0.9, 0.1, 0.0], [0.0, 0.0, 0.0]])) == pytest.approx([0.2, 1.0])
    assert doubt_of(np.array([[1.0], [0.0]])).tolist() == [0.0, 1.0]


def test_the_unsure_is_asked_about() -> None:
    scores = np.array([[1, 0], [1, 0], [0.5, 0.5], [1, 0], [1, 0]], np.float32)
    (asked,) = next_questions(scores=scores, count=3, **regions(0, 0, 1, 0, 0))
    assert (asked.image, asked.region) == (0, 2)
    assert asked.gain == pytest.approx(1)


def test_the_common_comes_first_and_then_another_kind() -> None:
    scores = np.full((8, 2), 0.5, np.float32)
    asked = next_questions(scores=scores, count=3, **regions(0, 1, 1, 1, 1, 2, 2, 0))
    kinds = [(0, 1, 1, 1, 1, 2, 2, 0)[each.region] for each in asked]
    assert kinds[0] == 1
    assert sorted(kinds) == [0, 1, 2]
    assert [each.region // 4 for each in asked] == [each.image for each in asked]
    assert asked[0].gain == pytest.approx(0.5, abs=1e-3)


def test_what_was_answered_and_what_is_like_it_waits() -> None:
    scores = np.full((5, 2), 0.5, np.float32)
    asked = next_questions(scores=scores, count=5, answered=[0], **regions(0, 0, 0, 0, 1))
    assert asked[0].region == 4
    assert 0 not in [each.region for each in asked]
    assert len(asked) == 4


def test_large_regions_weigh_more() -> None:
    given = regions(0, 1)
    given["areas"] = np.array([0.1, 0.9], np.float32)
    assert next_questions(scores=np.full((2, 2), 0.5), count=1, **given)[0].region == 1


def test_nothing_to_ask() -> None:
    sure = np.array([[1, 0], [1, 0]], np.float32)
    assert next_questions(scores=sure, **regions(0, 1)) == []
    assert next_questions(scores=sure * 0, answered=[0, 1], **regions(0, 1)) == []
    assert next_questions(scores=sure * 0, count=0, **regions(0, 1)) == []


def test_a_drawn_part_stands_for_a_large_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "LOOKED_AT", 40)
    kinds = [0] * 300 + [1] * 200 + [2] * 100
    given = regions(*kinds)
    scores = np.full((600, 2), 0.5, np.float32)
    scores[:300] = [1, 0]
    asked = next_questions(scores=scores, count=2, **given)
    assert [kinds[each.region] for each in asked] == [1, 2]
    assert asked[0].gain == pytest.approx(2 / 3, abs=0.05)
    assert asked == next_questions(scores=scores, count=2, **given)


def test_shapes_must_fit() -> None:
    given = regions(0, 1)
    with pytest.raises(ConfigError, match="of one length, not 2, 3, 2"):
        next_questions(scores=np.zeros((3, 2)), **given)
