"""From a run's clusters and the names that a person gave them to a segmenter.

Clusters with one name are one class. A cluster without a name is void: its pixels have no class, and go to no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfseg.collection.clusters import Clusters, load_clusters
from selfseg.collection.opening import load
from selfseg.data.labelled.legend import Colour, Legend, clean_name
from selfseg.errors import CheckpointError, ConfigError, RunError
from selfseg.models.embedder import Looks
from selfseg.segmenter.segmenter import NO_CLASS, Segmenter
from selfseg.storage.files import read_json
from selfseg.storage.hashes import embedder_hash
from selfseg.storage.tensors import read_tensors
from selfseg.telling import tell

LEFT_OUT = "void"
"""The name of a cluster that a person looked at and left out; in a mask it is void, as one without a name."""


def from_clusters(
    run: Path | str,
    k: int | None,
    names: Mapping[int, str],
    colours: Mapping[str, Colour] | None = None,
    looks: Looks | None = None,
    device: str = "cpu",
) -> Segmenter:
    """The segmenter that a run's clusters are when they have names.

    Its masks are those of `selfseg segment` with each cluster's value replaced by its class's, to the pixel.

    Args:
        run: the run's folder.
        k: which clustering; the largest one there is if None.
        names: the name of each cluster that has one, by its number from 0. Classes have the order in which their names
            come first. "void", in capitals or not, leaves a cluster out; so does no name, or an empty one.
        colours: R, G, B in [0, 255] of classes, by name; those without get colours that the colour-blind can tell
            apart, as far as there are any.
        looks: how often each image is looked at; once if None.
        device: where the segmenter shall live.

    Returns:
        The segmenter. Its sharpness is the concentration of the clusters' mixture (`concentration`).

    Raises:
        ConfigError: if there is no such cluster, or none has a name that makes it a class, or a colour is nobody's.
        RunError: if the run has no such clusters; see `load` too.
    """
    run = Path(run)
    clusters = load_clusters(run, k)
    given = {number: cluster_name(name) for number, name in names.items()}
    check_numbers(given, clusters.k)
    of_class = {number: name for number, name in given.items() if name not in ("", LEFT_OUT)}
    classes = list(dict.fromkeys(of_class.values()))
    if not classes:
        raise ConfigError(f"no cluster of {run} has a name that makes it a class; name one, e.g. 3=road")
    unknown = sorted(set(colours or {}) - set(classes))
    if unknown:
        raise ConfigError(f"there is no class {unknown[0]!r} to colour; there are {', '.join(classes)}")
    of_cluster = torch.full((clusters.k,), NO_CLASS)
    for number, name in of_class.items():
        of_cluster[number] = classes.index(name)
    table = of_cluster if clusters.groups is None else of_cluster[clusters.groups]
    about = {
        "made_of": "clusters",
        "k": clusters.k,
        "run": run.resolve().name,
        "embedder": embedder_hash(run),
        "names": {str(number): name for number, name in given.items() if name},
    }
    embedder = load(run, device, looks)
    segmenter = Segmenter(
        embedder,
        Legend.of(classes, colours),
        clusters.centroids,
        table=table,
        position=clusters.position,
        sharpness=concentration(clusters),
        about=about,
    )
    return segmenter.to(embedder.mean.device).eval()


def cluster_name(name: str) -> str:
    """What a cluster is called: a class (`clean_name`), `LEFT_OUT` for any writing of "void", or "" for nothing.

    Raises:
        ConfigError: if it is no name that a class can have.

    Example:
        >>> cluster_name(" traffic light "), cluster_name("Void"), cluster_name(" ")
        ('traffic light', 'void', '')
    """
    if not name.strip():
        return ""
    clean = clean_name(name)
    return LEFT_OUT if clean.casefold() == LEFT_OUT else clean


def check_numbers(numbers: Mapping[int, Any] | Sequence[int], k: int) -> None:
    """Raise ConfigError for a number that is no cluster's."""
    wrong = [number for number in numbers if not 0 <= number < k]
    if wrong:
        raise ConfigError(f"there is no cluster {wrong[0]}; with k = {k} they are 0 to {k - 1}")


def concentration(clusters: Clusters) -> float:
    """How strongly the pixels of clusters gather around their centroids: kappa of a von Mises-Fisher mixture.

    One for all clusters, from the mean cosine r of a pixel and its centroid: r (F - r^2) / (1 - r^2) (Banerjee et al.:
    "Clustering on the unit hypersphere using von Mises-Fisher distributions", JMLR 2005, eq. 4.4), F numbers a vector.
    """
    points = float(clusters.info.get("points", 0))
    if points <= 0 or "inertia" not in clusters.info:  # a run of before that was kept
        return 20.0
    r = min(max(1 - float(clusters.info["inertia"]) / (2 * points), 0.0), 0.999)
    return max(r * (clusters.centroids.shape[1] - r * r) / (1 - r * r), 1.0)


