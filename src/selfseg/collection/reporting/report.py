"""One self-contained page that shows what a run has learned: RUN/report.html.

The page loads nothing: pictures are data URIs, curves are SVG, style and script are inside. Letters: H W pixels, K
clusters.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from numpy.typing import NDArray
from torch import Tensor

from selfseg.collection.clusters import Clusters, available_clusters, load_clusters
from selfseg.collection.false_colours import PHOTOGRAPHS, Painter, painter_of
from selfseg.collection.opening import Images, as_seen_by, collect, load, plain_recipe
from selfseg.collection.proposal import load_proposal
from selfseg.collection.reporting.beside import compare_beside
from selfseg.collection.reporting.facts import facts_of, next_commands
from selfseg.collection.reporting.health import CHECKED, Verdict, judge
from selfseg.collection.reporting.what_it_sees import read_plan, region_figures, view_figures
from selfseg.collection.streaming import embed_images
from selfseg.data.labelled.catalog import find_images
from selfseg.data.reading.images import ImageCollection, spread_indices
from selfseg.data.reading.listing import list_images
from selfseg.data.reading.skipping import SkipLog
from selfseg.drawing.charts import line_chart
from selfseg.drawing.figures import Figure, figure, stored_figures
from selfseg.drawing.pictures import (
    Picture,
    fade_background,
    fit_within,
    hex_colour,
    highlight,
    overlay,
    palette,
    pca_picture,
    stored_basis,
)
from selfseg.drawing.result_charts import Comparison, compare_results, few_label_curves
from selfseg.errors import ConfigError, DataError, RunError, SelfsegError
from selfseg.fitting.stepping import read_log
from selfseg.models.embedder import Embedder
from selfseg.ops.pca import PcaBasis
from selfseg.pages.concepts import read_concepts
from selfseg.pages.shown_path import ShownPath
from selfseg.storage.files import read_json, write_text
from selfseg.storage.hashes import embedder_hash
from selfseg.storage.reading import objects_of_lines
from selfseg.storage.remote.places import at_places
from selfseg.version import __version__

_BUDGET = 10_000_000  # pixels of the gallery: about 3 MB of WebP
_THUMBNAIL = 200  # longer side in pixels
_THUMBNAIL_IMAGES = 150  # the most images that are embedded for thumbnails only
_CARDS_WITH_THUMBNAILS = 48
_CONCEPTS, _CONCEPT_PICTURES = 64, 5  # about 3 MB; concepts.html has all

_CURVES = {
    "loss": "loss",
    "lr": "learning rate",
    "loss_contrast": "loss of the contrast with objects",
    "loss_saliency": "loss of the foreground",
    "found": "pixels nearest to their own object",
    "saliency_iou": "foreground: overlap with the masks",
    "prototype_entropy": "use of the prototypes (1 = even)",
    "effective_rank": "effective rank of the vectors",
    "agreement": "views that agree on a prototype",
    "assignment_entropy": "entropy of an assignment (1 = undecided)",
    "active_slots": "slots that are active in a view",
    "dead_prototypes": "share of prototypes that find nothing",
    "centre_norm": "length of the centre",
    "images_per_second": "images per second",
}


_SHARES = ("prototype_entropy", "agreement", "assignment_entropy", "found", "saliency_iou")


@dataclass(frozen=True)
class Row:
    """What one image became: photograph, embedding, foreground if the run knows one, segments at each k."""

    name: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Card:
    """One cluster: its colour, its share of the pixels and where it is seen best."""

    cluster: int
    colour: str
    share: float
    thumbnails: tuple[Figure, ...]


@dataclass(frozen=True)
class _Sample:
    """An image that was read and embedded: (H, W, 3) at the page's size, (D, h, w), and what stands out."""

    name: str
    image: Picture
    embedding: Tensor
    foreground: Tensor | None  # (h, w) of a run with a saliency head


