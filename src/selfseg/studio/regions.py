"""The regions of a collection: superpixels of every image, a vector for each, and a tree over those of each image.

One pass over the images, as long as `embed` takes, and memory-mapped afterwards. `RUN/studio/regions/` holds

    images.jsonl      a header, then a line for each image that could be read: its name, content hash, sizes, and where
                      its part of the other files ends
    vectors.bin       float16 (N, D)
    facts.bin         area, centre and mean colour of each region (`_FACT`)
    superpixels.bin   of each image its superpixels (h, w) uint16, deflated
    trees.bin         of each image (n - 1, 3) float32

Each file only grows. A line is written when all that it tells of is on the disk, so that a pass that was ended, however
it was, goes on behind the last whole line; the store is complete when the last line says so.

Pixels of measured images where nothing was measured are in no region: `VOID` in the superpixels. An image without any
other is left out.

Letters in shapes: N regions of the collection, n those of an image, D embedding dimension, H W pixels of an image, h w
working size of its superpixels.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from selfseg.collection.opening import Images, collect_for, load, whole_images
from selfseg.collection.streaming import Fetched, WriteBehind, embed_images
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.measured import ImagePlace, Part
from selfseg.data.reading.skipping import SkipLog
from selfseg.errors import EmptyCollection, RunError, StorageError
from selfseg.models.embedder import Embedder, Looks
from selfseg.ops.levels import fill_void, level_scale, measured, nearest_measured
from selfseg.ops.regions.region_tree import cut_regions, region_tree
from selfseg.ops.regions.slic import slic
from selfseg.ops.regions.smoothing import REGIONS, cell_places, pool_map
from selfseg.storage.files import mark_output, sole_use, storage_errors
from selfseg.storage.hashes import embedder_hash
from selfseg.storage.reading import parse_json
from selfseg.threads import one_thread_each

VOID = 65_535
"""What stands in the superpixels where nothing was measured."""

_FORMAT = 1
_LONGEST = 1024  # px of the kept superpixels
_COLOUR_WEIGHT = 0.3  # of CIELAB, in units of 100, beside a unit vector in the tree
_FACT = np.dtype([("area", "<f4"), ("centre", "<f4", 2), ("colour", "u1", 3), ("unused", "u1")])
_PARTS = ("vectors", "facts", "superpixels", "trees")


class RegionStore:
    """The regions of a collection, as `build` wrote them.

    Attributes:
        key: another one for other images, another embedder or other looks.
        names: of the images that could be read, in the collection's order.
        unusable: how many images of the collection could not be used; 0 where an earlier version didn't note it.
        hashes: of their contents, 32 hex digits each.
        sizes: (images, 2) int32, H and W of each image, upright.
        first: (images + 1,) int64; the regions of image i are the rows `first[i]` to `first[i + 1]`.
        vectors: (N, D) float16 on the disk, the regions' unit vectors as `Embedder.embed` has them.
        areas: (N,) float32, shares of their image.
        centres: (N, 2) float32, y and x in [0, 1].
        colours: (N, 3) uint8, mean RGB; of measured images the first three channels, 0 where there are fewer.
    """

    def __init__(self, folder: Path, header: dict[str, Any], entries: Sequence[dict[str, Any]]) -> None:
        self.key = str(header["key"])
        self.names = tuple(str(entry["name"]) for entry in entries)
        self.unusable = max(0, int(header.get("images", 0)) - len(self.names))
        self.hashes = tuple(str(entry["hash"]) for entry in entries)
        self.sizes = np.array([entry["size"] for entry in entries], np.int32).reshape(-1, 2)
        counts = [int(entry["regions"]) for entry in entries]
        self.first = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
        total, dim = int(self.first[-1]), int(header["dim"])
        self.vectors: NDArray[np.float16] = np.memmap(folder / "vectors.bin", "<f2", "r", shape=(total, dim))
        facts = np.fromfile(folder / "facts.bin", _FACT, total)
        self.areas: NDArray[np.float32] = np.ascontiguousarray(facts["area"])
        self.centres: NDArray[np.float32] = np.ascontiguousarray(facts["centre"])
        self.colours: NDArray[np.uint8] = np.ascontiguousarray(facts["colour"])
        self._shapes = [tuple(entry["superpixels"]) for entry in entries]
        self._ends = np.array([[0, 0], *(entry["ends"][2:] for entry in entries)], np.int64)
        self._last: tuple[int, NDArray[np.uint16]] = (-1, np.zeros((0, 0), np.uint16))  # many ask for the same again
        # Mapped from now on: another process may find the regions of other images, and replaces the files then.
        self._maps = [_mapped(folder / f"{_PARTS[2 + i]}.bin", int(self._ends[-1, i])) for i in range(2)]

    @classmethod
    def build(
        cls,
        run: Path | str,
        images: Images,
        *,
        device: str = "auto",
        looks: Looks | None = None,
        progress: bool = True,
        max_bad: float = 0.05,
    ) -> RegionStore:
        """The regions of a collection; found if they aren't there yet, or are of another embedder or other images.

        Args:
            run: the run's folder.
            images: a folder, a list file, NAME:ROOT, paths, a collection, arrays, tensors or PIL images.
            device: see `selfseg.load`.
            looks: how often each image is looked at; once if None.
            progress: whether to show a progress bar on stderr.
            max_bad: share of unreadable images that is an error, in [0, 1].

        Raises:
            RunError: see `selfseg.load`.
            EmptyCollection: if there are no images, or none can be read.
            TooManyBadImages: if too many can't be read.
            StorageError: if the disk is full, or another process finds them at the moment.
        """
        run, collection = Path(run), collect_for(run, images)
        folder = run / "studio" / "regions"
        key = _key(run, collection, looks or Looks())
        header, entries = _read(folder)
        if header.get("key") == key and header.get("complete"):
            return cls(folder, header, entries)
        embedder = load(run, device, looks)
        mark_output(folder)
        with sole_use(folder, fixed=True):
            _fill(folder, key, embedder, collection, progress, max_bad)
        return cls.open(run)

    @classmethod
    def open(cls, run: Path | str) -> RegionStore:
        """The regions that `build` found.

        Raises:
            RunError: if there are none yet, or not of all images.
        """
        folder = Path(run) / "studio" / "regions"
        header, entries = _read(folder)
        if not header.get("complete"):
            raise RunError(f"the regions of {run} are not found yet; run: selfseg studio {run} IMAGES")
        return cls(folder, header, entries)

    def superpixels(self, image: int) -> NDArray[np.uint16]:
        """(h, w) numbers 0 to n - 1 of an image's regions, `VOID` where nothing was measured."""
        known, found = self._last
        if known == image:
            return found
        start, end = self._ends[image, 0], self._ends[image + 1, 0]
        found = np.frombuffer(zlib.decompress(self._maps[0][start:end].data), "<u2").reshape(self._shapes[image])
        self._last = image, found
        return found

    def spread(self, image: int, values: NDArray[Any], void: Any) -> NDArray[Any]:
        """The values of an image's regions, (n,), at its superpixels' pixels, (h, w); `void` where there is none."""
        superpixels = self.superpixels(image)
        return np.append(values, np.array([void], values.dtype))[np.minimum(superpixels, len(values))]

    def tree(self, image: int) -> NDArray[np.float32]:
        """(n - 1, 3) of `selfseg.ops.regions.region_tree`."""
        start, end = self._ends[image, 1], self._ends[image + 1, 1]
        return self._maps[1][start:end].view("<f4").reshape(-1, 3)

    def region_at(self, image: int, x: float, y: float) -> int:
        """The number 0 to n - 1 of the region at a place, x and y in [0, 1]; `VOID` where nothing was measured."""
        superpixels = self.superpixels(image)
        height, width = superpixels.shape
        row, column = min(int(y * height), height - 1), min(int(x * width), width - 1)
        return int(superpixels[max(row, 0), max(column, 0)])

    def segment_at(self, image: int, x: float, y: float, level: float) -> NDArray[np.int64]:
        """Rows of the segment at a place, where the image is cut into `level` segments; its region from n on.

        None where nothing was measured.
        """
        region = self.region_at(image, x, y)
        if region == VOID:
            return np.zeros(0, np.int64)
        start, count = int(self.first[image]), int(self.first[image + 1] - self.first[image])
        if level >= count:
            return np.array([start + region], np.int64)
        groups = cut_regions(self.tree(image), max(int(level), 1))
        return start + np.flatnonzero(groups == groups[region])


