"""The log of a person's decisions, on the disk and in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from selfseg.errors import ConfigError, StorageError
from selfseg.storage.journal import Held, Journal, News
from selfseg.studio.decisions.history import Entry, History
from selfseg.studio.decisions.kinds import MOVES, checked, serialisable
from selfseg.studio.decisions.state import State

FILE = "decisions.jsonl"


class DecisionLog:
    """What a person decided about a collection: `FOLDER/decisions.jsonl`, one entry a line, only ever appended to.

    When `append` has returned, the decision is on the disk. What a kill cuts off was never said to be saved, and does
    no harm to what came before or comes after (`selfseg.storage.journal`). Several processes and threads may write at
    once; each sees the others' entries before it writes, and with `refresh`. What the entries amount to is `state`,
    a pure function of them (`selfseg.studio.decisions.history`, where undo and redo are explained too).

    Attributes:
        folder: where it lies.

    Example:
        >>> import tempfile
        >>> log = DecisionLog.open(Path(tempfile.mkdtemp()) / "studio")
        >>> log.append("name", cluster="27/3", name="road")
        1
        >>> log.append("name", cluster="27/5", name="street")
        2
        >>> log.append("rename", old="street", new="road")
        3
        >>> dict(log.state().names)
        {'27/3': 'road', '27/5': 'road'}
        >>> log.undo(), log.undo(), log.state().last
        (3, 2, 'named cluster 3 of 27 “road”')
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._journal = Journal(self.folder / FILE)
        self._lock = threading.RLock()
        self._history = History()
        self._state: State | None = None
        self._entries: list[Entry] = []
        self._damage: list[str] = []

    @staticmethod
    def open(folder: Path | str) -> DecisionLog:
        """The log in a folder; where there is none yet, an empty one, which the first decision writes.

        Raises:
            StorageError: if it can't be read.
        """
        log = DecisionLog(folder)
        log.refresh()
        return log

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All that could be read, in the file's order, those that were undone and those of unknown kinds too."""
        return tuple(self._entries)

    @property
    def standing(self) -> tuple[Entry, ...]:
        """The decisions that are not undone, in the order in which they were made."""
        return self._history.standing

    @property
    def damage(self) -> tuple[str, ...]:
        """What of the file can't be read, by line; the rest is in use. A cut-off last line is told of here too."""
        found = list(self._damage)
        if torn := len(self._journal.torn):
            found.append(
                f"the last line is cut off after {torn} bytes: it was being written when the process was ended, and "
                f"was never said to be saved"
            )
        return tuple(found)

    def append(self, kind: str, *, group: str = "", **fields: Any) -> int:
        """Add a decision and wait until it is on the disk.

        Args:
            kind: see `selfseg.studio.decisions.kinds`.
            group: decisions that follow each other and have the same are undone and redone together.
            **fields: what the kind asks for.

        Returns:
            The entry's seq.

        Raises:
            ConfigError: if the decision isn't one, or is about a part or a class that isn't there. Nothing is written.
            StorageError: if it can't be written (a full disk). Nothing is kept of it.
        """
        return self.append_all([(kind, fields)], group)[0]

    def append_all(self, decisions: Sequence[tuple[str, Mapping[str, Any]]], group: str = "") -> tuple[int, ...]:
        """Add several with one wait; a kill meanwhile leaves the first few of them.

        Raises:
            ConfigError: as `append`; none of them is written then.
            StorageError: as `append`.
        """
        kept = [(kind, _without_reserved(kind, fields)) for kind, fields in decisions]
        if not isinstance(group, str) or len(group) > 100:
            raise ConfigError(f"a group is a text of at most 100 characters, not {group!r:.60}")
        extra = {"group": group} if group else {}
        with self._writing() as held:
            self._object(kept)
            return self._write(held, [{"kind": kind, **extra, **fields} for kind, fields in kept])

    def undo(self, of: int | None = None) -> int | None:
        """Take back the last decision that stands, and those of its group.

        Args:
            of: only if it is this one (`State.undo`); somebody else may have decided something meanwhile.

        Returns:
            The seq of what was taken back; None if there is nothing, or it is another.
        """
        return self._move("undo", of, lambda: self._history.undo)

    def redo(self, of: int | None = None) -> int | None:
        """Give back what undo took last; see `undo`."""
        return self._move("redo", of, lambda: self._history.redo)

    def use_clustering(self, k: int, fingerprint: str) -> bool:
        """Say which clustering the paths K/ID speak of from here on; written only if it isn't known already.

        Returns:
            Whether names given to another clustering with this K rest now (`selfseg.studio.carrying`).
        """
        if self.state().clusterings.get(k) != fingerprint:
            self.append("clusters", k=k, fingerprint=fingerprint)
        return any(named.k == k for named in self.state().resting)

    def refresh(self) -> bool:
        """Read what others have written; whether there was anything.

        Raises:
            StorageError: if the file can't be read, or has gone.
        """
        with self._lock, self._whole():
            news = self._journal.read()
            self._take(news)
            return bool(news.lines) or news.anew

    def state(self) -> State:
        """What the entries read so far amount to; it doesn't change when others come."""
        with self._lock:
            if self._state is None:
                self._state = self._history.state()
            return self._state

    def _move(self, kind: str, of: int | None, what: Callable[[], int | None]) -> int | None:
        with self._writing() as held:
            target = what()
            if target is None or (of is not None and of != target):
                return None
            self._write(held, [{"kind": kind, "of": target}])
            return target

    def _object(self, decisions: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Raise ConfigError for the first that can't be followed after those before it."""
        history = self._history if len(decisions) == 1 else self._history.copy()
        for number, (kind, fields) in enumerate(decisions):
            if reason := history.objection(kind, fields):
                raise ConfigError(reason)
            if len(decisions) > 1:
                history.add(Entry(history.seq + 1, "", kind, fields, "", (1 << 60) + number))

    def _write(self, held: Held, values: Sequence[dict[str, Any]]) -> tuple[int, ...]:
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        # The number of lines counts too: a damaged last line may have held the highest seq.
        first = max(self._history.seq, len(self._entries) + len(self._damage)) + 1
        numbered = [{"seq": first + i, "time": time, **value} for i, value in enumerate(values)]
        self._take(held.write(numbered))
        return tuple(range(first, first + len(values)))

    @contextmanager
    def _writing(self) -> Iterator[Held]:
        with self._lock, self._whole(), self._journal.hold() as held:
            self._take(held.news)
            yield held

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """What breaks off between reading a line and taking it in (Ctrl-C) lets everything be read again."""
        try:
            yield
        except (ConfigError, StorageError):  # nothing was begun, or nothing is left of it
            raise
        except BaseException:
            self._forget()
            raise

    def _forget(self) -> None:
        self._journal.forget()
        self._history, self._state, self._entries, self._damage = History(), None, [], []

    def _take(self, news: News) -> None:
        if news.anew:
            self._history, self._entries, self._damage = History(), [], []
        if news.anew or news.lines:
            self._state = None
        for line in news.lines:
            try:
                if line.value is None:
                    raise ConfigError(line.damage)
                entry = Entry.of(line)
            except ConfigError as error:
                self._damage.append(f"line {line.number} can't be read: {error}")
                continue
            self._entries.append(entry)
            self._history.add(entry)


def _without_reserved(kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    if kind in MOVES:
        raise ConfigError(f"{kind} can't be added as a decision; call DecisionLog.{kind}()")
    if reserved := {"seq", "time", "kind", "group"} & fields.keys():
        raise ConfigError(f"{', '.join(sorted(reserved))} can't be a field of a decision")
    kept = checked(kind, fields)
    serialisable(kept)
    return kept
