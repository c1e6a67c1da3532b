"""The log of decisions: what is kept, and that any beginning of its file is a state."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from selfseg.errors import ConfigError, StorageError
from selfseg.studio.decisions import DecisionLog, State

IMAGE = {"hash": "ab12", "name": "street/0001"}
NAMES = ("road", "sky", "Straße", "道路", "tree")


def random_decision(draw: random.Random) -> tuple[str, dict[str, Any]]:
    """Any kind of decision about a small collection; it may be about a part that isn't there."""
    cluster = draw.choice(["4/0", "4/1", "4/2", "4/2.0", "4/2.1", "4/2.1.0", "6/5"])
    image = {"hash": draw.choice("abc"), "name": draw.choice(["x", "y/z"])}
    point = [draw.random(), draw.random()]
    return draw.choice(
        [
            ("name", {"cluster": cluster, "name": draw.choice([*NAMES, ""])}),
            ("leave_out", {"cluster": cluster, "on": draw.random() < 0.7}),
            ("split", {"cluster": cluster, "parts": 2, "centroids": [[0.6, 0.8], [draw.random(), 0.1]]}),
            ("unsplit", {"cluster": cluster}),
            ("colour", {"name": draw.choice(NAMES), "colour": f"#{draw.randrange(1 << 24):06x}"}),
            ("rename", {"old": draw.choice(NAMES), "new": draw.choice(NAMES)}),
            ("click", {"image": image, "level": 0.5, "point": point, "name": draw.choice([*NAMES, None])}),
            ("audit", {"image": image, "point": point, "predicted": "road", "verdict": draw.choice(NAMES), "n": 1}),
            ("audit", {"image": image, "point": point, "predicted": "road", "verdict": "unsure"}),
            ("audit_start", {"count": 60, "seed": draw.randrange(9)}),
            ("clusters", {"k": 4, "fingerprint": draw.choice("pq")}),
            ("k", {"k": draw.choice([4, 6])}),
        ]
    )


def random_step(log: DecisionLog, draw: random.Random) -> None:
    move = draw.random()
    if move < 0.25:
        log.undo()
    elif move < 0.4:
        log.redo()
    else:
        kind, fields = random_decision(draw)
        try:
            log.append(kind, group=draw.choice(["", "", "stroke", "other"]), **fields)
        except ConfigError:
            assert log.state().problems == ()


