"""Writing folders of masks; what reads them, and those of other tools, is `selfseg.data.labelled.mask_files`.

    OUT/index/NAME.png      the mask: 0 background, objects from 1 on; only of images that have a usable one. Gray of 8
                            bits, 16 for more than 254 objects
    OUT/soft/NAME.png       the map that it was cut from, gray of 8 bits: 255 * value
    OUT/masks.json          how they were made, counts, and the rejected images with the reason
    OUT/progress.jsonl      a line per image, for a call that goes on
    OUT/skipped.jsonl       images that can't be read
    OUT/masks.html          images beside masks

Whatever makes masks (a prior, a network) writes them through `MaskWriter`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfseg.data.labelled.mask_files import INDEX_FOLDER, NOTE
from selfseg.data.labelled.mask_files import MaskFolder as MaskFolder
from selfseg.data.labelled.mask_files import MaskSurvey as MaskSurvey
from selfseg.data.labelled.mask_files import survey as survey
from selfseg.data.reading.ahead import Versions
from selfseg.data.reading.images import ImageCollection
from selfseg.drawing.pictures import write_image
from selfseg.errors import BadImage
from selfseg.masks.cleaning import Cleaned
from selfseg.storage.files import mark_output, storage_errors, write_json
from selfseg.storage.outputs.claiming import check_output, own_output
from selfseg.storage.outputs.left_over import remove_left_over
from selfseg.storage.progress import ProgressFile
from selfseg.workers.gathering import file_of

SOFT_FOLDER = "soft"


@dataclass(frozen=True)
class MaskFiles:
    """The files of masks, without a lock or a journal: what a worker writes, and its `MaskWriter` then records.

    Attributes:
        out: the folder.
        images: the collection, or a part of it.
        made_by: a digest of how the masks are made.
    """

    out: Path
    images: ImageCollection
    made_by: str

    def write(
        self, index: int, saliency: NDArray[np.floating], cleaned: Cleaned, read: Versions | None = None
    ) -> dict[str, Any]:
        """Write what was found in an image; several threads and processes may do so at once.

        Args:
            index: of the image in `images`.
            saliency: (H, W) float in [0, 1], of the image's size.
            cleaned: its objects, or why there are none.
            read: what the image's file was before it was read, which is taken out; None = what it is now.

        Returns:
            What `MaskWriter.record` takes.

        Raises:
            BadImage: "missing", if the image's file has gone since it was read; nothing is written then, for nothing
                could tell later whether the mask is still the image's.
            StorageError: if the disk is full.
        """
        name, now = self.images.names[index], self.images.version(index)
        source = now if read is None else read.pop(index)
        if source is None or now is None:
            raise BadImage(self.images.paths[index], "missing", "removed while its mask was made")
        write_image(self.soft(name), np.rint(saliency * 255).astype(np.uint8))
        if cleaned.reason:
            self.index(name).unlink(missing_ok=True)
        else:
            # 255 would be read as void.
            write_image(self.index(name), cleaned.ids.astype(np.uint8 if cleaned.objects < 255 else np.uint16))
        return {
            "name": name,
            "reason": cleaned.reason,
            "share": round(cleaned.share, 6),
            "objects": cleaned.objects,
            "threshold": round(cleaned.threshold, 6),
            "made_by": self.made_by,
            "source": source,
            **file_of(self.images, index),
        }

    def soft(self, name: str) -> Path:
        """The file of an image's map."""
        return self.out / SOFT_FOLDER / f"{name}.png"

    def index(self, name: str) -> Path:
        """The file of an image's mask."""
        return self.out / INDEX_FOLDER / f"{name}.png"


