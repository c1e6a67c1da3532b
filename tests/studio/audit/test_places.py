"""Audits: places at random, intervals that hold, and a sentence that says what they say."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from selfseg.errors import ConfigError
from selfseg.studio.audit.places import Share, draw_images, draw_places, interval, judge
from selfseg.studio.decisions import Answer, AuditRound, ImageId


def answer(n: int, predicted: str, verdict: str) -> Answer:
    return Answer(n + 1, n, ImageId("a", "a"), (0.5, 0.5), predicted, verdict)


def audit(*answers: tuple[str, str], count: int = 60, since: int = 0) -> AuditRound:
    return AuditRound(1, count, 0, "images", tuple(answer(n, *one) for n, one in enumerate(answers)), since)


def test_places_are_middles_of_pixels_and_the_same_for_the_same_seed() -> None:
    sizes = [(3, 5), (4, 2), (1, 1)]
    places = draw_places(sizes, 300, seed=4)
    assert places == draw_places(sizes, 300, seed=4)
    assert places != draw_places(sizes, 300, seed=5)
    pixels = Counter((image, x * sizes[image][1] - 0.5, y * sizes[image][0] - 0.5) for image, x, y in places)
    assert all(float(value).is_integer() for _, x, y in pixels for value in (round(x, 9), round(y, 9)))
    assert len(pixels) == 15 + 8 + 1, "every pixel can come"
    assert Counter(place.image for place in places) == {0: 100, 1: 100, 2: 100}


def test_no_image_has_two_places_while_another_has_none() -> None:
    for seed in range(20):
        images = [place.image for place in draw_places([(9, 9)] * 101, 60, seed)]
        assert len(set(images)) == 60
        more = [place.image for place in draw_places([(9, 9)] * 101, 150, seed)]
        assert more[:60] == images, "an audit can be gone on with"
        assert set(Counter(more).values()) == {1, 2}


def test_by_pixels_an_image_has_what_it_is_due() -> None:
    pixels = np.array([100, 100, 300, 1, 499])
    counts = np.array([np.bincount(draw_images(pixels, 20, seed, "pixels"), minlength=5) for seed in range(500)])
    due = 20 * pixels / pixels.sum()
    assert (counts >= np.floor(due)).all()
    assert (counts <= np.ceil(due)).all()
    assert np.allclose(counts.mean(0), due, atol=0.1)
    first = np.array([draw_images(pixels, 20, seed, "pixels")[0] for seed in range(2000)])
    assert np.allclose(np.bincount(first, minlength=5) / 2000, due / 20, atol=0.04), "the first answers are at random"


def test_by_pixels_a_small_image_comes_as_often_as_its_pixels() -> None:
    drawn = np.array([draw_images([100, 300], 1, seed, "pixels")[0] for seed in range(2000)])
    assert np.mean(drawn == 0) == pytest.approx(0.25, abs=0.04)


def test_by_images_each_comes_as_often() -> None:
    pixels = np.array([100, 10_000, 1])
    counts = np.bincount([draw_images(pixels, 1, seed)[0] for seed in range(3000)])
    assert np.allclose(counts / 3000, 1 / 3, atol=0.04)


def test_what_can_not_be_drawn_is_refused() -> None:
    for sizes in ([], [(0, 4)]):
        with pytest.raises(ConfigError, match="no image, or one without pixels"):
            draw_places(sizes)
    with pytest.raises(ConfigError, match="at least one place"):
        draw_places([(4, 4)], 0)
    with pytest.raises(ConfigError, match="'images' or 'pixels'"):
        draw_places([(4, 4)], weigh="area")


@pytest.mark.parametrize(("right", "judged"), [(0, 1), (1, 1), (0, 60), (60, 60), (57, 60), (3, 7)])
def test_the_interval_is_that_of_clopper_and_pearson(right: int, judged: int) -> None:
    expected = binomtest(right, judged).proportion_ci(0.95, method="exact")
    assert np.allclose(interval(right, judged), (expected.low, expected.high), atol=1e-9)


def test_the_interval_covers_every_truth_in_95_of_100() -> None:
    intervals = np.array([interval(right, 60) for right in range(61)])
    for truth in np.linspace(0.005, 0.995, 199):
        chances = binom.pmf(np.arange(61), 60, truth)
        assert chances[(intervals[:, 0] <= truth) & (truth <= intervals[:, 1])].sum() >= 0.95 - 1e-9, truth
    with pytest.raises(ConfigError, match="right places among 2 judged ones can't be"):
        interval(3, 2)


@pytest.mark.parametrize("truth", [0.5, 0.8, 0.95, 0.99])
@pytest.mark.parametrize("images", [40, 101])
def test_500_audits_cover_the_truth_when_whole_images_are_wrong(truth: float, images: int) -> None:
    right = np.arange(images) < round(images * truth)
    held = 0
    for seed in range(500):
        low, high = interval(int(right[draw_images(np.ones(images), 60, seed)].sum()), 60)
        held += low <= right.mean() <= high
    assert held >= 0.93 * 500


def test_unsure_is_counted_and_bounded() -> None:
    result = judge(audit(*[("road", "road")] * 40, *[("road", "sky")] * 8, *[("sky", "unsure")] * 12), images=101)
    assert result.accuracy == Share(40, 48)
    assert (result.answered, result.unsure) == (60, 12)
    assert result.interval == (interval(40, 60)[0], interval(52, 60)[1])
    assert result.interval[0] < result.accuracy.interval[0]
    assert result.accuracy.interval[1] < result.interval[1]
    assert "40 of 48 judged places have the right class: 83 %" in result.sentence
    assert "whatever the right class is at 12 places you were not sure about" in result.sentence
    certain = judge(audit(*[("road", "road")] * 40, *[("road", "sky")] * 8), images=101)
    assert certain.interval == certain.accuracy.interval
    assert "not sure" not in certain.sentence


def test_classes_have_their_precision_and_mistakes_are_counted() -> None:
    result = judge(
        audit(
            ("road", "road"),
            ("road", "sky"),
            ("road", "sky"),
            ("road", "unsure"),
            ("", ""),
            ("sky", ""),
            ("sky", "sky"),
        ),
        images=9,
    )
    assert [(one.name, one.precision, one.unsure) for one in result.per_class] == [
        ("road", Share(1, 3), 1),
        ("sky", Share(1, 2), 0),
        ("", Share(1, 1), 0),
    ]
    assert result.mistakes == (("road", "sky", 2), ("sky", "", 1))
    assert result.accuracy == Share(3, 6)


def test_the_sentence_says_what_is_covered_and_what_not() -> None:
    text = judge(audit(*[("a", "a")] * 57, *[("a", "b")] * 3), images=1200).sentence
    assert text.startswith(
        "57 of 60 judged places have the right class: 95 %, and the true share lies between 86 % and 99 %"
    )
    assert "these 1,200 images" in text
    assert "each image counts the same" in text
    assert "does not cover other images" in text
    assert "less than 5 % of the area" in text
    assert "Draw new places" not in text
    assert "3 decisions came after the first answer" in judge(audit(("a", "a"), since=3), images=2).sentence


def test_numbers_are_never_rounded_to_all_or_nothing() -> None:
    text = judge(audit(*[("a", "a")] * 399, ("a", "b"), count=400), images=1).sentence
    assert "99.8 %" in text
    assert "this image" in text
    assert "100 %, and the true share lies between 2 % and 100 %" in judge(audit(("a", "a")), images=5).sentence
    assert "1 of 60 places are answered" in judge(audit(("a", "a")), images=5).sentence


def test_before_anything_is_judged_nothing_is_said() -> None:
    result = judge(audit(), images=5)
    assert result.accuracy.value is None
    assert result.sentence == "No place has been judged yet, so nothing is known."
    unsure = judge(audit(("a", "unsure")), images=5)
    assert "not sure about 1 place." in unsure.sentence
    assert json.loads(json.dumps(unsure.to_json()))["accuracy"] is None


def test_the_result_in_plain_values() -> None:
    values = judge(audit(("a", "a"), ("a", "b"), ("b", "unsure")), images=5).to_json()
    assert json.loads(json.dumps(values)) == values
    assert (values["answered"], values["accuracy"], values["judged"]) == (3, 0.5, 2)
    assert values["perClass"][1] == {"name": "b", "precision": None, "low": 0.0, "high": 1.0, "judged": 0, "unsure": 1}


def test_places_are_looked_at_image_by_image_so_that_each_is_unpacked_once() -> None:
    asked: list[int] = []

    def measured(image: int, x: float, y: float) -> bool:
        asked.append(image)
        return True

    places = draw_places([(40, 40)] * 5, 200, seed=3, measured=measured)
    assert asked == sorted(asked)
    assert places == draw_places([(40, 40)] * 5, 200, seed=3)
    assert [place.image for place in places] != sorted(place.image for place in places)
