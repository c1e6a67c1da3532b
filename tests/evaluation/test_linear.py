import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from selfseg.errors import ConfigError
from selfseg.evaluation.linear import LinearConfig, fit_linear


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
    head = fit_linear(points, labels, 3, LinearConfig(steps=400, batch=1024))
    assert loss(head, points, labels) < float(F.cross_entropy(logits, labels)) * 1.005 + 0.001


def test_balanced_finds_more_of_the_rare_class():
    points, labels = problem()
    recall = []
    for balanced in (False, True):
        head = fit_linear(points, labels, 3, LinearConfig(steps=200, batch=1024, balanced=balanced))
        guess = (points @ head.weight.T + head.bias).max(1).indices
        recall.append(float((guess[labels == 2] == 2).float().mean()))
    assert recall[1] > recall[0] + 0.1


def test_a_seed_repeats():
    points, labels = problem(500)
    first, again, other = (fit_linear(points, labels, 3, LinearConfig(steps=20), seed).weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_no_label_at_all():
    with pytest.raises(ConfigError, match="no labelled pixel"):
        fit_linear(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 3, LinearConfig())
    with pytest.raises(ConfigError, match="steps must be at least 1"):
        LinearConfig(steps=0)
