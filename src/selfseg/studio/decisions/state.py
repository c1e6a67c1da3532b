"""What a person's decisions amount to: the values that the studio works with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from selfseg.data.labelled.legend import Colour, NamedClass
from selfseg.studio.decisions.kinds import UNSURE, clusters_of, parent_of


class ImageId(NamedTuple):
    """An image, wherever it lies.

    Attributes:
        hash: of its content; by this it is found again.
        name: relative to its collection, for people, and to choose among equal images.
    """

    hash: str
    name: str


@dataclass(frozen=True)
class Split:
    """A cluster in parts.

    Attributes:
        centroids: a vector for each part, D numbers; what belongs to the cluster belongs to the part whose centroid has
            the highest cosine similarity.
    """

    centroids: tuple[tuple[float, ...], ...]

    @property
    def parts(self) -> int:
        """How many."""
        return len(self.centroids)


class Click(NamedTuple):
    """A segment that was given a class.

    Attributes:
        seq: of its entry.
        image: which.
        level: of the hierarchy, as the page has it.
        point: x, y in [0, 1], within the segment.
        name: the class; None takes back what was given to this place before.
    """

    seq: int
    image: ImageId
    level: float
    point: tuple[float, float]
    name: str | None


class Answer(NamedTuple):
    """A place of an audit that was judged.

    Attributes:
        seq: of its entry.
        n: the place's number in its audit; -1 if it has none.
        image: which.
        point: x, y in [0, 1].
        predicted: the class shown; "" for none.
        verdict: the right class, "" for none, `UNSURE` if the person couldn't tell.
    """

    seq: int
    n: int
    image: ImageId
    point: tuple[float, float]
    predicted: str
    verdict: str

    @property
    def right(self) -> bool | None:
        """Whether the class shown was right; None if the person couldn't tell."""
        return None if self.verdict == UNSURE else self.predicted == self.verdict


@dataclass(frozen=True)
class AuditRound:
    """An audit: the places it asks about follow from its numbers (`selfseg.studio.audit.draw_places`).

    Attributes:
        seq: of the entry that began it; 0 for answers that came before any beginning.
        count: places.
        seed: of the draw.
        weigh: "images" or "pixels".
        answers: by place; a place that was judged again has its last answer.
        decisions_since: decisions other than answers, since the first answer: above 0, the predictions that were judged
            are no longer those of now.
    """

    seq: int
    count: int
    seed: int
    weigh: str
    answers: tuple[Answer, ...]
    decisions_since: int = 0


@dataclass(frozen=True)
class Named:
    """What the clusters of one clustering are called; see `State` for names, left_out and splits.

    Attributes:
        k: how many clusters it has.
        fingerprint: which it is; "" if it was never told.
    """

    k: int
    fingerprint: str
    names: Mapping[str, str]
    left_out: frozenset[str]
    splits: Mapping[str, Split]

    @property
    def decided(self) -> int:
        """How many clusters and parts have a name or are left out."""
        return len(self.names) + len(self.left_out)


