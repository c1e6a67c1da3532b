"""Undo and redo: a line of decisions."""

from __future__ import annotations

from typing import Any

from selfseg.storage.journal import Line
from selfseg.studio.decisions.history import Entry, History


def made(*entries: dict[str, Any]) -> History:
    history = History()
    for number, entry in enumerate(entries, 1):
        history.add(Entry.of(Line(number, {"seq": number, "time": "", **entry})))
    return history


def name(cluster: int, group: str = "") -> dict[str, Any]:
    return {"kind": "name", "cluster": f"9/{cluster}", "name": f"n{cluster}", "group": group}


def undo(of: int) -> dict[str, Any]:
    return {"kind": "undo", "of": of}


def redo(of: int) -> dict[str, Any]:
    return {"kind": "redo", "of": of}


def named(history: History) -> list[str]:
    return list(history.state().names.values())


def test_undo_takes_back_the_last_that_stands_and_redo_gives_it_back() -> None:
    history = made(name(1), name(2), name(3), undo(3), undo(2))
    assert named(history) == ["n1"]
    assert (history.undo, history.redo) == (1, 2)
    assert (history.state().last, history.state().next) == (
        "named cluster 1 of 9 “n1”",
        "named cluster 2 of 9 “n2”",
    )
    history = made(name(1), name(2), name(3), undo(3), undo(2), redo(2))
    assert named(history) == ["n1", "n2"]
    assert (history.undo, history.redo) == (2, 3)


def test_undo_of_an_undo_is_a_redo_and_of_a_redo_an_undo() -> None:
    assert named(made(name(1), undo(1), undo(2))) == ["n1"]
    assert named(made(name(1), undo(1), undo(2), undo(3))) == []
    assert named(made(name(1), undo(1), redo(1), undo(3))) == []
    assert named(made(name(1), undo(1), redo(1), redo(2))) == [], "redo of an undo undoes again"


def test_a_decision_after_an_undo_ends_what_could_be_redone() -> None:
    history = made(name(1), name(2), undo(2), name(3))
    assert named(history) == ["n1", "n3"]
    assert (history.undo, history.redo) == (4, None)
    history = made(name(1), name(2), undo(2), name(3), redo(2))
    assert named(history) == ["n1", "n3"]
    assert history.state().problems == ("line 5 (redo): there is no decision 2 to redo",)


def test_decisions_of_a_group_go_and_come_together() -> None:
    entries = [name(1, "a"), name(2, "b"), name(3, "b"), name(4, "a")]
    assert named(made(*entries, undo(4))) == ["n1", "n2", "n3"], "the first of group a is not beside it"
    history = made(*entries, undo(4), undo(3))
    assert named(history) == ["n1"]
    assert history.state().next == "named cluster 3 of 9 “n3” (and 1 more)"
    assert named(made(*entries, undo(4), undo(2), redo(3))) == ["n1", "n2", "n3"]


def test_notes_are_passed_over_by_undo_and_keep_their_place() -> None:
    switch = {"kind": "clusters", "k": 9, "fingerprint": "new"}
    first = {"kind": "clusters", "k": 9, "fingerprint": "old"}
    assert named(made(first, name(1), switch)) == []
    history = made(first, name(1), switch, undo(2), redo(2))
    assert named(history) == [], "given back to where it was made: to the old clustering"
    assert [named.names for named in history.state().resting] == [{"9/1": "n1"}]


def test_undo_of_what_a_damaged_line_held_is_told_and_does_no_harm() -> None:
    history = made(name(1), undo(7), redo(7), name(2))
    assert named(history) == ["n1", "n2"]
    assert len(history.state().problems) == 2


def test_an_undo_that_was_lost_lets_those_before_it_be_undone_where_they_stand() -> None:
    history = made(name(1), name(2), undo(1), redo(1))
    assert history.state().names == made(name(1), name(2)).state().names
    assert named(made(name(1), name(2), undo(1))) == ["n2"]


def test_a_seq_that_comes_twice_is_told_and_both_count() -> None:
    history = made(name(1), {**name(2), "seq": 1})
    assert named(history) == ["n1", "n2"]
    assert "its number (seq 1) is not above" in history.state().problems[0]