@at_places(runs=["run"], models=["beside"])
def report(
    run: Path | str,
    images: Images | None = None,
    count: int = 12,
    device: str = "auto",
    progress: bool = True,
    beside: Path | str | None = None,
) -> Path:
    """Write RUN/report.html: what a run has learned, for somebody who would rather look than read logs.

    The page shows whatever the run has. Where clusters, results or an embedder are missing, it says how to get them.

    Args:
        run: the run's folder.
        images: the images to show, as `segment` takes them; those that the run learned from if None.
        count: how many images are shown, spread evenly over the collection.
        device: "auto", "cpu", "cuda", ...
        progress: whether to show a progress bar on stderr.
        beside: a run whose clusters are shown beside this one's, on at most 8 of the images. If None, it is what this
            run began from, if its embedder knows that (`Embedder.before_training`).

    Returns:
        The page's path.

    Raises:
        ConfigError: for a count below 1.
        RunError: if there is no run, or `beside` is not a run, or has none of this run's numbers of clusters.
        DataError: if `images` is given and holds none.
        StorageError: if the disk is full.
    """
    run = Path(run)
    if count < 1:
        raise ConfigError(f"count is {count}; give how many images to show, 1 or more")
    notes: list[str] = []
    try:
        embedder = load(run, device)
    except RunError as error:
        if not (run / "recipe.yaml").is_file() and not (run / "log.jsonl").is_file():
            raise
        embedder, missing = None, str(error)
        notes.append(missing)
    recipe = plain_recipe(run)
    collection = _find_images(recipe, images, notes)
    if embedder is not None and collection is not None:
        collection = as_seen_by(embedder.config, collection)
    shown = collection if images is not None or collection is None else _learned_from(run, collection)
    log = read_log(run)
    clusterings = _load_clusterings(run, notes)
    painter = PHOTOGRAPHS
    samples: list[_Sample] = []
    rows: tuple[Row, ...] = ()
    panels: dict[int, tuple[Card, ...]] = {}
    if embedder is not None and shown is not None:
        columns = (3 if embedder.saliency_head is not None else 2) + len(clusterings)
        painter = painter_of(shown)
        samples = _read_samples(embedder, shown, painter, count, columns, notes, progress)
    if samples:
        basis = stored_basis(run, embedder_hash(run), lambda: [sample.embedding for sample in samples])
        rows = tuple(_row(sample, basis, clusterings, painter) for sample in samples)
    if embedder is not None:
        panels = _panels(embedder, collection, painter, clusterings, progress)
    compared = None
    if embedder is not None and shown is not None and samples:
        names = {sample.name for sample in samples}
        seen = shown.subset([i for i, name in enumerate(shown.names) if name in names])
        compared = compare_beside(
            embedder, clusterings, seen, None if beside is None else Path(beside), notes, progress
        )
    regions, views = _training_figures(run, recipe, collection, samples, painter)
    context = {
        "title": run.resolve().name,
        "facts": facts_of(recipe, shown, log, "" if embedder is None else embedder.start),
        "notes": notes,
        "verdicts": judge(log, [s.embedding for s in samples], {c.k: c.share for c in clusterings}),
        "headline": partial(_headline, recipe.get("steps") != 0),
        "rows": rows,
        "columns": len(rows[0].figures) if rows else 0,
        "foreground": embedder is not None and embedder.saliency_head is not None,
        "panels": panels,
        "legend": painter.legend,
        "beside": compared,
        "proposal": load_proposal(run),
        "concepts": read_concepts(run, _CONCEPTS, _CONCEPT_PICTURES, notes),
        "regions": regions,
        "views": views,
        "charts": _charts(log),
        "comparisons": _comparisons(run, notes),
        "few_labels": _few_labels(run),
        "skipped": _skipped(run),
        "recipe": (run / "recipe.yaml").read_text(encoding="utf-8") if recipe else "",
        "commands": next_commands(run, recipe, bool(clusterings)),
        "version": __version__,
        "made": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    }
    environment = Environment(loader=PackageLoader("selfseg.pages"), autoescape=True, trim_blocks=True)
    page = environment.get_template("report.html.j2").render(context)
    write_text(run / "report.html", page)
    return ShownPath(run / "report.html")


_LOOK = (
    "No number can say whether what it found means something. Look at the pictures below, and compare them with those "
    "of “selfseg train pyramid”, which learns nothing."
)


def _headline(trained: bool, verdicts: Sequence[Verdict]) -> tuple[str, str]:
    """The verdicts in one word (level) and some sentences."""
    if not trained:
        return "none", "Nothing was trained: this run is only its start. " + _LOOK.partition(", and")[0] + "."
    if not verdicts:
        return "none", "Nothing to judge yet."
    level = verdicts[0].level
    checked = ", ".join(dict.fromkeys(CHECKED[verdict.name] for verdict in verdicts))
    if level == "ok" and not any(verdict.name in ("loss", "guessing") for verdict in verdicts):
        return "none", f"Too little was logged to say. No fault was found in what could be checked: {checked}."
    sentence = {
        "ok": f"No fault was found in what can be counted. {_LOOK}",
        "warn": "Probably, with something to look at.",
        "bad": "No. Something is wrong.",
    }
    return level, sentence[level]


