"""The training loop, on Lightning Fabric: devices, precision and processes are Fabric's; the order of events is ours.

A run is a pure function of its recipe and its images. Every step: learning rate from progress → views of the keyed
batch → the method's forward → backward → check that all is finite → clip → optimiser → the method's after_step → log.
To go on after a kill, only a checkpoint's step, weights, buffers and optimiser state are needed.
"""

from __future__ import annotations

import hashlib
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from rich.console import Console
from timm.optim import Lars
from torch import Tensor, nn

from selfseg.data.images import ImageCollection, SkipLog, list_images, scan
from selfseg.data.loader import StepSampler, ViewDataset, make_loader
from selfseg.data.regions import RegionCache
from selfseg.errors import CheckpointError, Interrupted, NonFiniteLoss, RecipeMismatch, RunError
from selfseg.files import storage_errors, write_json
from selfseg.methods import Method
from selfseg.nn.backbones import load_backbone
from selfseg.nn.distributed import sum_over_processes, synchronise_batch_norm
from selfseg.training.checkpoint import load_newest, remove_leftovers, save_checkpoint
from selfseg.training.log import ProgressBar, TrainingLog
from selfseg.training.recipe import OptimizerConfig, Recipe, differences, read_recipe, recipe_hash, write_recipe
from selfseg.training.schedule import warmup_cosine
from selfseg.types import Batch, StepOutput

_console = Console(stderr=True)