def test_a_new_log_is_empty_and_writes_nothing_before_the_first_decision(tmp_path: Path) -> None:
    log = DecisionLog.open(tmp_path / "studio")
    state = log.state()
    assert (state.classes, state.clicks, state.seq, state.can_undo, state.can_redo) == ((), (), 0, False, False)
    assert not log.folder.exists()
    assert log.append("name", cluster="27/3", name=" road ") == 1
    (line,) = (log.folder / "decisions.jsonl").read_text("utf-8").splitlines()
    entry = json.loads(line)
    assert entry.pop("time").endswith("+00:00")
    assert entry == {"seq": 1, "kind": "name", "cluster": "27/3", "name": "road"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_what_is_read_bit_by_bit_is_what_a_fresh_log_reads(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    one, other = DecisionLog.open(tmp_path), DecisionLog.open(tmp_path)
    states: list[State] = []
    for _ in range(120):
        random_step(draw.choice([one, other]), draw)
        if draw.random() < 0.4:
            one.refresh()
            states.append(one.state())
            assert states[-1] == DecisionLog.open(tmp_path).state()
    other.refresh()
    one.refresh()
    assert one.state() == other.state() == DecisionLog.open(tmp_path).state()
    assert one.entries == other.entries
    assert [entry.seq for entry in one.entries] == list(range(1, len(one.entries) + 1))
    assert one.state().problems == ()
    assert len(set(map(repr, states))) > 10, "the steps change something"


@pytest.mark.slow
def test_any_beginning_of_the_file_is_a_state_and_can_be_gone_on_with(tmp_path: Path) -> None:
    draw, whole = random.Random(1), DecisionLog.open(tmp_path / "whole")
    states = [whole.state()]
    while len(whole.entries) < 7:
        before = len(whole.entries)
        random_step(whole, draw)
        if len(whole.entries) > before:
            states.append(whole.state())
    text = (whole.folder / "decisions.jsonl").read_bytes()
    ends = [index for index, byte in enumerate(text) if byte == 10]
    for cut in range(len(text) + 1):
        folder = tmp_path / "cut"
        folder.mkdir(exist_ok=True)
        (folder / "decisions.jsonl").write_bytes(text[:cut])
        log = DecisionLog.open(folder)
        whole_ones = sum(end <= cut for end in ends)
        assert log.state() == states[whole_ones], cut
        assert len(log.damage) == (cut not in (*ends, *(end + 1 for end in ends), 0)), cut
        if cut % 31 == 0:
            assert log.append("name", cluster="4/3", name="after") == whole_ones + 1
            assert log.damage == ()
            assert DecisionLog.open(folder).state() == log.state()
            assert log.state().names["4/3"] == "after"


def test_damage_in_the_middle_is_told_and_the_rest_counts(tmp_path: Path) -> None:
    log = DecisionLog.open(tmp_path)
    for cluster, name in enumerate(["road", "sky", "tree"]):
        log.append("name", cluster=f"9/{cluster}", name=name)
    lines = (tmp_path / "decisions.jsonl").read_text().splitlines()
    lines[1] = lines[1][:-5] + "\0" * 5
    lines += ['{"kind": "name"}', '{"seq": 4}', '{"seq": 5, "kind": "name", "cluster": "x", "name": "a"}', "garbage"]
    (tmp_path / "decisions.jsonl").write_text("\n".join(lines) + "\n")
    read = DecisionLog.open(tmp_path)
    assert read.state().names == {"9/0": "road", "9/2": "tree"}
    assert [text.split(" can't")[0] for text in read.damage] == ["line 2", "line 4", "line 5", "line 7"]
    assert [problem.split(":")[0] for problem in read.state().problems] == ["line 6 (name)"]
    assert read.append("name", cluster="9/4", name="late") == 8, "never a number that a damaged line may have had"
    assert DecisionLog.open(tmp_path).state() == read.state()


def test_kinds_of_a_newer_version_are_kept_told_and_passed_over(tmp_path: Path) -> None:
    log = DecisionLog.open(tmp_path)
    log.append("name", cluster="9/1", name="road")
    newer = '{"seq": 2, "time": "", "kind": "polygon", "points": [[0, 1]]}\n'
    with (tmp_path / "decisions.jsonl").open("a") as file:
        file.write(newer)
    assert log.refresh()
    assert [entry.kind for entry in log.entries] == ["name", "polygon"]
    assert log.state().problems == ("1 of the unknown kind 'polygon', kept without effect",)
    assert log.append("name", cluster="9/2", name="sky") == 3
    assert [log.undo(), log.undo(), log.undo()] == [3, 1, None]
    assert newer in (tmp_path / "decisions.jsonl").read_text()


def test_fields_of_a_newer_version_are_kept(tmp_path: Path) -> None:
    log = DecisionLog.open(tmp_path)
    log.append("click", image=IMAGE, level=3, point=(0.5, 1), name="road", pressure=0.5)
    assert DecisionLog.open(tmp_path).entries[0].fields["pressure"] == 0.5


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        ("paint", {}, "no kind of decision"),
        ("undo", {"of": 1}, r"DecisionLog.undo\(\)"),
        ("name", {"cluster": "27/3"}, "needs 'name'"),
        ("name", {"cluster": "27", "name": "a"}, "K/ID"),
        ("name", {"cluster": "27/27", "name": "a"}, "the last is 27/26"),
        ("name", {"cluster": "27/03", "name": "a"}, "K/ID"),
        ("name", {"cluster": "27/3.0", "name": "a"}, "27/3 is not split"),
        ("name", {"cluster": "27/3", "name": "a\nb"}, r"U\+000A"),
        ("name", {"cluster": "27/3", "name": "a\u202eb"}, r"U\+202E"),
        ("name", {"cluster": "27/3", "name": "x" * 201}, "201 characters"),
        ("name", {"cluster": "27/3", "name": "\u200b"}, "can be seen"),
        ("name", {"cluster": "27/3", "name": "unsure"}, "audit"),
        ("name", {"cluster": "27/3", "name": 3}, "text"),
        ("name", {"cluster": "27/3", "name": "a", "seq": 4}, "seq"),
        ("unsplit", {"cluster": "27/3"}, "not split"),
        ("split", {"cluster": "27/3", "parts": 2, "centroids": [[1.0]]}, "as many centroids"),
        ("split", {"cluster": "27/3", "parts": 2, "centroids": [[1.0], [1.0, 2.0]]}, "one length"),
        ("split", {"cluster": "27/3", "parts": 2, "centroids": [[1.0], [float("nan")]]}, "not a number"),
        ("split", {"cluster": "27/3", "parts": 1, "centroids": [[1.0]]}, "from 2 to 64"),
        ("colour", {"name": "a", "colour": "red"}, "#rrggbb"),
        ("rename", {"old": "nobody", "new": "a"}, "no class 'nobody'"),
        ("click", {"image": IMAGE, "level": 1, "point": [0, 1.5], "name": "a"}, "from 0 to 1"),
        ("click", {"image": IMAGE, "level": True, "point": [0, 1], "name": "a"}, "at least 0"),
        ("click", {"image": {"name": "a"}, "level": 1, "point": [0, 1], "name": "a"}, "hash"),
        ("click", {"image": IMAGE, "level": 1, "point": [0, 1], "name": ""}, "can be seen"),
        ("click", {"image": IMAGE, "level": 1, "point": [0, 1], "name": "a", "x": object()}, "JSON"),
        ("leave_out", {"cluster": "27/3", "on": "yes"}, "true or false"),
        ("k", {"k": 0}, "whole number"),
    ],
)
def test_what_is_no_decision_is_refused_and_not_written(
    tmp_path: Path, kind: str, fields: dict[str, Any], words: str
) -> None:
    log = DecisionLog.open(tmp_path)
    with pytest.raises(ConfigError, match=words):
        log.append_all([(kind, fields)])
    assert not (tmp_path / "decisions.jsonl").exists() or not (tmp_path / "decisions.jsonl").read_bytes()
    assert log.state() == DecisionLog.open(tmp_path / "nothing").state()