def _mapped(path: Path, length: int) -> NDArray[np.uint8]:
    """The first bytes of a file, as long as they are looked at only; a file of none can't be mapped."""
    return np.memmap(path, np.uint8, "r", shape=(length,)) if length else np.zeros(0, np.uint8)


def regions_of(
    seen: NDArray[np.uint8], embedding: NDArray[np.float32], rgb: bool = True
) -> tuple[NDArray[np.uint16], NDArray[np.float32], NDArray[Any], NDArray[np.float32]]:
    """An image's regions.

    Args:
        seen: (H, W, 3) uint8 RGB, or (H, W, C) levels of which some are measured, as the embedder looked at it.
        embedding: (D, h, w) of it.
        rgb: whether it is a photograph.

    Returns:
        The superpixels at their working size, (n, D) unit vectors, (n,) facts, and the tree.
    """
    height, width = seen.shape[:2]
    where = None if rgb else measured(seen)
    seen = seen if rgb else fill_void(seen)
    # The very superpixels over which embeddings are smoothed: a region's vector is then the embedding in all of it.
    regions = slic(seen, size=max(2, round(math.sqrt(height * width / REGIONS))), rgb=rgb)
    vectors = _pool(embedding, regions, int(regions.max()) + 1)
    if where is not None:
        # Regions of which nothing was measured go, and their pixels to what is nearest, so that the rest still touch.
        kept, numbers = np.unique(regions[where], return_inverse=True)
        vectors, regions = vectors[kept], regions.copy()
        regions[where] = numbers
        regions = regions.ravel()[nearest_measured(where)].reshape(height, width)
    counted = slice(None) if where is None else where.ravel()
    flat = regions.ravel()[counted]
    areas = np.bincount(flat)
    rows, columns = (place[counted] for place in np.divmod(np.arange(regions.size), width))
    centre = np.stack(
        [np.bincount(flat, (place + 0.5) / side) / areas for place, side in ((rows, height), (columns, width))], 1
    )
    colour = np.stack([np.bincount(flat, each.ravel()[counted]) / areas for each in np.moveaxis(seen, 2, 0)], 1)
    facts = np.zeros(len(areas), _FACT)
    facts["area"], facts["centre"] = areas / regions.size, centre
    facts["colour"][:, : colour.shape[1]] = colour[:, :3].round()
    if rgb:
        lab = cv2.cvtColor((colour / 255).astype(np.float32)[None], cv2.COLOR_RGB2Lab)[0]
    else:
        lab = (colour * level_scale(colour.shape[1])).astype(np.float32)
    tree = region_tree(regions, np.concatenate([vectors, _COLOUR_WEIGHT * lab / 100], 1), areas / regions.size)
    if where is not None:
        regions = np.where(where, regions, VOID)
    factor = min(1.0, _LONGEST / max(height, width))
    if factor < 1:
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        regions = np.asarray(cv2.resize(regions.astype(np.uint16), size, interpolation=cv2.INTER_NEAREST))
    return regions.astype(np.uint16), vectors, facts, tree


