"""The images of a run: chosen at its start and kept in RUN/images.json, so that a resumed run has the same ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from selfseg.data.labelled.catalog import find_images
from selfseg.data.labelled.mask_files import Kind
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.skipping import SkipLog, scan
from selfseg.data.regions import ObjectMasks
from selfseg.errors import CheckpointError
from selfseg.storage.files import read_json, write_json
from selfseg.training.recipe import Recipe, change_masks, read_recipe


def open_images(source: Path, run: Path, max_bad: float, writes: bool) -> tuple[ImageCollection, SkipLog]:
    """The images that a run learns from.

    A new run takes all that can be read. A resumed one takes those it began with: what has gone since is counted and
    listed, as if it had gone while the run was going on, and what has come since is left out. Everything that is
    drawn depends on the images' number and order.

    Args:
        source: folder, list file or NAME:ROOT, see `selfseg.data.labelled.catalog`.
        run: the run's folder.
        max_bad: share of unreadable images that is an error.
        writes: whether this process writes images.json and skipped.jsonl.

    Returns:
        The images, and the list of the skipped ones.

    Raises:
        DataError: if there are no images or too many can't be read.
        CheckpointError: if images.json is damaged.
        StorageError: if the disk is full.
    """
    found = find_images(source, run / "cache" / "shards")
    record = run / "images.json"
    if record.exists():
        images = _recorded(record, found)
        skips = SkipLog(run / "skipped.jsonl" if writes else None, len(images), max_bad)
        scan(images, skips)
        return images, skips
    skips = SkipLog(run / "skipped.jsonl" if writes else None, len(found), max_bad)
    return scan(found, skips), skips


def settle_masks(
    recipe: Recipe[Any], images: ImageCollection, skips: SkipLog
) -> tuple[Recipe[Any], ImageCollection, str]:
    """Of a run that learns from masks in files, the images that have one, and the recipe with what the masks are.

    Images of a new run without a usable mask are listed but not counted as bad: whoever made the masks may have
    rejected them.

    Args:
        recipe: of the run, in whose folder images.json is only if it has begun.
        images: those that can be read.
        skips: where the others are listed.

    Returns:
        The recipe with `ObjectMasks.content`; the images that are left; a sentence on them. A recipe without masks in
        files is returned as it is, with all images and "".

    Raises:
        DataError: if there is no such folder, or no image has a usable mask.
        CheckpointError: if a run began with masks of other content.
    """
    sentence, begun = "", (recipe.out / "images.json").exists()

    def settle(masks: ObjectMasks) -> ObjectMasks:
        nonlocal images, sentence
        recorded = _recorded_content(recipe.out) if begun else ""
        if not recorded:
            found = masks.survey(images)
            if not begun:
                sentence = found.sentence()
                skips.add_all(
                    ((name, f"mask-{reason}", detail) for name, (reason, detail) in found.problems.items()),
                    counted=False,
                )
                images = images.subset(found.usable)
            return replace(masks, content=masks.found(found.folder.kind, images.names))
        content = masks.found(cast(Kind, recorded.partition(" ")[0]), images.names)
        if content != recorded:
            raise CheckpointError(
                f"the masks in {masks.folder} are not those that {recipe.out} began with ({content} instead of "
                f"{recorded}): a run can't go on exactly; restore them or give another --out"
            )
        return replace(masks, content=content)

    settled = change_masks(recipe, settle)
    return settled, images, sentence


def _recorded_content(run: Path) -> str:
    """What a run found in its masks when it began; "" if it never wrote that."""
    found = ""

    def look(masks: ObjectMasks) -> ObjectMasks:
        nonlocal found
        found = masks.content
        return masks

    change_masks(read_recipe(run / "recipe.yaml"), look)
    return found


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
    return found.restore(files)
