"""The images of a run: chosen at its start and kept in RUN/images.json, so that a resumed run has the same ones."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from selfseg.data.labelled.catalog import find_images
from selfseg.data.labelled.mask_files import Kind
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.skipping import SkipLog, scan
from selfseg.data.reading.windows import expand, find_channels
from selfseg.data.regions import ObjectMasks
from selfseg.errors import CheckpointError, RunError
from selfseg.models.embedder_config import EmbedderConfig
from selfseg.ops.channels import Channels
from selfseg.storage.files import MOST_LINES, is_unclaimed, mark_output, read_json, write_json
from selfseg.training.recipe import Recipe, change_each, read_recipe, write_recipe


def anchored(recipe: Recipe[Any]) -> Recipe[Any]:
    """The recipe with the whole path of its images, where it is one.

    A path from the current folder, kept in the run, would lead to other images of that name from another folder.
    """
    text = os.path.expanduser(str(recipe.images))
    if os.path.exists(text) or (glob.has_magic(text) and ":" not in text):
        return replace(recipe, images=Path(os.path.abspath(text)))
    return recipe


def settle_channels(recipe: Recipe[Any]) -> tuple[Recipe[Any], ImageCollection, str]:
    """The files that a run learns from, and the recipe with how their channels are read.

    A new run looks at its files: photographs are read as ever, measured images by what is found in them. A resumed one
    reads them as it did.

    Args:
        recipe: of the run.

    Returns:
        The recipe with `EmbedderConfig.channels` where these are measured images; the collection, of whole files where
        the run is new; a sentence on the channels, "" of photographs.

    Raises:
        ConfigError: if a wanted channel isn't there, or the channels are no photograph's and the folder holds shards.
        DataError: if there are no images.
    """
    run = recipe.out
    found = find_images(recipe.images, run / "cache" / "shards")
    if (run / "images.json").exists():
        channels = _embedders(read_recipe(run / "recipe.yaml"))[0].channels  # as it has read them since it began
        return _with_channels(recipe, channels), found.measured(channels), ""
    wished = _embedders(recipe)[0].window
    channels, sentence = find_channels(found, recipe.channels, recipe.pages, wished, recipe.seed)
    return _with_channels(recipe, channels), found.measured(channels), sentence


def _embedders(recipe: Recipe[Any]) -> list[EmbedderConfig]:
    found: list[EmbedderConfig] = []

    def look(config: EmbedderConfig) -> EmbedderConfig:
        found.append(config)
        return config

    change_each(recipe, EmbedderConfig, look)
    return found


def _with_channels(recipe: Recipe[Any], channels: Channels | None) -> Recipe[Any]:
    if channels is None:
        return recipe
    settled = change_each(recipe, EmbedderConfig, lambda config: replace(config, channels=channels))
    assert isinstance(settled, Recipe)
    return settled


def open_images(
    found: ImageCollection, run: Path, max_bad: float, writes: bool, window: int | None = None
) -> tuple[ImageCollection, SkipLog]:
    """The images that a run learns from.

    A new run takes all that can be read. A resumed one takes those it began with: what has gone since is counted and
    listed, as if it had gone while the run was going on, and what has come since is left out. Everything that is
    drawn depends on the images' number and order.

    Args:
        found: what `settle_channels` found.
        run: the run's folder.
        max_bad: share of unreadable images that is an error.
        writes: whether this process writes images.json and skipped.jsonl.
        window: side in px of the windows that large images are cut into, see `selfseg.data.reading.windows.expand`.

    Returns:
        The images, and the list of the skipped ones.

    Raises:
        DataError: if there are no images or too many can't be read.
        CheckpointError: if images.json is damaged.
        StorageError: if the disk is full.
    """
    record = run / "images.json"
    if record.exists():
        images = _recorded(record, found)
        skips = SkipLog(run / "skipped.jsonl" if writes else None, len(images), max_bad)
        scan(images, skips)
        return images, skips
    images = expand(found, window)
    skips = SkipLog(run / "skipped.jsonl" if writes else None, len(images), max_bad)
    return scan(images, skips), skips


def settle(recipe: Recipe[Any], writes: bool) -> tuple[Recipe[Any], ImageCollection, SkipLog, list[str]]:
    """What a run learns from: `settle_channels`, `open_images` and `settle_masks`, one after the other.

    Args:
        recipe: of the run.
        writes: whether this process writes images.json and skipped.jsonl.

    Returns:
        The recipe with what was found; the images; the list of the skipped ones; sentences to be told.
    """
    settled, found, of_channels = settle_channels(recipe)
    window = _embedders(settled)[0].side
    images, skips = open_images(found, recipe.out, recipe.max_bad, writes, window)
    settled, images, of_masks = settle_masks(settled, images, skips)
    return settled, images, skips, [sentence for sentence in (of_channels, of_masks) if sentence]


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

    settled = change_each(recipe, ObjectMasks, settle)
    return settled, images, sentence


def _recorded_content(run: Path) -> str:
    """What a run found in its masks when it began; "" if it never wrote that."""
    found = ""

    def look(masks: ObjectMasks) -> ObjectMasks:
        nonlocal found
        found = masks.content
        return masks

    change_each(read_recipe(run / "recipe.yaml"), ObjectMasks, look)
    return found


def begin_with(recipe: Recipe[Any], images: ImageCollection) -> Recipe[Any]:
    """Begin a run that learns from exactly these images: with their names, pages, windows and channels.

    Writes RUN/images.json and RUN/recipe.yaml, which `train` goes on from.

    Args:
        recipe: of the run; `recipe.images` must lead to the files of `images`.
        images: files, which may be measured images.

    Returns:
        The recipe that `train` is to be called with.

    Raises:
        RunError: if there is something in the run's folder but a run on the same images.
        DataError: if too many of the images can't be read.
    """
    settled, record = _with_channels(recipe, images.channels), recipe.out / "images.json"
    fresh = is_unclaimed(recipe.out)
    if fresh:
        mark_output(recipe.out)
    kept = scan(images, SkipLog(recipe.out / "skipped.jsonl" if fresh else None, len(images), recipe.max_bad))
    found = find_images(recipe.images)
    paths = tuple(Path(os.path.abspath(path)) for path in kept.paths)
    known, names = dict(zip(found.names, found.paths, strict=True)), tuple(kept.names)
    if any(known.get(name, path) != path for name, path in zip(names, paths, strict=True)):
        names = tuple(f"{number:06d}/{name}" for number, name in enumerate(names))  # two roots, one name
    begun = replace(kept, root=found.root, paths=paths, names=names)
    if fresh:
        write_recipe(settled, recipe.out / "recipe.yaml")
        record_images(begun, recipe.out)
    elif not record.exists() or read_json(record, MOST_LINES) != begun.located():
        raise RunError(f"{recipe.out} holds something else than a run on these images; give another folder")
    return settled


def record_images(images: ImageCollection, run: Path) -> None:
    """Write RUN/images.json, and how long the images' files are, if that is not there yet."""
    record = run / "images.json"
    if not record.exists():
        write_json(run / _SIZES, _sizes(images))
        write_json(record, images.located())