def _find_images(recipe: Mapping[str, Any], images: Any, notes: list[str]) -> ImageCollection | None:
    if images is not None:
        return collect(images)
    if "images" not in recipe:
        notes.append("No recipe says where the images are: give them with --images FOLDER to see them here.")
        return None
    where = recipe["images"]
    if not isinstance(where, str) or "://" in where:  # a run of a stranger's must not make anybody ask a server
        notes.append(f"The run's images are at {where!r:.200}: give them with --images to see them here.")
        return None
    try:
        return find_images(where)
    except DataError as error:
        notes.append(f"The run's images can't be shown: {error}")
        return None


def _learned_from(run: Path, collection: ImageCollection) -> ImageCollection:
    """Those images of the run's folder that it learned from; all if nothing tells."""
    try:
        names = set(read_json(run / "images.json"))
    except (OSError, ValueError, TypeError):
        return collection
    kept = [i for i, name in enumerate(collection.names) if name in names]
    return collection.subset(kept) if kept else collection


def _load_clusterings(run: Path, notes: list[str]) -> list[Clusters]:
    found = []
    for k in available_clusters(run):
        try:
            found.append(load_clusters(run, k))
        except SelfsegError as error:
            notes.append(str(error))
    return found


def _read_samples(
    embedder: Embedder,
    collection: ImageCollection,
    painter: Painter,
    count: int,
    columns: int,
    notes: list[str],
    progress: bool,
) -> list[_Sample]:
    """Images evenly spread over the collection."""
    chosen = spread_indices(len(collection), count)
    longest = int(min(640, max(200, math.sqrt(_BUDGET / (0.7 * len(chosen) * columns)))))
    log = SkipLog(None, len(chosen), limit=1.0)
    samples = [
        _Sample(
            collection.names[i],
            fit_within(painter(image), longest),
            embedding.cpu(),
            embedder.foreground(seen) if embedder.saliency_head is not None else None,
        )
        for i, image, seen, embedding in embed_images(embedder, collection, chosen, log, "pictures", progress)
    ]
    if log.skipped:
        notes.append(f"{len(log.skipped)} of the chosen images could not be read: {', '.join(log.skipped)}.")
    return samples


def _row(sample: _Sample, basis: PcaBasis, clusterings: Sequence[Clusters], painter: Painter) -> Row:
    size = (sample.image.shape[0], sample.image.shape[1])
    figures = [
        figure(sample.image, painter.word("photograph")),
        figure(pca_picture(sample.embedding, basis, size), "embedding"),
    ]
    if sample.foreground is not None:
        figures.append(figure(fade_background(sample.image, sample.foreground), "foreground"))
    for clusters in clusterings:
        ids = clusters.assign(sample.embedding, size)
        figures.append(figure(overlay(sample.image, ids, palette(clusters.k)), f"k = {clusters.k}"))
    return Row(sample.name, tuple(figures))


def _panels(
    embedder: Embedder,
    collection: ImageCollection | None,
    painter: Painter,
    clusterings: Sequence[Clusters],
    progress: bool,
) -> dict[int, tuple[Card, ...]]:
    """Per k the clusters with the photographs that show them best, the cluster lit up."""
    each = 4 if sum(c.k for c in clusterings) <= 40 else 3
    wanted = [
        (clusters, c, name)
        for rank in range(each)  # the best of every cluster first: the budget may end early
        for clusters in clusterings
        for c in range(min(clusters.k, _CARDS_WITH_THUMBNAILS))
        for name in clusters.typical[c][rank : rank + 1]
    ]
    names = list(dict.fromkeys(name for _, _, name in wanted))[:_THUMBNAIL_IMAGES]
    gallery = _gallery(names, collection, clusterings)
    thumbnails: dict[str, tuple[Picture, Tensor]] = {}
    if len(gallery):
        log = SkipLog(None, len(gallery), limit=1.0)
        for i, image, _, embedding in embed_images(embedder, gallery, range(len(gallery)), log, "clusters", progress):
            thumbnails[gallery.names[i]] = (fit_within(painter(image), _THUMBNAIL), embedding.half().cpu())
    shown: dict[tuple[int, int], list[Figure]] = {}
    segments: dict[tuple[int, str], NDArray[Any]] = {}
    for clusters, c, name in wanted:
        if name not in thumbnails:
            continue
        image, embedding = thumbnails[name]
        if (clusters.k, name) not in segments:
            ids = clusters.assign(embedding, (image.shape[0], image.shape[1]))
            segments[clusters.k, name] = ids
        mask = segments[clusters.k, name] == c
        picture = highlight(image, mask, palette(clusters.k)[c])
        shown.setdefault((clusters.k, c), []).append(figure(picture, name, quality=74))
    return {
        clusters.k: tuple(
            Card(c, hex_colour(palette(clusters.k)[c]), clusters.share[c], tuple(shown.get((clusters.k, c), ())))
            for c in range(clusters.k)
        )
        for clusters in clusterings
    }


