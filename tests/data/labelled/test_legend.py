import json

import pytest

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


def test_the_first_colours_are_as_ever() -> None:
    assert safe_colours(63)[7:10] == ((0, 86, 134), (172, 119, 0), (0, 118, 86))
