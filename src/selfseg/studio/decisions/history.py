"""From entries to the state: a pure function, taken in step by step.

The history is a line. Undo takes back the last decision that stands; undo again takes back the one before it; redo
gives back what undo took, last taken first. A decision after an undo ends what could be redone. Decisions of one group
(a stroke of the brush, names given at once) are taken back and given back together. An undo of an undo is a redo.

The state is what the standing decisions give, in the order in which they were made. Taking in a decision costs the same
however many there are; undo and redo let the state be made again from the standing ones when it is next asked for.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from heapq import merge
from typing import Any, NamedTuple

from selfseg.errors import ConfigError
from selfseg.storage.journal import Line
from selfseg.studio.decisions.fold import Fold
from selfseg.studio.decisions.kinds import DECISIONS, KINDS, NOTES, check
from selfseg.studio.decisions.state import State, spoken


class Entry(NamedTuple):
    """A line of the log.

    Attributes:
        seq: 1, 2, 3, ...
        time: when it was written, ISO 8601 in UTC.
        kind: what it is; see `selfseg.studio.decisions.kinds`.
        fields: what it says.
        group: entries with the same are undone together; "" for none.
        line: its number in the file, from 1.
    """

    seq: int
    time: str
    kind: str
    fields: dict[str, Any]
    group: str
    line: int

    @staticmethod
    def of(line: Line) -> Entry:
        """The entry on a whole line.

        Raises:
            ConfigError: if it is none.
        """
        take = (fields := dict(line.value or {})).pop
        seq, time, kind, group = take("seq", 0), take("time", ""), take("kind", ""), take("group", "")
        if isinstance(seq, bool) or not isinstance(seq, int) or seq < 1:
            raise ConfigError("it has no number (seq)")
        if not isinstance(kind, str) or not kind:
            raise ConfigError("it does not say what kind of decision it is (kind)")
        return Entry(seq, str(time), kind, fields, group if isinstance(group, str) else "", line.number)


_Unit = tuple[Entry, ...]  # what is undone together


def _place(entry: Entry) -> int:
    return entry.line


class History:
    """The entries of a log, taken in one after the other.

    Attributes:
        seq: the highest so far.
        unknown: how many entries there are of each kind that this version doesn't know; they are kept and passed over.
    """

    def __init__(self) -> None:
        self.seq = 0
        self.unknown: Counter[str] = Counter()
        self._standing: list[Entry] = []  # decisions, in the order of the file
        self._notes: list[Entry] = []
        self._undone: list[_Unit] = []  # the last can be redone
        self._moved: dict[int, tuple[int, bool]] = {}  # by seq of an undo or redo: which decision, whether given back
        self._problems: list[str] = []
        self._fold: Fold | None = None  # made when it is first asked for, then kept up to date

    def add(self, entry: Entry) -> None:
        """Take in the next entry of the file."""
        if entry.seq <= self.seq:
            self._problem(entry, f"its number (seq {entry.seq}) is not above those of the lines before it")
        self.seq = max(self.seq, entry.seq)
        if entry.kind not in KINDS:
            self.unknown[entry.kind] += 1
            return
        try:
            check(entry.kind, entry.fields)
        except ConfigError as error:
            self._problem(entry, str(error))
            return
        if entry.kind in DECISIONS:
            self._standing.append(entry)
            self._undone.clear()
            self._apply(entry)
        elif entry.kind in NOTES:
            self._notes.append(entry)
            self._apply(entry)
        elif not self._move(entry):
            self._problem(entry, f"there is no decision {entry.fields['of']} to {entry.kind}")

    def objection(self, kind: str, fields: dict[str, Any]) -> str:
        """Why a decision could not be followed now; "" if it can."""
        return self._folded().objection(kind, fields)

    def copy(self) -> History:
        """Another with the same entries, for trying what would be."""
        other = History()
        other._standing, other._notes, other._fold, other.seq = [*self._standing], [*self._notes], None, self.seq
        return other

    @property
    def standing(self) -> tuple[Entry, ...]:
        """The decisions that are not undone, in the order in which they were made."""
        return tuple(self._standing)

    @property
    def undo(self) -> int | None:
        """The decision that undo takes back."""
        return self._standing[-1].seq if self._standing else None

    @property
    def redo(self) -> int | None:
        """The decision that redo gives back."""
        return self._undone[-1][-1].seq if self._undone else None

    def state(self) -> State:
        """What stands, as values that stay as they are."""
        last = self._standing[self._unit(len(self._standing) - 1)] if self._standing else []
        again = self._undone[-1] if self._undone else ()
        fold = self._folded()
        unknown = [f"{n} of the unknown kind {kind!r}, kept without effect" for kind, n in self.unknown.items()]
        return fold.state(
            seq=self.seq,
            undo=self.undo,
            redo=self.redo,
            last=spoken((entry.kind, entry.fields) for entry in last),
            next=spoken((entry.kind, entry.fields) for entry in again),
            problems=(*self._problems, *fold.problems, *unknown),
        )

    def _problem(self, entry: Entry, reason: str) -> None:
        self._problems.append(f"line {entry.line} ({entry.kind}): {reason}")

    def _apply(self, entry: Entry) -> None:
        if self._fold is not None:
            self._fold.apply(entry.seq, entry.line, entry.kind, entry.fields)

    def _folded(self) -> Fold:
        if self._fold is None:
            self._fold = Fold()
            for entry in merge(self._standing, self._notes, key=_place):
                self._fold.apply(entry.seq, entry.line, entry.kind, entry.fields)
        return self._fold

    def _move(self, entry: Entry) -> bool:
        """Undo or redo; whether there was something."""
        target, back = entry.fields["of"], entry.kind == "redo"
        if target in self._moved:  # undo of an undo or redo is the other way, redo of one the same again
            target, given_back = self._moved[target]
            back = given_back if back else not given_back
        moved = self._give_back(target) if back else self._take_back(target)
        if moved:
            self._fold = None
            self._moved[entry.seq] = (target, back)
        return moved

    def _take_back(self, seq: int) -> bool:
        for index in range(len(self._standing) - 1, -1, -1):  # it is the last, unless lines of the file are damaged
            if self._standing[index].seq == seq:
                unit = self._unit(index)
                self._undone.append(tuple(self._standing[unit]))
                del self._standing[unit]
                return True
        return False

    def _give_back(self, seq: int) -> bool:
        for index in range(len(self._undone) - 1, -1, -1):
            if any(entry.seq == seq for entry in self._undone[index]):
                for entry in self._undone.pop(index):
                    insort(self._standing, entry, key=_place)
                return True
        return False

    def _unit(self, index: int) -> slice:
        """The decision at an index with its neighbours of the same group."""
        group = self._standing[index].group
        first = last = index
        while group and first > 0 and self._standing[first - 1].group == group:
            first -= 1
        while group and last + 1 < len(self._standing) and self._standing[last + 1].group == group:
            last += 1
        return slice(first, last + 1)
