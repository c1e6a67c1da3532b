"""Decisions taken in one after the other; what they amount to so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from selfseg.data.labelled.legend import Colour, NamedClass, free_colours, parse_colour
from selfseg.studio.decisions.kinds import CHANGE_NO_MASK, UNSURE, clusters_of, parent_of
from selfseg.studio.decisions.state import Answer, AuditRound, Click, ImageId, Named, Split, State, nearest


@dataclass(eq=False)
class _Class:
    """A class, whatever it is called now; what refers to it needs no change when it is renamed."""

    name: str
    colour: Colour
    order: int
    into: _Class | None = None  # another that it was merged into

    def now(self) -> _Class:
        """What it has become."""
        end = self
        while end.into is not None:
            end = end.into
        if self.into is not None:
            self.into = end if end is not self else None
        return end


@dataclass
class _Table:
    """What was decided about the clusters of one clustering, by path."""

    names: dict[str, _Class | None] = field(default_factory=dict)  # None: no name, whatever the whole is called
    out: dict[str, bool] = field(default_factory=dict)
    splits: dict[str, Split] = field(default_factory=dict)

    def has(self, path: str) -> bool:
        """Whether all that the path is a part of is split, into so many."""
        parent = parent_of(path)
        if not parent:
            return True
        split = self.splits.get(parent)
        return split is not None and int(path.rpartition(".")[2]) < split.parts and self.has(parent)

    def forget_parts(self, path: str) -> None:
        """Drop all that was decided about the parts of a cluster."""
        for table in (self.names, self.out, self.splits):
            _drop_parts(path, table)

    def leaves(self) -> Iterator[str]:
        """The clusters and parts, among those that something was decided about, that aren't split."""
        for path in dict.fromkeys([*self.names, *self.out, *self.splits]):
            if path not in self.splits:
                yield path
            else:
                parts = (f"{path}.{part}" for part in range(self.splits[path].parts))
                yield from (part for part in parts if part not in self.splits)


@dataclass
class _Round:
    seq: int
    count: int
    seed: int
    weigh: str
    answers: dict[int, tuple[int, dict[str, Any], _Class | None, _Class | None]] = field(default_factory=dict)
    since: int = 0


