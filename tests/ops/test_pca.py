import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from selfseg.drawing.pictures import load_basis, save_basis
from selfseg.errors import ConfigError
from selfseg.ops.pca import fit_pca


def sample(n: int = 2000, d: int = 10) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, d, generator=generator) * torch.arange(d, 0, -1) + 5


def test_components_are_sklearns():
    points = sample()
    basis, theirs = fit_pca(points, 4), PCA(4, svd_solver="full").fit(points.numpy())
    np.testing.assert_allclose(basis.mean, theirs.mean_, atol=1e-4)
    np.testing.assert_allclose((basis.components.numpy() * theirs.components_).sum(1) ** 2, 1, atol=1e-4)
    peak = basis.components.abs().max(1).indices
    assert (basis.components.gather(1, peak[:, None]) > 0).all()


def test_sign_does_not_depend_on_the_points_order():
    points = sample()
    assert torch.allclose(fit_pca(points).components, fit_pca(points.flip(0)).components, atol=1e-5)
    mirrored = fit_pca(-points)
    assert torch.allclose(fit_pca(points).components, mirrored.components, atol=1e-5)


def test_colour_spans_the_range():
    points = sample(6000)
    picture = fit_pca(points).colour(points.T.reshape(10, 60, 100))
    assert picture.shape == (60, 100, 3)
    assert picture.dtype == np.uint8
    for channel in range(3):
        level = picture[..., channel]
        assert 0.005 < (level == 0).mean() < 0.02
        assert 0.005 < (level == 255).mean() < 0.02


def test_colour_without_variation_is_gray():
    basis = fit_pca(torch.ones(5, 4))
    assert (basis.colour(torch.ones(4, 2, 3)) == 128).all()
    two = fit_pca(sample(d=2), n=2).colour(torch.randn(2, 4, 4))
    assert (two[..., 2] == 128).all()


def test_saved_and_loaded(tmp_path):
    basis = fit_pca(sample())
    save_basis(basis, tmp_path / "basis.safetensors")
    again = load_basis(tmp_path / "basis.safetensors")
    embedding = torch.randn(10, 8, 8) * 5
    assert (basis.colour(embedding) == again.colour(embedding)).all()


def test_what_can_not_be_fitted():
    with pytest.raises(ConfigError, match="2 dimensions has no 3"):
        fit_pca(torch.rand(5, 2))
    with pytest.raises(ConfigError, match="at least 2"):
        fit_pca(torch.rand(1, 5))
    with pytest.raises(ConfigError, match="finite"):
        fit_pca(torch.full((4, 4), float("inf")))
