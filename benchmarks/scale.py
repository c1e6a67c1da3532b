"""What a list of images costs the process that goes through it: memory and time an image, without any file.

python benchmarks/scale.py [--count 300000]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selfseg.data.reading.images import ImageCollection
from selfseg.storage.progress import ProgressFile
from selfseg.workers.plan import Where, cut


def held() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def measured(what: str, count: int) -> Iterator[None]:
    """Tell what the body costs an image."""
    before, started = held(), time.perf_counter()
    yield
    seconds = time.perf_counter() - started
    sys.stdout.write(f"{what}: {(held() - before) / count:.0f} bytes, {1e6 * seconds / count:.1f} us an image\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300_000)
    count = parser.parse_args().count
    root = Path("/photos")
    with measured("list", count):
        images = ImageCollection(root, tuple(root / f"{i // 1000:06d}/IMG_{i:09d}.jpg" for i in range(count)))
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
