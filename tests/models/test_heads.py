import copy

import pytest
import torch
from torch import nn

from selfseg.models.decoders import Projector
from selfseg.models.heads import VectorBatchNorm, VectorMLP


def test_it_is_batch_norm_where_batch_norm_works() -> None:
    torch.manual_seed(0)
    ours, torchs = VectorBatchNorm(5), nn.BatchNorm1d(5)
    for training in (True, False):
        rows = torch.randn(7, 5)
        mine, theirs = rows.clone().requires_grad_(), rows.clone().requires_grad_()
        a, b = ours.train(training)(mine), torchs.train(training)(theirs)
        torch.testing.assert_close(a, b)
        a.square().sum().backward()
        b.square().sum().backward()
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-5, rtol=1e-4)
    assert ours.state_dict().keys() == torchs.state_dict().keys()
    for key, value in torchs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value)


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows_for_statistics_give_finite_gradients(rows: int) -> None:
    mlp = VectorMLP(4, 6, 3)
    before = {key: value.clone() for key, value in mlp.named_buffers()}
    out = mlp(torch.randn(rows, 4))
    out.square().sum().backward()
    assert out.shape == (rows, 3)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in mlp.parameters())
    assert all(torch.equal(value, before[key]) for key, value in mlp.named_buffers())


@pytest.mark.parametrize("few", [0, 1])
def test_few_rows_after_many_leave_the_gradient_of_the_many(few: int) -> None:
    """One direction of a step can have one slot in common, and the other many."""
    mlp, rows = VectorMLP(4, 6, 3), torch.randn(5, 4)
    mlp(rows).square().sum().backward()
    wanted = [p.grad.clone() for p in mlp.parameters() if p.grad is not None]
    mlp.zero_grad()
    (mlp(rows).square().sum() + 0 * mlp(torch.randn(few, 4)).sum()).backward()
    for parameter, gradient in zip(mlp.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_a_single_row_becomes_the_bias() -> None:
    norm = VectorBatchNorm(3)
    nn.init.constant_(norm.bias, 2.0)
    torch.testing.assert_close(norm(torch.randn(1, 3)), torch.full((1, 3), 2.0))


def test_a_projector_is_three_pointwise_convolutions() -> None:
    torch.manual_seed(0)
    projector = Projector([5, 6], hidden=8, dim=4)
    stages = [torch.randn(2, 5, 8, 10), torch.randn(2, 6, 4, 5)]
    convolutions = nn.Sequential(
        nn.Conv2d(6, 8, 1),
        nn.BatchNorm2d(8),
        nn.GELU(),
        nn.Conv2d(8, 8, 1),
        nn.BatchNorm2d(8),
        nn.GELU(),
        nn.Conv2d(8, 4, 1),
    )
    state = projector.mlp.state_dict()
    convolutions.load_state_dict({k: v[:, :, None, None] if v.ndim == 2 else v for k, v in state.items()})
    torch.testing.assert_close(projector(stages), convolutions(stages[1]))


def test_views_in_one_product_are_views_one_by_one() -> None:
    torch.manual_seed(0)
    together = Projector([6], hidden=8, dim=4).double()
    apart = copy.deepcopy(together)
    views = [torch.randn(2, 6, 4, 5, dtype=torch.float64), torch.randn(3, 6, 2, 2, dtype=torch.float64)]
    both = together.views([[view] for view in views])
    single = [apart([view]) for view in views]
    for a, b in zip(both, single, strict=True):
        torch.testing.assert_close(a, b)
    sum(x.square().sum() for x in both).backward()
    sum(x.square().sum() for x in single).backward()
    for (name, a), b in zip(together.named_parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)
    for name, value in apart.state_dict().items():
        torch.testing.assert_close(together.state_dict()[name], value)
