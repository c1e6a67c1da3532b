"""MaskContrast's loss without the backbone, beside the paper's algorithm 1 written literally; and matching clusters.

The loss: 8 images of 224x224, D = 32, 30 % object pixels, a queue of K = 128, both losses, forward and backward to the
embedding and the saliency logits. The literal side normalises every pixel, selects the objects' with an index, makes
the (P, N + K) logits with `mm` and `cat` and hands them to the cross entropy, as algorithm 1 does. Both take turns in
one process and their losses and gradients are compared. Memory is the peak beyond the inputs, each in a process of
its own, with K = 128 and K = 4096.

Matching: 21 clusters to 21 classes over 40 label maps of VOC's size (500x375), by one table of counts, beside the way
of pairwise IoU: a pass over all pixels for each pair of cluster and class. Linear assignment follows either.

And where the time of a training step of `maskcontrast_scratch` goes, on drawn images, in CPU seconds of one thread
(which a busy machine hardly changes).

    python benchmarks/maskcontrast.py
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMAGES, SIZE, DIM, QUEUE, SHARE, TEMPERATURE = 8, 224, 32, 128, 0.3, 0.5
LABELS, HEIGHT, WIDTH, CLASSES = 40, 375, 500, 21


def draw(queue: int) -> dict[str, Any]:
    """Raw embeddings of both views, saliency logits, masks (a rectangle of 30 % in each image), and the queue."""
    import torch
    import torch.nn.functional as F

    generator = torch.Generator().manual_seed(0)
    # As a network under channels_last leaves them, which is how the trainer runs it; the same for both sides.
    query, key = (
        torch.randn(IMAGES, DIM, SIZE, SIZE, generator=generator).contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    )
    masks = []
    for _ in range(2):
        mask = torch.full((IMAGES, SIZE, SIZE), -1)
        for image in range(IMAGES):
            height = int(torch.randint(int(SIZE * 0.4), int(SIZE * 0.8), (), generator=generator))
            width = round(SHARE * SIZE * SIZE / height)
            top, left = (int(torch.randint(0, SIZE - side + 1, (), generator=generator)) for side in (height, width))
            mask[image, top : top + height, left : left + width] = 0
        masks.append(mask)
    return {
        "query": query.requires_grad_(),
        "saliency": torch.randn(IMAGES, SIZE, SIZE, generator=generator).requires_grad_(),
        "key": key,
        "query_mask": masks[0],
        "key_mask": masks[1],
        "queue": F.normalize(torch.randn(queue, DIM, generator=generator), dim=1),
    }


def literal(x: dict[str, Any]) -> Any:
    """Algorithm 1, line by line, and its auxiliary loss with balanced classes."""
    import torch
    import torch.nn.functional as F

    q, k = F.normalize(x["query"], dim=1), F.normalize(x["key"], dim=1)
    foreground = x["query_mask"] >= 0
    valid_ids = foreground.flatten().nonzero().squeeze(1)  # P
    s_r = torch.arange(IMAGES)[:, None, None].expand_as(foreground).flatten()[valid_ids]  # an object an image
    s_k = (x["key_mask"] >= 0).float()
    with torch.no_grad():
        p_k = torch.bmm(k.reshape(IMAGES, DIM, -1), s_k.view(IMAGES, -1, 1)).squeeze(2)
        p_k = F.normalize(p_k, dim=1)  # N x C
    q = torch.index_select(q.permute(0, 2, 3, 1).reshape(-1, DIM), 0, valid_ids)  # P x C
    l_pos = torch.mm(q, p_k.T)  # P x N
    l_neg = torch.mm(q, x["queue"].T)  # P x K
    logits = torch.cat([l_pos, l_neg], dim=1)
    loss = F.cross_entropy(logits / TEMPERATURE, s_r)
    share = (~foreground).float().mean()
    weight = torch.where(foreground, share, 1 - share)
    return loss + F.binary_cross_entropy_with_logits(x["saliency"], foreground.float(), weight)


def make_ours(queue: int) -> Callable[[dict[str, Any]], Any]:
    """The package's comparison; its networks stay unused, the queue holds what is given before every step."""
    import torch

    from selfseg.methods.maskcontrast import MaskContrast, MaskContrastConfig
    from selfseg.models.embedder import EmbedderConfig

    # The smallest backbone that timm has: none of it runs.
    embedder = EmbedderConfig(backbone="resnet10t", output_stride=32, decoder="linear", dim=DIM, saliency=True)
    config = MaskContrastConfig(embedder=embedder, queue=queue, temperature=TEMPERATURE, saliency_loss="balanced")
    method = MaskContrast(config)

    def ours(x: dict[str, Any]) -> Any:
        with torch.no_grad():
            method.queue.push(x["queue"])
        return method.compare(x["query"], x["saliency"], x["key"], x["query_mask"], x["key_mask"]).loss

    return ours


