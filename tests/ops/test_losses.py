import math

import pytest
import torch

from selfseg.ops.losses import effective_rank, swapped_prediction, usage_entropy


def test_swapped_prediction_of_a_guess_is_log_k() -> None:
    assignment = torch.softmax(torch.randn(7, 12, generator=torch.Generator().manual_seed(0)), dim=1)
    loss = swapped_prediction(torch.zeros(3, 7, 12), assignment, torch.full((7,), 1 / 7), temperature=0.1)
    assert loss.item() == pytest.approx(math.log(12), abs=1e-5)


def test_swapped_prediction_without_regions_is_zero_with_gradient() -> None:
    scores = torch.zeros(2, 0, 4, requires_grad=True)
    loss = swapped_prediction(scores, torch.zeros(0, 4), torch.zeros(0), temperature=0.1)
    loss.backward()
    assert loss.item() == 0


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
