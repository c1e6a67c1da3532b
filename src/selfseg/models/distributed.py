"""The only module that speaks with other processes; everything here also works alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def connect(address: str, port: int, seconds: float, host: bool = False) -> Any:
    """The store of keys and values that a run of several processes began with, by a connection of one's own.

    Args:
        address: of the machine that holds it.
        port: there.
        seconds: after which a key that is not there, or an address that nobody listens at, is an error.
        host: whether this process is the one to hold it.

    Returns:
        A `torch.distributed.TCPStore`.

    Raises:
        RuntimeError: here and by its methods, if it can't be reached.
    """
    return dist.TCPStore(  # type: ignore[attr-defined]
        address, port, is_master=host, wait_for_workers=False, timeout=timedelta(seconds=seconds)
    )


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of every process's `value`, without gradient; same shape."""
    value = value.detach().clone()
    if world_size() > 1:
        dist.all_reduce(value)
    return value


def mean_of_counted(values: Tensor, counted: Tensor) -> Tensor:
    """This process's part of the mean of those of all processes' values that are counted; 0 of none.

    The mean of the parts is that mean.

    Args:
        values: (N,) float.
        counted: (N,) bool.
    """
    total = sum_over_processes(counted.sum().to(values.dtype)).clamp(min=1)
    return (values * counted).sum() * (world_size() / total)


def gather_rows(rows: Tensor) -> tuple[Tensor, int]:
    """Every process's rows, in the order of the processes, without gradient.

    Args:
        rows: (n, ...), n may differ between processes.

    Returns:
        (sum of n, ...), and where this process's rows begin in it.
    """
    rows = rows.detach()
    if world_size() == 1:
        return rows, 0
    count = torch.tensor([rows.shape[0]], device=rows.device)
    counts = [torch.zeros_like(count) for _ in range(world_size())]
    dist.all_gather(counts, count)
    sizes = [int(each) for each in counts]
    padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
    padded[: rows.shape[0]] = rows
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]), sum(sizes[: rank()])


class _SumWithGradient(torch.autograd.Function):
    """All-reduce whose gradient is the all-reduce of the gradients."""

    @staticmethod
    def forward(_context: Any, value: Tensor) -> Tensor:
        value = value.clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(_context: Any, *gradients: Any) -> Any:
        gradient: Tensor = gradients[0].clone()
        dist.all_reduce(gradient)
        return gradient


def sum_with_gradient(value: Tensor) -> Tensor:
    """The sum of every process's `value`, through which gradients flow back to every process; same shape."""
    if world_size() == 1:
        return value
    total: Tensor = _SumWithGradient.apply(value)
    return total


def moments(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of each channel over all processes, with gradient; no process waits for its device.

    Args:
        values: (N, C) or (N, C, H, W) float; N may differ between processes and be 0.

    Returns:
        mean (C,), biased variance (C,), and how many values of a channel there are (scalar, in the dtype of `values`).
        Where there are none, both are 0.
    """
    channels, others = values.shape[1], [0, *range(2, values.ndim)]
    count = values.new_full((1,), values.numel() / channels)
    packed = sum_with_gradient(torch.cat([values.sum(others), values.square().sum(others), count]))
    total = packed[-1].detach()
    mean = packed[:channels] / total.clamp(min=1)
    # The difference of two large numbers may come out below 0, where it should be tiny.
    variance = (packed[channels:-1] / total.clamp(min=1) - mean.square()).clamp(min=0)
    return mean, variance, total


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over the batches of all processes, on any device.

    torch's own SyncBatchNorm raises on the CPU. Statistics in float32, over (B, H, W) of every process.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape and dtype."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        values = input.float()
        mean, variance, total = moments(values)
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            momentum = 0.1 if self.momentum is None else self.momentum
            with torch.no_grad():
                unbiased = variance * (total / (total - 1).clamp(min=1))
                self.running_mean.lerp_(mean.to(self.running_mean), momentum)
                self.running_var.lerp_(unbiased.to(self.running_var), momentum)
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked.add_(1)
        out = (values - mean[:, None, None]) * torch.rsqrt(variance[:, None, None] + self.eps)
        if self.affine:
            out = out * self.weight[:, None, None] + self.bias[:, None, None]
        return out.to(input.dtype)


def synchronise_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """Let the BatchNorms of a module use the statistics of all processes; names and weights stay.

    Args:
        module: changed in place; not itself a BatchNorm.
        device: where it will run. On a CPU, BatchNorms that hold their own activation (timm's EfficientNets) keep
            the statistics of their process.

    Returns:
        `module`, as it was if there is one process only.
    """
    if world_size() == 1:
        return module
    if device.type == "cuda":
        # timm's, because torch's drops the activation of timm's BatchNormAct2d.
        converted: nn.Module = convert_sync_batchnorm(module)
        return converted
    for child in module.modules():
        # The class is exchanged in place, so subclasses' extras (timm's BatchNormAct2d) must not be touched.
        if type(child) is nn.BatchNorm2d:
            child.__class__ = SyncedBatchNorm2d
    return module
