"""What decisions amount to: clusters and their parts, classes, clicks, audits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selfseg.data.labelled.legend import clean_name
from selfseg.errors import ConfigError
from selfseg.studio.decisions import DecisionLog
from selfseg.studio.decisions.fold import Fold
from selfseg.studio.decisions.kinds import checked
from selfseg.studio.decisions.state import State

GIVEN: dict[str, Any] = {"seq": 0, "undo": None, "redo": None, "last": "", "next": "", "problems": ()}
SPLIT = {"parts": 2, "centroids": [[1, 0], [0, 1]]}


def state(*decisions: tuple[str, dict[str, Any]]) -> State:
    fold = Fold()
    for seq, (kind, fields) in enumerate(decisions, 1):
        fold.apply(seq, seq, kind, checked(kind, fields))
    assert fold.problems == []
    return fold.state(**GIVEN)


def name(cluster: str, name: str) -> tuple[str, dict[str, Any]]:
    return "name", {"cluster": cluster, "name": name}


def out(cluster: str, on: bool = True) -> tuple[str, dict[str, Any]]:
    return "leave_out", {"cluster": cluster, "on": on}


def split(cluster: str) -> tuple[str, dict[str, Any]]:
    return "split", {"cluster": cluster, **SPLIT}


def click(name: str | None, place: float = 0.5, image: str = "a") -> tuple[str, dict[str, Any]]:
    return "click", {"image": {"hash": image, "name": image}, "level": 0.3, "point": [place, 0.5], "name": name}


def test_the_same_name_is_the_same_class_however_it_is_written() -> None:
    found = state(
        name("9/1", "Straße "), name("9/2", "Stra\u00dfe"), name("9/3", "Cafe\u0301"), name("9/4", "Caf\u00e9")
    )
    assert [one.name for one in found.classes] == ["Straße", "Café"]
    assert clean_name("نام\u200cها") == "نام\u200cها", "joiners are letters' business"


def test_a_cluster_has_its_last_name_or_none() -> None:
    found = state(name("9/1", "road"), name("9/1", "sky"), name("9/2", "road"), name("9/2", ""))
    assert found.names == {"9/1": "sky"}
    assert [one.name for one in found.classes] == ["sky"], "a class that nothing has any more is no class"
    assert set(found.colours) == {"road", "sky"}


def test_leaving_out_hides_a_name_and_a_new_name_takes_in_again() -> None:
    assert state(name("9/1", "road"), out("9/1")).names == {}
    assert state(name("9/1", "road"), out("9/1")).left_out == {"9/1"}
    assert state(name("9/1", "road"), out("9/1"), out("9/1", False)).names == {"9/1": "road"}
    again = state(out("9/1"), name("9/1", "sky"))
    assert (again.names, again.left_out) == ({"9/1": "sky"}, frozenset())


def test_parts_are_called_like_their_whole_until_they_are_named() -> None:
    whole = name("9/1", "road")
    assert state(whole, split("9/1")).names == {"9/1.0": "road", "9/1.1": "road"}
    found = state(whole, split("9/1"), name("9/1.1", "kerb"), out("9/1.0"))
    assert (found.names, found.left_out) == ({"9/1.1": "kerb"}, frozenset(["9/1.0"]))
    assert found.splits["9/1"].centroids == ((1.0, 0.0), (0.0, 1.0))
    assert state(whole, split("9/1"), name("9/1.1", "")).names == {"9/1.0": "road"}
    deeper = state(whole, split("9/1"), split("9/1.1"), name("9/1.1.0", "kerb"))
    assert deeper.names == {"9/1.0": "road", "9/1.1.0": "kerb", "9/1.1.1": "road"}
    assert deeper.leaves(2) == ["2/0", "2/1"]
    assert deeper.leaves(9)[:5] == ["9/0", "9/1.0", "9/1.1.0", "9/1.1.1", "9/2"]


def test_one_again_has_the_name_of_the_whole_and_another_split_begins_afresh() -> None:
    parts = [name("9/1", "road"), split("9/1"), name("9/1.1", "kerb"), split("9/1.0"), name("9/1.0.0", "lane")]
    assert state(*parts, ("unsplit", {"cluster": "9/1"})).names == {"9/1": "road"}
    found = state(*parts, split("9/1"))
    assert found.names == {"9/1.0": "road", "9/1.1": "road"}
    assert list(found.splits) == ["9/1"]


def test_naming_a_whole_names_all_of_its_parts() -> None:
    found = state(split("9/1"), name("9/1.1", "kerb"), out("9/1.0"), name("9/1", "road"))
    assert found.names == {"9/1.0": "road", "9/1.1": "road"}
    assert state(split("9/1"), out("9/1.0"), out("9/1", False), name("9/1.0", "a")).left_out == frozenset()


def test_what_is_said_of_1_is_not_said_of_10() -> None:
    found = state(split("19/1"), split("19/10"), name("19/10.0", "sky"), ("unsplit", {"cluster": "19/1"}))
    assert found.names == {"19/10.0": "sky"}


def test_renaming_reaches_everything_and_keeps_colour_and_place() -> None:
    found = state(
        name("9/1", "raod"),
        name("9/2", "sky"),
        ("colour", {"name": "raod", "colour": "#010203"}),
        click("raod"),
        ("audit", {"image": {"hash": "a", "name": "a"}, "point": [0, 0], "predicted": "raod", "verdict": "raod"}),
        ("rename", {"old": "raod", "new": "road"}),
        name("9/3", "raod"),
    )
    assert found.names == {"9/1": "road", "9/2": "sky", "9/3": "raod"}
    assert [one.name for one in found.classes] == ["road", "sky", "raod"]
    assert found.classes[0].colour == (1, 2, 3)
    assert found.clicks[0].name == "road"
    (answer,) = found.audits[0].answers
    assert (answer.predicted, answer.verdict, answer.right) == ("road", "road", True)


def test_renaming_to_a_name_that_is_there_makes_one_of_two_classes() -> None:
    found = state(
        name("9/1", "car"),
        click("truck"),
        name("9/2", "bus"),
        ("colour", {"name": "bus", "colour": "#0a0b0c"}),
        ("audit", {"image": {"hash": "a", "name": "a"}, "point": [0, 0], "predicted": "car", "verdict": "truck"}),
        ("rename", {"old": "car", "new": "bus"}),
        ("rename", {"old": "truck", "new": "bus"}),
        click("bus"),
        ("rename", {"old": "bus", "new": "vehicle"}),
    )
    assert [(one.name, one.colour) for one in found.classes] == [("vehicle", (10, 11, 12))]
    assert {click.name for click in found.clicks} == {"vehicle"}
    assert found.audits[0].answers[0].right is True


def test_one_of_two_has_the_place_of_the_first_and_the_clicks_of_both() -> None:
    found = state(name("9/1", "a"), name("9/2", "b"), name("9/3", "c"), ("rename", {"old": "a", "new": "c"}))
    assert [one.name for one in found.classes] == ["c", "b"]
    found = state(
        click("truck"), ("colour", {"name": "bus", "colour": "#010203"}), ("rename", {"old": "truck", "new": "bus"})
    )
    assert [one.name for one in found.classes] == ["bus"], "only clicks have it"


def test_colours_differ_and_stay() -> None:
    names = [name("200/0", "gone"), name("200/0", "")] + [name(f"200/{i}", f"class {i}") for i in range(150)]
    found = state(*names)
    assert len({one.colour for one in found.classes}) == 150
    fewer = state(*names[:20])
    assert found.classes[:5] == fewer.classes[:5]
    chosen = state(name("9/0", "a"), ("colour", {"name": "b", "colour": "#E69F00"}), name("9/1", "c"), name("9/2", "b"))
    assert [one.name for one in chosen.classes] == ["a", "b", "c"]
    assert chosen.classes[1].colour == (230, 159, 0)
    assert chosen.classes[2].colour not in (chosen.classes[0].colour, (230, 159, 0))


def test_clicks_keep_their_order_and_an_erased_one_is_no_use_of_a_class() -> None:
    found = state(click("road"), click("sky"), click(None))
    assert [one.name for one in found.clicks] == ["road", "sky", None]
    assert [one.name for one in found.classes] == ["road", "sky"]
    assert found.clicks[0].image == ("a", "a")


def test_another_clustering_lets_names_rest_and_the_first_takes_what_was_there() -> None:
    first = ("clusters", {"k": 9, "fingerprint": "p"})
    other = ("clusters", {"k": 9, "fingerprint": "q"})
    found = state(name("9/1", "road"), first, name("9/2", "sky"), other, name("9/1", "tree"), name("8/1", "car"))
    assert found.names == {"9/1": "tree", "8/1": "car"}
    (rest,) = found.resting
    assert (rest.k, rest.fingerprint, rest.names, rest.decided) == (9, "p", {"9/1": "road", "9/2": "sky"}, 2)
    assert found.clusterings == {9: "q"}
    assert found.k == 8
    assert [named.k for named in found.by_clustering] == [9, 8], "the last is what was decided about last"
    assert [one.name for one in found.classes] == ["tree", "car"]
    assert [one.name for one in found.classes_of(9)] == ["tree"]
    back = state(name("9/1", "road"), first, other, name("9/1", "tree"), first)
    assert (back.names, back.resting[0].names) == ({"9/1": "road"}, {"9/1": "tree"})


def answer(n: int, predicted: str, verdict: str) -> tuple[str, dict[str, Any]]:
    image = {"hash": "a", "name": "a"}
    return "audit", {"image": image, "point": [0, 0], "predicted": predicted, "verdict": verdict, "n": n}


def test_audits_are_rounds_and_the_last_answer_to_a_place_counts() -> None:
    start = ("audit_start", {"count": 60, "seed": 3, "weigh": "pixels"})
    found = state(answer(-1, "a", "a"), start, answer(0, "a", "b"), answer(1, "a", "unsure"), answer(0, "a", "a"))
    before, last = found.audits
    assert (before.seq, len(before.answers)) == (0, 1)
    assert (last.count, last.seed, last.weigh) == (60, 3, "pixels")
    assert [one.right for one in last.answers] == [True, None]
    assert state(answer(0, "", "")).audits[0].answers[0].right is True, "rightly nothing"
    assert last.decisions_since == 0
    later = state(start, name("9/1", "a"), answer(0, "a", "a"), name("9/2", "b"), ("k", {"k": 8}), click("a"))
    assert later.audits[-1].decisions_since == 3


def test_the_number_of_clusters_is_that_of_the_last_choice_or_decision() -> None:
    assert state(("colour", {"name": "road", "colour": "#102030"})).k is None
    assert state(name("300/1", "road")).k == 300
    assert state(name("300/1", "road"), ("k", {"k": 9})).k == 9
    assert state(("k", {"k": 9}), ("leave_out", {"cluster": "8/2", "on": True})).k == 8


def test_a_part_of_what_is_not_split_is_no_cluster() -> None:
    fold = Fold()
    fold.apply(1, 4, "name", checked("name", {"cluster": "9/1.0", "name": "road"}))
    fold.apply(2, 5, "split", checked("split", {"cluster": "9/1", **SPLIT}))
    assert fold.objection("name", {"cluster": "9/1.2"})
    assert not fold.objection("name", {"cluster": "9/1.1"})
    assert fold.problems == ["line 4 (name): there is no 9/1.0: 9/1 is not split into so many parts"]
    assert fold.state(**GIVEN).names == {}
    with pytest.raises(ConfigError, match="needs 'cluster'"):
        checked("name", {"name": "road"})


def test_many_classes_have_colours_of_their_own(tmp_path: Path) -> None:
    log = DecisionLog.open(tmp_path)
    log.append_all([("name", {"cluster": f"1000/{i}", "name": f"class {i}"}) for i in range(400)])
    assert len({one.colour for one in log.state().classes}) == 400


@pytest.mark.parametrize("field", ["level", "point"])
def test_a_whole_number_that_no_float_holds_is_refused(field: str, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"image": {"hash": "h", "name": "a"}, "level": 1, "point": [0.5, 0.5], "name": "road"}
    fields[field] = 10**400 if field == "level" else [0, 10**400]
    log = DecisionLog.open(tmp_path)
    log.append("name", cluster="4/1", name="road")
    with pytest.raises(ConfigError, match="expected a number of at least 0"):
        log.append("click", **fields)
    with (tmp_path / "decisions.jsonl").open("a") as file:
        file.write(json.dumps({"seq": 2, "time": "", "kind": "click", **fields}) + "\n")
    (problem,) = DecisionLog.open(tmp_path).state().problems
    assert "expected a number of at least 0" in problem
