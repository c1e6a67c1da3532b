"""A trained run on a folder of images: load it, embed, find clusters, segment.

Each function is the command of the same name. All of them skip images that can't be read, count and list them, write
their files atomically, and can be called again after an interruption.

Letters in shapes: H W pixels of an image, D embedding dimension, h w embedding cells, K clusters, N points.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfseg.collection.clusters import Clusters, add_position, load_clusters, save_clusters
from selfseg.collection.streaming import Fetched, WriteBehind, embed_images, to_device, usable_cores
from selfseg.data.labelled.catalog import find_images
from selfseg.data.reading.images import ImageCollection, SkipLog, scan
from selfseg.drawing.pictures import hex_colour, overlay, palette, write_image
from selfseg.errors import ConfigError, EmptyCollection, RunError
from selfseg.models.embedder import Embedder
from selfseg.ops.kmeans import kmeans
from selfseg.storage.files import mark_output, storage_errors, write_atomically, write_json
from selfseg.storage.hashes import embedder_hash

Images = str | Path | Sequence[Path] | ImageCollection


def load(run: Path | str, device: str = "auto") -> Embedder:
    """The embedder that a run has learned so far, in evaluation mode.

    Args:
        run: the run's folder.
        device: where it shall live: "auto" (CUDA if there is any), "cpu", "cuda", "cuda:1", ...

    Raises:
        RunError: if the folder is missing, is not a run, or holds no embedder yet.
        ConfigError: if the device is not there.
    """
    run = Path(run)
    if not run.is_dir():
        raise RunError(f"there is no run at {run}; give the folder that training wrote with --out")
    if not (run / "embedder" / "embedder.json").is_file():
        if not any((run / name).exists() for name in ("recipe.yaml", "log.jsonl", "checkpoints")):
            raise RunError(f"{run} is not a run (no recipe.yaml, log.jsonl or embedder/ in it)")
        raise RunError(
            f"{run} has no embedder yet; training writes it: run the same train command again and it goes on"
        )
    return Embedder.load(run / "embedder").to(choose_device(device)).eval()


def choose_device(device: str) -> torch.device:
    """The device that a word names; "auto" is CUDA if there is any, else the CPU.

    Raises:
        ConfigError: if the word is no device or the device is not there.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device {device!r} is not known; use auto, cpu, cuda or cuda:N") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {device!r} is not there ({torch.cuda.device_count()} CUDA devices); use auto or cpu")
    return chosen


def embed(
    run: Path | str,
    images: Images,
    out: Path | str,
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
    embedder = load(run, device)
    fingerprint = embedder_hash(run)
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
        "stride": embedder.stride,
        "normalised": embedder.normalised,
        "resolution": embedder.resolution,
        "dtype": "float16",
        "layout": "D,h,w",
        "frame": "[-1, 1] (x, y), align_corners=False",
        "images": [done[name] for name in collection.names if name in done],
    }
    write_json(out / "index.json", index)
    return out / "index.json"


