"""What a list of images costs the process that goes through it: memory and time an image, without any image.

python benchmarks/scale.py [--count 300000]           the list, its shards and its progress, held in memory
python benchmarks/scale.py names [--count 1000000]    a long list through shards, journal, kill -9 and the next call;
                                                      --folder has room for 27 bytes a name, TMPDIR for 8
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from selfseg.data.reading.images import ImageCollection, PathList
from selfseg.data.reading.long.images import LongList, open_long_list
from selfseg.data.reading.long.lines import BLOCK
from selfseg.storage.progress import ProgressFile
from selfseg.workers.hiring import hire
from selfseg.workers.long_lists import FILE, LongWork
from selfseg.workers.plan import Shard, Where, cut

LIST, DONE = "list.txt", "done"


def held() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak(process: int | str = "self") -> int:
    """The most bytes that a process ever had in memory."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


@contextmanager
def measured(what: str, count: int) -> Iterator[None]:
    """Tell what the body costs an image."""
    before, started = held(), time.perf_counter()
    yield
    seconds = time.perf_counter() - started
    sys.stdout.write(f"{what}: {(held() - before) / count:.0f} bytes, {1e6 * seconds / count:.1f} us an image\n")


def in_memory(count: int) -> None:
    """The list, shards and progress of an ordinary folder."""
    root = Path("/photos")
    with measured("list", count):
        paths = PathList(tuple(f"{root}/{i // 1000:06d}/IMG_{i:09d}.jpg" for i in range(count)))  # as they are listed
        images = ImageCollection(root, paths)
    with measured("shards for eight workers", count):
        shards = cut(images, range(count), Where(8))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "progress.jsonl"
        with measured("progress, written", count), ProgressFile(path, "embedder", "x" * 64) as progress:
            for i, name in enumerate(images.names):
                progress.add(
                    {"name": name, "source": {"bytes": 100_000 + i, "modified": 1_764_400_000_000_000_000 + i}}
                )
        with measured("progress, read again", count):
            again = ProgressFile(path, "embedder", "x" * 64)
        sys.stdout.write(f"progress on the disk: {path.stat().st_size / count:.0f} bytes an image\n")
    assert len(again.known) == sum(map(len, shards)) == count


class _Imagined(ImageCollection):
    """Images without files."""

    def version(self, index: int) -> dict[str, int | str]:
        """As if there were a file."""
        return {"bytes": 100_000 + index, "modified": 1_764_400_000_000_000_000}


class _ImaginedList(LongList):
    """A list of them."""

    def block(self, number: int) -> ImageCollection:
        """As of any long list."""
        some = super().block(number)
        return _Imagined(some.root, some.paths, some.names)


@dataclass(frozen=True)
class _Counting:
    """The job: a byte for each image counts how often its result was noted."""

    done: Path

    def open(self) -> Callable[[Shard[ImageCollection]], Iterator[dict[str, Any]]]:
        """Open the file."""
        file = os.open(self.done, os.O_RDWR)

        def work(shard: Shard[ImageCollection]) -> Iterator[dict[str, Any]]:
            first, images = shard.indices[0], shard.images
            counts = np.frombuffer(os.pread(file, len(shard), first), np.uint8)
            os.pwrite(file, (counts + 1).astype(np.uint8).tobytes(), first)
            for i, name in enumerate(images.names):
                yield {"name": name, "source": images.version(i)}

        return work


def call(folder: Path, processes: int) -> None:
    """What a verb does with a long list; writes what it took as JSON."""
    before, started = held(), time.perf_counter()
    found = open_long_list(folder / LIST)
    images = _ImaginedList(**{one.name: getattr(found, one.name) for one in fields(found)})
    opened = time.perf_counter() - started
    job, where = _Counting(folder / DONE), Where(processes)
    work = LongWork(images, folder, "maker", "benchmark", 0.05, lambda *_: True)
    read = time.perf_counter() - started - opened
    work.do(job, job.open(), hire(where, "names", False), where, "names", False)
    told = {"before": before, "peak": peak(), "opened": opened, "read": read, "kept": work.kept, "again": work.again}
    (folder / "told.json").write_text(json.dumps(told | {"seconds": time.perf_counter() - started}))


def write_list(count: int, folder: Path) -> None:
    """Made-up names in folders of 1,000."""
    with (folder / LIST).open("w") as file:
        for first in range(0, count, 1000):
            begin = f"{first // 1000:06d}/IMG_"
            file.write("".join(f"{begin}{i:09d}.jpg\n" for i in range(first, min(count, first + 1000))))


def names(count: int, folder: Path, processes: int) -> None:
    """Call twice, kill the first call in the middle, and look at what is there."""
    with (folder / DONE).open("wb") as file:
        file.truncate(count)
    command = [sys.executable, __file__, "call", "--folder", str(folder), "--processes", str(processes)]
    shards, journal = -(-count // BLOCK), folder / FILE
    line = len('{"shard":12345,"maker":"benchmark","of":"123456789012345678901234","skipped":[]}\n')
    started = time.perf_counter()
    first = subprocess.Popen(command)
    while not journal.exists() or journal.stat().st_size < shards * line / 2:
        if first.poll() is not None:
            raise SystemExit("the first call ended before it could be killed; take a larger --count")
        time.sleep(0.05)
    most = peak(first.pid)
    first.send_signal(signal.SIGKILL)
    first.wait()
    seconds = time.perf_counter() - started
    with journal.open("ab") as file:  # as if it had been writing
        file.write(b'{"shard":0,"maker":"bench')
    noted = sum(1 for _ in journal.open("rb")) - 2
    sys.stdout.write(f"killed after {seconds:.0f} s, {noted} of {shards} shards noted; peak {most / 1e6:.1f} MB\n")
    subprocess.run(command, check=True)
    told = json.loads((folder / "told.json").read_text())
    assert told["kept"] == noted
    assert told["again"] == 0
    counts = np.fromfile(folder / DONE, np.uint8)
    assert counts.min() == 1, "images were lost"
    twice = int((counts > 1).sum())
    assert counts.max() <= 2
    assert twice <= processes * BLOCK, "more was done twice than what was worked on when the call was killed"
    seen = np.zeros(shards, np.uint8)
    for one in journal.open("rb"):
        try:
            value = json.loads(one)
        except ValueError:
            continue
        if "shard" in value:
            seen[value["shard"]] += 1
    assert (seen == 1).all(), "a shard was noted twice, or not at all"
    sys.stdout.write(
        f"{count} names: list {(folder / LIST).stat().st_size / 1e6:.1f} MB, journal {journal.stat().st_size} bytes; "
        f"the second call {told['seconds']:.0f} s (list {told['opened']:.0f} s, journal {told['read']:.1f} s), peak "
        f"{told['peak'] / 1e6:.1f} MB, of which {told['before'] / 1e6:.1f} MB before the list; none lost, {twice} "
        f"worked on again\n"
    )
    for name in (LIST, DONE, FILE, "told.json"):
        (folder / name).unlink()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("memory", "names", "call"), default="memory")
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    if args.part == "memory":
        in_memory(args.count or 300_000)
    elif args.part == "call":
        call(args.folder, args.processes)
    else:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            write_list(args.count or 1_000_000, Path(folder))
            names(args.count or 1_000_000, Path(folder), args.processes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
