"""`selfseg embed`: one vector per pixel of every image, in files that can be mapped into memory.

A call can be repeated after an interruption: what the same embedder made of the same file is kept.

Letters in shapes: D embedding dimension, h w embedding cells.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F

from selfseg.collection.batching.room import AUTO, Batching
from selfseg.collection.large.mosaic import Mosaic, blended_rows
from selfseg.collection.opening import Images, collect, load_known, require_same, whole_images
from selfseg.collection.streaming import Embedded, Fetched, Looked, map_embedded
from selfseg.data.reading.ahead import Versions
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.long.images import LongList
from selfseg.data.reading.skipping import SkipLog
from selfseg.models.embedder import Embedder, Looks
from selfseg.pages.shown_path import ShownPath
from selfseg.storage.files import MOST_LINES, read_json, storage_errors, write_atomically, write_json
from selfseg.storage.outputs.claiming import check_output, own_output
from selfseg.storage.outputs.left_over import remove_left_over
from selfseg.storage.progress import ProgressFile
from selfseg.storage.remote.places import at_places
from selfseg.workers.gathering import SkipList, Skipped, carry_out, remove_outdated, small_then_large
from selfseg.workers.hiring import hire
from selfseg.workers.long_lists import LongWork, entry_of
from selfseg.workers.plan import HERE, Shard, Where, Workers


@at_places(models=["run"], writes=["out"])
def embed(
    run: Path | str,
    images: Images,
    out: Path | str,
    looks: Looks | None = None,
    device: str = "auto",
    progress: bool = True,
    max_bad: float = 0.05,
    window: int | None = None,
    where: Where = HERE,
    batch: Batching = AUTO,
) -> Path:
    """Write the dense embedding of each image, with what is needed to map each cell back to pixels.

    For each image it writes `out/NAME.npy`: (D, h, w) float16, to be opened with `np.load(path, mmap_mode="r")`.
    `out/index.json` has for each image its file, `image_size` (H, W), `resized_size`, `embedding_size` (h, w), `stride`
    and `to_image`: the (2, 3) affine from the embedding to the image, both in [-1, 1] with align_corners=False. The
    cell (row i, column j) lies at ((2 j + 1) / w - 1, (2 i + 1) / h - 1) of the embedding's frame. For a long list
    (`selfseg.data.reading.long.images`) the images are lines of JSON in `out/index.jsonl` instead.

    If a call is interrupted, the same call continues: a file is kept if the same embedder made it from the same source
    file. Files that another embedder made here are removed first. While files that `index.json` tells of are removed or
    replaced, it isn't there: it is written again at the end.

    Args:
        run: the run's folder.
        images: a folder, a list file, NAME:ROOT, paths, a collection, arrays, tensors or PIL images.
        out: the folder to write.
        looks: how often each image is looked at; once if None (`selfseg.models.embedder.Looks`).
        device: see `load`.
        progress: whether to show a progress bar on stderr.
        max_bad: share of unreadable images that is an error, in [0, 1].
        window: side in px of the windows that large images are looked at in; the run's own if None.
        where: where the work is done: in this process, in several, or on Ray.
        batch: how many images a GPU looks at together (`selfseg.collection.batching`).

    Returns:
        The path of index.json.

    Raises:
        RunError: see `load`.
        EmptyCollection: if there are no images, or none can be read.
        TooManyBadImages: if too many can't be read.
        StorageError: if the disk is full.
    """
    out = Path(out)
    check_output(out, "embedder")
    job = _Embedding(Path(run), out, looks, device, window, progress, batch)
    work = job.open()
    collection = collect(images, work.embedder, cut=False)
    crew = hire(where, "embed", progress, device)
    with own_output(out, "embedder"):
        return _embed(replace(job, made_by=work.fingerprint), work, crew, where, collection, max_bad)


def _embed(
    job: _Embedding, work: _Embedder, crew: Workers, where: Where, collection: ImageCollection, max_bad: float
) -> Path:
    """`embed` into a folder that nobody else writes to."""
    out, embedder, fingerprint, progress = job.out, work.embedder, work.fingerprint, job.progress
    index_file = out / "index.json"
    told_by, told_of = _told(index_file)
    listed: dict[str, Any]

    def withdraw() -> None:
        # Before a file that it tells of is removed or replaced: a kill would leave an index of what isn't there.
        with storage_errors(index_file):
            index_file.unlink(missing_ok=True)

    def made(name: str) -> list[Path]:
        return [out / f"{name}.npy"]

    def remove(path: Path) -> None:
        if os.path.lexists(path):
            withdraw()
            with storage_errors(path):
                path.unlink()

    def make_way(others: Iterable[str]) -> None:
        # What another embedder made: one index.json tells of all that is in the folder.
        for name in others:
            for path in made(name):
                remove(path)

    if told_by not in ("", fingerprint):
        withdraw()
    if isinstance(collection, LongList):
        many = LongWork(
            collection,
            out,
            "embedder",
            fingerprint,
            max_bad,
            lambda some, i, line: _is_whole(out, entry_of(line, i)),
            lambda entries: {"entries": entries},
            withdraw,
        )
        make_way(many.foreign())
        many.do(job, work, crew, where, "embed", progress)
        _list_in(out / "index.jsonl", many)
        listed = {"images_in": "index.jsonl"}
    else:
        log = SkipLog(out / "skipped.jsonl", len(collection), max_bad)
        progress_file = ProgressFile(out / "progress.jsonl", "embedder", fingerprint)
        whole = whole_images(collection, log)
        with progress_file:
            progress_file.begin()
        make_way(progress_file.of_others())
        remove_left_over(out, progress_file.beside(set(collection.names)), collection.paths, made, remove)
        todo = [i for i in whole if not _is_done(progress_file, collection, i, out)]
        if any(collection.names[i] in told_of for i in todo):
            withdraw()
        carry_out(job, work, crew, where, collection, todo, progress_file, log)
        remove_outdated(progress_file, collection, log.skipped, made, remove)
        log.keep_current()
        found = [progress_file.of(name) for name in collection.names if name not in log.skipped]
        listed = {"images": [_without_maker(entry) for entry in found if entry is not None]}
    index = {
        "embedder": fingerprint,
        "dim": embedder.dim,
        "stride": embedder.looked_stride,
        "scales": embedder.looks.scales,
        "flip": embedder.looks.flip,
        "normalised": embedder.normalised,
        "resolution": embedder.resolution,
        "dtype": "float16",
        "layout": "D,h,w",
        "frame": "[-1, 1] (x, y), align_corners=False",
        **listed,
    }
    write_json(index_file, index)
    return ShownPath(index_file)


def _without_maker(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in ("embedder", "image")}


def _list_in(file: Path, many: LongWork) -> None:
    """Write what index.json has of each image, a line for each."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8") as stream:
            for line in many.progress.entries():
                stream.writelines(json.dumps(entry) + "\n" for entry in line["entries"])

    write_atomically(file, write)