def cluster(
    run: Path | str,
    images: Images,
    k: Sequence[int] = (27,),
    seed: int = 0,
    points: int = 200_000,
    position: float = 0.0,
    device: str = "auto",
    progress: bool = True,
    max_bad: float = 0.05,
) -> tuple[Path, ...]:
    """Group the pixels of a collection into concepts: k-means on their embeddings, for each k from one pass.

    Writes `RUN/clusters/k{K}.safetensors` (centroids) and `k{K}.json` (see `Clusters`).

    Args:
        run: the run's folder.
        images: a folder, a list file, NAME:ROOT, paths or a collection.
        k: the numbers of clusters.
        seed: of the sampled images and pixels, and of k-means.
        points: how many pixels to sample in all, equally many from each image. From more than points / 64 images,
            points / 64 are drawn and 64 pixels of each.
        position: how much a pixel's place in its image has a say (`selfseg.collection.clusters.add_position`);
            above 0 for cameras that stand or always look ahead, e.g. 1.
        device: see `load`.
        progress: whether to show a progress bar on stderr.
        max_bad: share of unreadable images that is an error, in [0, 1].

    Returns:
        The paths of the JSON files, in the order of `k`.

    Raises:
        ConfigError: if a k is below 2 or above the number of points that the images give.
        RunError: see `load`.
        EmptyCollection: if there are no images, or none could be read.
        TooManyBadImages: if too many can't be read.
    """
    counts = (k,) if isinstance(k, int) else tuple(k)
    if not counts or min(counts) < 2:
        raise ConfigError(f"k is {counts}; give one or more numbers of clusters, each 2 or more")
    if max(counts) > points:
        raise ConfigError(f"k = {max(counts)} is more than {points} points; lower k or raise points")
    embedder = load(run, device)
    collection = collect(images)
    log = SkipLog(Path(run) / "clusters" / "skipped.jsonl", len(collection), max_bad)
    samples, owners = sample_pixels(embedder, collection, seed, points, position, log, progress)
    if max(counts) > len(samples):
        raise ConfigError(f"k = {max(counts)} is more than the {len(samples)} points that the images give; lower k")
    return tuple(
        _cluster_once(
            Path(run),
            collection,
            samples,
            owners,
            count,
            {"seed": seed, "position": position, "skipped": len(log.skipped)},
        )
        for count in counts
    )


def segment(
    run: Path | str,
    images: Images,
    out: Path | str,
    k: int | None = None,
    device: str = "auto",
    progress: bool = True,
    max_bad: float = 0.05,
) -> Path:
    """Segment each image at its own size with a run's clusters.

    Writes `out/index/NAME.png` (the cluster of each pixel; 8 bit up to k = 256, else 16 bit), `out/overlay/NAME.jpg`
    (the photograph with coloured segments), `out/legend.json` (the clusters' colours) and `out/skipped.jsonl`.

    Args:
        run: the run's folder.
        images: a folder, a list file, NAME:ROOT, paths or a collection.
        out: the folder to write.
        k: which clustering; the largest one there is if None.
        device: see `load`.
        progress: whether to show a progress bar on stderr.
        max_bad: share of unreadable images that is an error, in [0, 1].

    Returns:
        `out`.

    Raises:
        RunError: if the run has no such clusters yet; see `load` too.
        EmptyCollection: if there are no images, or none can be read.
        TooManyBadImages: if too many can't be read.
        StorageError: if the disk is full.
    """
    embedder = load(run, device)
    clusters = load_clusters(run, k)
    clusters = replace(clusters, centroids=clusters.centroids.to(embedder.mean.device))  # once, not for each image
    collection, out = collect(images), Path(out)
    colours = palette(clusters.k)
    for kind in ("index", "overlay"):
        mark_output(out / kind)
    log = SkipLog(out / "skipped.jsonl", len(collection), max_bad)

    def write(name: str, image: NDArray[np.uint8], found: Fetched) -> None:
        ids = found.numpy()
        write_image(out / "index" / f"{name}.png", ids)
        write_image(out / "overlay" / f"{name}.jpg", overlay(image, ids, colours))

    whole = whole_images(collection, log)
    writer: WriteBehind[None] = WriteBehind()
    with writer:
        for i, image, _, embedding in embed_images(embedder, collection, whole, log, "segment", progress):
            found = clusters.assign_later(embedding, (image.shape[0], image.shape[1]))
            writer.call(write, collection.names[i], image, found)
    legend = [
        {"cluster": c, "colour": hex_colour(colour), "share": share}
        for c, (colour, share) in enumerate(zip(colours, clusters.share, strict=True))
    ]
    write_json(out / "legend.json", {"k": clusters.k, "embedder": embedder_hash(run), "clusters": legend})
    return out


def whole_images(collection: ImageCollection, log: SkipLog, indices: Sequence[int] | None = None) -> list[int]:
    """Those of `indices` (None: all) that `scan` finds whole; damage inside of a file shows only when it is read.

    Raises:
        TooManyBadImages: at once, when all of the bad ones are in `log`; see `SkipLog`.
        EmptyCollection: if none is left.
    """
    wanted = range(len(collection)) if indices is None else indices
    scan(collection if indices is None else collection.subset(indices), log)
    return [i for i in wanted if collection.names[i] not in log.skipped]


