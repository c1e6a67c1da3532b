"""Modified DeepCluster beyond the contract: its loss written literally, when it clusters, and what is new then."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tiny
from selfseg.data.views.random_crops import RandomCrops
from selfseg.errors import ConfigError
from selfseg.methods.deepcluster import ModifiedDeepCluster, ModifiedDeepClusterConfig

CONFIG = tiny.deepcluster(Path("images"), Path("run")).method
DIM = 8


def make(**changes: Any) -> ModifiedDeepCluster:
    torch.manual_seed(0)
    method = ModifiedDeepCluster(replace(CONFIG, **changes)).double().train()
    method.centres.copy_(F.normalize(method.centres, dim=1))  # to the last digit of float64
    return method


def draw(images: int = 2, side: int = 5, seed: int = 0) -> Tensor:
    """(B, D, h, w) of unit length."""
    random = torch.Generator().manual_seed(seed)
    vectors = torch.randn(images, DIM, side, side, generator=random, dtype=torch.float64)
    return F.normalize(vectors, dim=1).requires_grad_()


def literal(vectors: Tensor, method: ModifiedDeepCluster) -> Tensor:
    """Cell by cell: the label is the nearest centre; its cross entropy weighs as much as the cluster's share."""
    above, below = torch.zeros((), dtype=torch.float64), 0.0
    for image in vectors:
        for y in range(vectors.shape[2]):
            for x in range(vectors.shape[3]):
                cell = image[:, y, x]
                distances = [((cell - centre) ** 2).sum().item() for centre in method.centres]
                label = distances.index(min(distances))
                if method.classifier is None:
                    scores = torch.stack([cell @ centre for centre in method.centres])
                else:
                    pairs = zip(method.classifier.weight, method.classifier.bias, strict=True)
                    scores = torch.stack([cell @ weight + bias for weight, bias in pairs])
                share = method.shares[label].item() if method.config.weighting == "frequency" else 1.0
                scores = scores / method.config.temperature
                above = above - share * torch.log(torch.exp(scores[label]) / torch.exp(scores).sum())
                below += share
    return above / below


@pytest.mark.parametrize("weighting", ["frequency", "none"])
@pytest.mark.parametrize("classifier", ["linear", "centres"])
def test_the_loss_equals_the_equation_written_literally(classifier: str, weighting: str) -> None:
    method = make(classifier=classifier, weighting=weighting, temperature=0.3)
    method.shares.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    for parameter in method.classifier.parameters() if method.classifier is not None else []:
        torch.nn.init.normal_(parameter)
    vectors = draw()
    output, expected = method.compare(vectors), literal(vectors, method)
    torch.testing.assert_close(output.loss, expected)
    leaves = [vectors, *(method.classifier.parameters() if method.classifier is not None else [])]
    for mine, theirs in zip(
        torch.autograd.grad(output.loss, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=1e-7)


def test_a_new_classifier_guesses() -> None:
    output = make().compare(draw())
    assert output.loss.item() == pytest.approx(math.log(4)) == pytest.approx(output.logs["loss_uniform"].item())


def test_centres_shares_and_classifier_are_new_when_the_queue_has_doubled_and_at_even_distances() -> None:
    method = make(reclusterings=2, sample_stride=1)
    assert method.classifier is not None
    computed = []
    for step, progress in enumerate((0.0, 0.1, 0.2, 0.3, 0.4, 0.45, 0.5, 0.6, 0.9)):
        before = method.centres.clone()
        torch.nn.init.normal_(method.classifier.weight)
        method._remember(draw(seed=step).detach(), progress)  # 50 cells
        computed.append(not torch.equal(before, method.centres))
        assert (not method.classifier.weight.any()) == computed[-1]
    #   cells: 50    100   150    200   250    300   300: half of the training, then full
    assert computed == [True, True, False, True, False, False, True, False, False]
    assert method.shares.sum() == pytest.approx(1)


def test_centres_are_those_of_separate_groups() -> None:
    method = make(sample_stride=1)
    groups = F.normalize(torch.randn(4, DIM, generator=torch.Generator().manual_seed(3)).double(), dim=1)
    which = torch.tensor([0] * 20 + [1] * 15 + [2] * 10 + [3] * 5)
    vectors = groups[which].view(2, 5, 5, DIM).permute(0, 3, 1, 2)
    method._remember(vectors, 0.0)
    nearest = (groups @ method.centres.T).max(1)
    assert nearest.values.min() > 1 - 1e-6
    torch.testing.assert_close(method.shares[nearest.indices], torch.tensor([0.4, 0.3, 0.2, 0.1]).double())
    torch.testing.assert_close(method.concept_vectors(), method.centres)


def test_too_few_different_cells_leave_everything() -> None:
    method = make(sample_stride=1)
    before = {key: value.clone() for key, value in method.state_dict().items() if "queue" not in key}
    method._remember(draw(1).detach()[..., :1, :1].expand(1, DIM, 5, 5), 0.0)
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items() if key in before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0}, "temperature must be above 0, not 0"),
        ({"reclusterings": 0}, "reclusterings must be above 0, not 0"),
        ({"sample_stride": 0}, "sample_stride must be above 0, not 0"),
        ({"prototypes": 1}, "prototypes must be at least 2, not 1"),
        ({"queue": 20}, r"queue \(20\) must hold a cell for each of 27"),
        ({"classifier": "mlp"}, "classifier is one of linear, centres, not 'mlp'"),
        ({"weighting": "inverse"}, "weighting is one of frequency, none, not 'inverse'"),
        ({"views": RandomCrops(views=2)}, "must be 1 and small_views 0, not 2 and 0"),
    ],
)
def test_settings_that_cannot_work_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModifiedDeepClusterConfig(**changes)
