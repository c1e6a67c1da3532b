from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from selfseg.collection.clusters import Clusters, add_position
from selfseg.errors import ConfigError
from selfseg.studio.concepts import Grouping, with_position

DIRECTIONS = np.eye(4, dtype=np.float32)


@dataclass
class Drawn:
    """Images of ten regions each, whose vectors lie around the directions that `kinds` names."""

    first: NDArray[np.int64]
    vectors: NDArray[np.float16]
    areas: NDArray[np.float32]
    centres: NDArray[np.float32]


def drawn(kinds: NDArray[np.int64], spread: float = 0.05) -> Drawn:
    generator = np.random.default_rng(0)
    vectors = DIRECTIONS[kinds.ravel()] + spread * generator.standard_normal((kinds.size, 4), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Drawn(
        np.arange(len(kinds) + 1) * kinds.shape[1],
        vectors.astype(np.float16),
        np.full(kinds.size, 1 / kinds.shape[1], np.float32),
        generator.random((kinds.size, 2), np.float32),
    )


def clusters(rows: NDArray[np.float32], groups: torch.Tensor | None = None, position: float = 0.0) -> Clusters:
    k = len(rows) if groups is None else int(groups.max()) + 1
    return Clusters(torch.from_numpy(rows), (1 / k,) * k, ((),) * k, {"position": position}, groups)


@pytest.fixture
def regions() -> Drawn:
    return drawn(np.random.default_rng(1).integers(0, 3, (40, 10)))


def test_regions_belong_to_the_nearest_cluster(regions: Drawn) -> None:
    grouping = Grouping(regions, clusters(DIRECTIONS[:3]), {})
    assert (grouping.members == regions.vectors[:, :3].argmax(1)).all()
    assert sum(grouping.concept(path).share for path in grouping.paths) == pytest.approx(1)


def test_merged_clusters_are_one_concept(regions: Drawn) -> None:
    grouping = Grouping(regions, clusters(DIRECTIONS[:3], torch.tensor([0, 1, 0])), {})
    assert grouping.paths == ["2/0", "2/1"]
    assert (grouping.members == (regions.vectors[:, :3].argmax(1) == 1)).all()


def test_a_split_parts_what_differs_and_leaves_the_others(regions: Drawn) -> None:
    grouping = Grouping(regions, clusters(DIRECTIONS[[3, 2]] + DIRECTIONS[[0, 2]]), {})
    before = {path: set(grouping.rows(path)) for path in grouping.paths}
    centres = grouping.find_parts("2/0", 2)
    grouping.split("2/0", centres)
    assert grouping.paths == ["2/0.0", "2/0.1", "2/1"]
    assert set(grouping.rows("2/0.0")) | set(grouping.rows("2/0.1")) == before["2/0"]
    assert set(grouping.rows("2/1")) == before["2/1"]
    assert len(grouping.rows("2/0.0")) >= len(grouping.rows("2/0.1")) > 0


def test_splits_of_a_log_are_made_again(regions: Drawn) -> None:
    live = Grouping(regions, clusters(DIRECTIONS[:1]), {})
    splits = {}
    for path, parts in (("1/0", 2), ("1/0.0", 2)):
        splits[path] = live.find_parts(path, parts)
        live.split(path, splits[path])
    again = Grouping(regions, clusters(DIRECTIONS[:1]), splits)
    assert again.paths == live.paths == ["1/0.0.0", "1/0.0.1", "1/0.1"]
    assert (again.members == live.members).all()


def test_splits_of_another_k_are_passed_over(regions: Drawn) -> None:
    assert Grouping(regions, clusters(DIRECTIONS[:2]), {"9/1": DIRECTIONS[:2]}).paths == ["2/0", "2/1"]


def test_examples_are_of_the_concept_and_from_different_images(regions: Drawn) -> None:
    grouping = Grouping(regions, clusters(DIRECTIONS[:3]), {})
    for path in grouping.paths:
        concept = grouping.concept(path)
        for examples in (concept.typical, concept.diverse):
            assert {one.region for one in examples} <= set(grouping.rows(path))
            assert len({one.image for one in examples}) == len(examples) == 6
            assert all(regions.first[one.image] <= one.region < regions.first[one.image + 1] for one in examples)


def test_typical_examples_are_not_frames_that_follow_each_other() -> None:
    many = drawn(np.zeros((96, 10), np.int64))
    images = sorted(one.image for one in Grouping(many, clusters(DIRECTIONS[:1]), {}).concept("1/0").typical)
    assert min(np.diff(images)) > 96 // 24


def test_a_mixture_seems_more_mixed_than_what_is_alike(regions: Drawn) -> None:
    grouping = Grouping(regions, clusters(np.stack([DIRECTIONS[0] + DIRECTIONS[1], DIRECTIONS[2]])), {})
    assert grouping.concept("2/0").mixed > 2 * grouping.concept("2/1").mixed


def test_a_concept_without_regions_is_shown_as_one(regions: Drawn) -> None:
    empty = Grouping(regions, clusters(np.concatenate([DIRECTIONS[:3], -DIRECTIONS[:1]])), {}).concept("4/3")
    assert (empty.share, empty.typical, empty.diverse) == (0.0, (), ())


def test_what_cannot_be_split_says_so(regions: Drawn) -> None:
    grouping = Grouping(regions, clusters(np.concatenate([DIRECTIONS[:3], -DIRECTIONS[:1]])), {})
    with pytest.raises(ConfigError, match="2 to 8 parts, not 9"):
        grouping.find_parts("4/0", 9)
    with pytest.raises(ConfigError, match="only 0 regions"):
        grouping.find_parts("4/3", 2)
    with pytest.raises(ConfigError, match="no concept '4/9'"):
        grouping.find_parts("4/9", 2)


def test_position_counts_as_it_does_for_cells() -> None:
    embedding = torch.nn.functional.normalize(torch.randn(4, 3, 5), dim=0)
    y, x = np.meshgrid((np.arange(3) + 0.5) / 3, (np.arange(5) + 0.5) / 5, indexing="ij")
    vectors = embedding.flatten(1).T.numpy()
    found = with_position(vectors, np.stack([y.ravel(), x.ravel()], 1).astype(np.float32), 0.7)
    assert np.allclose(found, add_position(embedding, 0.7).flatten(1).T.numpy(), atol=1e-6)


def test_what_still_holds_is_not_described_again(regions: Drawn) -> None:
    first = Grouping(regions, clusters(DIRECTIONS[:2]), {})
    parts = first.find_parts("2/0", 2)
    before = [first.concept(path) for path in first.paths]
    second = Grouping(regions, clusters(DIRECTIONS[:2]), {"2/0": parts}, first)
    assert second.concept("2/1") is before[1]
    kept = second.concept("2/0.1")
    again = Grouping(regions, clusters(DIRECTIONS[:2]), {"2/0": parts}, second)
    assert again.concept("2/0.1") is kept
    other = Grouping(regions, clusters(DIRECTIONS[:2]), {"2/0": parts[::-1]}, second)
    assert other.concept("2/0.1") is not kept
    assert set(other.rows("2/0.0")) == set(second.rows("2/0.1"))
