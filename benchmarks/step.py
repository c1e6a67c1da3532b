"""What a training step of the small recipes takes on one core; what precision, memory layout and kept memory change.

    python benchmarks/step.py DATA/train/images

For each recipe the same steps on its first batch, in turns in one process, each on a copy of the method of its own:
32-true and bf16-mixed; weights and images channels last (as training has them) and not; memory of earlier steps kept
(as training does) and given back to the system. Times are processor time, so that other processes count little.
Besides, for `vice_small` as it is in 32-true: the parts of a step.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import torch

from selfseg.data.loader import StepSampler, ViewDataset, collate
from selfseg.data.reading.listing import list_images
from selfseg.data.regions import RegionCache
from selfseg.fitting.memory import kept_memory
from selfseg.training.optimizer import make_optimizer
from selfseg.training.recipe import Recipe, recipes
from selfseg.types import Batch
from shipped import photographs

CPU = torch.device("cpu")
# Name: precision, channels last, memory kept.
VARIANTS = {
    "as trained, 32-true": (False, True, True),
    "as trained, bf16-mixed": (True, True, True),
    "not channels last, 32-true": (False, False, True),
    "not channels last, bf16-mixed": (True, False, True),
    "memory given back, 32-true": (False, True, False),
    "memory given back, bf16-mixed": (True, True, False),
}
PAIRS = {
    "bf16-mixed / 32-true": ("as trained, bf16-mixed", "as trained, 32-true"),
    "channels last / not, 32-true": ("as trained, 32-true", "not channels last, 32-true"),
    "channels last / not, bf16-mixed": ("as trained, bf16-mixed", "not channels last, bf16-mixed"),
    "memory kept / given back, 32-true": ("as trained, 32-true", "memory given back, 32-true"),
    "memory kept / given back, bf16-mixed": ("as trained, bf16-mixed", "memory given back, bf16-mixed"),
}


def chosen(images: Path) -> dict[str, Recipe[Any]]:
    """The recipes, and `vice_scratch` with a backbone of depthwise convolutions."""
    known = recipes()
    found = {name: known[name](images, Path("unused")) for name in ("vice_small", "vice_scratch", "slotcon_scratch")}
    scratch = found["vice_scratch"]
    embedder = replace(scratch.method.embedder, backbone="tf_efficientnet_lite0")
    found["vice_scratch, lite0"] = replace(scratch, method=replace(scratch.method, embedder=embedder))
    return found


def first_batch(recipe: Recipe[Any], method: Any) -> tuple[Batch, float]:
    """The first step's batch, and the processor time that its views took."""
    plan, images = method.views(), list_images(recipe.images)
    dataset = ViewDataset(images, plan, recipe.seed, RegionCache(None, plan.regions))
    keys = next(iter(StepSampler(len(images), recipe.batch_size, 0, 1, recipe.seed)))
    collate([dataset[keys[0]]])  # what is compiled or imported at the first call
    begin = time.process_time()
    batch = collate([dataset[key] for key in keys])
    return batch, time.process_time() - begin


class Variant:
    """A copy of a method that is trained in one way."""

    def __init__(self, recipe: Recipe[Any], method: Any, batch: Batch, half: bool, last: bool, kept: bool) -> None:
        self.half, self.kept, self.batch = half, kept, batch
        self.method = copy.deepcopy(method).train()
        if last:
            self.method.to(memory_format=torch.channels_last)
        else:
            for module in self.method.modules():
                if hasattr(module, "feature_info"):  # a backbone
                    module.register_forward_pre_hook(lambda _, given: (given[0].contiguous(),))
        self.optimizer = make_optimizer(self.method, recipe.optimizer)
        self.losses: list[float] = []

    def step(self) -> float:
        """Its processor time."""
        torch.manual_seed(0)
        with ExitStack() as held:
            if self.kept:
                held.enter_context(kept_memory(CPU))
            self._step()  # what is kept must have been there once
            begin = time.process_time()
            self._step()
            return time.process_time() - begin

    def _step(self) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            loss = self.method(self.batch.to(CPU), 0.5).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.method.after_step(0.5)
        self.losses.append(loss.item())


def parts(recipe: Recipe[Any], method: Any, batch: Batch, repeats: int) -> dict[str, float]:
    """Milliseconds of processor time of the parts of a step of ViCE; medians."""
    variant = Variant(recipe, method, batch, half=False, last=True, kept=True)
    method, embedder = variant.method, variant.method.embedder
    spent: dict[str, list[float]] = {}

    def watch(owner: Any, name: str, what: str) -> None:
        original = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            begin = time.process_time()
            result = original(*args, **kwargs)
            spent.setdefault(what, []).append(time.process_time() - begin)
            return result

        setattr(owner, name, timed)

    watch(embedder.backbone, "forward", "backbone")
    watch(embedder, "_stages", "backbone, border and alignment")
    watch(embedder.decoder, "forward", "decoder")
    watch(method, "pool", "means of regions")
    watch(method, "compare", "assignments and loss")
    watch(method, "forward", "forward, all")
    watch(variant.optimizer, "step", "optimiser")
    watch(variant, "_step", "step, all")  # what is in no part is the backward pass and the copy of the batch
    with kept_memory(CPU):
        for _ in range(repeats + 1):
            variant._step()
    return {what: round(1000 * statistics.median(times[1:]), 1) for what, times in spent.items()}


def measure(recipe: Recipe[Any], repeats: int, with_parts: bool) -> dict[str, Any]:
    """Times of all variants and their ratios."""
    torch.manual_seed(0)
    method = recipe.build_method()
    method.load_backbone(recipe.init or "random")
    batch, views = first_batch(recipe, method)
    variants = {name: Variant(recipe, method, batch, *how) for name, how in VARIANTS.items()}
    times: dict[str, list[float]] = {name: [] for name in variants}
    for variant in variants.values():
        variant.step()
    for _ in range(repeats):
        for name, variant in variants.items():
            times[name].append(variant.step())
    ratios = {
        what: round(statistics.median(a / b for a, b in zip(times[one], times[other], strict=True)), 3)
        for what, (one, other) in PAIRS.items()
    }
    first = {name: variant.losses[0] for name, variant in variants.items()}
    result: dict[str, Any] = {
        "views_s": round(views, 3),
        "step_s": {name: round(statistics.median(values), 3) for name, values in times.items()},
        "ratios": ratios,
        "first_loss": first,
    }
    if with_parts:
        result["parts_ms"] = parts(recipe, method, batch, repeats)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="?", help="folder; see benchmarks/shipped.py if left out")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="names of the recipes; all if left out")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "results" / "step.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, torch {torch.__version__}, one thread",
        "date": time.strftime("%Y-%m-%d"),
    }
    for name, recipe in chosen(options.images or photographs()).items():
        if options.only is None or name in options.only:
            result[name] = measure(recipe, options.repeats, with_parts=name == "vice_small")
            sys.stdout.write(f"{name}: {json.dumps(result[name], indent=2)}\n")
            sys.stdout.flush()
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
