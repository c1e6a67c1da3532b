"""Principal components of embeddings, and a picture's colours by them.

Letters: N points, D dimensions, n components, h w embedding cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfseg.errors import ConfigError

_TAIL = 0.01  # the share of points at either end that saturates
_ROWS = 1 << 14  # points in float64 at a time


@dataclass(frozen=True)
class PcaBasis:
    """The first principal components of a sample.

    Attributes:
        mean: (D,) float32.
        components: (n, D) float32, orthonormal, by falling variance; of each, the entry of largest magnitude is
            positive.
        low: (n,) float32, the sample's 1st percentile along each component.
        high: (n,) float32, the 99th.
    """

    mean: Tensor
    components: Tensor
    low: Tensor
    high: Tensor

    def project(self, points: Tensor) -> Tensor:
        """Coordinates (N, n) of points (N, D) along the components."""
        return (points.float() - self.mean) @ self.components.T

    def colour(self, embedding: Tensor) -> NDArray[np.uint8]:
        """An embedding as a picture: the first three components as red, green and blue.

        Args:
            embedding: (D, h, w) float.

        Returns:
            (h, w, 3) uint8 RGB; the sample's 1st percentile is 0 and its 99th is 255. A component beyond the
            basis' own is mid-gray, and so is one along which the sample did not vary.
        """
        dimension, height, width = embedding.shape
        place = self.project(embedding.reshape(dimension, -1).T.cpu())[:, :3]  # (hw, up to 3)
        low, span = self.low[:3], (self.high - self.low)[:3]
        flat = span <= 1e-12
        level = (place - low) / torch.where(flat, torch.ones_like(span), span)
        level[:, flat] = 0.5
        picture = torch.full((height * width, 3), 0.5)
        picture[:, : level.shape[1]] = level
        picture = picture.nan_to_num(0.5).clamp(0, 1).mul(255).round()
        result: NDArray[np.uint8] = picture.to(torch.uint8).reshape(height, width, 3).numpy()
        return result


def fit_pca(points: Tensor, n: int = 3) -> PcaBasis:
    """The first principal components, by the covariance's eigenvectors in float64 (D x D: meant for D up to 1000).

    Args:
        points: (N, D) float, finite; some ten thousand are plenty for a picture.
        n: number of components, at most D.

    Returns:
        The basis, on the CPU. Deterministic: signs are fixed, no randomness.

    Raises:
        ConfigError: if N < 2, n is not in 1..D, or a point is not finite.

    Example:
        >>> line = torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]])
        >>> [round(x, 3) for x in fit_pca(line, 1).components[0].tolist()]
        [0.447, 0.894]
    """
    if points.dim() != 2 or len(points) < 2:
        raise ConfigError(f"PCA needs at least 2 points as (N, D), not shape {tuple(points.shape)}")
    if not 1 <= n <= points.shape[1]:
        raise ConfigError(f"PCA of {points.shape[1]} dimensions has no {n} components")
    if not bool(torch.isfinite(points).all()):
        raise ConfigError("PCA needs finite points; some are NaN or infinite")
    points = points.detach().cpu()
    mean = points.mean(0, dtype=torch.float64)
    covariance = torch.zeros(points.shape[1], points.shape[1], dtype=torch.float64)
    for part in torch.split(points, _ROWS):  # all of them in float64, twice, would be gigabytes
        centred = part - mean
        covariance.addmm_(centred.T, centred, alpha=1 / len(points))
    components = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :n].T  # (n, D)
    # Rounded first, so that of two entries of equal magnitude always the same one decides.
    peak = components.abs().mul(1e9).round().max(1, keepdim=True).indices
    components = components * torch.where(components.gather(1, peak) < 0, -1.0, 1.0)
    place = torch.cat([(part - mean) @ components.T for part in torch.split(points, _ROWS)]).numpy()
    low, high = np.percentile(place, [100 * _TAIL, 100 * (1 - _TAIL)], axis=0)
    return PcaBasis(
        mean.float(), components.float().contiguous(), torch.from_numpy(low).float(), torch.from_numpy(high).float()
    )