def _pool(embedding: NDArray[np.float32], regions: NDArray[np.integer], count: int) -> NDArray[np.float32]:
    """(n, D) unit vectors: the mean of the cells whose middle lies in each region."""
    dim, h, w = embedding.shape
    rows, columns = cell_places(regions.shape[0]), cell_places(regions.shape[1])
    if (len(rows), len(columns)) != (h, w):  # not a smoothed map: its cells are stretched over the image
        rows, columns = (
            ((np.arange(cells) + 0.5) * (side / cells)).astype(np.int64)
            for cells, side in zip((h, w), regions.shape, strict=True)
        )
    cells = regions[rows[:, None], columns].ravel()
    values = embedding.reshape(dim, -1)
    order = np.argsort(cells, kind="stable")
    there, start = np.unique(cells[order], return_index=True)
    vectors = np.zeros((count, dim), np.float32)
    vectors[there] = np.add.reduceat(values[:, order], start, axis=1).T
    if len(there) < count:  # regions between the cells' middles
        absent = np.setdiff1d(np.arange(count), there)
        vectors[absent] = pool_map(embedding, regions)[absent]
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return vectors


def _key(run: Path, collection: ImageCollection, looks: Looks) -> str:
    """What regions depend on, in short."""
    digest = hashlib.blake2b(digest_size=16)
    for fact in (_FORMAT, REGIONS, embedder_hash(run), asdict(looks)):
        digest.update(json.dumps(fact).encode())
    for index, name in enumerate(collection.names):
        digest.update(json.dumps([name, collection.version(index)]).encode())
    return digest.hexdigest()


def _content_hash(collection: ImageCollection, index: int, image: NDArray[np.uint8]) -> str:
    """Of the file, and of what part of it the image is; of the pixels where there is no file."""
    path = collection.file(index)
    part = collection.part(index)
    if not path.is_file():
        return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).hexdigest()
    status = path.stat()
    found = _file_hash(path, status.st_size, status.st_mtime_ns)
    if part is None or part == Part():
        return found
    return hashlib.blake2b(json.dumps([found, *ImagePlace("", part).to_json()]).encode(), digest_size=16).hexdigest()


