import torch

from selfseg.ops.objectives.sinkhorn import sinkhorn


def test_rows_sum_to_one_and_prototypes_are_used_equally() -> None:
    scores = torch.randn(200, 10, generator=torch.Generator().manual_seed(0)) * 0.2 + torch.arange(10) * 0.05
    assignment = sinkhorn(scores, iterations=50)
    torch.testing.assert_close(assignment.sum(1), torch.ones(200))
    torch.testing.assert_close(assignment.sum(0), torch.full((10,), 20.0), atol=1e-3, rtol=0)


def test_equals_the_algorithm_written_on_a_joint_matrix() -> None:
    scores = torch.randn(30, 6, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    joint = torch.exp(scores.double() / 0.05)
    joint /= joint.sum()
    for _ in range(3):
        joint /= joint.sum(0, keepdim=True) * 6
        joint /= joint.sum(1, keepdim=True) * 30
    torch.testing.assert_close(sinkhorn(scores), (joint * 30).float(), atol=1e-6, rtol=1e-5)


def test_extreme_scores_and_no_rows_stay_finite() -> None:
    assert torch.isfinite(sinkhorn(torch.tensor([[100.0, -100.0], [100.0, -100.0]]))).all()
    assert sinkhorn(torch.zeros(0, 4)).shape == (0, 4)


def test_a_small_epsilon_does_not_underflow() -> None:
    scores = torch.tensor([[1.0, -1.0], [-1.0, -1.0], [0.9, 1.0]])
    assignment = sinkhorn(scores, epsilon=0.01)
    torch.testing.assert_close(assignment.sum(1), torch.ones(3))


def test_a_stack_is_each_problem_alone() -> None:
    scores = torch.randn(3, 20, 5, generator=torch.Generator().manual_seed(2)).clamp(-1, 1)
    torch.testing.assert_close(sinkhorn(scores), torch.stack([sinkhorn(each) for each in scores]))