def step(function: Callable[[dict[str, Any]], Any], x: dict[str, Any]) -> tuple[float, float]:
    """Seconds of forward and backward, and the loss; the gradients stay in the inputs."""
    x["query"].grad = x["saliency"].grad = None
    begin = time.perf_counter()
    loss = function(x)
    loss.backward()
    return time.perf_counter() - begin, float(loss.detach())


def time_loss(repeats: int) -> dict[str, Any]:
    """Both sides in turns."""
    import torch

    torch.set_num_threads(1)
    x = draw(QUEUE)
    sides = {"ours": make_ours(QUEUE), "literal": literal}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    losses, gradients = {}, {}
    for repeat in range(repeats + 1):
        for name, function in sides.items():
            taken, losses[name] = step(function, x)
            if repeat:  # the first is for warming up
                seconds[name].append(taken)
            else:
                gradients[name] = [x["query"].grad.clone(), x["saliency"].grad.clone()]
    difference = max(
        float((a - b).abs().max() / b.abs().max()) for a, b in zip(gradients["ours"], gradients["literal"], strict=True)
    )
    median = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = statistics.median([a / b for a, b in zip(seconds["ours"], seconds["literal"], strict=True)])
    best = min(seconds["ours"]) / min(seconds["literal"])
    return {
        "median_ms": {name: 1e3 * value for name, value in median.items()},
        "best_ms": {name: 1e3 * min(values) for name, values in seconds.items()},
        "repeats": repeats,
        "ours_of_literal": ratio,
        "ours_of_literal_best": best,
        "loss": losses,
        "largest_relative_difference_of_gradients": difference,
    }


def _memory(key: str) -> float:
    """MiB of this process: VmRSS now, VmHWM at its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise LookupError(key)


def _measure_memory(name: str, queue: int, answers: Any) -> None:
    import torch

    torch.set_num_threads(1)
    x = draw(queue)
    function = literal if name == "literal" else make_ours(queue)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is that of drawing the inputs
    before = _memory("VmRSS")
    step(function, x)
    answers.put(_memory("VmHWM") - before)


def measure_memory() -> dict[str, float]:
    """MiB beyond the inputs by side and K, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    peaks = {}
    for name in ("ours", "literal"):
        for queue in (QUEUE, 4096):
            answers = context.Queue()
            process = context.Process(target=_measure_memory, args=(name, queue, answers))
            process.start()
            peaks[f"{name}, K = {queue}"] = float(answers.get())
            process.join()
    return peaks


def draw_labels() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(40, 375, 500) labels in patches of 25 px, 5 % void, and clusters that agree with them on half of the pixels."""
    rng = np.random.default_rng(0)
    patches = rng.integers(0, CLASSES, (LABELS, HEIGHT // 25, WIDTH // 25))
    truth = patches.repeat(25, 1).repeat(25, 2).astype(np.uint8)
    guess = rng.integers(0, CLASSES, truth.shape)
    clusters = np.where(rng.random(truth.shape) < 0.5, rng.permutation(CLASSES)[truth], guess)
    truth[rng.random(truth.shape) < 0.05] = 255
    return truth, clusters


def pairwise(truth: NDArray[np.uint8], clusters: NDArray[np.int64]) -> NDArray[np.int64]:
    """A pass over all pixels for each pair."""
    from scipy.optimize import linear_sum_assignment

    valid = truth.ravel() != 255
    true, predicted = truth.ravel()[valid], clusters.ravel()[valid]
    iou = np.zeros((CLASSES, CLASSES))
    for j in range(CLASSES):
        for c in range(CLASSES):
            both = np.count_nonzero((predicted == j) & (true == c))
            either = np.count_nonzero((predicted == j) | (true == c))
            iou[j, c] = both / max(either, 1)
    return np.asarray(linear_sum_assignment(iou, maximize=True)[1], np.int64)


def counted(truth: NDArray[np.uint8], clusters: NDArray[np.int64]) -> NDArray[np.int64]:
    """The package's way: one table, image by image."""
    from selfseg.evaluation.measure.confusion import cross_counts
    from selfseg.ops.matching import match_hungarian

    counts = np.zeros((CLASSES, CLASSES), np.int64)
    for label, cluster in zip(truth, clusters, strict=True):
        counts += cross_counts(label, cluster, CLASSES, CLASSES)[0]
    return match_hungarian(counts.T)


