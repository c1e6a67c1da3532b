import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2
from sklearn.cluster import KMeans

from selfseg.errors import ConfigError
from selfseg.ops.kmeans import affine_scores, assign, kmeans


def blobs(n: int = 3000, d: int = 8, centres: int = 12, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    middle = torch.randn(centres, d, generator=generator) * 2
    which = torch.randint(centres, (n,), generator=generator)
    return middle[which] + torch.randn(n, d, generator=generator)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_lloyd_equals_scipy_from_the_same_start(offset):
    points = blobs() + offset
    start = points[:10].clone()
    ours = kmeans(points, 10, iterations=7, spherical=False, tolerance=0, initial=start)
    centroids, _ = kmeans2(points.double().numpy(), start.double().numpy(), iter=7, minit="matrix")
    np.testing.assert_allclose(ours.centroids.numpy(), centroids, atol=2e-4)
    square = ((points.double().numpy()[:, None] - centroids) ** 2).sum(2)
    assert ours.inertia == pytest.approx(square.min(1).sum(), rel=1e-5)
    assert (ours.assignment.numpy() == square.argmin(1)).mean() > 0.999


@pytest.mark.parametrize("seed", range(3))
def test_inertia_is_about_sklearns(seed):
    points = blobs(seed=seed)
    theirs = KMeans(20, n_init=1, random_state=seed, tol=1e-4).fit(points.numpy()).inertia_
    assert kmeans(points, 20, seed=seed, spherical=False).inertia <= 1.02 * theirs


def test_spherical_equals_normalised_lloyd():
    points = blobs() + 1
    result = kmeans(points, 6, seed=3, tolerance=0)
    unit = torch.nn.functional.normalize(points, dim=1)
    cosine = unit @ result.centroids.T
    assert torch.allclose(result.centroids.norm(dim=1), torch.ones(6), atol=1e-5)
    assert (result.assignment == cosine.max(1).indices).float().mean() > 0.999
    assert result.inertia == pytest.approx(float((2 - 2 * cosine.max(1).values).sum()), rel=1e-4)
    for cluster in range(6):  # a fixed point of Lloyd's step on the sphere
        mean = unit[result.assignment == cluster].mean(0)
        assert torch.allclose(mean / mean.norm(), result.centroids[cluster], atol=1e-4)
    longer = points * torch.rand(len(points), 1).add(0.5)
    assert torch.equal(kmeans(longer, 6, seed=3).assignment, kmeans(points, 6, seed=3).assignment)


def test_a_seed_repeats_and_another_differs():
    points = blobs()
    first, again, other = (kmeans(points, 9, seed=seed).centroids for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_empty_clusters_are_seeded_again():
    points = torch.cat([blobs(200, 4), blobs(200, 4) + 50])
    start = points[:5].clone()
    start[3:] = 1e4  # nobody's nearest
    result = kmeans(points, 5, spherical=False, initial=start, tolerance=0)
    assert len(torch.unique(result.assignment)) == 5
    assert result.centroids.abs().max() < 1e3


def test_every_distinct_point_can_be_a_cluster():
    points = torch.arange(7.0).repeat(30)[:, None]
    result = kmeans(points, 7, spherical=False)
    assert result.inertia == pytest.approx(0, abs=1e-6)
    assert sorted(result.centroids.flatten().round().tolist()) == list(range(7))


def test_more_clusters_than_points():
    with pytest.raises(ConfigError, match=r"k=5 .* 4 points"):
        kmeans(torch.rand(4, 2), 5)
    with pytest.raises(ConfigError, match=r"k=8 .* 7 distinct points"):
        kmeans(torch.arange(7.0).repeat(30)[:, None], 8, spherical=False)
    with pytest.raises(ConfigError, match="k=0"):
        kmeans(torch.rand(4, 2), 0)


def test_directions_count_as_points_on_the_sphere():
    with pytest.raises(ConfigError, match=r"k=3 .* 2 distinct"):
        kmeans(torch.tensor([[1.0, 0], [2.0, 0], [4.0, 0], [0, 1.0]]), 3)


def test_bad_points():
    points = torch.rand(10, 2)
    points[3, 1] = float("nan")
    with pytest.raises(ConfigError, match="1 of 10"):
        kmeans(points, 2)
    with pytest.raises(ConfigError, match=r"\(2, 3\), not \(2, 2\)"):
        kmeans(torch.rand(10, 2), 2, initial=torch.rand(2, 3))


def test_assign_euclidean_far_from_the_origin():
    points = blobs() + 300
    centroids = points[:16]
    expected = torch.cdist(points.double(), centroids.double()).min(1).indices
    assert (assign(points, centroids, spherical=False) == expected).float().mean() > 0.999
    weight, bias = affine_scores(centroids.double(), spherical=False)
    assert torch.equal((points.double() @ weight.T + bias).max(1).indices, expected)


def test_many_points_are_clustered_from_a_sample_as_well_as_from_all(monkeypatch):
    points, seeds = blobs(4000), range(6)
    whole = [kmeans(points, 20, seed=seed, spherical=False) for seed in seeds]
    monkeypatch.setattr("selfseg.ops.kmeans._SAMPLE", 512)
    monkeypatch.setattr("selfseg.ops.kmeans._SAMPLE_PER_CLUSTER", 1)
    sampled = [kmeans(points, 20, seed=seed, spherical=False) for seed in seeds]
    assert not torch.equal(sampled[0].centroids, whole[0].centroids)  # else nothing was sampled
    # Of several seeds: each is one local minimum of many.
    assert np.mean([r.inertia for r in sampled]) <= 1.01 * np.mean([r.inertia for r in whole])
    assert np.mean([r.iterations for r in sampled]) < np.mean([r.iterations for r in whole])
    assert torch.equal(sampled[0].assignment, assign(points, sampled[0].centroids, spherical=False))


def test_a_sample_without_enough_distinct_points_is_not_used(monkeypatch):
    monkeypatch.setattr("selfseg.ops.kmeans._SAMPLE", 16)
    monkeypatch.setattr("selfseg.ops.kmeans._SAMPLE_PER_CLUSTER", 1)
    points = torch.zeros(3000, 2)
    points[:7] = torch.arange(14.0).view(7, 2) + 1
    assert kmeans(points, 8, spherical=False).inertia < 1e-6
