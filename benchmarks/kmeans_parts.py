"""k-means of points in parts beside k-means in memory, on embeddings of a run: how good is seeding by oversampling?

    python benchmarks/kmeans_parts.py RUN IMAGES OUT.json [--points 200000] [--k 12 27 128] [--seeds 10]

Points are drawn as `selfseg cluster` draws them. In memory k-means starts from greedy k-means++, in parts from
oversampling (k-means||); each seed is another start of both. Then two local processes go through the same parts: the
same bits?
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from selfseg.collection.opening import load
from selfseg.collection.points.drawing import Drawer, Drawing, draw_pixels
from selfseg.data.reading.listing import list_images
from selfseg.data.reading.skipping import SkipLog
from selfseg.ops.kmeans import kmeans
from selfseg.ops.parts.kmeans import kmeans_parts
from selfseg.ops.parts.steps import PartFiles
from selfseg.workers.hiring import hire
from selfseg.workers.parts import SharedParts
from selfseg.workers.plan import Where

PIECES = 8


def draw(run: Path, images: Path, points: int, work: Path) -> torch.Tensor:
    """(N, D) float32 of unit length."""
    collection = list_images(images)
    job = Drawing(run, None, "cpu", len(collection), 0, points, 0.0, False, True)
    log = SkipLog(work / "skipped.jsonl", len(collection))
    return draw_pixels(job, Drawer(job, load(run, "cpu"), here=True), collection, log)[0][0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--points", type=int, default=200_000)
    parser.add_argument("--k", type=int, nargs="+", default=[12, 27, 128])
    parser.add_argument("--seeds", type=int, default=10)
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        points = draw(asked.run, asked.images, asked.points, work)
        paths = []
        for number, part in enumerate(np.array_split(points.numpy(), PIECES)):
            paths.append(work / f"part-{number}.npy")
            np.save(paths[-1], part)
        parts = PartFiles(tuple(paths))
        print("| k | seeds | inertia, parts / memory: mean | worst | best | processor s, parts / memory | 2 workers |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for k in asked.k:
            ratios, ours, theirs = [], 0.0, 0.0
            for seed in range(asked.seeds):
                begun = time.process_time()
                found = kmeans_parts(parts, k, seed=seed)
                middle = time.process_time()
                whole = kmeans(points, k, seed=seed)
                ours, theirs = ours + middle - begun, theirs + time.process_time() - middle
                ratios.append(found.inertia / whole.inertia)
            with hire(Where(2), "k-means", progress=False) as workers:
                shared = kmeans_parts(SharedParts(workers, parts.paths), k, seed=asked.seeds - 1)
            same = torch.equal(shared.centroids, found.centroids) and shared.inertia == found.inertia
            row = {
                "k": k,
                "ratios": ratios,
                "mean": float(np.mean(ratios)),
                "processor_seconds": [ours / asked.seeds, theirs / asked.seeds],
                "two_workers_the_same": same,
            }
            rows.append(row)
            print(
                f"| {k} | {asked.seeds} | {row['mean']:.4f} | {max(ratios):.4f} | {min(ratios):.4f} | "
                f"{ours / asked.seeds:.1f} / {theirs / asked.seeds:.1f} | {'the same' if same else 'OTHER'} |",
                flush=True,
            )
    result = {
        "command": " ".join(sys.argv[1:]),
        "date": datetime.date.today().isoformat(),
        "points": list(points.shape),
        "parts": PIECES,
        "rows": rows,
    }
    asked.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
