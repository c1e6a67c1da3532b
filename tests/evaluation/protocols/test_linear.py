from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from selfseg.errors import ConfigError
from selfseg.evaluation.protocols.linear import Linear, _Objective, fit_linear


def problem(n: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.multinomial(torch.tensor([0.6, 0.3, 0.1]), n, replacement=True, generator=generator)
    middle = torch.randn(3, 6, generator=generator)
    points = middle[labels] + torch.randn(n, 6, generator=generator)
    return points * torch.tensor([1, 100, 0.01, 1, 1, 1]) + torch.tensor([0, 1000.0, 0, 0, 5, 0]), labels


def loss(head, points, labels) -> float:
    return float(F.cross_entropy(points @ head.weight.T + head.bias, labels))


def test_reaches_the_optimum_of_logistic_regression():
    points, labels = problem()
    scaled = (points - points.mean(0)) / points.std(0)
    best = LogisticRegression(C=1e6, max_iter=2000).fit(scaled.numpy(), labels.numpy())
    logits = scaled @ torch.from_numpy(best.coef_).float().T + torch.from_numpy(best.intercept_).float()
    head = fit_linear(points, labels, 3, Linear(steps=400, batch=1024))
    assert loss(head, points, labels) < float(F.cross_entropy(logits, labels)) * 1.005 + 0.001


def test_balanced_finds_more_of_the_rare_class():
    points, labels = problem()
    recall = []
    for balanced in (False, True):
        head = fit_linear(points, labels, 3, Linear(steps=200, batch=1024, balanced=balanced))
        guess = (points @ head.weight.T + head.bias).max(1).indices
        recall.append(float((guess[labels == 2] == 2).float().mean()))
    assert recall[1] > recall[0] + 0.1


def test_a_seed_repeats():
    points, labels = problem(500)
    first, again, other = (fit_linear(points, labels, 3, Linear(steps=20), seed).weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_no_label_at_all():
    with pytest.raises(ConfigError, match="no labelled pixel"):
        fit_linear(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 3, Linear())
    with pytest.raises(ConfigError, match="steps must be at least 1"):
        Linear(steps=0)


def test_the_papers_schedule_is_plain_sgd_with_a_drop():
    generator = np.random.default_rng(0)
    pixels, labels = generator.normal(size=(40, 3)), generator.integers(0, 4, 40)
    config = replace(Linear(solver="sgd"), epochs=5, drop=3)
    assert (config.learning_rate, config.decay, config.images) == (0.1, 1e-4, 16)
    head = fit_linear(torch.from_numpy(pixels).float(), torch.from_numpy(labels), 4, config, seed=7, images=16)

    # All images are a batch, so that an epoch is a step; gradients of softmax and cross entropy by hand.
    weight = 0.01 * torch.randn(4, 3, generator=torch.Generator().manual_seed(7)).double().numpy()
    bias, speeds = np.zeros(4), [np.zeros((4, 3)), np.zeros(4)]
    for epoch in range(5):
        logits = pixels @ weight.T + bias
        share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        error = (share - np.eye(4)[labels]) / 40
        for i, gradient in enumerate((error.T @ pixels + 1e-4 * weight, error.sum(0))):
            speeds[i] = 0.9 * speeds[i] + gradient
        rate = 0.1 if epoch < 3 else 0.01
        weight, bias = weight - rate * speeds[0], bias - rate * speeds[1]
    assert head.weight.numpy() == pytest.approx(weight, abs=1e-5)
    assert head.bias.numpy() == pytest.approx(bias, abs=1e-5)


def test_a_batch_of_sgd_is_of_so_many_images(monkeypatch):
    sizes = []
    real = torch.nn.functional.cross_entropy

    def watched(logits, labels, weight):
        sizes.append(len(labels))
        return real(logits, labels, weight=weight)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", watched)
    config = replace(Linear(solver="sgd"), epochs=2)
    fit_linear(torch.randn(400, 3), torch.zeros(400, dtype=torch.int64), 2, config, images=100)
    assert sizes == [64] * 12  # 16 of 100 images; what is left of an epoch is left out
    with pytest.raises(ConfigError, match="adamw, sgd, poly or lbfgs, not 'lars'"):
        replace(config, solver="lars")


def correlated(n: int = 9000) -> tuple[torch.Tensor, torch.Tensor]:
    """`problem` with dimensions that are nearly the same, and one that is constant."""
    points, labels = problem(n)
    near = points[:, :2] + 0.01 * torch.randn(n, 2, generator=torch.Generator().manual_seed(1))
    return torch.cat([points, near, torch.full((n, 1), 3.0)], 1), labels


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("standardise", [False, True])
def test_lbfgs_is_the_optimum(weight_decay, balanced, standardise):
    points, labels = correlated()
    points = points if standardise else (points - points.mean(0)) / points.std(0).clamp(min=1)
    config = replace(Linear(solver="lbfgs"), weight_decay=weight_decay, balanced=balanced, standardise=standardise)
    config = replace(config, tolerance=1e-5)
    head = fit_linear(points, labels, 3, config)
    assert head.steps < 200
    # The same loss by autograd in float64, of the layer on standardised features.
    mean, deviation = torch.zeros(points.shape[1]).double(), torch.ones(points.shape[1]).double()
    if standardise:
        mean, deviation = points.double().mean(0), points.double().std(0, correction=0).clamp(min=1e-8)
        deviation[-1] = 1
    weight = (head.weight.double() * deviation).requires_grad_()
    bias = (head.bias.double() + head.weight.double() @ mean).requires_grad_()
    frequency = torch.bincount(labels, minlength=3).double()
    importance = len(labels) / (3 * frequency) if balanced else torch.ones(3).double()
    value = F.cross_entropy(((points - mean) / deviation) @ weight.T + bias, labels, weight=importance)
    assert head.loss == pytest.approx(value.item(), abs=2e-5)
    (value + weight_decay / 2 * weight.square().sum()).backward()
    assert max(float(weight.grad.abs().max()), float(bias.grad.abs().max())) < 2e-4
    assert head.gradient < 2e-4  # float32 stalls between 4e-5 and 1.1e-4, depending on torch and the BLAS


def test_lbfgs_is_below_what_adamw_reaches_and_has_no_seed():
    points, labels = correlated()
    best, again = (fit_linear(points, labels, 3, Linear(solver="lbfgs"), seed) for seed in (0, 1))
    usual = fit_linear(points, labels, 3, Linear(steps=400, batch=1024))
    assert best.loss <= usual.loss + 1e-6
    assert best.loss == pytest.approx(usual.loss, abs=0.01)
    assert best.gradient < usual.gradient / 10
    assert torch.equal(best.weight, again.weight)
    assert torch.equal(best.bias, again.bias)


def test_lbfgs_ends_where_there_is_no_optimum():
    # Classes that a line divides: the loss falls for ever. So it does with a class that never occurs.
    labels = torch.arange(60) % 2
    head = fit_linear(labels[:, None].float() * torch.ones(1, 3), labels, 4, Linear(solver="lbfgs"))
    assert head.loss < 1e-3
    assert bool(torch.isfinite(head.weight).all())
    stopped = fit_linear(*correlated(2000), 3, replace(Linear(solver="lbfgs"), iterations=3))
    assert stopped.steps == 3
    assert stopped.gradient > 1e-3
    with pytest.raises(ConfigError, match="tolerance must be above 0, not 0"):
        replace(Linear(solver="lbfgs"), tolerance=0)


def test_the_chunked_gradient_is_that_of_the_whole(monkeypatch):
    monkeypatch.setattr("selfseg.evaluation.protocols.linear._ROWS", 64)
    generator = torch.Generator().manual_seed(0)
    pixels, labels = torch.randn(300, 5, generator=generator), torch.randint(0, 4, (300,), generator=generator)
    mean, deviation, importance = torch.randn(5), torch.rand(5) + 0.5, torch.tensor([1.0, 2.0, 0.0, 0.5])
    weight, bias = torch.randn(4, 5, requires_grad=True), torch.randn(4, requires_grad=True)
    value = F.cross_entropy(((pixels - mean) / deviation) @ weight.T + bias, labels, weight=importance)
    value.backward()
    found, gradient = _Objective(pixels, labels, mean, deviation, importance)(weight.detach(), bias.detach())
    assert found == pytest.approx(value.item(), abs=1e-5)
    assert gradient[:, :-1].numpy() == pytest.approx(weight.grad.numpy(), abs=1e-5)
    assert gradient[:, -1].numpy() == pytest.approx(bias.grad.numpy(), abs=1e-5)


@pytest.mark.parametrize("solver", ["sgd", "poly"])
def test_two_layers_with_a_batchnorm_are_folded_into_one(solver):
    points, labels = problem(300)
    config = Linear(solver=solver, steps=6, epochs=6, drop=4, batch=300, learning_rate=0.01, weight_decay=1e-3)
    config = replace(config, standardise=True)
    head = fit_linear(points, labels, 3, config, seed=5, images=16, filters=4)

    # The same two layers as modules: a step sees all pixels, so their order doesn't matter.
    generator, dim = torch.Generator().manual_seed(5), points.shape[1]
    network = torch.nn.Sequential(
        torch.nn.Linear(dim, 4, bias=False), torch.nn.BatchNorm1d(4, momentum=None), torch.nn.Linear(4, 3)
    ).double()
    with torch.no_grad():
        network[0].weight.copy_(torch.randn(4, dim, generator=generator) / dim**0.5)
        network[2].weight.copy_(0.01 * torch.randn(3, 4, generator=generator))
        network[2].bias.zero_()
    rows = (points.double() - points.double().mean(0)) / points.double().std(0, correction=0)
    speeds = [torch.zeros_like(p) for p in network.parameters()]
    for step in range(6):
        network.zero_grad()
        F.cross_entropy(network(rows), labels).backward()
        rate = 0.01 * ((1 - step / 6) ** 0.9 if solver == "poly" else 1 if step < 4 else 0.1)
        with torch.no_grad():
            for parameter, speed in zip(network.parameters(), speeds, strict=True):
                decay = 1e-3 if parameter.ndim == 2 else 0.0
                speed.mul_(0.9).add_(parameter.grad + decay * parameter)
                parameter -= rate * speed
    hidden = network[0](rows).detach()
    unit = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-5).sqrt()
    wanted = network[2](unit * network[1].weight + network[1].bias).detach()
    assert torch.allclose((points @ head.weight.T + head.bias).double(), wanted, atol=1e-4)
    assert head.loss == pytest.approx(float(F.cross_entropy(wanted, labels)), abs=1e-4)
    assert head.steps == 6


@pytest.mark.slow
def test_two_layers_come_near_the_optimum_of_one():
    points, labels = correlated(3000)
    best = fit_linear(points, labels, 3, Linear(solver="lbfgs")).loss
    for filters in (3, 32):
        found = fit_linear(points, labels, 3, Linear(steps=300, batch=1024), filters=filters)
        assert best <= found.loss < 1.05 * best + 0.01
    narrow = fit_linear(points, labels, 3, Linear(steps=300, batch=1024), filters=1)
    assert narrow.loss > 1.05 * best  # scores of three classes on one line


def test_filters_that_cannot_be_are_refused():
    for hidden in ((0,), (27, 27)):
        with pytest.raises(ConfigError, match="hidden filters must be numbers from 1 on, each of them once"):
            Linear(hidden=hidden)
    with pytest.raises(ConfigError, match="take the solver adamw, sgd or poly"):
        Linear(hidden=(27,), solver="lbfgs")
    with pytest.raises(ConfigError, match="needs 2 pixels a step; there are 1"):
        fit_linear(torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64), 3, Linear(), filters=3)
