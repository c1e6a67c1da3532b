"""What was skipped of a collection and why; and the look at every file that finds most of it before a run begins."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from selfseg.data.reading.decoding import MAX_PIXELS, quiet
from selfseg.data.reading.images import ImageCollection
from selfseg.errors import BadImage, ConfigError, EmptyCollection, TooManyBadImages
from selfseg.storage.files import make_folder, storage_errors, write_text
from selfseg.storage.reading import objects_of_lines
from selfseg.telling import tell

_FEW = 3  # images that are named where they are told


class SkipLog:
    """What was skipped, counted and listed; stops a run whose collection is bad beyond belief.

    Each skipped image is a line of JSON {"name", "reason", "detail", "time" (seconds since 1970)} in `path`. An image
    that the file names already with the same reason (a resumed run meets it again) is counted, not listed twice.

    Args:
        path: RUN/skipped.jsonl, or None to only count.
        total: images in the collection.
        limit: the fraction that may be skipped, in [0, 1].
        fixed: whether the verb has no option for the limit, which messages would name otherwise.
    """

    def __init__(self, path: Path | None, total: int, limit: float = 0.05, fixed: bool = False) -> None:
        check_limit(limit)
        self.path, self.fixed = path, fixed
        self.total = total
        self.limit = limit
        self.skipped: dict[str, str] = {}
        self._listed: set[tuple[str, str]] = set()
        self._torn = False
        if path is not None and path.exists():
            text = path.read_text(encoding="utf-8", errors="replace")
            self._torn = bool(text) and not text.endswith("\n")
            for entry in objects_of_lines(text):  # without the torn last line of a run that was killed
                self._listed.add((str(entry.get("name")), str(entry.get("reason"))))

    def add(self, name: str, reason: str, detail: str = "") -> None:
        """Count and list one image.

        Raises:
            TooManyBadImages: if more than `limit` of the collection is now skipped.
            StorageError: if the list can't be written.
        """
        self.add_all([(name, reason, detail)])

    def add_all(self, entries: Iterable[tuple[str, str, str]], counted: bool = True) -> None:
        """As `add`, for (name, reason, detail) each; judged only after the last, and not if not `counted`."""
        lines = dict[tuple[str, str], str]()
        for name, reason, detail in entries:
            if counted:
                self.skipped.setdefault(name, reason)
            if (name, reason) not in self._listed and (name, reason) not in lines:
                lines[name, reason] = _line((name, reason, detail))
        if self.path is not None and lines:
            with storage_errors(self.path):
                make_folder(self.path.parent)
                with open(self.path, "a", encoding="utf-8") as stream:
                    stream.write(("\n" if self._torn else "") + "".join(lines.values()))
            self._torn = False
        self._listed.update(lines)  # not before they are: who waits for a folder calls again
        if len(self.skipped) > self.limit * self.total:
            first = list(self.skipped.items())[:3]
            reasons = Counter(self.skipped.values())
            raise TooManyBadImages(_message(reasons, first, self.total, self.limit, self.path, self.fixed))

    def keep_current(self) -> None:
        """Take images out of the list that an earlier call could not use, and this one could or wasn't given.

        For a verb whose folder tells what is so now, at its end.

        Raises:
            StorageError: if the list can't be written.
        """
        if self.path is None or all(self.skipped.get(name) == reason for name, reason in self._listed):
            return
        text = self.path.read_text(encoding="utf-8", errors="replace")
        current = {
            str(entry.get("name")): entry
            for entry in objects_of_lines(text)
            if self.skipped.get(str(entry.get("name"))) == entry.get("reason")
        }
        write_text(self.path, "".join(json.dumps(entry) + "\n" for entry in current.values()))
        self._listed = set(self.skipped.items())


class SkipCount:
    """As `SkipLog`, for lists that are too long to remember every image that was skipped.

    Each is a line of the file when it is skipped; one that is met again by a later call is another line.

    Args:
        path: OUT/skipped.jsonl.
        total: as of `SkipLog`.
        limit: as there.

    Attributes:
        reasons: how many images were skipped for which.
    """

    def __init__(self, path: Path, total: int, limit: float = 0.05) -> None:
        check_limit(limit)
        self.path, self.total, self.limit = path, total, limit
        self.reasons: Counter[str] = Counter()
        self._first: list[tuple[str, str]] = []

    @property
    def count(self) -> int:
        """Of the images that were skipped."""
        return self.reasons.total()

    def take(self, name: str, reason: str) -> None:
        """Count one that is listed already; raises TooManyBadImages as `add_all` does."""
        self.reasons[reason] += 1
        if len(self._first) < 3:
            self._first.append((name, reason))
        if self.count > self.limit * self.total:
            raise TooManyBadImages(_message(self.reasons, self._first, self.total, self.limit, self.path))

    def add_all(self, entries: Sequence[tuple[str, str, str]]) -> None:
        """Count and list some, as (name, reason, detail).

        Raises:
            TooManyBadImages: if more than `limit` of the list is now skipped.
            StorageError: if the list can't be written.
        """
        if entries:
            with storage_errors(self.path):
                make_folder(self.path.parent)
                with open(self.path, "a", encoding="utf-8") as stream:
                    stream.write("".join(map(_line, entries)))
        for name, reason, _ in entries:
            self.take(name, reason)


def accepting(limit: float) -> str:
    """What a command needs to accept as many bad images as another one did, to be put behind its images.

    Example:
        >>> accepting(0.05), accepting(0.6)
        ('', ' --max-bad 0.6')
    """
    return "" if limit == 0.05 else f" --max-bad {limit:g}"


def check_limit(limit: float) -> None:
    """Raise ConfigError for a share of unreadable images that is none."""
    if not 0 <= limit <= 1:
        raise ConfigError(f"--max-bad must be a fraction from 0 to 1, e.g. 0.05, not {limit}")


def _line(skipped: tuple[str, str, str]) -> str:
    name, reason, detail = skipped
    entry = {"name": name, "reason": reason, "detail": detail, "time": round(time.time(), 3)}
    return json.dumps(entry) + "\n"


def _message(
    reasons: Counter[str],
    some: Sequence[tuple[str, str]],
    total: int,
    limit: float,
    path: Path | None,
    fixed: bool = False,
) -> str:
    bad = reasons.total()
    counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    first = ", ".join(f"{name} ({reason})" for name, reason in some)
    return (
        f"{bad} of {total} images can't be used ({bad / max(total, 1):.1%}; at most {limit:.1%} "
        f"may be bad): {counts}; e.g. {first}."
        + (f" All of them are listed in {path}." if path is not None else "")
        + " `selfseg data IMAGES` shows which kinds of files there are."
        + " Repair or remove them"
        + ("" if fixed else f", or accept them with --max-bad {min(1.0, bad / max(total, 1) + 0.01):.2f}")
    )


def scan(images: ImageCollection, log: SkipLog, max_pixels: int = MAX_PIXELS) -> ImageCollection:
    """Check every image's header and end, without decoding.

    Args:
        images: the collection.
        log: where the bad ones go.
        max_pixels: as for `read_image`.

    Returns:
        The images that look whole, under unchanged names. Damage inside of a file shows only when it is read.

    Raises:
        TooManyBadImages: if more are bad than `log` allows.
        EmptyCollection: if none is left.
    """

    def judge(index: int) -> BadImage | None:
        try:
            images.check(index, max_pixels)
        except BadImage as error:
            return error
        return None

    # Threads hide the latency of network disks; on a local one they cost nothing.
    with quiet(), ThreadPoolExecutor(max_workers=8) as pool:
        errors = list(pool.map(judge, range(len(images)), chunksize=256))
    bad = [
        (name, error.reason, error.detail)
        for name, error in zip(images.names, errors, strict=True)
        if error is not None
    ]
    log.add_all(bad)
    if len(bad) == len(images):
        raise EmptyCollection(f"none of the {len(images)} images under {images.root} can be read")
    if bad:
        counts = ", ".join(
            f"{count} {reason}" for reason, count in Counter(reason for _, reason, _ in bad).most_common()
        )
        listed = f"; each is listed in {log.path}" if log.path is not None else ""
        few = f" ({', '.join(name for name, _, _ in bad)})" if len(bad) <= _FEW else ""
        are = "is" if len(bad) == 1 else "are"
        tell(f"{len(bad)} of {len(images)} images can't be used and {are} left out: {counts}{few}{listed}")
    return images.subset(i for i, error in enumerate(errors) if error is None) if bad else images