def test_several_at_once_are_checked_one_after_the_other_and_undone_together(tmp_path: Path) -> None:
    log = DecisionLog.open(tmp_path)
    split = ("split", {"cluster": "9/1", "parts": 2, "centroids": [[1, 0], [0, 1]]})
    with pytest.raises(ConfigError, match=r"no 9/1\.2"):
        log.append_all([split, ("name", {"cluster": "9/1.2", "name": "road"})])
    assert log.entries == ()
    assert log.append_all([split, ("name", {"cluster": "9/1.1", "name": "road"})], group="import") == (1, 2)
    assert log.state().last == "named part 1 of cluster 1 “road” (and 1 more)"
    assert log.undo() == 2
    assert log.state().splits == {}
    assert log.redo() == 2
    assert log.state().names == {"9/1.1": "road"}


def test_undo_of_what_was_the_last_only_if_it_still_is(tmp_path: Path) -> None:
    one, other = DecisionLog.open(tmp_path), DecisionLog.open(tmp_path)
    one.append("name", cluster="9/1", name="road")
    other.append("name", cluster="9/2", name="sky")
    assert one.undo(of=1) is None
    assert one.state().names == {"9/1": "road", "9/2": "sky"}
    assert one.undo(of=2) == 2
    assert other.redo(of=1) is None
    assert other.redo(of=2) == 2


