"""The protocols `objects` and `retrieval`: a vector per object, everything else is background.

MaskContrast (W. Van Gansbeke et al., ICCV 2021, arXiv 2102.06191, sections 4.4 and E): the vectors of objects (see
`selfseg.evaluation.protocols.object_vectors`) are clustered by k-means, and all pixels of an object get its cluster;
all others are background, class 0. Or (`retrieval`, figure 4) an object gets the class of the nearest object of the fit
split, whose labels say what it is.

k counts the background: 21 means 20 clusters of objects. With k = number of classes each cluster gets an object class
of its own (Hungarian, maximising the sum of IoU over the whole split, or of pixels); with any other k the majority vote
names clusters, or the class that their IoU is largest with, and either may name one background.

Letters: O objects of a split, N of the fit split, D dimensions, C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfseg.data.labelled.catalog import LabelledImages, check_same_classes
from selfseg.errors import ConfigError
from selfseg.evaluation.baselines import MOST_FREQUENT, constant_confusion
from selfseg.evaluation.measure.confusion import map_clusters, metrics_of
from selfseg.evaluation.measure.reading import Progress
from selfseg.evaluation.measure.results import Question, result_of, split_name, summary
from selfseg.evaluation.measure.sharing import Shared
from selfseg.evaluation.protocols.clusters import other_rules
from selfseg.evaluation.protocols.object_vectors import (
    MANY,
    PLACE,
    Finder,
    Objects,
    ObjectTable,
    Retrieval,
    collect_objects,
    collect_shared,
)
from selfseg.ops.kmeans import assign, kmeans
from selfseg.ops.matching import Maximise, match_hungarian, match_largest_iou, match_majority
from selfseg.ops.pca import fit_pca
from selfseg.types import EvalResult

VERSION = 2  # 1: equal totals of a Hungarian matching might name a class without a pixel
"""Raised whenever the same input would give another number."""

OVERCLUSTERING = (50, 100, 200, 500)
"""Of MaskContrast's table 4, besides the number of classes."""


def object_counts(
    fit: Tensor, vectors: Tensor, table: ObjectTable, k: int, seed: int, spherical: bool
) -> NDArray[np.int64]:
    """Labelled pixels of each cluster, background first.

    Args:
        fit: (N, D) that k-means is fitted on.
        vectors: (O, D) of the table's objects.
        table: of the measured split.
        k: clusters, with the background.
        seed: of k-means.
        spherical: cosine or Euclid.

    Returns:
        (k, C) int64.

    Raises:
        ConfigError: for k below 2, no object, or more clusters than objects.
    """
    if k < 2:
        raise ConfigError(f"k={k} leaves no cluster beside the background, which counts too; give at least 2")
    if not len(fit):
        raise ConfigError(
            "no object was found to fit clusters on; train longer, or give a folder of masks (--objects.masks)"
        )
    if k - 1 > len(fit):
        raise ConfigError(
            f"k={k} is the background and {k - 1} clusters, but there are {len(fit)} objects to fit them on; lower k"
        )
    counts = np.zeros((k, len(table.background)), np.int64)
    counts[0] = table.background
    centroids = kmeans(fit, k - 1, seed, spherical=spherical).centroids
    if len(vectors):
        np.add.at(counts, assign(vectors, centroids, spherical).cpu().numpy() + 1, table.pixels)
    return counts


def name_object_clusters(counts: NDArray[np.int64], matching: str, maximise: Maximise = "iou") -> NDArray[np.int64]:
    """The confusion (C, C + 1) of clusters whose first is the background and has class 0.

    Args:
        counts: (k, C).
        matching: "hungarian": an object class for each cluster; "majority": the class of most of its pixels;
            "largest_iou": the class that its IoU is largest with.
        maximise: what Hungarian matching maximises.
    """
    if matching == "hungarian":
        mapping = match_hungarian(counts, maximise, background=True)
    elif matching == "majority":
        mapping = np.concatenate([[0], match_majority(counts[1:])])
    else:  # the background's pixels are of their classes, too: IoU is of the whole table
        mapping = np.concatenate([[0], match_largest_iou(counts)[1:]])
    return map_clusters(counts, mapping)


def retrieve(fit: Tensor, labels: NDArray[np.int64], vectors: Tensor, neighbours: int) -> NDArray[np.int64]:
    """The class of each object by its nearest ones.

    Args:
        fit: (N, D), N at least 1.
        labels: (N,) classes.
        vectors: (O, D).
        neighbours: that vote, at most N are asked; of equals the class of the nearest wins.

    Returns:
        (O,) int64.
    """
    found = np.zeros(len(vectors), np.int64)
    for start in range(0, len(vectors), 1024):
        distance = torch.cdist(vectors[start : start + 1024].double(), fit.double())
        nearest = distance.topk(min(neighbours, len(fit)), largest=False).indices.numpy()
        for row, chosen in enumerate(labels[nearest]):
            # Counter keeps the order of first occurrence among equals.
            found[start + row] = Counter(chosen.tolist()).most_common(1)[0][0]
    return found