def train(recipe: Recipe[Any], *, progress: bool = True) -> Path:
    """Train, or go on with a run that was stopped.

    Args:
        recipe: the run; `recipe.out` is its folder. The same recipe on an existing run resumes it.
        progress: show a progress bar.

    Returns:
        The run's folder, with `embedder/` ready to be used.

    Raises:
        RecipeMismatch: if the folder holds a run of another recipe; the message shows the difference.
        CheckpointError: if the run's checkpoints are damaged or its images have changed.
        DataError: if the images are missing or too many are unreadable.
        NonFiniteLoss: if the loss stops being a number; nothing of that step reaches the weights.
        Interrupted: after Ctrl-C or SIGTERM, when the state is saved.
        StorageError: if the disk is full.
    """
    fabric = _make_fabric(recipe)
    run = recipe.out
    _claim_folder(fabric, recipe)
    images, skips = _open_images(fabric, recipe)
    total = recipe.total_steps(len(images))

    torch.manual_seed(recipe.seed)
    method = recipe.build_method()
    if recipe.init is not None:
        sentence = load_backbone(method.embedder.backbone, recipe.init, method.embedder.config.backbone)
        _say(fabric, f"initial weights: {sentence}")
    method.to(memory_format=torch.channels_last)
    synchronise_batch_norm(method, fabric.device)
    optimizer = make_optimizer(method, recipe.optimizer)
    step = _restore(fabric, recipe, method, optimizer, images, total)
    wrapped, optimizer = fabric.setup(_TrainingStep(method), optimizer)
    method = wrapped.module.method

    def save(done: int) -> None:
        if fabric.is_global_zero:
            meta = {"recipe_hash": recipe_hash(recipe), "images": _names_hash(images), "total_steps": total}
            save_checkpoint(run / "checkpoints", done, method.state_dict(), optimizer.optimizer, meta, recipe.keep)
            method.embedder.save(run / "embedder")
        fabric.barrier()

    if step >= total:
        _say(fabric, f"{run} is already trained: {step} of {total} steps")
        save(step)
        return run

    sampler = StepSampler(
        len(images), recipe.batch_size, step, total, recipe.seed, fabric.global_rank, fabric.world_size
    )
    plan = method.views()
    cache = RegionCache(run / "cache" if recipe.cache else None, plan.regions)
    loader = make_loader(
        ViewDataset(images, plan, recipe.seed, cache), sampler, recipe.workers, fabric.device.type == "cuda"
    )
    log = TrainingLog(run, step, fabric.is_global_zero)
    peak = recipe.optimizer.base_lr * recipe.batch_size / recipe.optimizer.reference_batch
    method.train()
    waited, since, window = 0.0, time.perf_counter(), step
    batches: Iterator[Batch] = iter(loader)
    with (
        _stop_signals() as stop,
        ProgressBar(total, step, progress and fabric.is_global_zero) as bar,
    ):
        while step < total:
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            for index, reason in batch.skipped:
                skips.add(images.names[index], reason)
            share = step / total
            rate = warmup_cosine((step + 1) / total, peak, recipe.optimizer.warmup, peak * recipe.optimizer.final)
            for group in optimizer.param_groups:
                group["lr"] = rate
            # Whatever draws at random inside the network (drop path) is a function of (seed, step, rank).
            torch.manual_seed(hash((recipe.seed, step, fabric.global_rank)) & 0x7FFFFFFF)
            output: StepOutput = wrapped(_Box((batch.to(fabric.device), share))).content
            _require_finite(fabric, output.loss, batch, run, step, "loss")
            fabric.backward(output.loss)
            if recipe.precision != "16-mixed":  # there the gradient scaler expects and skips overflows
                norm = torch.nn.utils.get_total_norm([p.grad for p in method.parameters() if p.grad is not None])
                _require_finite(fabric, norm, batch, run, step, "gradient")
            if recipe.optimizer.clip is not None:
                fabric.clip_gradients(wrapped, optimizer, max_norm=recipe.optimizer.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            method.after_step(share)
            step += 1

            if step % recipe.log_every == 0 or step == total:
                loss = float(sum_over_processes(output.loss)) / fabric.world_size
                now = time.perf_counter()
                speed = (step - window) * recipe.batch_size / (now - since)
                wait = waited / (now - since)
                log.write(
                    {
                        "step": step,
                        "epoch": step * recipe.batch_size / len(images),
                        "progress": step / total,
                        "loss": loss,
                        "lr": rate,
                        **{name: float(value) for name, value in output.logs.items()},
                        "images_per_second": speed,
                        "data_wait": wait,
                        "time": time.time(),
                    }
                )
                bar.update(step, loss=loss, rate=speed, wait=wait)
                waited, since, window = 0.0, now, step
            if _any_process(stop.is_set(), fabric):
                save(step)
                log.close()
                raise Interrupted(
                    f"stopped by a signal after step {step} of {total}; the state is saved in {run}, and the same "
                    "command goes on from there"
                )
            if step % recipe.checkpoint_every == 0 and step < total:
                save(step)
    save(total)
    log.close()
    return run


class _Box:
    """Hides a value from Fabric, which would otherwise try to rebuild our frozen dataclasses to cast tensors."""

    def __init__(self, content: Any) -> None:
        self.content = content


class _TrainingStep(nn.Module):
    """The module that Fabric and DDP wrap: its forward is the method's training step."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, box: _Box) -> _Box:
        batch, progress = box.content
        return _Box(self.method(batch, progress))


def make_optimizer(method: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimiser; parameters with fewer than two dimensions get neither weight decay nor LARS's scaling."""
    matrices = [p for p in method.parameters() if p.requires_grad and p.ndim >= 2]
    vectors = [p for p in method.parameters() if p.requires_grad and p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    if config.name == "lars":
        lars: torch.optim.Optimizer = Lars(
            groups, lr=config.base_lr, momentum=config.momentum, trust_coeff=config.trust
        )
        return lars
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.base_lr, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.base_lr, betas=(config.momentum, 0.999))


def _make_fabric(recipe: Recipe[Any]) -> Fabric:
    accelerator = recipe.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    devices = recipe.devices or (torch.cuda.device_count() if accelerator == "cuda" else 1)
    strategy = "ddp" if devices * recipe.nodes > 1 else "auto"
    fabric = Fabric(
        accelerator=accelerator, devices=devices, num_nodes=recipe.nodes, strategy=strategy, precision=recipe.precision
    )
    fabric.launch()
    return fabric


def _claim_folder(fabric: Fabric, recipe: Recipe[Any]) -> None:
    """Make the run's folder, or check that it is a run of this recipe."""
    path = recipe.out / "recipe.yaml"
    if path.exists():
        changed = differences(read_recipe(path), recipe)
        if changed:
            raise RecipeMismatch(
                f"{recipe.out} holds a run of another recipe:\n  "
                + "\n  ".join(changed)
                + "\ngive another --out, or the old settings to go on with it"
            )
    elif recipe.out.exists() and (not recipe.out.is_dir() or any(recipe.out.iterdir())):
        raise RunError(f"{recipe.out} exists and is no run of selfseg; give another --out")
    fabric.barrier()
    if fabric.is_global_zero:
        with storage_errors(recipe.out):
            recipe.out.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_recipe(recipe, path)
        remove_leftovers(recipe.out / "checkpoints")
    fabric.barrier()


def _open_images(fabric: Fabric, recipe: Recipe[Any]) -> tuple[ImageCollection, SkipLog]:
    found = list_images(recipe.images)
    path = recipe.out / "skipped.jsonl" if fabric.is_global_zero else None
    skips = SkipLog(path, len(found), recipe.max_bad)
    return scan(found, skips), skips


def _restore(
    fabric: Fabric,
    recipe: Recipe[Any],
    method: Method,
    optimizer: torch.optim.Optimizer,
    images: ImageCollection,
    total: int,
) -> int:
    """Load the newest checkpoint, if any, and return the steps that are done."""
    checkpoint = load_newest(recipe.out / "checkpoints")
    if checkpoint is None:
        return 0
    if checkpoint.meta.get("images") != _names_hash(images):
        raise CheckpointError(
            f"{recipe.out} was trained on other images than the {len(images)} in {recipe.images}: a run can't go on "
            "exactly; restore them or give another --out"
        )
    try:
        method.load_state_dict(checkpoint.model)
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint of step {checkpoint.step} does not fit its recipe: {error}") from error
    state = optimizer.state_dict()
    state["state"] = checkpoint.optimizer
    optimizer.load_state_dict(state)
    _say(fabric, f"resuming {recipe.out} after step {checkpoint.step} of {total}")
    return checkpoint.step


def _names_hash(images: ImageCollection) -> str:
    return hashlib.blake2b("\n".join(images.names).encode(), digest_size=8).hexdigest()


def _require_finite(fabric: Fabric, value: Tensor, batch: Batch, run: Path, step: int, what: str) -> None:
    bad = not math.isfinite(float(value.detach()))
    if not _any_process(bad, fabric):
        return
    path = run / f"nonfinite_step_{step}_rank_{fabric.global_rank}.json"
    write_json(path, {"step": step, "what": what, "value": str(float(value.detach())), "index": batch.index.tolist()})
    raise NonFiniteLoss(
        f"the {what} of step {step + 1} is {float(value.detach())} (here or in another process); the weights are those "
        f"of before it. The images' numbers are in {path}. Try a lower --optimizer.base-lr, --optimizer.clip 1, or "
        "--precision 32-true; the last checkpoint is untouched"
    )


def _any_process(flag: bool, fabric: Fabric) -> bool:
    if fabric.world_size == 1:
        return flag
    return bool(sum_over_processes(torch.tensor(float(flag), device=fabric.device)) > 0)


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """While inside, SIGINT and SIGTERM set the event; a second one acts as usual."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    owner = os.getpid()

    def handle(number: int, frame: Any) -> None:
        if os.getpid() != owner:
            return
        event.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, handle)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(fabric: Fabric, sentence: str) -> None:
    if fabric.is_global_zero:
        _console.print(sentence, highlight=False)
