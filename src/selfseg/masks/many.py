"""The masks of a long list: what `MaskWriter` does, with memory that doesn't grow with the images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfseg.data.labelled.mask_files import NOTE
from selfseg.data.reading.images import ImageCollection, spread_indices
from selfseg.data.reading.long.images import LongList
from selfseg.masks.writing import MaskFiles, MaskWriter
from selfseg.storage.files import storage_errors, write_json
from selfseg.workers.long_lists import FILE, LongWork, entry_of

Entry = dict[str, Any]


@dataclass
class ManyMasks:
    """The masks of a long list.

    Attributes:
        writer: of the folder, which the caller holds.
        work: shards, and what is done of them.
    """

    writer: MaskWriter
    work: LongWork

    @classmethod
    def of(cls, writer: MaskWriter, images: LongList, max_bad: float) -> ManyMasks:
        """Those of a list in a writer's folder."""
        files, out = writer.files, writer.out
        return cls(
            writer,
            LongWork(
                images,
                out,
                "made_by",
                writer.made_by,
                max_bad,
                lambda some, i, line: _are_there(files, some, i, line),
                lambda entries: {"entries": [_short(entry) for entry in entries]},
            ),
        )

    def finish(self) -> Path:
        """Remove what was made of images that can't be read any more, and write masks.json; returns its path."""
        skipped = 0
        for name in self.work.skipped():
            skipped += 1
            for path in (self.writer.soft(name), self.writer.index(name)):
                with storage_errors(path):
                    path.unlink(missing_ok=True)
        reasons: Counter[str] = Counter()
        objects, share = 0, 0.0
        for entry in self._entries():
            reasons[entry["reason"]] += 1
            if not entry["reason"]:
                objects += entry["objects"]
                share += entry["share"]
        kept = reasons.pop("", 0)
        values = {
            "how": self.writer.how,
            "images": str(self.writer.images.root),
            "count": len(self.writer.images),
            "kept": kept,
            "rejected": reasons.total(),
            "skipped": skipped,
            "reasons": dict(reasons.most_common()),
            "objects": objects,
            "mean_share": share / kept if kept else 0.0,
            "quality": None,
            "rejected_in": FILE,
            "skipped_in": self.work.log.path.name,
        }
        write_json(self.writer.out / NOTE, values)
        return self.writer.out / NOTE

    def some(self, rejected: bool, count: int, most: int) -> list[tuple[int, Entry]]:
        """Some images with a mask, or without, evenly over all `count` of them: number and entry."""
        wanted = set(spread_indices(count, most))
        of_kind = (
            (i, entry)
            for i, entry in zip(self.work.made(), self._entries(), strict=True)
            if bool(entry["reason"]) == rejected
        )
        return [one for number, one in enumerate(of_kind) if number in wanted]

    def _entries(self) -> Iterator[Entry]:
        for line in self.work.progress.entries():
            yield from line["entries"]


def _short(entry: Entry) -> Entry:
    """What a shard's line doesn't say."""
    return {key: value for key, value in entry.items() if key not in ("made_by", "source", "image")}


def _are_there(files: MaskFiles, images: ImageCollection, index: int, line: Mapping[str, Any]) -> bool:
    name, entry = images.names[index], entry_of(line, index)
    return files.soft(name).is_file() and files.index(name).is_file() != bool(entry["reason"])