def object_labels(pixels: NDArray[np.int64]) -> NDArray[np.int64]:
    """What objects are: the object class of most labelled pixels, 0 with background pixels only, -1 without any.

    Args:
        pixels: (O, C).

    Example:
        >>> object_labels(np.array([[90, 2, 5], [7, 0, 0], [0, 0, 0]])).tolist()
        [2, 0, -1]
    """
    if pixels.shape[1] < 2:
        return np.where(pixels.sum(1) > 0, 0, -1).astype(np.int64)
    objects = pixels[:, 1:]
    named = np.where(objects.sum(1) > 0, objects.argmax(1) + 1, 0)
    return np.where(pixels.sum(1) > 0, named, -1).astype(np.int64)


def evaluate_objects(
    finder: Finder,
    fit: LabelledImages,
    measured: LabelledImages,
    protocols: Sequence[Objects | Retrieval] = (Objects(), Retrieval()),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    baselines: bool = True,
    resolution: int | str = "native",
    recipe_hash: str = "",
    progress: Progress | None = None,
    shared: Shared | None = None,
) -> list[EvalResult]:
    """Both protocols from one pass over each split.

    Args:
        finder: of objects, see `saliency_finder` and `mask_finder`.
        fit: the split that clusters are fitted on, besides the measured one, and whose objects are retrieved.
        measured: the split that is measured.
        protocols: `Objects` and `Retrieval`, or one of them.
        seeds: of k-means.
        baselines: also measure mean colour and place of the same objects, and the most frequent class.
        resolution: of the images, for the record.
        recipe_hash: of the run.
        progress: called after each image.
        shared: who looks for the objects in place of this process, with the same finder.

    Returns:
        Results; `objects` twice, fitted on the fit split and, for as many clusters as it has objects, on the measured
        one (as the paper did).

    Raises:
        ConfigError: for fewer than two classes, more clusters than objects, an unknown class or splits that are one.
        DataError, BadMask: as `collect_objects`.
    """
    config = object_settings(protocols)
    clusters = next((protocol for protocol in protocols if isinstance(protocol, Objects)), None)
    retrieval = next((protocol for protocol in protocols if isinstance(protocol, Retrieval)), None)
    names = measured.class_names
    if len(names) < 2:
        raise ConfigError(f"objects need a class besides the first, the background; there is {', '.join(names)}")
    unknown = [name for name in (retrieval.classes if retrieval else ()) if name not in names[1:]]
    if unknown:
        raise ConfigError(f"no class {', '.join(unknown)} among the objects; there are {', '.join(names[1:])}")
    check_same_classes(fit, measured)
    same = fit.root == measured.root and fit.split == measured.split
    if retrieval and fit.shares_images(measured):
        raise ConfigError(f"objects of {fit.split!r} would find themselves; name another fit_split for retrieval")
    collect = partial(collect_objects, finder) if shared is None else partial(collect_shared, shared)
    target = collect(measured, config, baselines, progress)
    source = target if same else collect(fit, config, baselines, progress)
    results: list[EvalResult] = []
    for what in target.vectors:
        made_by = "" if what == PLACE else recipe_hash
        question = Question(
            "objects", VERSION, what, split_name(fit, measured), resolution, tuple(seeds), recipe_hash=made_by
        )
        if clusters is not None:
            results += _cluster(source, target, measured, clusters, question)
            most = len(target.pixels) + 1  # what the measured split has objects for, which may be less
            asked = [count for count in clusters.k or (len(names), *OVERCLUSTERING) if count <= most]
            if asked and not same:
                again = replace(question, fit_split=measured.split)
                results += _cluster(target, target, measured, replace(clusters, k=tuple(asked)), again)
        if retrieval is not None:
            question = replace(question, protocol="retrieval", seeds=())
            results.append(_retrieve(source, target, fit, measured, config, retrieval, question))
    if baselines:
        winner, confusion = constant_confusion(source.tally.labels, target.tally.labels)
        question = Question("constant", 1, MOST_FREQUENT, split_name(fit, measured), "native")
        results.append(result_of(question, [confusion], target.tally, measured, {"class": names[winner]}))
    return results


