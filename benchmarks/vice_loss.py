"""ViCE's loss: ours beside the paper's pseudocode written literally as nested loops (P2, algorithms 2 and 3).

Forward and backward from given dense embeddings (V*B, D, H, W) to the loss, its gradient to embeddings and prototypes:
4 images x 5 views, 256x256, D = K = 128, superpixels of 10 px, one thread. Each side runs in a process of its own, so
that its peak memory is its own; the inputs are the same and the losses are compared. Memory is the peak beyond the
inputs; the gradient of the embeddings alone is 640 MiB of it on either side.

    python benchmarks/vice_loss.py
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

IMAGES, VIEWS, SIZE, DIM, PROTOTYPES, SUPERPIXEL = 4, 5, 256, 128, 128, 10


def _regions(size: int) -> np.ndarray:
    """(V, B, H, W) int64: shifted crops of superpixels of drawn images; only ids of all views are kept."""
    from selfseg.ops.regions.slic import slic

    rng = np.random.default_rng(0)
    out = np.full((VIEWS, IMAGES, size, size), -1, np.int64)
    for image in range(IMAGES):
        side = size + 64
        pixels = np.kron(rng.integers(0, 256, (side // 16, side // 16, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
        ids = slic(np.ascontiguousarray(pixels), SUPERPIXEL)
        crops = []
        for _ in range(VIEWS):
            y, x = rng.integers(0, 65, 2)
            crops.append(ids[y : y + size, x : x + size])
        common = set.intersection(*(set(np.unique(crop)) for crop in crops))
        keep = np.zeros(ids.max() + 1, bool)
        keep[list(common)] = True
        for view, crop in enumerate(crops):
            out[view, image] = np.where(keep[crop], crop, -1)
    return out


def _inputs(size: int) -> tuple[Any, Any, Any]:
    import torch

    torch.manual_seed(0)
    shape = (VIEWS * IMAGES, DIM, size, size)
    embedding = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    prototypes = torch.nn.functional.normalize(torch.randn(PROTOTYPES, DIM), dim=1)
    return embedding, prototypes, torch.from_numpy(_regions(size))


def literal(embedding: Any, prototypes: Any, regions: Any) -> Any:
    """Algorithm 2 with its trees T_Z, T_Z*, T_S* and algorithm 3, loop for loop; assignment as in SwAV."""
    import torch

    from selfseg.ops.objectives.sinkhorn import sinkhorn

    tree_mean: dict[tuple[int, int, int], Any] = {}
    tree_score: dict[tuple[int, int, int], Any] = {}
    ids = [[int(i) for i in regions[0, n].unique() if i >= 0] for n in range(IMAGES)]
    for m in range(VIEWS):
        for n in range(IMAGES):
            unrolled = embedding[m * IMAGES + n].permute(1, 2, 0).reshape(-1, DIM)
            unrolled_ids = regions[m, n].flatten()
            for i in ids[n]:
                mean = unrolled[unrolled_ids == i].mean(0)
                tree_mean[n, m, i] = mean / mean.norm()
                tree_score[n, m, i] = tree_mean[n, m, i] @ prototypes.T
    keys = [(n, i) for n in range(IMAGES) for i in ids[n]]
    assignment = sinkhorn(torch.stack([tree_score[n, 0, i] for n, i in keys]).detach())
    target = dict(zip(keys, assignment, strict=True))
    loss = torch.zeros(())
    for n in range(IMAGES):
        of_image = torch.zeros(())
        for m in range(1, VIEWS):
            for i in ids[n]:
                prediction = torch.log_softmax(tree_score[n, m, i] / 0.1, dim=0)
                of_image = of_image - (target[n, i] * prediction).sum()
        loss = loss + of_image / len(ids[n])
    return loss / (IMAGES * (VIEWS - 1))


def ours(embedding: Any, prototypes: Any, regions: Any) -> Any:
    """The same through the package: common regions, one index_add, one Sinkhorn, one cross entropy."""
    import torch

    from selfseg.data.views.content_centred import ContentCentredViews
    from selfseg.methods.vice import ViCE, ViCEConfig
    from selfseg.models.embedder import EmbedderConfig
    from selfseg.ops.regions.pool_regions import common_regions

    config = ViCEConfig(
        embedder=EmbedderConfig(dim=DIM, output_stride=32),
        views=ContentCentredViews(views=VIEWS, size=SIZE),
        prototypes=PROTOTYPES,
        queue=0,
        pool="raw",
    )
    global _method
    if _method is None:
        _method = ViCE(config)
    with torch.no_grad():
        _method.prototypes.weight = prototypes
    rows = common_regions(regions)
    return _method.compare(_method.pool(embedding, rows), rows, IMAGES, 1.0).loss


_method: Any = None


def _memory(key: str) -> float:
    """MiB of this process: VmRSS now, VmHWM at its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise LookupError(key)


def _run(name: str, repeats: int, size: int, answers: Any) -> None:
    import torch

    torch.set_num_threads(1)
    embedding, prototypes, regions = _inputs(size)
    embedding.requires_grad_()
    prototypes = torch.nn.Parameter(prototypes)
    function = {"literal": literal, "ours": ours}[name]
    if name == "ours":
        function(embedding[:, :, :, :], prototypes, regions)  # builds the method
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is that of drawing the inputs
    before = _memory("VmRSS")
    seconds, loss = [], 0.0
    for _ in range(repeats):
        embedding.grad = None
        begin = time.perf_counter()
        value = function(embedding, prototypes, regions)
        value.backward()
        seconds.append(time.perf_counter() - begin)
        loss = float(value.detach())
    peak = _memory("VmHWM") - before
    answers.put({"seconds": statistics.median(seconds), "extra_mib": peak, "loss": loss, "runs": repeats})


def main(argv: list[str] | None = None) -> int:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "vice_loss.json")
    parser.add_argument("--size", type=int, default=SIZE)
    options = parser.parse_args(argv)
    context = multiprocessing.get_context("spawn")
    measured = {}
    for name, repeats in (("ours", 7), ("literal", 1)):
        answers = context.Queue()
        process = context.Process(target=_run, args=(name, repeats, options.size, answers))
        process.start()
        measured[name] = answers.get()
        process.join()
    time_ratio = measured["literal"]["seconds"] / measured["ours"]["seconds"]
    memory_ratio = measured["ours"]["extra_mib"] / measured["literal"]["extra_mib"]
    for name, values in measured.items():
        sys.stdout.write(
            f"{name:8} {values['seconds']:9.3f} s   {values['extra_mib']:8.0f} MiB beyond the inputs"
            f"   loss {values['loss']:.6f}\n"
        )
    sys.stdout.write(f"time: literal / ours = {time_ratio:.0f}; memory: ours / literal = {memory_ratio:.2f}\n")
    import torch

    record = {
        "command": "python benchmarks/vice_loss.py",
        "date": date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, 1 thread",
        "torch": torch.__version__,
        "size": options.size,
        **measured,
        "time_ratio": time_ratio,
        "memory_ratio": memory_ratio,
    }
    options.out.write_text(json.dumps(record, indent=2) + "\n")
    return 0 if abs(measured["ours"]["loss"] - measured["literal"]["loss"]) < 1e-4 else 1


if __name__ == "__main__":
    sys.exit(main())