@dataclass(frozen=True)
class _Embedding:
    """The job of `embed`, with its arguments."""

    run: Path
    out: Path
    looks: Looks | None
    device: str
    window: int | None
    progress: bool
    batch: Batching = AUTO
    made_by: str = ""  # what a worker must have loaded

    def open(self) -> _Embedder:
        """Load the network."""
        return _Embedder(self)


class _Embedder:
    """Writes the embeddings of a shard, and gives what index.json says of each."""

    def __init__(self, job: _Embedding) -> None:
        self.job = job
        self.embedder, made_by = load_known(job.run, job.device, job.looks, job.window)
        of_window = f"-window{job.window}" if job.window else ""
        self.fingerprint = made_by + self.embedder.looks.name + of_window
        require_same(job.run, job.made_by, self.fingerprint)

    def __call__(self, shard: Shard[ImageCollection]) -> Iterator[dict[str, Any] | Skipped]:
        embedder, images, out, skips = self.embedder, shard.images, self.job.out, SkipList()
        versions: Versions = {}

        def write(one: Looked, found: Fetched) -> dict[str, Any]:
            sizes = (one.image.shape[0], one.image.shape[1]), (one.seen.shape[0], one.seen.shape[1])
            name = images.names[one.number]
            return _write_embedding(embedder, found, sizes, out, name, versions.pop(one.number))

        def halved(one: Embedded) -> Fetched:
            return Fetched(one.embedding.half())  # the file's own type already on the device: half as much to copy

        shown = self.job.progress and shard.alone
        yield from small_then_large(
            images,
            skips,
            lambda some: map_embedded(
                embedder, images, some, halved, write, skips, "embed", shown, batch=self.job.batch, versions=versions
            ),
            lambda i: _write_large(embedder, images, i, out),
        )