def object_settings(protocols: Iterable[object]) -> Objects:
    """How objects become vectors, of protocols that look at the same ones.

    Raises:
        ConfigError: if `Objects` and `Retrieval` want different ones.

    Example:
        >>> object_settings([Retrieval(objects=Objects(whiten=32))]).whiten
        32
    """
    clusters = [protocol for protocol in protocols if isinstance(protocol, Objects)]
    retrieved = [p.objects for p in protocols if isinstance(p, Retrieval) and p.objects is not None]
    wanted = [replace(settings, k=None) for settings in (*clusters, *retrieved)] or [Objects()]
    if wanted[0] != wanted[-1]:
        raise ConfigError(
            f"Objects and Retrieval are measured on the same objects, not on {wanted[0]} and {wanted[-1]}; "
            "leave Retrieval's out, or measure them one after the other"
        )
    return wanted[0]


def _ready(source: Tensor, target: Tensor, what: str, config: Objects) -> tuple[Tensor, Tensor, bool]:
    """The vectors as they are compared; colour and place are left as they are."""
    if what == PLACE or config.whiten is None or len(source) < 2:
        return source, target, what != PLACE and config.spherical
    basis = fit_pca(source, min(config.whiten, source.shape[1]))
    placed = [(vectors - basis.mean) @ basis.components.T for vectors in (source, target)]
    deviation = placed[0].std(0, correction=0)
    kept = deviation > 1e-6 * deviation.max()  # fewer objects than dimensions leave some without any
    return placed[0][:, kept] / deviation[kept], placed[1][:, kept] / deviation[kept], False


def _cluster(
    source: ObjectTable, target: ObjectTable, measured: LabelledImages, config: Objects, question: Question
) -> list[EvalResult]:
    classes = len(measured.class_names)
    what = question.what
    fit, vectors, spherical = _ready(source.vectors[what], target.vectors[what], what, config)
    ks = config.k or (classes, *(n for n in OVERCLUSTERING if n > classes and n - 1 <= len(fit)))
    results = []
    for count in dict.fromkeys(ks):
        tables = [object_counts(fit, vectors, target, count, seed, spherical) for seed in question.seeds]
        matching = "hungarian" if count == classes else config.many
        matched = [name_object_clusters(table, matching, config.maximise) for table in tables]
        further: dict[str, float] = {}
        for prefix, (rule, gain) in other_rules(matching, config.maximise, ("hungarian", *MANY)).items():
            further |= summary([metrics_of(name_object_clusters(table, rule, gain)) for table in tables], prefix)
        results.append(
            result_of(
                replace(question, matching=matching, k=count),
                matched,
                target.tally,
                measured,
                options={**_options(config), "matched_on": measured.split},
                further=further,
                counts=_object_figures(source, target) | {"unassigned": int(matched[0][:, classes:].sum())},
            )
        )
    return results


def _retrieve(
    source: ObjectTable,
    target: ObjectTable,
    fit: LabelledImages,
    measured: LabelledImages,
    config: Objects,
    retrieval: Retrieval,
    question: Question,
) -> EvalResult:
    names, what = measured.class_names, question.what
    kept = [0, *(i for i, name in enumerate(names) if i and (not retrieval.classes or name in retrieval.classes))]
    labels = object_labels(source.pixels[:, kept])
    if not (labels >= 0).any():
        raise ConfigError(
            f"no object of {fit.split} has a labelled pixel of these classes; there is nothing to retrieve"
        )
    neighbours, vectors, _ = _ready(source.vectors[what], target.vectors[what], what, config)
    chosen = retrieve(neighbours[torch.from_numpy(labels >= 0)], labels[labels >= 0], vectors, retrieval.neighbours)
    confusion = np.zeros((len(kept), len(kept)), np.int64)
    confusion[:, 0] += target.background[kept]
    np.add.at(confusion.T, chosen, target.pixels[:, kept])
    # The tally's pixels of classes that are left out are void.
    left_out = target.tally.pixels - int(confusion.sum())
    tally = replace(target.tally, pixels=int(confusion.sum()), void=target.tally.void + left_out)
    return result_of(
        question,
        [confusion],
        tally,
        replace(measured, class_names=tuple(names[index] for index in kept)),
        options={**_options(config), "neighbours": retrieval.neighbours, "classes": retrieval.classes},
        counts={**_object_figures(source, target), "candidates": int((labels >= 0).sum())},
    )


def _options(config: Objects) -> dict[str, Any]:
    """How objects became vectors, for the record."""
    settings = {**asdict(config), "masks": str(config.masks) if config.masks else None}
    del settings["k"]
    return settings


def _object_figures(source: ObjectTable, target: ObjectTable) -> dict[str, int]:
    return {
        "fit_images": source.tally.images,
        "fit_objects": len(source.pixels),
        "objects": len(target.pixels),
        "without_object": target.without,
    }
