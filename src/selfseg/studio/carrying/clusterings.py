"""Which clustering a path K/ID speaks of, and a copy of each that was decided about.

Numbers of clusters mean nothing by themselves: cluster a run again, with another seed or after more training, and 27/3
is something else. So the log is told the fingerprint of the clustering before anything is decided about it, names of
another clustering rest, and its centroids lie beside the log: `RUN/studio/clusterings/FINGERPRINT.safetensors`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from selfseg.collection.clusters import Clusters, placed_rows
from selfseg.errors import RunError
from selfseg.storage.tensors import read_header, read_tensors, write_tensors
from selfseg.studio.decisions.log import DecisionLog


def fingerprint(clusters: Clusters) -> str:
    """16 hex digits, the same for clusters that give each pixel of each image the same number."""
    digest = hashlib.blake2b(f"{clusters.info.get('embedder')} {clusters.position!r} ".encode(), digest_size=8)
    for tensor in (clusters.centroids, clusters.groups):
        if tensor is not None:
            array = tensor.cpu().contiguous().numpy()
            digest.update(f"{array.dtype} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()


def remember(log: DecisionLog, clusters: Clusters) -> bool:
    """Tell a log which clustering the paths with its K speak of from here on, and keep a copy of it.

    Returns:
        Whether names that were given to another clustering with this K rest now (`carry_over` from the log to itself
        gives them to the clusters of this one).

    Raises:
        StorageError: if it can't be written.
    """
    digest = fingerprint(clusters)
    path = _path(log.folder, digest)
    if not path.is_file():
        tensors = {"centroids": clusters.centroids.cpu().contiguous()}
        if clusters.groups is not None:
            tensors["groups"] = clusters.groups.cpu().contiguous()
        about = {"k": clusters.k, "position": clusters.position, "embedder": clusters.info.get("embedder", "")}
        write_tensors(path, tensors, {"selfseg": json.dumps(about)})
    return log.use_clustering(clusters.k, digest)


def keep_names(run: Path | str, clusters: Clusters, names: Mapping[int, str], left_out: Collection[int] = ()) -> None:
    """Write names that were given without the page into the log, as one decision, so that the studio knows them.

    Args:
        run: the run's folder.
        clusters: that the numbers are of.
        names: of clusters, by number; "" takes away what was said of one: its name, or that it is left out.
        left_out: numbers of clusters that belong to no class.

    Raises:
        ConfigError: if a name is none.
        StorageError: if it can't be written.
    """
    log = DecisionLog.open(Path(run) / "studio")
    remember(log, clusters)
    decisions: list[tuple[str, dict[str, Any]]] = []
    for number, name in names.items():
        path = f"{clusters.k}/{number}"
        decisions.append(("name", {"cluster": path, "name": name}))
        if not name and any(one == path or one.startswith(f"{path}.") for one in log.state().left_out):
            decisions.append(("leave_out", {"cluster": path, "on": False}))
    for number in left_out:
        decisions.append(("leave_out", {"cluster": f"{clusters.k}/{number}", "on": True}))
    if decisions:
        log.append_all(decisions, group=f"name {log.state().seq}")


def recall(folder: Path, digest: str) -> Clusters:
    """The copy that `remember` made beside a log, without shares and typical images.

    Raises:
        RunError: if there is none, or it is damaged.
    """
    path = _path(folder, digest)
    try:
        tensors, about = read_tensors(path), read_header(path)
        k, info = int(about["k"]), {"position": float(about["position"]), "embedder": str(about["embedder"])}
        rows, groups = placed_rows(tensors, "centroids", {**info, "k": k}, k if "groups" not in tensors else None, None)
        return Clusters(rows, (0.0,) * k, ((),) * k, info, groups)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"the clustering in {path} can't be read ({type(error).__name__}: {error})") from error


def _path(folder: Path, digest: str) -> Path:
    return folder / "clusterings" / f"{digest}.safetensors"