class Fold:
    """What entries amount to, given in their order by `apply`.

    Attributes:
        problems: entries that could not be followed, and why.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._classes: dict[str, _Class] = {}  # by present name
        self._order = count()
        self._tables: dict[tuple[int, str], _Table] = {}
        self._clusterings: dict[int, str] = {}
        self._k: int | None = None
        self._clicks: list[tuple[int, dict[str, Any], _Class | None]] = []
        self._shown: list[Click] = []  # the clicks with present names, as far as they were asked for
        self._clicked: Counter[_Class] = Counter()
        self._rounds: list[_Round] = []
        self._apply: dict[str, Callable[[int, dict[str, Any]], None]] = {
            "name": self._name,
            "leave_out": self._leave_out,
            "split": self._split,
            "unsplit": self._unsplit,
            "colour": self._colour,
            "rename": self._rename,
            "click": self._click,
            "audit": self._audit,
            "k": self._choose,
            "clusters": self._clustering,
            "audit_start": self._audit_start,
        }

    def objection(self, kind: str, fields: dict[str, Any]) -> str:
        """Why an entry can't be followed; "" if it can."""
        if "cluster" in fields and kind in ("name", "leave_out", "split", "unsplit"):
            path = fields["cluster"]
            if not self._table(path).has(path):
                return f"there is no {path}: {parent_of(path)} is not split into so many parts"
            if kind == "unsplit" and path not in self._table(path).splits:
                return f"{path} is not split"
        if kind == "rename" and fields["old"] not in self._classes:
            return f"there is no class {fields['old']!r} to rename"
        return ""

    def apply(self, seq: int, line: int, kind: str, fields: dict[str, Any]) -> None:
        """Take in the next entry, its fields as `checked` gives them."""
        if reason := self.objection(kind, fields):
            self.problems.append(f"line {line} ({kind}): {reason}")
            return
        other = kind not in CHANGE_NO_MASK and not (kind == "k" and fields["k"] == self._k)
        self._apply[kind](seq, fields)
        if "cluster" in fields:  # who names clusters with `selfseg name` never chose a k on the page
            self._k = clusters_of(fields["cluster"])
        if other and self._rounds and self._rounds[-1].answers:
            self._rounds[-1].since += 1

    def _table(self, path: str) -> _Table:
        k = clusters_of(path)
        return self._tables.setdefault((k, self._clusterings.get(k, "")), _Table())

    def _class(self, name: str) -> _Class:
        if name not in self._classes:
            free = free_colours({one.colour for one in self._classes.values()})
            self._classes[name] = _Class(name, next(free), next(self._order))
        return self._classes[name]

    def _name(self, seq: int, fields: dict[str, Any]) -> None:
        path, table = fields["cluster"], self._table(fields["cluster"])
        _drop_parts(path, table.names)
        table.names[path] = self._class(fields["name"]) if fields["name"] else None
        if fields["name"]:
            _drop_parts(path, table.out)
            table.out[path] = False

    def _leave_out(self, seq: int, fields: dict[str, Any]) -> None:
        path, table = fields["cluster"], self._table(fields["cluster"])
        _drop_parts(path, table.out)
        table.out[path] = fields["on"]

    def _split(self, seq: int, fields: dict[str, Any]) -> None:
        path, table = fields["cluster"], self._table(fields["cluster"])
        table.forget_parts(path)
        table.splits[path] = Split(tuple(tuple(vector) for vector in fields["centroids"]))

    def _unsplit(self, seq: int, fields: dict[str, Any]) -> None:
        path, table = fields["cluster"], self._table(fields["cluster"])
        table.forget_parts(path)
        del table.splits[path]

    def _colour(self, seq: int, fields: dict[str, Any]) -> None:
        self._class(fields["name"]).colour = parse_colour(fields["colour"])

    def _rename(self, seq: int, fields: dict[str, Any]) -> None:
        old, new = self._classes[fields["old"]], self._classes.get(fields["new"])
        if old is new:
            return
        del self._classes[old.name]
        self._shown.clear()
        if new is None:
            old.name = fields["new"]
            self._classes[old.name] = old
            return
        new.order = min(new.order, old.order)
        self._clicked[new] += self._clicked.pop(old, 0)
        old.into = new

    def _click(self, seq: int, fields: dict[str, Any]) -> None:
        given = None if fields["name"] is None else self._class(fields["name"])
        self._clicks.append((seq, fields, given))
        if given is not None:
            self._clicked[given] += 1

    def _audit(self, seq: int, fields: dict[str, Any]) -> None:
        if not self._rounds:
            self._rounds.append(_Round(0, 0, 0, "images"))
        predicted, verdict = fields["predicted"], fields["verdict"]
        classes = [self._class(name) if name and name != UNSURE else None for name in (predicted, verdict)]
        answers, n = self._rounds[-1].answers, fields["n"]
        answers[n if n >= 0 else -seq] = (seq, fields, classes[0], classes[1])

    def _choose(self, seq: int, fields: dict[str, Any]) -> None:
        self._k = fields["k"]

    def _clustering(self, seq: int, fields: dict[str, Any]) -> None:
        k, fingerprint = fields["k"], fields["fingerprint"]
        if k not in self._clusterings and (k, "") in self._tables and (k, fingerprint) not in self._tables:
            self._tables[k, fingerprint] = self._tables.pop((k, ""))  # decided before anybody told which clustering
        self._clusterings[k] = fingerprint

    def _audit_start(self, seq: int, fields: dict[str, Any]) -> None:
        self._rounds.append(_Round(seq, fields["count"], fields["seed"], fields["weigh"]))

    def state(self, **given: Any) -> State:
        """What they amount to; `given` are the attributes of `State` that tell of the log."""
        names: dict[str, str] = {}
        out: set[str] = set()
        splits: dict[str, Split] = {}
        resting: list[Named] = []
        used = {one for one, clicks in self._clicked.items() if clicks}
        for (k, fingerprint), table in self._tables.items():
            classes = {path: one.now() for path in table.leaves() if (one := _name_of(table, path)) is not None}
            named = {path: one.name for path, one in classes.items()}
            left_out = frozenset(path for path in table.leaves() if nearest(path, table.out))
            if self._clusterings.get(k, "") != fingerprint:
                if named or left_out or table.splits:
                    resting.append(Named(k, fingerprint, named, left_out, dict(table.splits)))
                continue
            used |= set(classes.values())
            names |= named
            out |= left_out
            splits |= table.splits
        for seq, fields, one in self._clicks[len(self._shown) :]:
            self._shown.append(
                Click(
                    seq,
                    ImageId(**fields["image"]),
                    fields["level"],
                    (fields["point"][0], fields["point"][1]),
                    None if one is None else one.now().name,
                )
            )
        known = sorted(self._classes.values(), key=lambda one: one.order)
        return State(
            names=names,
            left_out=frozenset(out),
            splits=splits,
            classes=tuple(NamedClass(one.name, one.colour) for one in known if one in used),
            colours={one.name: one.colour for one in known},
            clicks=tuple(self._shown),
            audits=tuple(_finished(one) for one in self._rounds),
            k=self._k,
            clusterings=dict(self._clusterings),
            resting=tuple(resting),
            **given,
        )


def _drop_parts(path: str, table: dict[str, Any]) -> None:
    """What is said of a cluster anew holds for all of its parts."""
    for part in [other for other in table if other.startswith(path + ".")]:
        del table[part]


def _name_of(table: _Table, path: str) -> _Class | None:
    found: _Class | None = None if nearest(path, table.out) else nearest(path, table.names)
    return found


def _finished(one: _Round) -> AuditRound:
    answers = []
    for seq, fields, predicted, verdict in one.answers.values():
        answers.append(
            Answer(
                seq,
                fields["n"],
                ImageId(**fields["image"]),
                (fields["point"][0], fields["point"][1]),
                predicted.now().name if predicted else "",
                UNSURE if fields["verdict"] == UNSURE else verdict.now().name if verdict else "",
            )
        )
    return AuditRound(one.seq, one.count, one.seed, one.weigh, tuple(answers), one.since)
