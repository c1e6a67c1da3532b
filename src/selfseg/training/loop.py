"""The training loop, on Lightning Fabric: devices, precision and processes are Fabric's; the order of events is ours.

A run is a pure function of its recipe and its images. Every step: learning rate from progress → views of the keyed
batch → the method's forward → backward → check that all is finite → clip → optimiser → the method's after_step → log.
To go on after a kill, only a checkpoint's step, weights, buffers and optimiser state are needed.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from rich.console import Console
from torch import nn

from selfseg.data.loader import REASONS, StepSampler, ViewDataset, collate, iterate, make_loader, refuse_second_run
from selfseg.data.reading.images import ImageCollection
from selfseg.data.reading.skipping import SkipLog
from selfseg.data.regions import RegionCache
from selfseg.drawing.pictures import draw_views, write_image
from selfseg.errors import (
    CheckpointError,
    DataError,
    Interrupted,
    OutOfMemory,
    RecipeMismatch,
    RunError,
    out_of_memory,
    ran_out_of_memory,
)
from selfseg.fitting.memory import kept_memory
from selfseg.fitting.stepping import ProgressBar, step_seed, stop_signals
from selfseg.methods import Method
from selfseg.models.distributed import gather_rows, sum_over_processes, synchronise_batch_norm, world_size
from selfseg.models.prototypes import save_product
from selfseg.ops.phases import phase
from selfseg.pages.shown_path import ShownPath
from selfseg.storage.checkpoint import Checkpoint, remove_leftovers, save_checkpoint
from selfseg.storage.files import is_unclaimed, mark_output, sole_use
from selfseg.storage.waiting import vanished_output
from selfseg.telling import plain
from selfseg.training.guards.collapse import CollapseWatch
from selfseg.training.guards.finite import require_finite as _require_finite
from selfseg.training.guards.finite import require_finite_state
from selfseg.training.guards.recomputing import recompute_blocks
from selfseg.training.image_list import anchored, names_hash, record_images, require_same_images, settle
from selfseg.training.log import TrainingLog
from selfseg.training.machines.folder import LOCK, first_writes, newest_of_all, require_shared, writing
from selfseg.training.machines.launching import find_launch, make_fabric, stand_by, telling_the_end
from selfseg.training.machines.watching import watching
from selfseg.training.optimizer import clip_each, make_optimizer, set_rate
from selfseg.training.precision import CHOICES, choose_precision, has_begun, settle_precision, use_precision
from selfseg.training.processes import anywhere, raise_together, together
from selfseg.training.recipe import Recipe, differences, read_recipe, recipe_hash, unsettled, write_recipe
from selfseg.training.start import begin, placed
from selfseg.types import Batch, StepOutput

_console = Console(stderr=True)
_LESS = (
    "the last checkpoint is kept. Fewer --workers need less memory. Smaller views or a smaller --batch-size do, too, "
    "but change what is learned"
)


def train(recipe: Recipe[Any], *, progress: bool = True) -> Path:
    """Train, or continue a run that was stopped.

    Args:
        recipe: the run; `recipe.out` is its folder, or a URL of one. The same recipe on an existing run resumes it.
        progress: show a progress bar.

    Returns:
        The run's folder, with `embedder/` ready to be used.

    Raises:
        RunError: if the folder is no run, or another process trains in it.
        RecipeMismatch: if the folder holds a run of another recipe; the message shows the difference.
        CheckpointError: if the run's checkpoints are damaged or its images have changed.
        DataError: if the images are missing or too many are unreadable.
        NonFiniteLoss: if the loss or the state stops being a number; nothing of that step is saved.
        OutOfMemory: if a step needs more memory than there is, even with `recipe.recompute`.
        Interrupted: after Ctrl-C, SIGTERM or SIGUSR1, when the state is saved.
        StorageError: if the disk is full.
    """
    refuse_second_run()
    if stand_by(recipe):
        return recipe.out
    with placed(recipe) as local, telling_the_end(local):
        problem = ""
        try:
            with ExitStack() as held:
                return ShownPath(_train(local, progress, held))
        except OutOfMemory as error:
            if local.recompute or find_launch() is not None or world_size() > 1:
                raise
            problem = str(error)
        # Outside of the handler, which would hold what the step had made.
        gc.collect()
        _console.print(f"{problem}: beginning again, with --recompute, from the newest checkpoint", markup=False)
        try:
            with ExitStack() as held:
                return ShownPath(_train(replace(local, recompute=True), progress, held))
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
            raise OutOfMemory(f"{out_of_memory(error, 'to begin again')}; {_LESS}") from None


def _train(recipe: Recipe[Any], progress: bool, held: ExitStack) -> Path:
    recipe = anchored(settle_precision(recipe))
    fabric = make_fabric(recipe)
    run = recipe.out
    held.enter_context(watching(fabric, recipe.wait_process))
    _claim_folder(fabric, recipe, held)
    recipe, images, skips = _open_images(fabric, recipe)
    total = recipe.total_steps(len(images))

    torch.manual_seed(recipe.seed)
    # On the device before a checkpoint is loaded: the optimiser's state goes where the weights are.
    method = recipe.build_method(len(images)).to(fabric.device).to(memory_format=torch.channels_last)
    synchronise_batch_norm(method, fabric.device)
    optimizer = make_optimizer(method, recipe.optimizer)
    checkpoint = newest_of_all(fabric, run)
    if checkpoint is not None:
        _restore(checkpoint, recipe, method, optimizer, images)
        by = f", by {fabric.world_size} processes" if fabric.world_size > 1 else ""
        _say(fabric, f"resuming {run} after step {checkpoint.step} of {total}{by}")
    else:
        with together(fabric):
            sentence = begin(method, recipe.init, images, skips, recipe.seed, progress and fabric.is_global_zero)
        if sentence:
            _say(fabric, sentence)
    held.enter_context(kept_memory(fabric.device))  # not before: what the start needed goes back
    step = checkpoint.step if checkpoint is not None else 0
    saved = checkpoint.step if checkpoint is not None else None
    sampler = StepSampler(
        len(images), recipe.batch_size, step, total, recipe.seed, fabric.global_rank, fabric.world_size, images.blocks
    )
    plan = method.views()
    cache = RegionCache(run / "cache" if recipe.cache else None, plan.regions, images.rgb, within=run)
    dataset = ViewDataset(images, plan, recipe.seed, cache, recipe.wait_folder)
    if recipe.precision == "auto":
        recipe = _choose_precision(fabric, recipe, method, dataset, sampler)
    if recipe.recompute:
        recompute_blocks(method)
    wrapped, optimizer = fabric.setup(TrainingStep(method), optimizer)
    method = wrapped.module.method
    if checkpoint is not None:
        _restore_scaler(fabric, checkpoint)

    def write() -> None:
        record_images(images, run)
        if step != saved:
            require_finite_state(method, optimizer.optimizer, step)
            meta = {"recipe_hash": recipe_hash(recipe), "images": names_hash(images), "total_steps": total}
            meta["start"] = method.embedder.start
            meta["scaler"] = fabric.strategy.precision.state_dict()  # empty but for "16-mixed"
            save_checkpoint(run / "checkpoints", step, method.state_dict(), optimizer.optimizer, meta, recipe.keep)
        save_product(run, method.embedder, method.concept_vectors())

    def save() -> None:
        nonlocal saved
        first_writes(fabric, recipe, write)
        saved = step

    if step > total:
        raise CheckpointError(
            f"{run} has a checkpoint of step {step}, but the whole run has {total} steps: it is of another run, or was "
            "changed; remove it to go on from an older one"
        )
    if step >= total:
        if checkpoint is not None:
            _say(fabric, f"{run} is already trained: {step} of {total} steps")
        save()
        return run

    batches = iterate(make_loader(dataset, sampler, recipe.workers, fabric.device.type == "cuda"))
    with together(fabric):
        log = TrainingLog(run, step, fabric.is_global_zero)
    method.train()
    waited, since, window, collapse = 0.0, time.perf_counter(), step, CollapseWatch()
    with log, stop_signals() as stop, ProgressBar(total, step, progress and fabric.is_global_zero) as bar:
        while step < total:
            asked = time.perf_counter()
            batch = _next_batch(fabric, recipe, batches, stop, skips, images)
            waited += time.perf_counter() - asked
            if batch is None:
                save()
                raise Interrupted(
                    f"stopped by a signal after step {step} of {total}; the state is saved in {run}, and the same "
                    "command continues from there"
                )
            if step == 0:
                _draw_first_views(fabric, recipe, batch)
            try:
                output, rate = take_step(fabric, recipe, wrapped, optimizer, batch, step, total, images)
            except Exception as error:
                if not ran_out_of_memory(error):
                    raise
                raise OutOfMemory(_too_much(recipe, step, error)) from None
            step += 1
            if fabric.is_global_zero and (found := collapse.look(method, batch, step)):
                _say(fabric, found)

            if step % recipe.log_every == 0 or step == total:
                loss = float(sum_over_processes(output.loss)) / fabric.world_size
                now = time.perf_counter()
                speed = (step - window) * recipe.batch_size / (now - since)
                wait = waited / (now - since)
                with together(fabric):
                    line = {
                        "step": step,
                        "epoch": step * recipe.batch_size / len(images),
                        "progress": step / total,
                        "loss": loss,
                        "lr": rate,
                        **{name: float(value) for name, value in output.logs.items()},
                        **({} if collapse.spread is None else {"spread": collapse.spread}),
                        "images_per_second": speed,
                        "data_wait": wait,
                        "time": time.time(),
                    }
                first_writes(fabric, recipe, partial(log.write, line))
                bar.update(step, loss=loss, rate=speed, wait=wait)
                waited, since, window = 0.0, now, step
            if step % recipe.checkpoint_every == 0 or step == total:
                save()
    return run


def take_step(
    fabric: Fabric,
    recipe: Recipe[Any],
    wrapped: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    step: int,
    total: int,
    images: ImageCollection,
) -> tuple[StepOutput, float]:
    """One step of the training, from the batch to the moved weights; tells its phases (`selfseg.ops.phases`).

    Args:
        fabric: which has set up the next two.
        recipe: of the run.
        wrapped: a `TrainingStep`.
        optimizer: of its method.
        batch: not on the device yet.
        step: which, counted from 0.
        total: steps of the run.
        images: of the run, to tell which were in a batch whose loss is no number.

    Returns:
        What the method gave, and the learning rate.
    """
    method: Method = wrapped.module.method  # type: ignore[union-attr, assignment]
    share = step / total
    rate = recipe.optimizer.rate((step + 1) / total, recipe.batch_size)
    set_rate(optimizer, rate, recipe.optimizer.decay(share))
    torch.manual_seed(step_seed(recipe.seed, step, fabric.global_rank))
    with phase("data"):
        batch = batch.to(fabric.device)
    with phase("loss"):  # what is not the networks' or the regions'
        output: StepOutput = wrapped(Box((batch, share))).content
    with phase("backward"):
        fabric.backward(output.loss)
    with phase("optimiser"):
        _require_finite(fabric, recipe, output.loss, method, batch, images, step)
        if recipe.optimizer.clip is not None:
            # Non-finite gradients of "16-mixed" are the scaler's business; all others were refused above.
            fabric.clip_gradients(wrapped, optimizer, max_norm=recipe.optimizer.clip, error_if_nonfinite=False)
        elif recipe.optimizer.clip_each is not None:
            fabric.strategy.precision.unscale_gradients(optimizer.optimizer)  # type: ignore[attr-defined]
            clip_each(optimizer, recipe.optimizer.clip_each)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        method.after_step(share)
    return output, rate


class Box:
    """Hides a value from Fabric, which would otherwise try to rebuild our frozen dataclasses to cast tensors."""

    def __init__(self, content: Any) -> None:
        self.content = content


class TrainingStep(nn.Module):
    """The module that Fabric and DDP wrap: its forward is the method's training step."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, box: Box) -> Box:
        """The method's output, in a box."""
        batch, progress = box.content
        return Box(self.method(batch, progress))