def require_same_images(meta: Mapping[str, Any], step: int, images: ImageCollection, recipe: Recipe[Any]) -> None:
    """Make sure that a checkpoint is of these images, and that a run that isn't over finds them as they were.

    Frames of cameras have the same names in every folder: names alone don't tell that these are other images.

    Args:
        meta: of the checkpoint.
        step: of the checkpoint.
        images: of the run; of those that are missing nothing is known.
        recipe: of the run.

    Raises:
        CheckpointError: if they are other images.
    """
    way_out = "a run can't go on exactly; restore them or give another --out"
    if meta.get("images") != names_hash(images):
        raise CheckpointError(
            f"{recipe.out} was trained on other images than the {len(images)} in {recipe.images}: {way_out}"
        )
    if step >= meta.get("total_steps", 0):
        return
    try:
        recorded = read_json(recipe.out / _SIZES, MOST_LINES)
    except (OSError, ValueError):  # an older version wrote none
        return
    if not isinstance(recorded, list) or len(recorded) != len(images):
        return
    changed = [
        name
        for name, before, now in zip(images.names, recorded, _sizes(images), strict=True)
        if isinstance(before, int) and now is not None and before != now
    ]
    if changed:
        raise CheckpointError(
            f"{len(changed)} of the {len(images)} images in {recipe.images} are not those that {recipe.out} began "
            f"with, though they have the same names, such as {changed[0]}: {way_out}"
        )


def names_hash(images: ImageCollection) -> str:
    """A digest of the images' names, in their order."""
    return hashlib.blake2b("\n".join(images.names).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


_SIZES = "image_bytes.json"


def _sizes(images: ImageCollection) -> list[int | None]:
    """Bytes of each image's file; None of those that are gone."""
    known: dict[Path, int | None] = {}  # windows of one file have the same
    for i, path in enumerate(images.paths):
        if path not in known:
            size = (images.version(i) or {}).get("bytes")
            known[path] = size if isinstance(size, int) else None
    return [known[path] for path in images.paths]


def _recorded(record: Path, found: ImageCollection) -> ImageCollection:
    try:
        listed = read_json(record, MOST_LINES)
        if not isinstance(listed, dict):
            raise ValueError(f"it holds a {type(listed).__name__} and no names of images")
        return found.restore(listed)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{record}, the list of the run's images, is damaged: {error}") from error