def time_matching() -> dict[str, Any]:
    """Both ways, in CPU seconds of one thread; the mapping has to be the same."""
    truth, clusters = draw_labels()
    counted(truth, clusters)
    seconds: dict[str, list[float]] = {"ours": [], "pairwise": []}
    for repeat in range(9):
        begin = time.process_time()
        mine = counted(truth, clusters)
        seconds["ours"].append(time.process_time() - begin)
        if repeat == 4:  # one is enough: it takes the time of hundreds of ours
            begin = time.process_time()
            theirs = pairwise(truth, clusters)
            seconds["pairwise"].append(time.process_time() - begin)
    if not np.array_equal(mine, theirs):
        raise SystemExit("the two ways of matching disagree")
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "median_cpu_ms": {name: 1e3 * s for name, s in median.items()},
        "times": median["pairwise"] / median["ours"],
    }


def profile_step(repeats: int = 3) -> dict[str, float]:
    """Median CPU milliseconds of each part of a step of `maskcontrast_scratch`: 16 images, two views, bf16."""
    import torch

    from selfseg.data.loader import Sample, collate
    from selfseg.recipe_book.maskcontrast import maskcontrast_scratch
    from selfseg.training.optimizer import make_optimizer

    recipe = maskcontrast_scratch(Path("images"), Path("run"))
    plan = recipe.method.views
    rng = np.random.default_rng(0)
    objects = np.full((256, 340), -1, np.int32)
    objects[60:200, 90:260] = 0
    images = [rng.integers(0, 256, (256, 340, 3), np.uint8) for _ in range(recipe.batch_size)]
    parts: dict[str, list[float]] = {}

    def timed(name: str, function: Callable[[], Any]) -> Any:
        begin = time.process_time()
        result = function()
        parts.setdefault(name, []).append(1e3 * (time.process_time() - begin))
        return result

    torch.manual_seed(0)
    method = recipe.build_method().to(memory_format=torch.channels_last).train()
    optimizer = make_optimizer(method, recipe.optimizer)
    for _ in range(repeats + 1):
        samples = timed(
            "views (without decoding)", lambda: [Sample(plan.make(image, objects, rng), 0, ()) for image in images]
        )
        first, second = collate(samples).to(torch.device("cpu")).views
        with torch.autocast("cpu", torch.bfloat16):
            q, saliency = timed("query network", lambda: method.embedder.raw_and_saliency(first.image))  # noqa: B023
            with torch.no_grad():
                timed("momentum network moves", lambda: method.twin.update(0.99))
                k = timed("momentum network", lambda: method.twin.teacher.raw(second.image))  # noqa: B023
        given = (q.float(), saliency.float(), k.float(), first.regions, second.regions)
        out = timed("both losses", lambda: method.compare(*given))  # noqa: B023 (called at once)
        timed("backward", out.loss.backward)
        timed("optimiser", optimizer.step)
        optimizer.zero_grad()
    median = {name: statistics.median(values[1:]) for name, values in parts.items()}
    return {**median, "all": sum(median.values())}


def main(argv: list[str] | None = None) -> int:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "maskcontrast.json")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args(argv)
    import torch

    record = {
        "command": "python benchmarks/maskcontrast.py",
        "date": date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, 1 thread",
        "torch": torch.__version__,
        "loss": time_loss(options.repeats),
        "mib_beyond_inputs": measure_memory(),
        "matching": time_matching(),
        "step_cpu_ms": profile_step(),
    }
    sys.stdout.write(json.dumps(record, indent=2) + "\n")
    options.out.write_text(json.dumps(record, indent=2) + "\n")
    loss = record["loss"]
    same = abs(loss["loss"]["ours"] - loss["loss"]["literal"]) < 1e-4
    return 0 if same and loss["largest_relative_difference_of_gradients"] < 1e-3 else 1


if __name__ == "__main__":
    sys.exit(main())