@dataclass(frozen=True)
class Named:
    """The clusters of a run with what they are called.

    Attributes:
        k: how many there are.
        names: of those that have one, in the order of the classes; "void" is left out.
        colours: of the classes.
    """

    k: int
    names: Mapping[int, str]
    colours: Mapping[str, Colour]


def named(run: Path | str) -> Named | None:
    """What `selfseg name` has made of a run so far; None if nothing, or if embedder or clusters changed since.

    Raises:
        CheckpointError: if the segmenter that keeps the names is damaged.
    """
    path = Path(run) / "segmenter" / "segmenter.json"
    if not path.is_file():
        return None
    try:
        values = read_json(path)
        about, legend = values["about"], Legend.from_json(values["classes"])
        if about.get("made_of") != "clusters" or about.get("embedder") != embedder_hash(run):
            return None
        names = {int(number): str(name) for number, name in about["names"].items()}
        found = Named(int(about["k"]), names, {one.name: one.colour for one in legend.classes})
        kept = read_tensors(path.parent / "weights.safetensors")
        return found if _is_of(load_clusters(run, found.k), found.names, kept) else None
    except RunError as error:
        if isinstance(error, CheckpointError):
            raise
        return None  # there are no such clusters any more
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
        raise CheckpointError(
            f"the names in {path} can't be read ({type(error).__name__}: {error}); remove {path.parent} and name again"
        ) from error


def tell_of_age(run: Path | str) -> None:
    """Say that a run's segmenter is of earlier weights or clusters, if it is; nothing of what is no run."""
    run = Path(run)
    try:
        about = read_json(run / "segmenter" / "segmenter.json")["about"]
        if about.get("made_of") != "clusters" or named(run) is not None:
            return
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RunError):
        return  # whoever loads it says what is wrong
    tell(
        f"{run} was trained or clustered again since its clusters were named; its segmenter is still the one that was "
        f"made then. `selfseg name {run}` shows the clusters of now"
    )


def _is_of(clusters: Clusters, names: Mapping[int, str], kept: Mapping[str, Tensor]) -> bool:
    """Whether a segmenter's rows are those of clusters with these names: cluster 3 of now is the one that was named."""
    if not torch.equal(kept["weight"].cpu(), clusters.centroids.cpu()):
        return False
    if clusters.groups is None:
        return True
    classes = list(dict.fromkeys(name for name in names.values() if name not in ("", LEFT_OUT)))
    of_cluster = torch.full((clusters.k,), NO_CLASS)
    for number, name in names.items():
        if name in classes:
            of_cluster[number] = classes.index(name)
    return torch.equal(kept["table"].cpu(), of_cluster[clusters.groups.cpu()])


def renamed(
    run: Path | str,
    names: Mapping[int, str],
    k: int | None = None,
    colours: Mapping[str, Colour] | None = None,
    before: Named | None = None,
) -> Segmenter:
    """The segmenter of earlier and new names; nothing is written yet. `before` is what has names so far."""
    if before is not None and k is not None and k != before.k and before.names:
        raise ConfigError(
            f"{run} has {len(before.names)} names of its clusters with k = {before.k}, which do not fit k = {k}; "
            f"go on with -k {before.k}, or remove {Path(run) / 'segmenter'} to begin again"
        )
    kept = dict(before.names) if before is not None else {}
    k = before.k if before is not None and k is None else k
    given = {number: cluster_name(name) for number, name in names.items()}
    check_numbers(given, load_clusters(run, k).k)
    for number, name in given.items():
        kept.pop(number, None)
        if name:
            kept[number] = name
    place = {} if before is None else {name: at for at, name in enumerate(before.colours)}
    kept = dict(sorted(kept.items(), key=lambda one: place.get(one[1], len(place))))  # so values stay what they were
    classes = {name for name in kept.values() if name != LEFT_OUT}
    if not classes:
        raise ConfigError(_no_class(run, before))
    known = {} if before is None else {name: colour for name, colour in before.colours.items() if name in classes}
    return from_clusters(run, k, kept, {**known, **(colours or {})})


def _no_class(run: Path | str, before: Named | None) -> str:
    """Why names can't be written that leave no class."""
    if before is not None and before.colours:
        return (
            f"this would take away the last class ({', '.join(before.colours)}), and a segmenter needs one; name "
            f"another cluster with it, e.g. 3=road, or remove {Path(run) / 'segmenter'} to begin again"
        )
    return "a segmenter needs a class, and no cluster has a name that makes it one; name one with it, e.g. 3=road"