@dataclass(frozen=True)
class State:
    """What the decisions amount to. Clusters are told by paths, "27/3", or "27/3.1" for a part.

    Attributes:
        names: class of each named cluster, of every K. Only clusters that aren't split and are not left out; a part
            that was not decided about has its whole's name.
        left_out: clusters that aren't split and belong to no class on purpose.
        splits: of each cluster that is in parts, those that are parts themselves too.
        classes: those that a cluster or a click has, in order of first use.
        colours: by name, of all classes that were ever used and not renamed; a class that comes back has its colour.
        clicks: in order. A later one outweighs an earlier one on the same place, which is left to the reader.
        audits: in order; the last is the one in progress.
        k: the number of clusters that was chosen or decided about last; None before that.
        clusterings: by K, the fingerprint of the clustering that its paths speak of; "" if it was never told.
        resting: what was decided about clusterings that are no longer those of `clusterings`, the oldest first. It can
            be carried over (`selfseg.studio.carrying`).
        seq: of the last entry; 0 without any.
        undo: the entry that undo would take back; None if there is none.
        redo: the entry that redo would give back; None if there is none.
        last: a sentence that says what undo would take back; "" if nothing.
        next: a sentence that says what redo would give back; "" if nothing.
        problems: what in the log could not be followed, and why.
    """

    names: Mapping[str, str]
    left_out: frozenset[str]
    splits: Mapping[str, Split]
    classes: tuple[NamedClass, ...]
    colours: Mapping[str, Colour]
    clicks: tuple[Click, ...]
    audits: tuple[AuditRound, ...]
    k: int | None
    clusterings: Mapping[int, str]
    resting: tuple[Named, ...]
    seq: int
    undo: int | None
    redo: int | None
    last: str
    next: str
    problems: tuple[str, ...]

    @property
    def can_undo(self) -> bool:
        """Whether there is a decision to take back."""
        return self.undo is not None

    @property
    def can_redo(self) -> bool:
        """Whether there is a decision to give back."""
        return self.redo is not None

    def named(self, k: int) -> dict[str, str]:
        """The class of each named cluster among K."""
        return {path: name for path, name in self.names.items() if clusters_of(path) == k}

    @property
    def by_clustering(self) -> tuple[Named, ...]:
        """What was decided about the clusterings of now, by K; that of `k` is the last."""
        counts = {clusters_of(path) for path in (*self.names, *self.left_out, *self.splits)}
        return tuple(
            Named(
                k,
                self.clusterings.get(k, ""),
                self.named(k),
                frozenset(path for path in self.left_out if clusters_of(path) == k),
                {path: split for path, split in self.splits.items() if clusters_of(path) == k},
            )
            for k in sorted(counts, key=lambda k: (k == self.k, k))
        )

    def leaves(self, k: int) -> list[str]:
        """All clusters among K, and the parts of those that are split, in order."""
        found: list[str] = []
        waiting = [f"{k}/{cluster}" for cluster in range(k - 1, -1, -1)]
        while waiting:
            path = waiting.pop()
            if path in self.splits:
                waiting += [f"{path}.{part}" for part in range(self.splits[path].parts - 1, -1, -1)]
            else:
                found.append(path)
        return found

    def classes_of(self, k: int) -> tuple[NamedClass, ...]:
        """The classes that a cluster among K or a click has, in order of first use: those of masks made with K."""
        used = {*self.named(k).values(), *(click.name for click in self.clicks)}
        return tuple(one for one in self.classes if one.name in used)


def counted(n: int, what: str) -> str:
    """How many of something.

    Example:
        >>> counted(1, "click"), counted(2300, "click")
        ('1 click', '2,300 clicks')
    """
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def spoken_path(path: str) -> str:
    """A cluster in words.

    Example:
        >>> spoken_path("27/3"), spoken_path("27/3.1.0")
        ('cluster 3 of 27', 'part 1.0 of cluster 3')
    """
    k, _, rest = path.partition("/")
    cluster, _, part = rest.partition(".")
    return f"part {part} of cluster {cluster}" if part else f"cluster {cluster} of {k}"


def spoken(decisions: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """What decisions that belong together were, in a short sentence; "" for none.

    Example:
        >>> spoken([("name", {"cluster": "27/3", "name": "road"})])
        'named cluster 3 of 27 “road”'
    """
    all_of_them = list(decisions)
    if not all_of_them:
        return ""
    kind, fields = all_of_them[-1]
    more = f" (and {len(all_of_them) - 1} more)" if len(all_of_them) > 1 else ""
    return _SENTENCES[kind](fields) + more


def _named(fields: Mapping[str, Any]) -> str:
    cluster = spoken_path(fields["cluster"])
    return f"named {cluster} “{fields['name']}”" if fields["name"] else f"took the name from {cluster}"


def _left_out(fields: Mapping[str, Any]) -> str:
    cluster = spoken_path(fields["cluster"])
    return f"left {cluster} out" if fields["on"] else f"took {cluster} in again"


def _clicked(fields: Mapping[str, Any]) -> str:
    image = fields["image"]["name"]
    return f"erased in {image}" if fields["name"] is None else f"clicked “{fields['name']}” in {image}"


def _audited(fields: Mapping[str, Any]) -> str:
    return f"judged place {fields['n'] + 1} of the audit" if fields["n"] >= 0 else "judged a place of the audit"


_SENTENCES = {
    "name": _named,
    "leave_out": _left_out,
    "split": lambda fields: f"split {spoken_path(fields['cluster'])} into {fields['parts']} parts",
    "unsplit": lambda fields: f"made {spoken_path(fields['cluster'])} one again",
    "colour": lambda fields: f"gave “{fields['name']}” the colour {fields['colour']}",
    "rename": lambda fields: f"renamed “{fields['old']}” to “{fields['new']}”",
    "click": _clicked,
    "audit": _audited,
}


def nearest(path: str, table: Mapping[str, Any]) -> Any:
    """What a table says of a path, or else of what it is a part of; None if nothing."""
    while path:
        if path in table:
            return table[path]
        path = parent_of(path)
    return None