def collect(images: Images) -> ImageCollection:
    """The collection that a folder, a list file, NAME:ROOT (see `selfseg.data.labelled.catalog`) or paths name.

    Raises:
        EmptyCollection: if there is no image.
    """
    collection = images if isinstance(images, ImageCollection) else find_images(images)
    if len(collection) == 0:
        raise EmptyCollection(f"no images in {images}; give a folder with images, or a .txt file that lists them")
    return collection


def sample_pixels(
    embedder: Embedder,
    collection: ImageCollection,
    seed: int,
    points: int,
    position: float,
    log: SkipLog,
    progress: bool = True,
) -> tuple[Tensor, Tensor]:
    """Embeddings of pixels drawn from a collection; a pure function of (seed, image index).

    Returns:
        (N, D) float32 on the embedder's device, (N, D + 4) with a `position` above 0 (`add_position`), and (N,) int64
        on the CPU: the image that each is of. N is at most about `points`, less where images have fewer cells.

    Raises:
        EmptyCollection: if no image could be read.
    """
    most_images = max(1, points // 64)
    chosen = np.arange(len(collection))
    if len(collection) > most_images:
        chosen = np.sort(np.random.default_rng(seed).choice(len(collection), most_images, replace=False))
    per_image = max(1, math.ceil(points / len(chosen)))
    samples, owners = [], []
    whole = whole_images(collection, log, chosen.tolist())
    readers = max(2, usable_cores())  # nothing is written meanwhile
    for i, _, _, embedding in embed_images(embedder, collection, whole, log, "cluster", progress, threads=readers):
        vectors = add_position(embedding, position).flatten(1)  # (D, h w)
        count = min(per_image, vectors.shape[1])
        drawn = np.random.default_rng((seed, i)).choice(vectors.shape[1], count, replace=False)
        samples.append(vectors[:, to_device(np.sort(drawn), vectors.device)].T.contiguous())
        owners.append(torch.full((count,), i))
    if not samples:
        raise EmptyCollection(f"none of the {len(chosen)} images in {collection.root} could be read")
    return torch.cat(samples), torch.cat(owners)


def _cluster_once(
    run: Path, collection: ImageCollection, samples: Tensor, owners: Tensor, k: int, info: Mapping[str, Any]
) -> Path:
    """k-means for one k, and what the clusters look like; `info` holds the seed and what else is to be kept."""
    result = kmeans(samples, k, seed=info["seed"])
    centroids = torch.nn.functional.normalize(result.centroids.float(), dim=1).cpu()
    # Sorted by size, so that cluster 0 is the largest and colours mean the same kind of thing in each run.
    assignment = result.assignment.cpu()
    order = torch.bincount(assignment, minlength=k).sort(descending=True, stable=True).indices
    centroids, assignment = centroids[order], torch.argsort(order)[assignment]
    vectors = torch.nn.functional.normalize(samples.cpu().float(), dim=1)
    similarity = (vectors * centroids[assignment]).sum(1).clamp(min=0)
    images, place = torch.unique(owners, return_inverse=True)
    # Mean similarity times area is the sum of similarities over the image's number of points.
    total = torch.zeros(len(images) * k).index_add_(0, place * k + assignment, similarity).reshape(-1, k)
    score = total / torch.bincount(place)[:, None]
    best = score.topk(min(12, len(images)), dim=0)
    clusters = Clusters(
        centroids=centroids,
        share=tuple((torch.bincount(assignment, minlength=k) / len(assignment)).tolist()),
        typical=tuple(
            tuple(
                collection.names[int(images[i])]
                for i, value in zip(best.indices[:, c].tolist(), best.values[:, c].tolist(), strict=True)
                if value > 0
            )
            for c in range(k)
        ),
        info={
            "k": k,
            "images": str(collection.root),
            "count": len(images),
            "points": len(samples),
            "inertia": result.inertia,
            **info,
            "embedder": embedder_hash(run),
        },
    )
    return save_clusters(run, clusters)


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
        "stride": embedder.stride,
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
