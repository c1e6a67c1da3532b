"""A long list of images without files, and a job that counts; a module of its own, as other processes import it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.long.images import LongList, open_long_list
from selfseg.workers.gathering import Skipped
from selfseg.workers.hiring import hire
from selfseg.workers.long_lists import LongWork
from selfseg.workers.plan import HERE, Shard, Where


class Imagined(ImageCollection):
    """Its images' versions are made of their names."""

    def version(self, index: int) -> dict[str, int | str]:
        return {"bytes": len(self.names[index]), "modified": changed.get(self.names[index], 0)}


changed: dict[str, int] = {}
"""Names of images that another file has come for."""


class ImaginedList(LongList):
    def block(self, number: int) -> ImageCollection:
        some = super().block(number)
        return Imagined(some.root, some.paths, some.names)

    def subset(self, indices: Any) -> ImageCollection:
        some = super().subset(indices)
        return Imagined(some.root, some.paths, some.names)


@dataclass(frozen=True)
class Counting:
    """Writes a byte for each time that an image was worked on.

    Attributes:
        folder: of the file.
        kills: the name of an image that kills its process, the first time or, if `always`, every time.
        skips: what all images have in their names that can't be used.
    """

    folder: Path
    kills: str = ""
    always: bool = False
    skips: str = "nowhere"

    def open(self) -> Callable[[Shard[ImageCollection]], Iterator[dict[str, Any] | Skipped]]:
        return self.work

    def work(self, shard: Shard[ImageCollection]) -> Iterator[dict[str, Any] | Skipped]:
        for i, name in enumerate(shard.images.names):
            with (self.folder / "worked.txt").open("a") as stream:
                stream.write(f"{name}\n")
            if name == self.kills and (self.always or not (self.folder / "killed").exists()):
                (self.folder / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if self.skips in name:
                yield Skipped(name, "truncated", "half of it")
            else:
                yield {"name": name, "source": shard.images.version(i)}


def write_list(folder: Path, count: int) -> Path:
    path = folder / "list.txt"
    path.write_text("".join(f"{i // 100:04d}/IMG_{i:07d}.jpg\n" for i in range(count)))
    return path


def name_of(number: int) -> str:
    return f"{number // 100:04d}/IMG_{number:07d}"


def open_list(folder: Path) -> ImaginedList:
    found = open_long_list(folder / "list.txt")
    return ImaginedList(**{one.name: getattr(found, one.name) for one in fields(found)})


def call(
    folder: Path,
    job: Counting,
    where: Where = HERE,
    maker: str = "me",
    max_bad: float = 0.05,
    before_again: Callable[[], object] = lambda: None,
) -> LongWork:
    """What a verb does."""
    work = LongWork(open_list(folder), folder, "maker", maker, max_bad, lambda *_: True, before_again=before_again)
    work.do(job, job.open(), hire(where, "test", False), where, "test", False)
    return work
