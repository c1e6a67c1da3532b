"""Points in parts are clustered as points in memory are, whoever goes through them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfseg.errors import ConfigError
from selfseg.ops.kmeans import kmeans
from selfseg.ops.parts.kmeans import kmeans_parts, seed_parts
from selfseg.ops.parts.steps import Assign, PartFiles, Shorten, distances_of
from selfseg.workers.hiring import hire
from selfseg.workers.parts import SharedParts
from selfseg.workers.plan import Where


def _points(count: int = 3000, dim: int = 8, groups: int = 12) -> np.ndarray:
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(groups, dim))
    return (centres[np.arange(count) % groups] + 0.35 * generator.normal(size=(count, dim))).astype(np.float32)


def _parts(folder: Path, points: np.ndarray, pieces: int = 4) -> PartFiles:
    paths = []
    for number, part in enumerate(np.array_split(points, pieces)):
        paths.append(folder / f"part-{number}.npy")
        np.save(paths[-1], part)
    return PartFiles(tuple(paths))


@pytest.mark.parametrize("spherical", [True, False])
def test_from_one_start_it_is_the_k_means_of_points_in_memory(tmp_path: Path, spherical: bool) -> None:
    points = torch.from_numpy(_points())
    parts = _parts(tmp_path, points.numpy())
    for initial in (points[:10], points[:10] * 0 + points[:1]):  # the second leaves clusters empty
        whole = kmeans(points, 10, iterations=6, tolerance=0, spherical=spherical, initial=initial)
        found = kmeans_parts(parts, 10, iterations=6, tolerance=0, spherical=spherical, initial=initial)
        assert found.iterations == whole.iterations
        assert found.inertia == pytest.approx(whole.inertia, rel=1e-5)
        torch.testing.assert_close(found.centroids, whole.centroids, rtol=0, atol=2e-5)
        assert found.counts.tolist() == torch.bincount(whole.assignment, minlength=10).tolist()


def test_oversampling_seeds_as_well_as_greedy_k_means_plus_plus(tmp_path: Path) -> None:
    points = _points()
    parts = _parts(tmp_path, points)
    ratios = []
    for seed in range(10):
        ours = kmeans_parts(parts, 24, seed=seed, spherical=False)
        ratios.append(ours.inertia / kmeans(torch.from_numpy(points), 24, seed=seed, spherical=False).inertia)
    assert np.mean(ratios) <= 1.02


@pytest.mark.slow
def test_workers_change_not_a_bit(tmp_path: Path) -> None:
    parts = _parts(tmp_path, _points())
    here = kmeans_parts(parts, 9, seed=3)
    with hire(Where(2), "k-means", progress=False) as workers:
        shared = kmeans_parts(SharedParts(workers, parts.paths), 9, seed=3)
    assert torch.equal(here.centroids, shared.centroids)
    assert (here.inertia, here.iterations) == (shared.inertia, shared.iterations)
    assert np.array_equal(here.counts, shared.counts)


def test_mini_batches_come_near(tmp_path: Path) -> None:
    parts = _parts(tmp_path, _points(), pieces=20)
    exact, rough = kmeans_parts(parts, 12), kmeans_parts(parts, 12, batches=3)
    assert exact.inertia <= rough.inertia <= 1.05 * exact.inertia
    assert torch.equal(rough.centroids, kmeans_parts(parts, 12, batches=3).centroids)


def test_a_step_that_was_cut_off_is_repeated_without_harm(tmp_path: Path) -> None:
    points = _points(500)
    parts = _parts(tmp_path, points, pieces=1)
    parts.each(Shorten(points[:1], spherical=False, first=True))
    once = parts.each(Shorten(points[1:3], spherical=False, first=False))
    kept = np.fromfile(distances_of(parts.paths[0]), np.float32)
    again = parts.each(Shorten(points[1:3], spherical=False, first=False))
    assert once == again
    assert np.array_equal(kept, np.fromfile(distances_of(parts.paths[0]), np.float32))
    true = ((points[:, None] - points[None, :3]) ** 2).sum(2).min(1)
    np.testing.assert_allclose(kept, true, atol=1e-4)


def test_parts_may_be_empty_small_or_full_of_equal_points(tmp_path: Path) -> None:
    points = np.concatenate([np.zeros((50, 3), np.float32), np.eye(3, dtype=np.float32)])
    parts = _parts(tmp_path, points, pieces=3)
    np.save(tmp_path / "part-9.npy", np.zeros((0, 3), np.float32))
    parts = PartFiles((*parts.paths, tmp_path / "part-9.npy"))
    found = kmeans_parts(parts, 4, spherical=False)
    assert found.inertia == pytest.approx(0, abs=1e-9)
    assert sorted(found.counts.tolist()) == [1, 1, 1, 50]
    with pytest.raises(ConfigError, match="distinct"):
        kmeans_parts(parts, 5, spherical=False)


def test_what_can_t_be_clustered_is_said(tmp_path: Path) -> None:
    points = _points(30)
    with pytest.raises(ConfigError, match="30 points"):
        kmeans_parts(_parts(tmp_path, points), 31)
    with pytest.raises(ConfigError, match="shape"):
        kmeans_parts(_parts(tmp_path, points), 3, initial=torch.zeros(3, 5))
    points[7, 2] = np.nan
    with pytest.raises(ConfigError, match="1 of 30 points are not finite"):
        kmeans_parts(_parts(tmp_path, points), 3)


def test_seeds_are_of_unit_length_on_the_sphere(tmp_path: Path) -> None:
    points = _points(400)
    parts = _parts(tmp_path, points)
    seeds = seed_parts(parts, [100] * 4, 5, seed=1, spherical=True)
    torch.testing.assert_close(seeds, F.normalize(seeds, dim=1))
    counts = sum(one.counts.sum() for one in parts.each(Assign(seeds.numpy(), spherical=True)))
    assert counts == 400
