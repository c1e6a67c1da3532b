import json
from itertools import combinations

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from selfseg.data.labelled.legend import Legend, NamedClass, parse_colour, safe_colours
from selfseg.errors import ConfigError


def test_a_legend_survives_json() -> None:
    legend = Legend.of(["road", "<b>sky</b>", "שמיים"], {"road": (1, 2, 3)})
    assert Legend.from_json(json.loads(json.dumps(legend.to_json()))) == legend


def test_void_is_never_a_class() -> None:
    assert Legend.of([str(i) for i in range(255)]).void == 255
    assert Legend.of([str(i) for i in range(256)]).void == 65_535


def test_given_colours_are_not_given_again() -> None:
    legend = Legend.of(["a", "b"], {"b": safe_colours(1)[0]})
    assert legend.classes[0].colour != legend.classes[1].colour


def test_first_colours_differ() -> None:
    assert len(set(safe_colours(60))) == 60
    assert safe_colours(60)[:7] == safe_colours(7)


@pytest.mark.parametrize("entries", [None, [{"value": 1, "name": "a", "colour": "#000000"}], [{"value": 0}], 7])
def test_something_else_is_refused(entries: object) -> None:
    with pytest.raises(ConfigError, match="no legend"):
        Legend.from_json(entries)


@pytest.mark.parametrize("text", ["red", "#12345", "#12345g", "", None, 3])
def test_a_colour_that_is_none_is_refused(text: object) -> None:
    with pytest.raises(ConfigError, match="#rrggbb"):
        parse_colour(text)  # type: ignore[arg-type]


def test_names_and_colours_are_checked() -> None:
    with pytest.raises(ConfigError, match="needs a name"):
        NamedClass(" ", (0, 0, 0))
    with pytest.raises(ConfigError, match="0 to 255"):
        NamedClass("a", (0, 0, 256))
    with pytest.raises(ConfigError, match="two classes"):
        Legend.of(["a", "a"])
    with pytest.raises(ConfigError, match="1 to 65,535"):
        Legend(())


@pytest.mark.parametrize("given", [(0, 0, 0), (255, 255, 255), (0, 1, 1)])
@pytest.mark.parametrize("count", [64, 255, 330, 3000])
def test_every_class_gets_a_colour_of_its_own(count: int, given: tuple[int, int, int]) -> None:
    legend = Legend.of([f"c{i}" for i in range(count)], {"c0": given})
    assert len({one.colour for one in legend.classes}) == count
    assert len(set(safe_colours(count))) == count


def test_many_colours_may_be_given() -> None:
    given = {f"c{i}": colour for i, colour in enumerate(safe_colours(400)) if i % 2}
    legend = Legend.of([f"c{i}" for i in range(400)], given)
    assert len({one.colour for one in legend.classes}) == 400


def test_forty_classes_can_be_told_apart_also_by_the_colour_blind() -> None:
    # Linear sRGB as eyes see it that lack a kind of cone (Machado et al. 2009), then OKLab (Ottosson 2020).
    eyes = {
        "all": np.eye(3),
        "no long": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "no middle": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
        "no short": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
    }
    cones = [[0.4122215, 0.5363325, 0.051446], [0.2119035, 0.6806996, 0.107397], [0.0883025, 0.2817188, 0.6299787]]
    lab = [[0.2104543, 0.7936178, -0.0040720], [1.9779985, -2.4285922, 0.4505937], [0.0259040, 0.7827718, -0.8086758]]
    shown = np.array(safe_colours(40)) / 255
    linear = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
    for eye, seen in eyes.items():
        points = np.cbrt(np.clip(linear @ np.array(seen).T, 0, 1) @ np.array(cones).T) @ np.array(lab).T
        far = pdist(points)
        pairs = np.array(list(combinations(range(40), 2)))
        assert far[(pairs < 20).all(1)].min() > 0.069, eye  # two of the 20 of before were .009 from each other
        assert far.min() > 0.044, eye
