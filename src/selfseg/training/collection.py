"""The images of a run: chosen at its start and kept in RUN/images.json, so that a resumed run has the same ones."""

from __future__ import annotations

from pathlib import Path

from selfseg.data.images import ImageCollection, SkipLog, list_images, scan
from selfseg.data.regions import AnyRegions, MaskFolder, NoRegions
from selfseg.errors import CheckpointError
from selfseg.files import read_json, write_json


def open_images(
    source: Path,
    run: Path,
    max_bad: float,
    writes: bool,
    regions: AnyRegions = NoRegions(),  # noqa: B008 (frozen)
) -> tuple[ImageCollection, SkipLog]:
    """The images that a run learns from.

    A new run takes all that can be read; if regions are masks in files, those that have one (the others are listed but
    not counted as bad: whoever made the masks may have rejected them). A resumed one takes those it began with: what
    has gone since is counted and listed, as if it had gone while the run was going on, and what has come since is left
    out. Everything that is drawn depends on the images' number and order.

    Args:
        source: folder or list file.
        run: the run's folder.
        max_bad: share of unreadable images that is an error.
        writes: whether this process writes images.json and skipped.jsonl.
        regions: where regions come from.

    Returns:
        The images, and the list of the skipped ones.

    Raises:
        DataError: if there are no images, too many can't be read, or there are no masks for them.
        CheckpointError: if images.json is damaged.
        StorageError: if the disk is full.
    """
    found = list_images(source)
    record = run / "images.json"
    if record.exists():
        images = _recorded(record, found)
        skips = SkipLog(run / "skipped.jsonl" if writes else None, len(images), max_bad)
        scan(images, skips)
        return images, skips
    skips = SkipLog(run / "skipped.jsonl" if writes else None, len(found), max_bad)
    images = scan(found, skips)
    if isinstance(regions, MaskFolder):
        chosen = regions.choose(images.names)
        without = sorted(set(range(len(images))) - set(chosen))
        skips.add_all(
            ((images.names[i], "no-mask", f"{regions.path(images.names[i])} is missing") for i in without),
            counted=False,
        )
        images = images.subset(chosen)
    return images, skips


def record_images(images: ImageCollection, run: Path) -> None:
    """Write RUN/images.json, if it is not there yet."""
    record = run / "images.json"
    if not record.exists():
        files = [path.relative_to(images.root).as_posix() for path in images.paths]
        write_json(record, dict(zip(images.names, files, strict=True)))


def _recorded(record: Path, found: ImageCollection) -> ImageCollection:
    try:
        files = {str(name): str(file) for name, file in read_json(record).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{record}, the list of the run's images, is damaged: {error}") from error
    here = dict(zip(found.names, found.paths, strict=True))
    paths = tuple(here.get(name, found.root / file) for name, file in files.items())
    return ImageCollection(found.root, paths, tuple(files))
