"""Has the embedding collapsed, so that all pixels have the same vector? Looked at while training goes, and told."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from selfseg.methods import Method
from selfseg.types import Batch

EVERY = 25
"""Steps between two looks; two in a row must find it."""

LEAST = 1e-6
"""A smaller spread than this is a collapse. A healthy one may begin at 1e-4 (SlotCon), and soon has .01 and more."""


def spread(vectors: Tensor) -> float:
    """How much directions differ: 1 - |mean of the unit vectors|².

    Args:
        vectors: (N, D).

    Returns:
        0 if all are the same or no vector has a direction, up to 1.

    Example:
        >>> spread(torch.tensor([[1.0, 0.0], [0.0, 1.0]])), spread(torch.ones(5, 3))
        (0.5, 0.0)
    """
    units = F.normalize(vectors.double(), dim=1)
    mean = units.mean(0)
    # Not 1 - |mean|², whose digits cancel; zeros are no units.
    return max(0.0, float((units - mean).square().sum(1).mean()))


class CollapseWatch:
    """Looks at the embedding of a view now and then."""

    def __init__(self) -> None:
        self._found = 0
        self.spread: float | None = None
        """Of the last look, for the log; None before the first one."""

    @torch.no_grad()
    def look(self, method: Method, batch: Batch, step: int) -> str | None:
        """Look at a step's first view.

        Args:
            method: in training; nothing of it is changed.
            batch: of the step.
            step: steps done.

        Returns:
            A sentence, once, when it is found a second time.
        """
        if step % EVERY:
            return None
        embedder = method.embedder
        modes = [(module, module.training) for module in embedder.modules()]
        embedder.eval()
        try:
            image = batch.views[0].to(embedder.mean.device).image
            maps = embedder(image)
        finally:
            for module, training in modes:
                module.training = training
        self.spread = spread(maps.float().movedim(1, -1).flatten(0, -2))
        self._found = self._found + 1 if self.spread < LEAST else 0
        if self._found != 2:
            return None
        return (
            f"after step {step} the embedding has collapsed: all pixels have nearly the same vector (spread "
            f"{self.spread:.1e}, healthy ones soon have .01 and more). Going on hardly helps: take a lower "
            "--optimizer.base-lr, or begin with --init default"
        )
