"""Disks that are full, folders that can't be written, names that can't be given.

A small file system in memory is mounted where that is allowed (root on Linux); elsewhere that row says so. On it each
artefact is written, the rest is filled up to a random number of bytes, and it is written again: a StorageError, the
former version, and no temporary file.
"""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from selfseg.errors import StorageError
from selfseg.storage import files
from torture.rows import Row
from torture.written import ARTEFACTS, Artefact, left_over

PROMISE = "a full disk, a failing rename and a read-only folder end with a message, and what was there stays"
ROOT = Path(__file__).resolve().parents[2]
LEAVES = 24  # bytes, as powers of two up to it: what is left free on the full disk
QUICK = ("checkpoint", "clusters", "embedder and prototypes", "result", "masks")


def run(work: Path, quick: bool) -> list[Row]:
    """As of every part."""
    chosen = [each for each in ARTEFACTS if not quick or each.name in QUICK]
    rows = []
    for artefact in chosen:
        folder = work / artefact.name.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        with _small_disk(folder, 48) as mounted:
            artefact.prepare(folder)
            artefact.write(folder, 1)
            if mounted:
                rows.append(_fill(artefact, folder, 3 if quick else 20))
            rows.append(_fail_to_rename(artefact, folder))
            if mounted:
                rows.append(_read_only(artefact, folder))
    with _small_disk(work / "mapped", 1) as mounted:
        rows.append(_map(work / "mapped") if mounted else Row("mounting a small disk is not allowed here", 0, True))
    return rows


@contextmanager
def _small_disk(folder: Path, mebibytes: int) -> Iterator[bool]:
    """A file system of that size at a folder; False where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
    try:
        mounted = os.geteuid() == 0 and subprocess.run(words, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=True)


def _fill(artefact: Artefact, folder: Path, tries: int) -> Row:
    problems = []
    for number in range(tries):
        before = artefact.read(folder)
        following = max(before, 0) + 1
        free = 1 << random.Random(number).randrange(LEAVES)
        ballast = folder / "ballast"
        room = os.statvfs(folder)
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, room.f_bavail * room.f_frsize - free))
        said = _outcome(lambda version=following: artefact.write(folder, version))
        ballast.unlink()
        problems += _judge(artefact, folder, before, said, f"{free} bytes free")
    return Row(f"full disk: {artefact.name}", tries, not problems, "; ".join(problems[:4]))


def _fail_to_rename(artefact: Artefact, folder: Path) -> Row:
    """Renaming fails: for a missing right, a network that is away, a quota of names."""
    before, rename, replace, exchange = artefact.read(folder), os.rename, os.replace, files._exchange

    def refuse(source: str, target: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    os.rename, os.replace, files._exchange = refuse, refuse, lambda one, other: False  # type: ignore[assignment]
    try:
        said = _outcome(lambda: artefact.write(folder, max(before, 0) + 1))
    finally:
        os.rename, os.replace, files._exchange = rename, replace, exchange
    problems = _judge(artefact, folder, before, said, "renaming fails")
    if said == "written":
        problems.append("nothing was said")
    return Row(f"failing rename: {artefact.name}", 1, not problems, "; ".join(problems))


def _read_only(artefact: Artefact, folder: Path) -> Row:
    before = artefact.read(folder)
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], capture_output=True, check=True)
    said = _outcome(lambda: artefact.write(folder, max(before, 0) + 1))
    subprocess.run(["mount", "-o", "remount,rw", str(folder)], capture_output=True, check=True)
    problems = _judge(artefact, folder, before, said, "read-only")
    if said == "written":
        problems.append("nothing was said")
    return Row(f"read-only folder: {artefact.name}", 1, not problems, "; ".join(problems))


def _outcome(write: Callable[..., object]) -> str:
    try:
        write()
    except StorageError as error:
        return f"StorageError: {error}"
    except Exception as error:
        return f"not a StorageError: {type(error).__name__}: {error}"
    return "written"


def _judge(artefact: Artefact, folder: Path, before: int, said: str, case: str) -> list[str]:
    problems = [f"{case}: {said}"] if said.startswith("not") else []
    try:
        found = artefact.read(folder)
        # What has several files of its own (embeddings, masks) may be between two versions, each file whole.
        if said != "written" and found not in (before, -1) and artefact.name not in ("embeddings", "masks"):
            problems.append(f"{case}: version {found} lies there, {before} did")
    except Exception as error:
        problems.append(f"{case}: afterwards {type(error).__name__}: {error}")
    left = left_over(folder)
    return problems + ([f"{case}: {left[0]} is left"] if left else [])


_MAPPING = """
import sys
from pathlib import Path
import numpy as np
from selfseg.errors import StorageError
from selfseg.ops.parts.steps import Shorten, distances_of
part = Path(sys.argv[1])
try:
    Shorten(np.ones((2, 1), np.float32), False, True).on(part, 0)
except StorageError as error:
    print(error)
    sys.exit(4)
"""


def _map(folder: Path) -> Row:
    """Where files are written through memory maps a full disk would end the process with SIGBUS."""
    import numpy as np

    part = folder / "part-0.npy"
    np.save(part, np.zeros((120_000, 1), np.float32), allow_pickle=False)
    with (folder / "ballast").open("wb") as file:
        file.write(bytes(300_000))
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, "-c", _MAPPING, str(part)]
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    fine = done.returncode == 4 and "no space left" in done.stdout
    return Row("full disk: memory maps of points", 1, fine, "" if fine else f"{done.returncode} {done.stderr[-400:]}")
