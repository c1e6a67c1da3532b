"""Verbs in this process, in two local processes, and on Ray: how long they take, and whether their files are the same.

    python benchmarks/workers.py RUN IMAGES OUT [--data LABELLED] [--ray] [--verbs segment masks ...] [--count N]

`--ray` starts a cluster of two nodes of one CPU each on this machine, as Ray's own tests do; at the end one of them is
killed in the middle of `segment`. `apply` needs a run with named clusters, `evaluate` labelled data. RUN is copied.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selfseg import apply, embed, evaluate, mine_masks, segment
from selfseg.collection.clustering import cluster
from selfseg.data.reading.images import ImageCollection, spread_indices
from selfseg.data.reading.listing import list_images
from selfseg.evaluation import Beside, Clusters, Linear
from selfseg.workers.plan import HERE, Where

K = 27
OWN_ORDER = {"progress.jsonl", "skipped.jsonl"}  # lines come as images are finished


def verbs(run: Path, images: ImageCollection, data: str | None, wanted: list[str]) -> dict[str, Callable[..., Any]]:
    """Each takes the folder to write and where to work."""

    def clusters(out: Path, where: Where) -> None:
        shutil.copytree(run, out)
        cluster(out, images, k=K, progress=False, where=where)

    def measure(out: Path, where: Where) -> None:
        beside = Beside(baselines=False)
        evaluate(run, data or "", [Clusters(), Linear()], beside=beside, seeds=1, out=out, where=where)

    every: dict[str, Callable[..., Any]] = {
        "embed": lambda out, where: embed(run, images, out, progress=False, where=where),
        "cluster": clusters,
        "segment": lambda out, where: segment(run, images, out, k=K, progress=False, where=where),
        "masks": lambda out, where: mine_masks(images, out, progress=False, where=where),
    }
    if (run / "segmenter").is_dir():
        every["apply"] = lambda out, where: apply(run, images, out, progress=False, where=where)
    if data is not None:
        every["evaluate"] = measure
    return {name: verb for name, verb in every.items() if not wanted or name in wanted}


def digests(folder: Path) -> dict[str, str]:
    """Of all files, temporary ones too; a page knows its folder and when it was made."""
    changing = re.compile(rb"Made on [-0-9 :]+|" + re.escape(str(folder).encode()) + rb"|" + folder.name.encode())
    found = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.name not in OWN_ORDER:
            content = file.read_bytes()
            if file.suffix in (".html", ".json"):
                content = changing.sub(b"", content)
            found[file.relative_to(folder).as_posix()] = hashlib.blake2b(content).hexdigest()
    return found


def two_nodes() -> Any:
    """A Ray cluster of two nodes, which are processes of this machine."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    made.wait_for_nodes()
    return made


def kill_a_node(ray_cluster: Any, progress: Path, after: int) -> threading.Thread:
    """Once so many images are finished."""

    def watch() -> None:
        while not progress.is_file() or len(progress.read_bytes().splitlines()) < after:
            time.sleep(0.05)
        ray_cluster.remove_node(next(iter(ray_cluster.worker_nodes)), allow_graceful=False)
        print(f"  a node was killed after {len(progress.read_bytes().splitlines())} images", flush=True)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("images")
    parser.add_argument("out", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--verbs", nargs="*", default=[])
    parser.add_argument("--count", type=int, default=0, help="take so many of the images, evenly")
    asked = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    logging.basicConfig(level=logging.WARNING, format="  %(message)s")
    logging.getLogger("selfseg.told").setLevel(logging.INFO)
    images = list_images(Path(asked.images))
    if asked.count:
        images = images.subset(spread_indices(len(images), asked.count))
    asked.out.mkdir(parents=True)
    run = asked.out / "run"
    shutil.copytree(asked.run, run)
    if not (run / "clusters" / f"k{K}.json").is_file():
        cluster(run, images, k=K, progress=False)
    places: dict[str, Where] = {"in process": HERE, "--processes 2": Where(2)}
    ray_cluster = two_nodes() if asked.ray else None
    if ray_cluster is not None:
        places["Ray, two nodes"] = Where(0, ray_cluster.address)
    print("| verb | where | seconds | images/s | files | the same |\n|---|---|---|---|---|---|", flush=True)
    segmented: dict[str, str] = {}
    for name, verb in verbs(run, images, asked.data, asked.verbs).items():
        first: dict[str, str] = {}
        for number, (place, where) in enumerate(places.items()):
            out = asked.out / str(number) / name
            out.parent.mkdir(exist_ok=True)
            seconds = time.perf_counter()
            verb(out, where)
            seconds = time.perf_counter() - seconds
            found = digests(out)
            first = first or found
            segmented = first if name == "segment" else segmented
            rate = "" if name == "evaluate" else f"{len(images) / seconds:.2f}"
            same = "" if number == 0 else "yes" if found == first else "NO"
            print(f"| {name} | {place} | {seconds:.1f} | {rate} | {len(found)} | {same} |", flush=True)
    if ray_cluster is not None and segmented:
        out = asked.out / "killed" / "segment"
        watched = kill_a_node(ray_cluster, out / "progress.jsonl", len(images) // 3)
        seconds = time.perf_counter()
        segment(run, images, out, k=K, progress=False, where=Where(0, ray_cluster.address))
        seconds = time.perf_counter() - seconds
        watched.join(timeout=1)
        lines = (out / "progress.jsonl").read_text().splitlines()
        same = "yes" if digests(out) == segmented else "NO"
        print(f"| segment | Ray, a node killed | {seconds:.1f} | {len(images) / seconds:.2f} | | {same} |")
        print(f"{len(lines)} lines in progress.jsonl for {len(images)} images")
    if ray_cluster is not None:
        ray_cluster.shutdown()


if __name__ == "__main__":
    main()