def _choose_precision(
    fabric: Fabric, recipe: Recipe[Any], method: Method, dataset: ViewDataset, sampler: StepSampler
) -> Recipe[Any]:
    """The recipe with the precision that this machine is faster in; it is written into the run."""
    choice, sentence = CHOICES[0], ""
    if len(sampler):
        with together(fabric):
            # Made here: the loader, its order and what it reports as skipped stay untouched.
            batch = collate([dataset[key] for key in next(iter(sampler))])
        choice, sentence = choose_precision(fabric, recipe, method, batch)
        _say(fabric, sentence)
    use_precision(fabric, choice)
    recipe = replace(recipe, precision=choice)
    with together(fabric):
        if fabric.is_global_zero:
            write_recipe(recipe, recipe.out / "recipe.yaml")
    return recipe


def _claim_folder(fabric: Fabric, recipe: Recipe[Any], held: ExitStack) -> None:
    """Make the run's folder, or check that it is a run of this recipe; nobody else trains in it until `held` ends."""
    path = recipe.out / "recipe.yaml"
    begun = has_begun(recipe)
    if begun:
        changed = differences(unsettled(read_recipe(path)), unsettled(recipe))
        if changed:
            raise RecipeMismatch(
                f"{recipe.out} holds a run of another recipe:\n  "
                + "\n  ".join(changed)
                + "\ngive another --out, or the old settings to continue it"
            )
    elif not path.exists() and not is_unclaimed(recipe.out):
        raise RunError(f"{recipe.out} exists and is not a run of selfseg; give another --out")
    fabric.barrier()
    with together(fabric):
        if fabric.is_global_zero:
            mark_output(recipe.out)
            held.enter_context(sole_use(recipe.out, LOCK if find_launch() else 0.0))
            if not begun:  # a first attempt that never got to a checkpoint may have had a wrong setting
                write_recipe(recipe, path)
            for folder in ("checkpoints", "embedder"):
                remove_leftovers(recipe.out / folder)
    require_shared(fabric, recipe.out)