def _gallery(
    names: Sequence[str], collection: ImageCollection | None, clusterings: Sequence[Clusters]
) -> ImageCollection:
    """The images that a clustering names, as far as they are still there; measured ones of the run's own alone."""
    plain = type(collection) is ImageCollection  # whose paths are files
    if collection is not None and (not plain or collection.channels is not None or collection.parts):
        place = {name: i for i, name in enumerate(collection.names)}
        return collection.subset([place[name] for name in names if name in place])
    known: dict[str, Path] = {}
    for folder in {str(clusters.info["images"]) for clusters in clusterings}:
        try:
            listed = list_images(folder)
        except DataError:
            continue
        known.update(zip(listed.names, listed.paths, strict=True))
    if collection is not None:
        known = {**dict(zip(collection.names, collection.paths, strict=True)), **known}
    there = [name for name in names if name in known]
    return ImageCollection(Path("."), tuple(known[name] for name in there), tuple(there))


def _training_figures(
    run: Path,
    recipe: Mapping[str, Any],
    collection: ImageCollection | None,
    samples: Sequence[_Sample],
    painter: Painter,
) -> tuple[list[Figure], list[Figure]]:
    """Regions and views as training drew them, else made here by the recipe's plan."""
    regions, views = stored_figures(run, "superpixels*.png", 3), stored_figures(run, "views*.png", 3)
    plan = read_plan(recipe)
    if plan is not None and collection is not None:
        names = [sample.name for sample in samples[:: max(1, len(samples) // 3)]][:3]
        originals = [collection.read(collection.names.index(name)) for name in names]
        regions = regions or region_figures(plan, names, originals, painter)
        views = views or view_figures(plan, names, originals, painter)
    return regions, views


def _charts(log: Sequence[Mapping[str, Any]]) -> list[tuple[str, Markup]]:
    charts = []
    for key, title in _CURVES.items():
        lines = [line for line in log if isinstance(line.get(key), int | float)]
        uniform = lines[-1].get("loss_uniform") if lines else None
        svg = line_chart(
            [float(line["step"]) for line in lines],
            [float(line[key]) for line in lines],
            title,
            reference=(float(uniform), "a guess") if key == "loss" and uniform else None,
            limits=(0.0, 1.0) if key in _SHARES else None,
        )
        if svg:
            charts.append((title, Markup(svg)))  # made by us, of numbers
    return charts


def _comparisons(run: Path, notes: list[str]) -> list[Comparison]:
    try:
        return compare_results(run)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        notes.append(f"The results in {run / 'results'} can't be read: {error}")
        return []


def _few_labels(run: Path) -> list[tuple[str, Markup, str]]:
    """Title, plot and fine print of each few-label curve."""
    try:
        return [(curve.title, Markup(curve.svg()), curve.fine_print) for curve in few_label_curves(run)]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return []  # the comparisons have said so


def _skipped(run: Path) -> dict[str, Any]:
    """Skipped images: how many for which reason, and the first of them."""
    entries: dict[tuple[str, str], dict[str, Any]] = {}
    path = run / "skipped.jsonl"
    if path.is_file():
        for entry in objects_of_lines(path.read_text(encoding="utf-8", errors="replace")):
            if isinstance(entry.get("name"), str) and isinstance(entry.get("reason"), str):
                entries[entry["name"], entry["reason"]] = entry
    reasons = Counter(entry["reason"] for entry in entries.values())
    return {"count": len(entries), "reasons": reasons.most_common(), "first": list(entries.values())[:200]}
