"""The queue: each name in its turn, where it is least sure, and nothing twice."""

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
    assert asked.doubt == pytest.approx(1)


def test_each_name_has_its_turn_however_rare_it_is() -> None:
    scores = np.full((9, 3), 0.2, np.float32)
    scores[:7, 0], scores[7, 1], scores[8, 2] = np.linspace(0.4, 0.7, 7), 0.6, 0.6
    given = {**regions(*[0] * 9), "vectors": np.eye(9, dtype=np.float32)}
    for seed in range(5):
        asked = next_questions(scores=scores, count=3, seed=seed, **given)
        assert {int(scores[each.region].argmax()) for each in asked} == {0, 1, 2}
        assert next(each for each in asked if scores[each.region].argmax() == 0).region == 0  # the least sure of it
        assert [each.region // 4 for each in asked] == [each.image for each in asked]


def test_what_is_like_a_question_is_not_another_one() -> None:
    scores = np.full((8, 2), 0.5, np.float32)
    kinds = (0, 1, 1, 1, 1, 2, 2, 0)
    asked = next_questions(scores=scores, count=8, **regions(*kinds))
    assert sorted(kinds[each.region] for each in asked) == [0, 1, 2]


def test_what_was_answered_is_not_asked_again() -> None:
    scores = np.full((5, 2), 0.5, np.float32)
    asked = next_questions(scores=scores, count=5, answered=[0, 4], **regions(0, 1, 2, 3, 0))
    assert sorted(each.region for each in asked) == [1, 2, 3]


def test_while_nothing_is_known_the_common_comes_first_and_then_another_kind() -> None:
    kinds = (0, 1, 1, 1, 1, 2, 2, 2)
    asked = next_questions(scores=np.zeros((8, 2), np.float32), count=3, **regions(*kinds))
    assert [kinds[each.region] for each in asked] == [1, 2, 0]
    assert all(each.doubt == 1 for each in asked)


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
    assert sorted(kinds[each.region] for each in asked) == [1, 2]
    assert asked == next_questions(scores=scores, count=2, **given)
    assert asked != next_questions(scores=scores, count=2, seed=1, **given)


def test_shapes_must_fit() -> None:
    given = regions(0, 1)
    with pytest.raises(ConfigError, match="of one length, not 2, 3, 2"):
        next_questions(scores=np.zeros((3, 2)), **given)