@lru_cache(maxsize=64)
def _file_hash(path: Path, size: int, modified: int) -> str:
    """Of a file as it is now; a raster's windows ask one after the other."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The header, {} without one, and the images' lines; the header's "complete" tells whether they are all."""
    header: dict[str, Any] = {}
    entries: list[dict[str, Any]] = []
    for line in _lines(folder / "images.jsonl"):
        if not header:
            header = {**line, "complete": False}
        elif "complete" in line:
            header |= {"complete": True, "images": line.get("images", 0)}  # and no other value of a later line
        else:
            entries.append(line)
    return header, entries


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a file; what was cut off ends it."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"can't read {path}: {error.strerror or error}") from error
    for line in data.split(b"\n")[:-1]:
        try:
            value = parse_json(line)
        except ValueError:
            return
        if not isinstance(value, dict):
            return
        yield value


def _fill(
    folder: Path, key: str, embedder: Embedder, collection: ImageCollection, progress: bool, max_bad: float
) -> None:
    """Find the regions of all images that don't have them yet."""
    header, entries = _read(folder)
    if header.get("key") != key or header.get("complete"):
        entries = []
        for name in ("images.jsonl", *(f"{part}.bin" for part in _PARTS)):
            (folder / name).unlink(missing_ok=True)  # not overwritten: who has the old ones open may still read them
    log = SkipLog(folder / "skipped.jsonl", len(collection), max_bad)
    done = {entry["name"] for entry in entries}
    last = max((i for i, name in enumerate(collection.names) if name in done), default=-1)
    # In the collection's order: what comes before the last one that was done was skipped, and is again.
    todo = [i for i in whole_images(collection, log) if i > last]
    # Regions are found beside the embeddings of the next images: with threads of its own a product's sums would depend
    # on what else is at work.
    with storage_errors(folder), one_thread_each(), ExitStack() as stack:
        index = stack.enter_context(_grown(folder / "images.jsonl", None))
        ends = entries[-1]["ends"] if entries else [0] * len(_PARTS)
        files = [
            stack.enter_context(_grown(folder / f"{name}.bin", end)) for name, end in zip(_PARTS, ends, strict=True)
        ]
        index.truncate(0)
        lines = [{"key": key, "format": _FORMAT, "dim": embedder.dim}, *entries]
        _append(index, b"".join(json.dumps(line).encode() + b"\n" for line in lines))

        written = []

        def found_regions(seen: NDArray[np.uint8], image: NDArray[np.uint8], found: Fetched, i: int) -> Any:
            if not collection.rgb and not seen.any():
                return None, image.shape[:2], "", i
            found_here = regions_of(seen, found.numpy(), collection.rgb)
            return found_here, image.shape[:2], _content_hash(collection, i, image), i

        def finished(result: Any) -> None:
            if result[0] is None:
                log.add_all([(collection.names[result[3]], "void", "nothing was measured in it")], counted=False)
                return
            (superpixels, vectors, facts, tree), size, digest, i = result
            data = (
                vectors.astype("<f2").tobytes(),
                facts.tobytes(),
                zlib.compress(superpixels.astype("<u2").tobytes(), 1),
                tree.astype("<f4").tobytes(),
            )
            for file, part in zip(files, data, strict=True):
                _append(file, part)
            entry = {
                "name": collection.names[i],
                "hash": digest,
                "size": list(size),
                "superpixels": list(superpixels.shape),
                "regions": len(facts),
                "ends": [file.tell() for file in files],
            }
            _append(index, json.dumps(entry).encode() + b"\n")
            written.append(i)

        with WriteBehind(finished) as writer:
            for i, image, seen, embedding in embed_images(embedder, collection, todo, log, "regions", progress):
                writer.call(found_regions, seen, image, Fetched(embedding), i)
        if not (entries or written) and not collection.rgb:
            raise EmptyCollection(f"nothing was measured in any of the {len(collection)} images")
        for file in (*files, index):
            os.fsync(file.fileno())
        _append(index, json.dumps({"complete": True, "images": len(collection)}).encode() + b"\n")
        os.fsync(index.fileno())


def _grown(path: Path, end: int | None) -> IO[bytes]:
    """A file to append to, cut where the last whole line says that it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab")
    if end is not None:
        if file.tell() < end:
            file.close()
            raise StorageError(f"{path} is shorter than it was; remove {path.parent} and run the command again")
        file.truncate(end)
        file.seek(0, os.SEEK_END)
    return file


def _append(file: IO[bytes], data: bytes) -> None:
    file.write(data)
    file.flush()