def _write_embedding(
    embedder: Embedder,
    found: Fetched,
    sizes: tuple[tuple[int, int], tuple[int, int]],
    out: Path,
    name: str,
    version: dict[str, int | str] | None,
) -> dict[str, Any]:
    """Write an embedding (D, h, w); what index.json says about it. Sizes (H, W) of the image and as it was embedded."""
    target, values = out / f"{name}.npy", found.numpy()

    def write(temporary: Path) -> None:
        # Not through a map of the file: a full disk would kill the process, without a word.
        np.save(temporary, np.ascontiguousarray(values, np.float16), allow_pickle=False)

    write_atomically(target, write)
    return {
        "name": name,
        "file": target.relative_to(out).as_posix(),
        "image_size": list(sizes[0]),
        "resized_size": list(sizes[1]),
        "embedding_size": list(values.shape[1:]),
        "stride": embedder.looked_stride,
        # The cells are stretched over the whole image, as in training: the frames coincide.
        "to_image": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
        "source": version,
    }


def _write_large(embedder: Embedder, collection: ImageCollection, index: int, out: Path) -> dict[str, Any]:
    """`_write_embedding` of a large image: its windows' vectors blended, and scaled to unit length again."""
    size, name, version = collection.size(index), collection.names[index], collection.version(index)
    mosaic, target = Mosaic.of(embedder, size), out / f"{name}.npy"
    height, width = mosaic.grid

    def write(temporary: Path) -> None:
        shape = (embedder.dim, height, width)
        with temporary.open("wb") as file:  # not mapped into memory, where it would count, and a full disk would kill
            header = {"descr": "<f2", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            begin = file.tell()
            for first, vectors, _ in blended_rows(
                embedder, collection, index, mosaic, lambda found: found.permute(1, 2, 0)
            ):
                rows = (
                    F.normalize(vectors, dim=2).permute(2, 0, 1).half().contiguous().numpy().astype("<f2", copy=False)
                )
                for number, plane in enumerate(rows):
                    file.seek(begin + (number * height + first) * width * 2)
                    file.write(plane.tobytes())

    write_atomically(target, write)
    scales = (width * mosaic.cell / size[1], height * mosaic.cell / size[0])  # the last cells reach beyond the image
    return {
        "name": name,
        "file": target.relative_to(out).as_posix(),
        "image_size": list(size),
        "resized_size": [math.ceil(height * mosaic.seen), math.ceil(width * mosaic.seen)],
        "embedding_size": [height, width],
        "stride": embedder.looked_stride,
        "to_image": [[scales[0], 0.0, scales[0] - 1], [0.0, scales[1], scales[1] - 1]],
        "source": version,
    }


def _is_done(progress: ProgressFile, collection: ImageCollection, index: int, out: Path) -> bool:
    """Whether an image's embedding was made from the image as it is now, and is whole."""
    entry = progress.made_from(collection.names[index], collection.version(index))
    return entry is not None and _is_whole(out, entry)


def _is_whole(out: Path, entry: dict[str, Any]) -> bool:
    """Whether the file of an embedding is what its entry says."""
    try:
        return _shape(out / entry["file"])[1:] == tuple(entry["embedding_size"])
    except (ValueError, KeyError, TypeError, OSError, EOFError):  # a file that is gone, cut off or empty
        return False


def _told(index: Path) -> tuple[str, frozenset[str]]:
    """The embedder that an index.json is of, "" if there is none, and the names of the images that it lists."""
    try:
        values = read_json(index, MOST_LINES)
        return str(values["embedder"]), frozenset(str(image["name"]) for image in values.get("images", ()))
    except FileNotFoundError:
        return "", frozenset()
    except (ValueError, KeyError, TypeError, AttributeError):
        return "?", frozenset()


def _shape(file: Path) -> tuple[int, ...]:
    shape: tuple[int, ...] = np.load(file, mmap_mode="r", allow_pickle=False).shape
    return shape
