"""k-means against faiss and scikit-learn: a million vectors of 128 dimensions into 256 clusters.

Each with its own seeding: faiss does its default of 25 iterations (over all points, where its default is a sample of
256 per cluster); ours and scikit-learn's stop at their tolerance of 1e-4. "selfseg, equal" is ours with the fewest
iterations whose inertia is no more than faiss's. Then one iteration count from one given start.

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

try:
    import faiss
except ImportError:
    print("faiss is not installed (pip install faiss-cpu): left out", file=sys.stderr)
    faiss = None

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
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--k", type=int, default=256)
    parser.add_argument("--iterations", type=int, default=25)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "kmeans.json")
    arguments = parser.parse_args(argv)
    points, k, iterations = draw(arguments.points, arguments.dimension), arguments.k, arguments.iterations
    array = points.numpy()
    rows: list[dict[str, Any]] = []

    def note(name: str, start: str, seconds: float, inertia: float, iterations: int) -> None:
        row = {"name": name, "start": start, "cpu_seconds": round(seconds, 2), "inertia": float(inertia)}
        rows.append(row | {"iterations": iterations})
        print(f"{name:14} {start:12} {seconds:7.2f} s   inertia {inertia:.6g}   {iterations} iterations", flush=True)

    def ours(name: str, start: str, **options: Any) -> float:
        begin = time.process_time()
        result = kmeans(points, k, spherical=False, **options)
        note(name, start, time.process_time() - begin, result.inertia, result.iterations)
        return result.inertia

    def sklearn(start: str, **options: Any) -> None:
        begin = time.process_time()
        model = KMeans(k, n_init=1, **options).fit(array)
        note("scikit-learn", start, time.process_time() - begin, model.inertia_, model.n_iter_)

    for seed in range(arguments.seeds):
        start = f"own, seed {seed}"
        ours("selfseg", start, seed=seed, iterations=300)
        sklearn(start, random_state=seed)
        if faiss is not None:
            begin = time.process_time()
            options = {"niter": iterations, "max_points_per_centroid": len(array), "seed": seed}
            model = faiss.Kmeans(arguments.dimension, k, **options)
            model.train(array)
            seconds = time.process_time() - begin
            # Its last figure is from before its last update of the centroids; one more assignment gives theirs.
            inertia = float(model.index.search(array, 1)[0].sum(dtype=np.float64))
            note("faiss", start, seconds, inertia, iterations)
            for few in range(1, 301):
                if ours("selfseg, equal", start, seed=seed, iterations=few) <= inertia:
                    break
                rows.pop()
    initial = points[:k].clone()
    ours("selfseg", "given", iterations=5, tolerance=0, initial=initial)
    sklearn("given", init=initial.numpy(), max_iter=5, tol=0)

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    settings = {name: getattr(arguments, name) for name in ("points", "dimension", "k", "iterations")}
    settings |= {"threads": torch.get_num_threads(), "torch": torch.__version__, "machine": platform.processor()}
    arguments.out.write_text(json.dumps({**settings, "runs": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
