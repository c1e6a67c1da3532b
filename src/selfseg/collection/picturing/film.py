"""How an embedding came about: the same images at each checkpoint that was kept, in the colours of the last one.

The three principal components of the embedding as red, green and blue (ViCE's figure 4 at the end of the training), by
one basis, that of the finished embedder: what changes is the embedding and not the colours' meaning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from selfseg.collection.false_colours import painter_of
from selfseg.collection.opening import Images, choose_device, collect, load, whole_images
from selfseg.collection.streaming import embed_images
from selfseg.data.reading.images import spread_indices
from selfseg.data.reading.skipping import SkipLog
from selfseg.drawing.figures import Figure, figure
from selfseg.drawing.pictures import Picture, data_uri_of, fit_within, pca_picture, stored_basis, tile
from selfseg.errors import ConfigError, EmptyCollection, RunError
from selfseg.models.embedder import Embedder
from selfseg.pages.gallery import Gallery, Part, Row, Shown, write_gallery
from selfseg.storage.checkpoint import complete_checkpoints, load_checkpoint
from selfseg.storage.files import write_atomically
from selfseg.storage.hashes import embedder_hash
from selfseg.storage.remote.places import at_places, of_film

_LONGEST = 360  # of a picture, in px
_FRAME_MS, _LAST_MS = 600, 2400
_STILLS = 5  # frames that the page shows beside each other


@at_places(runs=["run"], wanted=of_film)
def film(
    run: Path | str,
    images: Images,
    count: int = 4,
    device: str = "auto",
    progress: bool = True,
    max_bad: float = 0.05,
) -> Path:
    """Show how a run's embedding came about.

    Writes the animation RUN/film.webp, and the page RUN/film.html with it and with single pictures.

    Each frame is a checkpoint. A run keeps its newest two checkpoints, unless it is trained with e.g. `--keep 30
    --checkpoint-every 20`. If the training began as a pyramid, the pyramid is the first frame.

    Args:
        run: the run's folder.
        images: a folder, a list file, NAME:ROOT, paths, a collection, arrays, tensors or PIL images.
        count: how many images are shown, spread evenly over the collection.
        device: see `selfseg.load`.
        progress: whether to show progress bars on stderr.
        max_bad: share of unreadable images that is an error, in [0, 1].

    Returns:
        The page's path.

    Raises:
        ConfigError: for a count below 1.
        RunError: if there are fewer than two frames, or the checkpoints are not the embedder's; see `selfseg.load` too.
        EmptyCollection: if there are no images, or none could be read.
        TooManyBadImages: if too many can't be read.
        StorageError: if the disk is full.
    """
    run = Path(run)
    if count < 1:
        raise ConfigError(f"count must be at least 1, not {count}")
    chosen = choose_device(device)
    final = load(run, device)
    paths = complete_checkpoints(run / "checkpoints")
    if len(paths) + (final.before_training() is not None) < 2:
        raise RunError(
            f"{run} keeps {len(paths)} checkpoints, and a film needs at least two frames: train with more, e.g. "
            "--keep 30 --checkpoint-every 20"
        )
    collection = collect(images, final)
    painter = painter_of(collection)
    log = SkipLog(None, len(collection), max_bad)
    whole = whole_images(collection, log)
    wanted = [whole[i] for i in spread_indices(len(whole), count)]

    def look(embedder: Embedder, what: str) -> list[tuple[int, Picture, Tensor]]:
        with torch.no_grad(), closing(embed_images(embedder, collection, wanted, log, what, progress)) as found:
            return [(one.number, fit_within(painter(one.seen), _LONGEST), one.embedding.cpu()) for one in found]

    last = look(final, "the last")
    if not last:
        raise EmptyCollection(f"none of the {len(wanted)} images tried in {collection.root} could be read")
    basis = stored_basis(run, embedder_hash(run), lambda: [embedding for _, _, embedding in last])
    frames: list[tuple[str, list[Picture], float]] = []
    for name, embedder in _embedders(run, final, paths):
        seen = look(embedder.to(chosen), name)
        maps = [pca_picture(embedding, basis, photo.shape[:2]) for _, photo, embedding in seen]
        near = [
            float((embedding * end).sum(0).mean()) for (_, _, embedding), (_, _, end) in zip(seen, last, strict=True)
        ]
        frames.append((name, maps, float(np.mean(near))))
    photos = [photo for _, photo, _ in last]
    drawn = [_frame(photos, maps, name) for name, maps, _ in frames]
    _write_animation(run / "film.webp", drawn)
    moving = Figure(
        data_uri_of((run / "film.webp").read_bytes(), "webp"),
        "the whole training",
        drawn[0].shape[1],
        drawn[0].shape[0],
    )
    stills = spread_indices(len(frames), _STILLS)
    rows = tuple(
        Row(
            collection.names[number],
            (
                Shown(figure(photo, collection.names[number]), painter.word("photograph")),
                *(
                    Shown(figure(frames[i][1][place], f"{collection.names[number]}, {frames[i][0]}"), frames[i][0])
                    for i in stills
                ),
            ),
        )
        for place, (number, photo, _) in enumerate(last)
    )
    nearness = ", ".join(f"{name} {near:.2f}" for name, _, near in frames)
    gallery = Gallery(
        brand="how the embedding came about",
        title=run.resolve().name,
        facts=(("frames", str(len(frames))), ("from", frames[0][0]), ("to", frames[-1][0])),
        lead=(
            "Three directions of the embedding as red, green and blue, the same in all frames: those in which the last "
            "embedding differs most. Early frames may hold differences that these directions don't show.",
            f"Mean cosine between a pixel's vector then and at the end: {nearness}. Where it no longer changes, "
            "further steps change little; it doesn't say that the embedding is good.",
            *painter.note,
        ),
        parts=(
            Part("The film", "Also in film.webp.", (Row("", (Shown(moving),)),), 1),
            Part("Stills", "", rows, 1 + len(stills)),
        ),
        source=f"the images in {collection.root}",
    )
    return write_gallery(run / "film.html", gallery)


def _embedders(run: Path, final: Embedder, paths: Sequence[Path]) -> Iterator[tuple[str, Embedder]]:
    """The embedder at each moment that is known, the earliest first."""
    before = final.before_training()
    if before is not None:
        yield "before the first step", before
    newest = load_checkpoint(paths[-1]).model if paths else {}
    prefix = embedder_prefix(newest, {key: value.cpu() for key, value in final.state_dict().items()}) if paths else ""
    if prefix is None:
        raise RunError(
            f"the newest checkpoint of {run} does not hold the embedder in {run / 'embedder'}: go on with the "
            "training, which writes both together"
        )
    for path in paths:
        checkpoint = load_checkpoint(path)
        embedder = Embedder(final.config)
        embedder.load_state_dict({key: checkpoint.model[prefix + key] for key in embedder.state_dict()})
        yield f"step {checkpoint.step}", embedder.eval()


def embedder_prefix(model: dict[str, Tensor], embedder: dict[str, Tensor]) -> str | None:
    """Where an embedder lies inside a method's weights: with a student and a teacher, the one that is kept.

    Args:
        model: a method's state dict.
        embedder: the state dict of the embedder that was saved with it.

    Returns:
        What stands before its names, or None if it isn't there.

    Example:
        >>> method = {"student.w": torch.zeros(1), "teacher.w": torch.ones(1)}
        >>> embedder_prefix(method, {"w": torch.ones(1)})
        'teacher.'
    """
    first = next(iter(embedder))
    for name in model:
        prefix = name.removesuffix(first)
        if name.endswith(first) and all(
            prefix + key in model and torch.equal(model[prefix + key], value) for key, value in embedder.items()
        ):
            return prefix
    return None


def _frame(photos: Sequence[Picture], maps: Sequence[Picture], name: str) -> Picture:
    """Photographs over their maps, and the moment's name."""
    picture = tile([*photos, *maps], columns=len(photos))
    strip = np.full((34, picture.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, name, (4, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.65, (30, 30, 32), 1, cv2.LINE_AA)
    return np.concatenate([picture, strip])


def _write_animation(path: Path, frames: Sequence[Picture]) -> None:
    """Write an endless animated WebP, atomically; the last frame stays longer."""
    first, *others = [Image.fromarray(frame) for frame in frames]
    times = [*[_FRAME_MS] * len(others), _LAST_MS]
    write_atomically(
        path,
        lambda temporary: first.save(
            temporary, "WEBP", save_all=True, append_images=others, duration=times, loop=0, quality=80
        ),
    )