def _open_images(fabric: Fabric, recipe: Recipe[Any]) -> tuple[Recipe[Any], ImageCollection, SkipLog]:
    """The recipe, with what its images and masks hold; the images; the list of those that are skipped."""
    with together(fabric):
        settled, images, skips, sentences = settle(recipe, writes=fabric.is_global_zero)
    for sentence in sentences:
        _say(fabric, sentence)
    mine = f"{names_hash(images)} {recipe_hash(settled)}"
    with together(fabric):
        if fabric.broadcast(mine) != mine:
            raise DataError(
                f"process {fabric.global_rank} finds other readable images in {recipe.images} or other masks for them "
                "than process 0; give all of them the same folders, and start when nothing changes them"
            )
    with together(fabric):
        if fabric.is_global_zero and settled != recipe:
            write_recipe(settled, recipe.out / "recipe.yaml")
    return settled, images, skips


def _restore(
    checkpoint: Checkpoint,
    recipe: Recipe[Any],
    method: Method,
    optimizer: torch.optim.Optimizer,
    images: ImageCollection,
) -> None:
    """Put a checkpoint into a method and its optimiser."""
    require_same_images(checkpoint.meta, checkpoint.step, images, recipe)
    checkpoint.restore(method, optimizer)
    method.embedder.start = str(checkpoint.meta.get("start", ""))


