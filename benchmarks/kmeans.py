"""k-means against scikit-learn (and faiss, where it is installed): the same Lloyd iterations, one start and own ones.

Seconds are CPU time of the process: with one thread (OMP_NUM_THREADS=1) that is what an idle core would take.

python benchmarks/kmeans.py
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans

from selfseg.ops.kmeans import kmeans

RESULTS = Path(__file__).parent / "results"


def draw(points: int, dimension: int, seed: int = 0) -> torch.Tensor:
    """A mixture of 200 blobs of unequal size that overlap, (points, dimension) float32."""
    generator = torch.Generator().manual_seed(seed)
    middles = torch.randn(200, dimension, generator=generator)
    share = torch.rand(200, generator=generator).pow(2)
    which = torch.multinomial(share, points, replacement=True, generator=generator)
    return middles[which] + torch.randn(points, dimension, generator=generator)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS / "kmeans.json")
    arguments = parser.parse_args(argv)
    points, k, iterations = draw(arguments.points, arguments.dimension), arguments.k, arguments.iterations
    array = points.numpy()
    rows: list[dict[str, Any]] = []

    def note(name: str, start: str, seconds: float, inertia: float) -> None:
        rows.append({"name": name, "start": start, "cpu_seconds": round(seconds, 2), "inertia": float(inertia)})
        print(f"{name:14} {start:12} {seconds:7.2f} s   inertia {inertia:.6g}", flush=True)

    initial = points[:k].clone()
    begin = time.process_time()
    ours = kmeans(points, k, iterations=iterations, spherical=False, tolerance=0, initial=initial)
    note("selfseg", "given", time.process_time() - begin, ours.inertia)
    begin = time.process_time()
    theirs = KMeans(k, init=initial.numpy(), n_init=1, max_iter=iterations, tol=0).fit(array)
    note("scikit-learn", "given", time.process_time() - begin, theirs.inertia_)
    for seed in range(2):
        begin = time.process_time()
        ours = kmeans(points, k, seed=seed, iterations=iterations, spherical=False, tolerance=0)
        note("selfseg", f"own, seed {seed}", time.process_time() - begin, ours.inertia)
        begin = time.process_time()
        theirs = KMeans(k, n_init=1, max_iter=iterations, tol=0, random_state=seed).fit(array)
        note("scikit-learn", f"own, seed {seed}", time.process_time() - begin, theirs.inertia_)
    try:
        import faiss
    except ImportError:
        print("faiss is not installed: left out", file=sys.stderr)
    else:
        options = {"niter": iterations, "max_points_per_centroid": len(array), "seed": 0}
        begin = time.process_time()
        model = faiss.Kmeans(arguments.dimension, k, **options)
        model.train(np.ascontiguousarray(array))
        note("faiss", "own, seed 0", time.process_time() - begin, model.obj[-1])

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    settings = {name: getattr(arguments, name) for name in ("points", "dimension", "k", "iterations")}
    settings |= {"threads": torch.get_num_threads(), "torch": torch.__version__, "machine": platform.processor()}
    arguments.out.write_text(json.dumps({**settings, "runs": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