def test_a_log_that_has_gone_is_not_begun_anew(tmp_path: Path) -> None:
    log = DecisionLog.open(tmp_path)
    log.append("name", cluster="9/1", name="road")
    kept = (tmp_path / "decisions.jsonl").read_bytes()
    (tmp_path / "decisions.jsonl").unlink()
    for _ in range(2):
        with pytest.raises(StorageError, match="gone"):
            log.append("name", cluster="9/2", name="sky")
    assert log.state().names == {"9/1": "road"}
    (tmp_path / "decisions.jsonl").write_bytes(kept)
    assert log.append("name", cluster="9/2", name="sky") == 2


def test_what_breaks_off_while_it_is_taken_in_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = DecisionLog.open(tmp_path)
    log.append("name", cluster="9/1", name="road")

    def interrupted(self: object, entry: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("selfseg.studio.decisions.history.History.add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            log.append("name", cluster="9/2", name="sky")
    log.refresh()
    assert log.state().names == {"9/1": "road", "9/2": "sky"}


def test_two_tabs_in_threads_lose_nothing(tmp_path: Path) -> None:
    shared = DecisionLog.open(tmp_path)

    def tab(who: int) -> None:
        log = shared if who < 2 else DecisionLog.open(tmp_path)
        for i in range(20):
            log.append("click", image=IMAGE, level=1, point=[0.5, 0.5], name=f"{who} {i}")

    threads = [threading.Thread(target=tab, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log = DecisionLog.open(tmp_path)
    assert [entry.seq for entry in log.entries] == list(range(1, 81))
    assert {click.name for click in log.state().clicks} == {f"{who} {i}" for who in range(4) for i in range(20)}
    shared.refresh()
    assert shared.state() == log.state()


TAB = """
import sys
from selfseg.studio.decisions import DecisionLog
log = DecisionLog.open(sys.argv[1])
for i in range(40):
    log.append("name", cluster=f"90/{i}", name=sys.argv[2])
    if i % 4 == 3:
        log.undo()
        log.append("click", image={"hash": "a", "name": "b"}, level=1, point=[0, 0], name=f"{sys.argv[2]} {i}")
"""


@pytest.mark.slow
def test_two_processes_at_once_lose_nothing(tmp_path: Path) -> None:
    tabs = [subprocess.Popen([sys.executable, "-c", TAB, str(tmp_path), who]) for who in ("left", "right")]
    assert [tab.wait(60) for tab in tabs] == [0, 0]
    log = DecisionLog.open(tmp_path)
    assert log.damage == log.state().problems == ()
    assert [entry.seq for entry in log.entries] == list(range(1, len(log.entries) + 1))
    made = [entry for entry in log.entries if entry.kind == "name"]
    for who in ("left", "right"):
        assert [entry.fields["cluster"] for entry in made if entry.fields["name"] == who] == [
            f"90/{i}" for i in range(40)
        ]


@pytest.mark.slow
def test_ten_thousand_decisions_open_at_once(tmp_path: Path) -> None:
    log = DecisionLog.open(tmp_path)
    log.append_all(
        [
            (
                "click",
                {"image": {"hash": f"{i % 99:032x}", "name": f"f{i % 99}"}, "level": 1, "point": [0, 1], "name": "a"},
            )
            for i in range(10_000)
        ]
    )
    begin = time.process_time()
    assert len(DecisionLog.open(tmp_path).state().clicks) == 10_000
    assert time.process_time() - begin < 1.0, "measured: 0.15 s"
    begin = time.process_time()
    for i in range(20):
        log.append("name", cluster=f"27/{i}", name="road")
        log.state()
    assert time.process_time() - begin < 1.0, "measured: 0.03 s; a decision must not cost what all of them do"