def _restore_scaler(fabric: Fabric, checkpoint: Checkpoint) -> None:
    """Go on with the loss scale of "16-mixed" where it was, and with how long it has been right."""
    state = checkpoint.meta.get("scaler")
    if state is None and fabric.strategy.precision.state_dict():
        _say(
            fabric,
            f"the checkpoint of step {checkpoint.step} is of an older selfseg, which did not keep the loss scale of "
            "16-mixed: it starts anew, so that this run may differ from an uninterrupted one",
        )
    elif state:
        fabric.strategy.precision.load_state_dict(state)


def _next_batch(
    fabric: Fabric,
    recipe: Recipe[Any],
    batches: Iterator[Batch],
    stop: threading.Event,
    skips: SkipLog,
    images: ImageCollection,
) -> Batch | None:
    """The next batch, or None if any process was asked to stop; what could not be read is listed."""
    batch, problem = None, None
    try:
        batch = next(batches)
    except Exception as error:
        problem = error
    skipped = batch is not None and bool(batch.skipped)
    # A signal to all processes of a group ends the loader's too, so a stop comes before what failed because of it.
    stopped, failed, skipped = anywhere(fabric, stop.is_set(), problem is not None, skipped)
    if stopped:
        return None
    raise_together(fabric, problem, failed)
    assert batch is not None
    if skipped:
        # As numbers, so that every process counts what all of them have skipped.
        rows = torch.tensor([(index, REASONS.index(reason)) for index, reason in batch.skipped], dtype=torch.int64)
        everybodys = gather_rows(rows.reshape(-1, 2).to(fabric.device))[0].tolist()
        entries = [(images.names[index], REASONS[reason], "") for index, reason in everybodys]
        with together(fabric):  # every process counts them; the first one writes
            writing(recipe).outlast(lambda: skips.add_all(entries), lambda: vanished_output(recipe.out))
    return batch


def _draw_first_views(fabric: Fabric, recipe: Recipe[Any], batch: Batch) -> None:
    def draw() -> None:
        for image in range(min(2, len(batch.index))):
            write_image(recipe.out / "pictures" / f"views{image}.png", draw_views(batch, image))

    first_writes(fabric, recipe, draw)


def _too_much(recipe: Recipe[Any], step: int, error: Exception) -> str:
    said = out_of_memory(error, f"in step {step + 1}")
    return f"{said}, although blocks are recomputed; {_LESS}" if recipe.recompute else said


def _say(fabric: Fabric, sentence: str) -> None:
    if fabric.is_global_zero:
        _console.print(plain(sentence), markup=False, highlight=False, soft_wrap=True)
