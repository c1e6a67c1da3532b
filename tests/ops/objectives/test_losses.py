import math

import pytest
import torch

from selfseg.ops.objectives.losses import effective_rank, info_nce, swapped_prediction, usage_entropy


def test_swapped_prediction_of_a_guess_is_log_k() -> None:
    assignment = torch.softmax(torch.randn(7, 12, generator=torch.Generator().manual_seed(0)), dim=1)
    loss = swapped_prediction(torch.zeros(3, 7, 12), assignment, torch.full((7,), 1 / 7), temperature=0.1)
    assert loss.item() == pytest.approx(math.log(12), abs=1e-5)


def test_swapped_prediction_without_regions_is_zero_with_gradient() -> None:
    scores = torch.zeros(2, 0, 4, requires_grad=True)
    loss = swapped_prediction(scores, torch.zeros(0, 4), torch.zeros(0), temperature=0.1)
    loss.backward()
    assert loss.item() == 0


def test_info_nce_is_cross_entropy_among_the_positive_and_the_negatives() -> None:
    random = torch.Generator().manual_seed(0)
    queries, positives, negatives = (torch.randn(n, 6, generator=random).double() for n in (5, 5, 9))
    each, found = info_nce(queries, positives, negatives, 0.3)
    for row in range(5):
        scores = torch.stack([queries[row] @ key for key in (positives[row], *negatives)]) / 0.3
        torch.testing.assert_close(each[row], -scores.log_softmax(0)[0])
        assert found[row] == (scores.argmax() == 0)


def test_info_nce_without_negatives_is_zero_with_gradient() -> None:
    queries = torch.eye(3, requires_grad=True)
    each, found = info_nce(queries, torch.eye(3), torch.zeros(0, 3), 0.2)
    each.sum().backward()
    assert each.tolist() == [0, 0, 0]
    assert found.all()
    assert queries.grad is not None


def test_usage_entropy_tells_equal_from_collapsed() -> None:
    assert usage_entropy(torch.full((5, 8), 1 / 8)).item() == pytest.approx(1, abs=1e-6)
    assert usage_entropy(torch.eye(8)[torch.zeros(5, dtype=torch.long)]).item() == pytest.approx(0, abs=1e-6)
    assert usage_entropy(torch.zeros(0, 8)).item() == 0


def test_effective_rank_counts_directions() -> None:
    vectors = torch.randn(4000, 6, generator=torch.Generator().manual_seed(0))
    assert effective_rank(vectors).item() == pytest.approx(6, abs=0.1)
    vectors[:, 2:] = 0
    assert effective_rank(vectors).item() == pytest.approx(2, abs=0.05)
    assert effective_rank(vectors[:1]).item() == 0
