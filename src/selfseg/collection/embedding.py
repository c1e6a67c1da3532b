"""`selfseg embed`: one vector per pixel of every image, in files that can be mapped into memory.

A call can be repeated after an interruption: what the same embedder made of the same file is kept.

Letters in shapes: D embedding dimension, h w embedding cells.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from selfseg.collection.opening import Images, collect, load, whole_images
from selfseg.collection.streaming import Fetched, WriteBehind, embed_images
from selfseg.data.reading.skipping import SkipLog
from selfseg.models.embedder import Embedder, Looks
from selfseg.storage.files import storage_errors, write_atomically, write_json
from selfseg.storage.hashes import embedder_hash


def embed(
    run: Path | str,
    images: Images,
    out: Path | str,
    looks: Looks | None = None,
    device: str = "auto",
    progress: bool = True,
    max_bad: float = 0.05,
) -> Path:
    """Write the dense embedding of each image, with what is needed to map each cell back to pixels.

    Per image `out/NAME.npy`: (D, h, w) float16, to be opened with `np.load(path, mmap_mode="r")`. `out/index.json` has
    for each image its file, `image_size` (H, W), `resized_size`, `embedding_size` (h, w), `stride` and `to_image`: the
    (2, 3) affine from the embedding to the image, both in [-1, 1] with align_corners=False. The cell (row i, column j)
    lies at ((2 j + 1) / w - 1, (2 i + 1) / h - 1) of the embedding's frame.

    An interrupted call goes on where it stopped: a file is kept if the same embedder made it from the same source file.

    Args:
        run: the run's folder.
        images: a folder, a list file, NAME:ROOT, paths or a collection.
        out: the folder to write.
        looks: how often each image is looked at; once if None (`selfseg.models.embedder.Looks`).
        device: see `load`.
        progress: whether to show a progress bar on stderr.
        max_bad: share of unreadable images that is an error, in [0, 1].

    Returns:
        The path of index.json.

    Raises:
        RunError: see `load`.
        EmptyCollection: if there are no images, or none can be read.
        TooManyBadImages: if too many can't be read.
        StorageError: if the disk is full.
    """
    embedder = load(run, device, looks)
    fingerprint = embedder_hash(run) + embedder.looks.name
    collection, out = collect(images), Path(out)
    log = SkipLog(out / "skipped.jsonl", len(collection), max_bad)
    journal = out / "progress.jsonl"
    done = _read_journal(journal, out, fingerprint)
    whole = whole_images(collection, log)
    todo = [i for i in whole if not _is_done(done.get(collection.names[i]), collection.version(i))]
    with storage_errors(journal):
        out.mkdir(parents=True, exist_ok=True)
        with journal.open("a", encoding="utf-8") as lines:

            def finished(entry: dict[str, Any]) -> None:
                done[entry["name"]] = entry
                lines.write(json.dumps({**entry, "embedder": fingerprint}) + "\n")
                lines.flush()

            with WriteBehind(finished) as writer:
                for i, image, seen, embedding in embed_images(embedder, collection, todo, log, "embed", progress):
                    sizes = (image.shape[0], image.shape[1]), (seen.shape[0], seen.shape[1])
                    # The file's own type already on the device: half as much to copy.
                    values = Fetched(embedding.half())
                    name, version = collection.names[i], collection.version(i)
                    writer.call(_write_embedding, embedder, values, sizes, out, name, version)
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
        "images": [done[name] for name in collection.names if name in done],
    }
    write_json(out / "index.json", index)
    return out / "index.json"


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
        file = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=values.shape)
        file[:] = values
        file.flush()

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


def _read_journal(journal: Path, out: Path, fingerprint: str) -> dict[str, dict[str, Any]]:
    """Entries of an earlier call by the same embedder whose files are whole, by name."""
    done: dict[str, dict[str, Any]] = {}
    if not journal.is_file():
        return done
    for line in journal.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
            if entry.pop("embedder") != fingerprint:
                continue
            shape = np.load(out / entry["file"], mmap_mode="r", allow_pickle=False).shape
            if list(shape[1:]) == entry["embedding_size"]:
                done[entry["name"]] = entry
        except (ValueError, KeyError, OSError):  # a line cut off by a crash, or a file that is gone
            continue
    return done


def _is_done(entry: dict[str, Any] | None, version: dict[str, int | str] | None) -> bool:
    """Whether an entry was made from the image as it is now."""
    return entry is not None and version is not None and bool(entry["source"] == version)
