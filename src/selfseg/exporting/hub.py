"""The formats that can be shared through the Hugging Face hub: a folder with a model card made from the run's facts.

Images are counted and never named. Names of the run's folder, of folders of images and of labelled data stay here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from selfseg.collection.clusters import available_clusters, load_clusters
from selfseg.collection.opening import plain_recipe
from selfseg.collection.reporting.facts import facts_of
from selfseg.collection.reporting.health import judge
from selfseg.data.labelled.datasets import DATASETS
from selfseg.drawing.result_charts import column_of
from selfseg.errors import RunError
from selfseg.exporting.export import Exporter, Written, compare_features, drawn, require_untouched
from selfseg.exporting.segmenters import SEGMENTER
from selfseg.models.embedder import Embedder
from selfseg.models.prototypes import load_prototypes
from selfseg.plugins import registered
from selfseg.segmenter.segmenter import Segmenter, load_segmenter
from selfseg.sharing.card import Story, cell
from selfseg.sharing.files import CARD
from selfseg.sharing.model import write_shared
from selfseg.storage.files import MOST_LINES, read_json, read_steps
from selfseg.storage.hashes import embedder_hash, run_hash
from selfseg.storage.tensors import write_tensors
from selfseg.types import EvalResult

PROTOTYPES = "prototypes.safetensors"
BASELINES = ("untrained", "colour + position", "colour", "most frequent class")
"""What stands beside the embedder's numbers in a card: what was measured of things that learned nothing."""

_OWN = "labelled images of one's own"
_SAID = {"recipe", "steps", "epochs", "training time"}
"""Of a report's facts, those that a card has, too; the others are of this machine."""


def story_of(run: Path) -> Story:
    """What a card may say of a run: facts, checks and numbers, without a name of an image, a folder or a machine."""
    recipe, log = plain_recipe(run), read_steps(run / "log.jsonl")
    learned = {name: value for name, value in facts_of(recipe, None, log) if name in _SAID}
    if recipe and learned.get("recipe") not in registered("selfseg.recipes"):
        learned["recipe"] = "one of its own"
    method = recipe.get("method")
    kind = str(method.get("kind", "")).removesuffix("Config") if isinstance(method, Mapping) else ""
    learned |= {"method": kind, "images": _count(run), "hash of the recipe": run_hash(run)}
    learned = {name: value for name, value in learned.items() if value}
    if learned:  # a segmenter's folder that stands for a run knows nothing
        learned["hash of the weights"] = embedder_hash(run)
    verdicts = [each for each in judge(log, shares=_shares(run)) if each.name != "speed"]
    results = [each for each in _results(run) if each.recipe_hash in ("", run_hash(run))]
    tags = [kind.lower()] if kind.isascii() and kind.isalnum() else []
    return Story(
        learned=learned,
        checks=tuple(verdict.sentence for verdict in verdicts),
        measured=tuple(_table(results)),
        tags=tuple(tags),
    )


def _count(run: Path) -> str:
    """How many images a run learned from; "" if it doesn't say."""
    try:
        listed = read_json(run / "images.json", MOST_LINES)
    except (OSError, ValueError):
        return ""
    return f"{len(listed):,}" if isinstance(listed, Mapping) else ""


def _shares(run: Path) -> dict[int, Sequence[float]]:
    """Of each clustering of a run the shares of its clusters; those of an earlier embedder are left out."""
    found: dict[int, Sequence[float]] = {}
    for k in available_clusters(run):
        with suppress(RunError):
            found[k] = load_clusters(run, k).share
    return found


def _results(run: Path) -> list[EvalResult]:
    found = []
    for path in sorted((run / "results").glob("*.json")):
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            found.append(EvalResult.from_dict(read_json(path)))
    return found


def _table(results: Sequence[EvalResult]) -> list[str]:
    """Lines of Markdown: what was measured of the embedder, and beside it of what has learned nothing."""
    kept = [_without_folders(each) for each in results if each.what in ("embedder", *BASELINES) and each.class_names]
    wanted = {_place(each) for each in kept if each.what == "embedder"}
    kept = [each for each in kept if _place(each) in wanted]
    if not kept:
        return []
    lines = [
        "mIoU and pixel accuracy are fractions; means where there are several seeds. They are of the embedder, with "
        "what the column `how` makes of it.",
        "",
        "| how | images | of | mIoU | pixel accuracy |",
        "|---|---|---|---:|---:|",
    ]
    for place in dict.fromkeys(map(_place, kept)):
        same = [each for each in kept if _place(each) == place]
        for each in sorted(same, key=lambda one: -1 if one.what == "embedder" else BASELINES.index(one.what)):
            shown = "this model" if each.what == "embedder" else each.what
            numbers = f"{each.metrics['miou']:.3f} | {each.metrics['accuracy']:.3f}"
            lines.append(f"| {' | '.join(map(cell, (*place, shown)))} | {numbers} |")
    return lines


def _place(result: EvalResult) -> tuple[str, str]:
    """What was asked, and of which images: results that can be compared are equal in both."""
    size = "native size" if result.resolution == "native" else f"short side {result.resolution} px"
    count = f"{result.counts.get('images', 0):,} images"
    return column_of(result), f"{result.dataset} {result.split}: {count}, {len(result.class_names)} classes, {size}"


def _without_folders(result: EvalResult) -> EvalResult:
    """With the names of published data sets only."""
    if result.dataset in DATASETS and result.dataset != "folder":
        known = result.dataset
    else:
        known = _OWN
    fit = result.fit_split
    if "/" in fit and fit.partition("/")[0] not in DATASETS:
        fit = f"{_OWN}/{fit.rpartition('/')[2]}"
    return replace(result, dataset=known, fit_split=fit)


def _write_embedder(
    path: Path, embedder: Embedder, about: Mapping[str, str], run: Path, license: str | None = None, repo: str = ""
) -> Written:
    """The run's embedder, the method's prototypes if it has any, and a card."""
    story = story_of(run)
    prototypes = load_prototypes(run) if (run / "embedder" / PROTOTYPES).is_file() else None
    if prototypes is not None:
        story = replace(story, learned={**story.learned, "concept vectors": f"{len(prototypes)}, in {PROTOTYPES}"})

    def fill(folder: Path) -> None:
        embedder.save(folder)
        if prototypes is not None:
            write_tensors(folder / PROTOTYPES, {"prototypes": prototypes})
        require_untouched(run, about)
        image = drawn((64, 96), inputs=embedder.config.inputs)
        compare_features(path, Embedder.load(folder)(image), embedder(image))

    write_shared(path, fill, embedder.shared_network(), story, license, repo)
    return "", ()


def _write_segmenter(
    path: Path, embedder: Embedder, about: Mapping[str, str], run: Path, license: str | None = None, repo: str = ""
) -> Written:
    """The run's named segmenter, and a card."""
    segmenter = load_segmenter(run, "cpu")

    def fill(folder: Path) -> None:
        segmenter.write_files(folder)
        if Segmenter.load(folder).digest() != segmenter.digest():
            raise RunError(f"{path} was not written: what is read back is another segmenter; is the disk sound?")

    write_shared(path, fill, segmenter.shared_network(), story_of(run), license, repo)
    return "", ()


HUB = Exporter(
    "",
    True,
    _write_embedder,
    stem="hub",
    files=frozenset({"weights.safetensors", "embedder.json", CARD, PROTOTYPES}),
    shared=True,
)
SEGMENTER_HUB = Exporter(
    "", True, _write_segmenter, stem="segmenter-hub", files=frozenset(SEGMENTER.files), shared=True
)
