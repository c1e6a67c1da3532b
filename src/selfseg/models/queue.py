"""A first-in-first-out store of vectors that survives in checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FeatureQueue(nn.Module):
    """The newest `size` vectors, newest first; the same on every process when fed with gathered rows.

    Args:
        size: number of vectors; 0 makes a queue that stays empty.
        dim: length of a vector.
        dtype: of the vectors.
    """

    vectors: Tensor
    filled: Tensor

    def __init__(self, size: int, dim: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("vectors", torch.zeros(size, dim, dtype=dtype))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @property
    def full(self) -> bool:
        """Whether every place holds a real vector; an empty queue of size 0 is never full."""
        return 0 < self.size == int(self.filled)

    @property
    def newest(self) -> Tensor:
        """The real vectors, (filled, dim); a copy, because `push` changes the store before the backward pass."""
        return self.vectors[: int(self.filled)].clone()

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Put (n, dim) rows in front; the oldest fall out. More than `size` rows: the first ones stay."""
        rows = rows.detach()[: self.size].to(self.vectors)
        self.vectors.copy_(torch.cat([rows, self.vectors[: self.size - rows.shape[0]]]))
        self.filled.add_(rows.shape[0]).clamp_(max=self.size)
