import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selfseg.collection.assigning import _best_densely, assign_pixels


def smooth(dim: int, h: int, w: int) -> Tensor:
    """(D, h, w) unit vectors that change slowly, as an embedding's do."""
    coarse = torch.randn(1, dim, 4, 5, generator=torch.Generator().manual_seed(0))
    return F.normalize(F.interpolate(coarse, (h, w), mode="bicubic")[0], dim=0)


@pytest.mark.parametrize("k", [3, 27, 300])
@pytest.mark.parametrize("size", [(60, 80), (61, 33), (7, 9)])
def test_resizing_all_scores_finds_what_the_quick_way_finds(k: int, size: tuple[int, int]) -> None:
    embedding = smooth(8, 12, 16)
    centroids = F.normalize(torch.randn(k, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    quick, dense = assign_pixels(embedding, centroids, size), _best_densely(embedding, centroids, None, size).numpy()
    assert (quick.dtype, quick.shape) == (np.uint8 if k <= 256 else np.uint16, size)
    assert np.mean(quick != dense) < 1e-3  # where two scores are equal to the last bit or so


@pytest.mark.gpu
def test_a_gpu_finds_the_same_clusters() -> None:
    embedding = smooth(16, 45, 60)
    centroids = F.normalize(torch.randn(27, 16, generator=torch.Generator().manual_seed(1)), dim=1)
    found = assign_pixels(embedding.cuda(), centroids, (360, 480))
    assert np.mean(found != assign_pixels(embedding, centroids, (360, 480))) < 1e-3
