"""From a person's answers to a class of every region: multinomial logistic regression on the regions' vectors.

It learns from clicks, which are sure, and from named clusters, which are many and less sure. A class counts by a low
power of what it has, so that a few clicks on a rare thing are heard beside a named cluster of sky. What it finds
is one linear layer on the embedder's unit vectors: the segmenter carries it as it is.

Letters in shapes: n examples, N regions of the collection, D embedding dimension, C classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from selfseg.errors import ConfigError

Array = NDArray[np.float32]

UNSEEN = -1e4
"""The bias of a class without an example: its probability is 0, and nothing becomes infinite."""

BALANCE = 0.75
"""How far a class counts regardless of how many examples it has: 0 counts each example alike, 1 each class alike."""

_ROWS = 1 << 15  # regions that are looked at together


class RegionClassifier:
    """Scores of classes, linear in the regions' vectors; each fit begins where the last one ended.

    Args:
        classes: C, at least 1.
        dim: D, or more where the caller appends something, say the position.
        strength: of the ridge penalty on the weights, per unit of the examples' mean weight. Smaller follows the
            examples more closely.
        balance: 0 counts each example alike, 1 each class alike.

    Attributes:
        weights: (C, D) float32.
        bias: (C,) float32; `UNSEEN` for classes that no example had.

    Example:
        >>> classifier = RegionClassifier(classes=2, dim=2)
        >>> _ = classifier.fit(np.eye(2, dtype=np.float32), np.array([0, 1]))
        >>> classifier.scores(np.array([[1.0, 0.2]], np.float32)).argmax(1).tolist()
        [0]
    """

    def __init__(self, classes: int, dim: int, strength: float = 1e-4, balance: float = BALANCE) -> None:
        if classes < 1 or dim < 1:
            raise ConfigError(f"a classifier has at least 1 class and 1 dimension, not {classes} and {dim}")
        if not strength > 0 or not 0 <= balance <= 1:
            raise ConfigError(f"strength is above 0 and balance in [0, 1], not {strength} and {balance}")
        self.strength, self.balance = strength, balance
        self.weights: Array = np.zeros((classes, dim), np.float32)
        self.bias: Array = np.full(classes, UNSEEN, np.float32)

    @property
    def classes(self) -> int:
        """C."""
        return len(self.bias)

    def grow(self, classes: int) -> None:
        """Make room for more classes, which come after those that are there.

        Raises:
            ConfigError: if there would be fewer.
        """
        more = classes - self.classes
        if more < 0:
            raise ConfigError(f"there are {self.classes} classes already; {classes} are fewer")
        self.weights = np.concatenate([self.weights, np.zeros((more, self.weights.shape[1]), np.float32)])
        self.bias = np.concatenate([self.bias, np.full(more, UNSEEN, np.float32)])

    def fit(
        self,
        vectors: NDArray[np.floating[Any]],
        labels: NDArray[np.integer[Any]],
        weights: NDArray[np.floating[Any]] | None = None,
    ) -> RegionClassifier:
        """Learn from examples; contradicting ones are weighed against each other.

        Args:
            vectors: (n, D) finite, unit vectors as a rule.
            labels: (n,) in [0, C).
            weights: (n,) at least 0; None: each example counts 1.

        Returns:
            Itself.

        Raises:
            ConfigError: for shapes, labels or numbers that can't be used.
        """
        rows, names, counts = self._checked(vectors, labels, weights)
        seen = np.unique(names[counts > 0])
        start_weights, start_bias = self.weights[seen].astype(np.float64), self.bias[seen].astype(np.float64)
        self.weights = np.zeros_like(self.weights)
        self.bias = np.full_like(self.bias, UNSEEN)
        if len(seen) == 0:
            return self
        if len(seen) == 1:
            self.bias[seen] = 0
            return self
        kept = counts > 0
        rows, counts = rows[kept], counts[kept]
        target = np.searchsorted(seen, names[kept])
        total = np.bincount(target, counts, len(seen))
        share = counts * (total**-self.balance)[target]
        share /= share.sum()
        start_bias[start_bias <= UNSEEN / 2] = 0
        found_weights, found_bias = self._solve(rows, target, share, start_weights, start_bias)
        self.weights[seen], self.bias[seen] = found_weights, found_bias
        return self

    def _checked(
        self, vectors: NDArray[Any], labels: NDArray[Any], weights: NDArray[Any] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64]]:
        rows, names = np.asarray(vectors, np.float32), np.asarray(labels)
        counts = np.ones(len(names)) if weights is None else np.asarray(weights, np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.weights.shape[1] or not len(rows) == len(names) == len(counts):
            raise ConfigError(
                f"vectors are (n, {self.weights.shape[1]}), labels and weights (n,), "
                f"not {rows.shape}, {names.shape} and {counts.shape}"
            )
        if len(names) and not (0 <= names.min() and names.max() < self.classes):
            raise ConfigError(f"labels are from 0 to {self.classes - 1}, not {names.min()} to {names.max()}")
        if not np.isfinite(rows).all() or not np.isfinite(counts).all() or (counts < 0).any():
            raise ConfigError("vectors and weights must be finite, and weights at least 0")
        return rows, names.astype(np.int64), counts

    def _solve(
        self,
        rows: NDArray[np.float32],
        target: NDArray[np.int64],
        share: NDArray[np.float64],
        weights: NDArray[np.float64],
        bias: NDArray[np.float64],
    ) -> tuple[Array, Array]:
        """The least of cross-entropy and penalty, from a start; `share` sums to 1."""
        classes, dim = weights.shape
        shares = share.astype(np.float32)
        order = np.arange(len(rows))

        def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            w, b = flat[: classes * dim].reshape(classes, dim), flat[classes * dim :]
            logits = rows @ w.T.astype(np.float32) + b.astype(np.float32)
            logits -= logits.max(1, keepdims=True)
            picked = logits[order, target]
            np.exp(logits, out=logits)
            sums = logits.sum(1)
            value = float(share @ (np.log(sums) - picked)) + 0.5 * self.strength * float((w * w).sum())
            logits *= (shares / sums)[:, None]
            logits[order, target] -= shares
            gradient = np.empty_like(flat)
            gradient[: classes * dim] = (logits.T @ rows).astype(np.float64).ravel() + self.strength * w.ravel()
            gradient[classes * dim :] = logits.sum(0)
            return value, gradient

        start = np.concatenate([weights.ravel(), bias])
        found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 100, "gtol": 1e-5}).x
        split = classes * dim
        return found[:split].reshape(classes, dim).astype(np.float32), found[split:].astype(np.float32)

    def scores(self, vectors: NDArray[np.floating[Any]]) -> Array:
        """Probabilities of the classes.

        Args:
            vectors: (N, D) of any float type; a memory-mapped file is read in parts.

        Returns:
            (N, C) float32, each row sums to 1; all 0 while nothing was learned.
        """
        found = np.zeros((len(vectors), self.classes), np.float32)
        if (self.bias <= UNSEEN / 2).all():
            return found
        for start in range(0, len(vectors), _ROWS):
            part = found[start : start + _ROWS]
            np.matmul(np.asarray(vectors[start : start + _ROWS], np.float32), self.weights.T, out=part)
            part += self.bias
            part -= part.max(1, keepdims=True)
            np.exp(part, out=part)
            part /= part.sum(1, keepdims=True)
        return found
