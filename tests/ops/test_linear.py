import pytest
import torch
import torch.nn.functional as F

from selfseg.ops import linear as module
from selfseg.ops.linear import Linear, linear


def draw(n: int = 37, d: int = 19, k: int = 23) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((n, d), (k, d), (k,), (n, k))
    return tuple(torch.randn(*shape, generator=generator) for shape in shapes)


@pytest.mark.parametrize("with_bias", [True, False])
def test_values_and_gradients_are_torchs(with_bias):
    rows, weight, bias, gradient = draw()
    given = [rows, weight, bias][: 2 + with_bias]
    mine = [t.clone().requires_grad_() for t in given]
    exact = [t.double().requires_grad_() for t in given]
    ours, truth = linear(*mine), F.linear(*exact)
    torch.testing.assert_close(ours.double(), truth, atol=1e-5, rtol=1e-5)
    ours.backward(gradient)
    truth.backward(gradient.double())
    for a, b in zip(mine, exact, strict=True):
        torch.testing.assert_close(a.grad.double(), b.grad, atol=1e-5, rtol=1e-5)


def test_only_what_needs_a_gradient_gets_one():
    rows, weight, bias, gradient = draw()
    weight.requires_grad_()
    linear(rows, weight, bias).backward(gradient)
    assert weight.grad is not None
    assert rows.grad is bias.grad is None


def test_rows_that_are_not_contiguous():
    rows, weight, _, _ = draw()
    wide = torch.stack([rows, -rows], 2)[:, :, 0]
    assert not wide.is_contiguous()
    torch.testing.assert_close(linear(wide, weight.T.contiguous().T), F.linear(rows, weight))


def test_a_gradient_that_is_one_number_everywhere():
    rows, weight, _, _ = draw()
    mine, theirs = (weight.clone().requires_grad_() for _ in range(2))
    linear(rows, mine).sum().backward()  # the gradient has strides of 0
    F.linear(rows, theirs).sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize("what", ["float64", "three dimensions", "no rows", "autocast", "no oneDNN"])
def test_all_else_is_left_to_torch(what, monkeypatch):
    rows, weight, bias, _ = draw()
    monkeypatch.setattr(module, "_product", None)  # would raise
    if what == "float64":
        rows, weight, bias = rows.double(), weight.double(), bias.double()
    if what == "three dimensions":
        rows = rows[None]
    if what == "no rows":
        rows = rows[:0]
    if what == "no oneDNN":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with torch.autocast("cpu", torch.bfloat16, enabled=what == "autocast"):
        assert torch.equal(linear(rows, weight, bias), F.linear(rows, weight, bias))


def test_a_layer_has_the_names_of_torchs():
    layer, theirs = Linear(19, 23), torch.nn.Linear(19, 23)
    layer.load_state_dict(theirs.state_dict())
    rows, *_ = draw()
    torch.testing.assert_close(layer(rows), theirs(rows))
