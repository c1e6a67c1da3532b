import numpy as np
import pytest

from selfseg.studio.beliefs import NONE, Beliefs, examples
from selfseg.studio.concepts import Grouping
from studio.test_concepts import DIRECTIONS, Drawn, clusters, drawn

IMAGES, EACH = 40, 10


@pytest.fixture
def regions() -> Drawn:
    return drawn(np.random.default_rng(1).integers(0, 3, (IMAGES, EACH)))


@pytest.fixture
def grouping(regions: Drawn) -> Grouping:
    return Grouping(regions, clusters(DIRECTIONS[:3]), {})


def kinds(regions: Drawn) -> np.ndarray:
    return regions.vectors[:, :3].argmax(1)


def all_of(beliefs: Beliefs) -> np.ndarray:
    while beliefs.catch_up(7):
        pass
    return beliefs.classes


def test_named_concepts_become_classes_and_what_nobody_named_stays_empty(regions: Drawn, grouping: Grouping) -> None:
    beliefs = Beliefs(regions)
    assert (all_of(beliefs) == NONE).all()
    beliefs.refit(examples(grouping, {"3/0": 1, "3/1": 0}, [], []), 2)
    assert (all_of(beliefs) == np.array([1, 0, NONE])[kinds(regions)]).all()


def test_two_concepts_of_one_name_are_one_class(regions: Drawn, grouping: Grouping) -> None:
    beliefs = Beliefs(regions)
    beliefs.refit(examples(grouping, {"3/0": 0, "3/2": 0}, ["3/1"], []), 1)
    assert (all_of(beliefs) == np.array([0, NONE, 0])[kinds(regions)]).all()


def test_clicks_alone_name_everything(regions: Drawn, grouping: Grouping) -> None:
    beliefs = Beliefs(regions)
    clicks = [(np.flatnonzero(kinds(regions) == kind)[:2], kind) for kind in range(3)]
    beliefs.refit(examples(grouping, {}, [], clicks), 3)
    assert (all_of(beliefs) == kinds(regions)).all()


def test_one_click_does_not_name_what_is_unlike_it(regions: Drawn, grouping: Grouping) -> None:
    beliefs = Beliefs(regions)
    beliefs.refit(examples(grouping, {}, [], [(np.flatnonzero(kinds(regions) == 1)[:1], 0)]), 1)
    assert (all_of(beliefs) == np.array([NONE, 0, NONE])[kinds(regions)]).all()


def test_a_click_into_a_concept_without_a_name_ends_its_being_none(regions: Drawn, grouping: Grouping) -> None:
    clicks = [(np.flatnonzero(kinds(regions) == 2)[:1], 1)]
    beliefs = Beliefs(regions)
    beliefs.refit(examples(grouping, {"3/0": 0, "3/1": 0}, [], clicks), 2)
    assert (all_of(beliefs) == np.array([0, 0, 1])[kinds(regions)]).all()


def test_what_was_clicked_keeps_its_class_and_the_last_click_holds(regions: Drawn, grouping: Grouping) -> None:
    odd = np.array([np.flatnonzero(kinds(regions) == kind)[3] for kind in range(3)])
    clicks = [(odd, 0), (odd[1:], 1), (odd[2:], None)]
    beliefs = Beliefs(regions)
    beliefs.refit(examples(grouping, {f"3/{kind}": 2 for kind in range(3)}, [], clicks), 3)
    found = all_of(beliefs)
    assert found[odd].tolist() == [0, 1, 2]  # the third was taken back, and is what its concept is
    assert (beliefs.certainty[odd] == 1).tolist() == [True, True, False]
    assert (np.delete(found, odd) == 2).mean() > 0.8


def test_an_image_is_up_to_date_at_once_and_the_others_follow(regions: Drawn, grouping: Grouping) -> None:
    beliefs = Beliefs(regions)
    beliefs.refit(examples(grouping, {f"3/{kind}": kind for kind in range(3)}, [], []), 3)
    assert beliefs.behind == IMAGES
    classes, certainty = beliefs.of_image(5)
    assert (classes == kinds(regions)[50:60]).all()
    assert ((certainty > 0) & (certainty <= 1)).all()
    assert beliefs.behind == IMAGES - 1
    all_of(beliefs)
    assert beliefs.behind == 0
    assert not beliefs.catch_up()


def test_undoing_everything_leaves_nothing(regions: Drawn, grouping: Grouping) -> None:
    beliefs = Beliefs(regions)
    beliefs.refit(examples(grouping, {"3/0": 0}, [], []), 1)
    all_of(beliefs)
    beliefs.refit(examples(grouping, {}, [], []), 0)
    assert (all_of(beliefs) == NONE).all()
    assert beliefs.probabilities(np.arange(3)).tolist() == [[0.0]] * 3
    assert beliefs.doubts() == pytest.approx(1)


def test_classes_that_change_their_numbers_are_learned_anew(regions: Drawn, grouping: Grouping) -> None:
    beliefs = Beliefs(regions)
    beliefs.refit(examples(grouping, {"3/0": 0, "3/1": 1, "3/2": 2}, [], []), 3)
    beliefs.refit(examples(grouping, {"3/0": 1, "3/1": 0, "3/2": 2}, [], []), 3, anew=True)
    assert (all_of(beliefs) == np.array([1, 0, 2])[kinds(regions)]).all()


def test_doubt_is_larger_where_kinds_are_mixed(grouping: Grouping, regions: Drawn) -> None:
    regions.vectors[:EACH] = (DIRECTIONS[0] + DIRECTIONS[1]) / np.sqrt(2)
    beliefs = Beliefs(regions)
    beliefs.refit(examples(grouping, {f"3/{kind}": kind for kind in range(3)}, [], []), 3)
    all_of(beliefs)
    assert beliefs.doubts()[0] > 2 * beliefs.doubts()[1:].max()
