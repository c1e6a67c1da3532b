import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2
from sklearn.cluster import KMeans

from ahead_of_time import SHARED, compile_for, numpy_is_too_new_for_the_interpreter
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


INTERPRETED = """
import torch
from selfseg.ops import kmeans
from selfseg.ops.kernels import group_sums_cuda as _group_sums_cuda
from selfseg.ops.kernels import kmeans_cuda as cuda

cuda.HALF = torch.float16  # the interpreter can't multiply bfloat16
_group_sums_cuda._PART = 64  # so that a group has several parts
generator = torch.Generator().manual_seed(0)
small = [(1, 3, 2, 90), (130, 3, 2, 90), (300, 16, 7, 90), (257, 64, 65, 80)]
for n, d, k, card in [*small, (129, 132, 9, 90), (129, 128, 300, 89), (70, 200, 20, 90)]:
    cuda._shared_memory = lambda device: {90: 232_448, 80: 166_912, 89: 101_376}[card]
    points = torch.randn(n, d, generator=generator)
    weight = torch.randn(k, d, generator=generator)
    bias = -0.5 * weight.square().sum(1)
    if k > 5:
        weight[5], bias[5] = weight[2], bias[2]  # of equal ones the first
    best, index = cuda.nearest(points, weight, bias)
    scores = points.double() @ weight.double().T + bias.double()
    assert not (index == 5).any() or k <= 5
    expected = scores.max(1).indices
    assert torch.equal(index, torch.where(expected == 5, 2, expected) if k > 5 else expected)
    torch.testing.assert_close(best.double(), scores.amax(1), rtol=1e-5, atol=1e-5)
    group = torch.where(torch.rand(n, generator=generator) < 0.2, -1, index)
    wanted = group >= 0
    count = torch.bincount(group[wanted], minlength=k)
    expected = torch.zeros(k, d, dtype=torch.float64).index_add_(0, group[wanted], points[wanted].double())
    torch.testing.assert_close(_group_sums_cuda.group_sums(points, group, count), expected, rtol=1e-5, atol=1e-5)
    candidates, square = weight[:6], points.square().sum(1)
    distance = kmeans.squared_distances(points, square, weight[-1:])[:, 0]
    distances = torch.minimum(distance[:, None], kmeans.squared_distances(points, square, candidates))
    shorter, winner = cuda.shorten(points, square, candidates, distance)
    torch.testing.assert_close(distances[:, winner[0]].sum(), distances.sum(0).min(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(shorter, distances[:, winner[0]], rtol=1e-4, atol=1e-4)

points = torch.cat([torch.randn(200, 5, generator=generator) + 9 * i for i in range(4)])
expected = kmeans.kmeans(points, 4, spherical=False)
kmeans.by_triton = lambda device: True
found = kmeans.kmeans(points, 4, spherical=False)
torch.testing.assert_close(found.centroids, expected.centroids, rtol=1e-4, atol=1e-4)
"""


@pytest.mark.slow
def test_the_triton_kernels_find_the_same_in_the_interpreter():
    if numpy_is_too_new_for_the_interpreter():
        pytest.skip("this numpy is too new for this Triton's interpreter")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-c", INTERPRETED], check=True, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("dimensions", [128, 132, 200])
def test_the_kernel_of_the_nearest_fits_an_h100(dimensions):
    pytest.importorskip("triton")
    from selfseg.ops.kernels import kmeans_cuda as cuda

    cut = cuda.plan(dimensions, SHARED[90])
    types = {"points": "*fp32", "high": "*bf16", "low": "*bf16", "bias": "*fp32", "best": "*fp32", "index": "*i64"}
    types |= {"n": "i32", "d": "i32" if dimensions % 16 else "i32%16", "k": "i32%16", "p": "i32%16"}
    constants = {"TILE": 128, "CENTROIDS": cut.centroids, "DEPTH": cut.depth, "TAIL": cut.tail, "WHOLE": cut.whole}
    taken = compile_for(cuda._nearest, types, constants, 90, num_warps=8, num_stages=cut.stages)
    assert taken.shared <= SHARED[90]
    assert taken.stack == 0


@pytest.mark.slow
def test_the_kernels_of_the_seeding_and_the_sums_fit_an_h100():
    pytest.importorskip("triton")
    from selfseg.ops.kernels import group_sums_cuda as sums
    from selfseg.ops.kernels import kmeans_cuda as cuda

    arrays = ("points", "square", "candidates", "candidate_square", "distance", "shortened", "sums")
    types = dict.fromkeys(arrays, "*fp32") | dict.fromkeys(("n", "d", "t", "programs"), "i32")
    tile = {"TILE": 128, "DEPTH": 32, "CANDIDATES": 16}
    assert compile_for(cuda._shorten, types, tile, 90, num_warps=4, num_stages=3).stack == 0
    types = {"rows": "*fp32", "order": "*i64", "begin": "*i64", "end": "*i64", "parts": "*fp32", "d": "i32"}
    assert compile_for(sums._sum_parts, types, {"ROWS": 32, "DEPTH": 128}, 90).stack == 0
    types = {"parts": "*fp32", "first": "*i64", "total": "*fp64", "d": "i32"}
    assert compile_for(sums._join_parts, types, {"DEPTH": 128}, 90).stack == 0


@pytest.mark.gpu
@pytest.mark.parametrize("dimensions", [3, 64, 128, 132, 200, 384])
@pytest.mark.parametrize("spherical", [True, False])
def test_a_gpu_finds_the_same_nearest_centroids_but_for_ties(dimensions, spherical):
    points = blobs(10_001, dimensions, 40)
    centroids = points[:300] + 0.1
    centroids[7] = centroids[3]
    expected, found = (assign(points.to(d), centroids.to(d), spherical).cpu() for d in ("cpu", "cuda"))
    weight, bias = affine_scores(centroids.double(), spherical)
    scores = (torch.nn.functional.normalize(points.double(), dim=1) if spherical else points.double()) @ weight.T + bias
    two = scores.gather(1, torch.stack([expected, found], 1))
    assert ((two[:, 0] - two[:, 1]).abs() < 1e-4 * scores.abs().amax(1).clamp(min=1)).all()
    assert not (found == 7).any()


@pytest.mark.gpu
@pytest.mark.parametrize(("dimensions", "spherical"), [(8, True), (128, True), (132, False), (300, False)])
def test_a_gpu_finds_the_same_clusters_twice(dimensions, spherical):
    points = blobs(20_000, dimensions, 40)
    options = {"iterations": 4, "tolerance": 0.0, "spherical": spherical, "initial": points[:50]}
    cpu = kmeans(points, 50, **options)
    gpu, again = (kmeans(points.cuda(), 50, **options) for _ in range(2))
    assert torch.equal(gpu.centroids, again.centroids)
    assert torch.equal(gpu.assignment, again.assignment)
    assert (gpu.assignment.cpu() == cpu.assignment).float().mean() > 0.999
    torch.testing.assert_close(gpu.centroids.cpu(), cpu.centroids, rtol=1e-2, atol=1e-2)
    assert gpu.inertia == pytest.approx(cpu.inertia, rel=1e-4)
    assert kmeans(points.cuda(), 50, seed=3, spherical=spherical).inertia == pytest.approx(
        kmeans(points, 50, seed=3, spherical=spherical).inertia, rel=0.02
    )
