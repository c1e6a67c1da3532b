"""Less memory for the same step: what lies between a backbone's blocks is kept, the rest is computed again in backward.

T. Chen et al., "Training deep nets with sublinear memory cost", arXiv:1604.06174. Unlike a smaller batch it changes
nothing of what is learned: losses that compare the images of a batch see all of them, and so does BatchNorm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from selfseg.models.embedder import Embedder


def recompute_blocks(module: nn.Module) -> int:
    """Let the blocks of all backbones in a module be computed again in backward; names, weights and results stay.

    A module in a block that takes turns with each call has the class attribute `TURNS`: names of its attributes that
    the second call must find as the first one did.

    Args:
        module: with embedders in it; changed in place. Copies made of it afterwards would share the blocks.

    Returns:
        The number of blocks.
    """
    count = 0
    for embedder in module.modules():
        if isinstance(embedder, Embedder):
            for block in list(_blocks(embedder.backbone)):
                block.forward = partial(_forward, block, block.forward)
                count += 1
    return count


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost members of sequences that have weights."""
    for child in module.children():
        if isinstance(module, nn.Sequential | nn.ModuleList) and any(True for _ in child.parameters()):
            yield child
        else:
            yield from _blocks(child)


def _forward(block: nn.Module, forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **named)
    turns = [(child, name, getattr(child, name)) for child in block.modules() for name in getattr(child, "TURNS", ())]

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _second_call(block, turns)

    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **named)


@contextmanager
def _second_call(block: nn.Module, turns: list[tuple[nn.Module, str, Any]]) -> Iterator[None]:
    """The batch has been counted in running statistics, and turns have been taken."""
    norms = [child for child in block.modules() if isinstance(child, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    counts = [None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone() for norm in norms]
    now = [getattr(child, name) for child, name, _ in turns]
    for norm in norms:
        norm.momentum = 0.0
    for child, name, value in turns:
        setattr(child, name, value)
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None and count is not None:
                norm.num_batches_tracked.copy_(count)
        for (child, name, _), value in zip(turns, now, strict=True):
            setattr(child, name, value)