class MaskWriter:
    """Writes the masks of a collection into one folder; a second one of the same making goes on where it stopped.

    A context manager: while it is open, no other process can write there.

    Args:
        out: the folder. It is new, empty, or was made by an earlier call; an image's mask is kept if it was made in the
            same way from the same source file.
        images: the collection.
        how: how the masks are made, plain values; masks made otherwise are made anew.

    Attributes:
        files: writes the files of single images, in any process.

    Raises:
        ConfigError: if the folder holds something else.
        RunError: if another process is at work on it.
        StorageError: here and in the methods, if the disk is full.

    Example:
        >>> with MaskWriter("masks", collect("photos"), {"method": "mine"}) as writer:  # doctest: +SKIP
        ...     for i in writer.missing():
        ...         values = my_saliency(writer.images.read(i))
        ...         writer.write(i, values, clean(values))
        ...     writer.finish()
    """

    def __init__(self, out: Path | str, images: ImageCollection, how: Mapping[str, Any]) -> None:
        self.out, self.images, self.how = Path(out), images, dict(how)
        self.made_by = hashlib.blake2b(json.dumps(self.how, sort_keys=True).encode(), digest_size=8).hexdigest()
        check_output(self.out, "made_by")
        mark_output(self.out)
        self.files = MaskFiles(self.out, images, self.made_by)
        self._held = own_output(self.out, "made_by")
        self._progress: ProgressFile | None = None
        self.entries: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> MaskWriter:
        self._held.__enter__()
        progress = ProgressFile(self.out / "progress.jsonl", "made_by", self.made_by)
        self._progress = progress.__enter__()
        progress.begin()
        self.entries = {name: entry for name in progress.known if (entry := progress.of(name)) is not None}
        self._remove_left_over(progress)
        return self

    def _remove_left_over(self, progress: ProgressFile) -> None:
        """What an earlier call made of images that are gone, or made otherwise of images that aren't made anew."""
        names = set(self.images.names)
        for name in progress.of_others():
            if name not in names:
                self._unlink(name)
        remove_left_over(
            self.out, progress.beside(names), self.images.paths, lambda name: [self.soft(name), self.index(name)]
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.__exit__(kind, error, trace)
        self._held.__exit__(kind, error, trace)

    def missing(self) -> list[int]:
        """The indices of the images whose masks are not there yet."""
        return [i for i, name in enumerate(self.images.names) if not self._is_done(name, i)]

    def write(self, index: int, saliency: NDArray[np.floating], cleaned: Cleaned) -> None:
        """Keep what was found in an image.

        Args:
            index: of the image in the collection.
            saliency: (H, W) float in [0, 1], of the image's size.
            cleaned: its objects, or why there are none.

        Raises:
            BadImage: see `MaskFiles.write`.
        """
        self.record(self.files.write(index, saliency, cleaned))

    def record(self, entry: dict[str, Any]) -> None:
        """Note what `MaskFiles.write` gave: from now on the image is done."""
        assert self._progress is not None, "use MaskWriter as a context manager"
        self.entries[entry["name"]] = entry
        self._progress.add(entry)

    def discard(self, name: str) -> None:
        """Forget what an earlier call made of an image that can't be read any more."""
        if self.entries.pop(name, None) is not None:
            self._unlink(name)

    def _unlink(self, name: str) -> None:
        for path in (self.soft(name), self.index(name)):
            with storage_errors(path):
                path.unlink(missing_ok=True)

    def finish(self, skipped: Mapping[str, str] | None = None, quality: Mapping[str, float] | None = None) -> Path:
        """Write masks.json.

        Args:
            skipped: reasons by name of images that can't be read.
            quality: what was measured beside labels.

        Returns:
            Its path.
        """
        entries = [self.entries[name] for name in self.images.names if name in self.entries]
        kept = [entry for entry in entries if not entry["reason"]]
        rejected = [entry for entry in entries if entry["reason"]]
        values = {
            "how": self.how,
            "images": str(self.images.root),
            "count": len(self.images),
            "kept": len(kept),
            "rejected": len(rejected),
            "skipped": len(skipped or {}),
            "reasons": dict(Counter(entry["reason"] for entry in rejected).most_common()),
            "objects": sum(entry["objects"] for entry in kept),
            "mean_share": float(np.mean([entry["share"] for entry in kept])) if kept else 0.0,
            "quality": dict(quality) if quality is not None else None,
            "rejected_images": [{key: entry[key] for key in ("name", "reason", "share")} for entry in rejected],
            "skipped_images": [{"name": name, "reason": reason} for name, reason in (skipped or {}).items()],
        }
        write_json(self.out / NOTE, values)
        return self.out / NOTE

    def soft(self, name: str) -> Path:
        """The file of an image's map."""
        return self.files.soft(name)

    def index(self, name: str) -> Path:
        """The file of an image's mask."""
        return self.files.index(name)

    def _is_done(self, name: str, index: int) -> bool:
        entry = self.entries.get(name)
        if entry is None or not self.soft(name).is_file():
            return False
        same = entry["source"] is not None and entry["source"] == self.images.version(index)
        return bool(same and self.index(name).is_file() != bool(entry["reason"]))
