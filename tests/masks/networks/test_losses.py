from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity
from sklearn import metrics

from selfseg.errors import ConfigError
from selfseg.masks.networks.losses import boundary_loss, cross_entropy_loss, f_measure_loss, iou_loss, ssim_loss


def example(seed: int, side: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """A prediction (2, side, side) in [0, 1], and masks of 0 and 1."""
    random = np.random.default_rng(seed)
    target = np.zeros((2, side, side), np.float32)
    target[0, 4:15, 6:18], target[1, 10:20, 3:9] = 1, 1
    noisy = np.clip(0.6 * target + 0.5 * random.random(target.shape), 0, 1).astype(np.float32)
    return torch.from_numpy(noisy), torch.from_numpy(target)


def test_f_measure_of_masks_is_sklearns() -> None:
    found, truth = example(0)
    found = (found > 0.4).float()
    expected = [
        1 - metrics.fbeta_score(t.numpy().ravel(), f.numpy().ravel(), beta=math.sqrt(0.3))
        for f, t in zip(found, truth, strict=True)
    ]
    assert float(f_measure_loss(found, truth[:, None])) == pytest.approx(np.mean(expected), abs=1e-6)


def test_f_measure_of_soft_maps_by_hand() -> None:
    found = torch.tensor([[[0.9, 0.5], [0.2, 0.0]]])
    truth = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    precision, recall = 1.1 / 1.6, 1.1 / 2
    expected = 1 - 1.3 * precision * recall / (0.3 * precision + recall)
    assert float(f_measure_loss(found, truth)) == pytest.approx(expected, abs=1e-6)


def test_targets_without_object_count_nowhere() -> None:
    found, truth = example(1)
    both = torch.stack([truth, torch.zeros_like(truth)], 1)  # a second target, empty
    logits = torch.logit(found, 1e-4)
    for loss, given in ((f_measure_loss, found), (cross_entropy_loss, logits)):
        assert float(loss(given, both)) == pytest.approx(float(loss(given, truth[:, None])), abs=1e-6)
    logits.requires_grad_()
    nothing = f_measure_loss(logits.sigmoid(), both[:, 1:]) + cross_entropy_loss(logits, both[:, 1:])
    nothing.backward()
    assert nothing.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_several_targets_are_the_mean_of_each() -> None:
    found, truth = example(2)
    other = truth.roll(3, 2)
    logits = torch.logit(found, 1e-4)
    for loss, given in ((f_measure_loss, found), (cross_entropy_loss, logits)):
        each = [float(loss(given, target[:, None])) for target in (truth, other)]
        assert float(loss(given, torch.stack([truth, other], 1))) == pytest.approx(np.mean(each), abs=1e-6)
    expected = F.binary_cross_entropy(found.clamp(1e-4, 1 - 1e-4), truth)
    assert float(cross_entropy_loss(logits, truth[:, None])) == pytest.approx(float(expected), abs=1e-5)


def test_iou_of_masks_is_sklearns_and_soft_ones_by_hand() -> None:
    found, truth = example(3)
    masks = (found > 0.4).float()
    expected = [
        1 - metrics.jaccard_score(t.numpy().ravel(), f.numpy().ravel()) for f, t in zip(masks, truth, strict=True)
    ]
    assert float(iou_loss(masks, truth)) == pytest.approx(np.mean(expected), abs=1e-6)
    both = (found * truth).sum((1, 2))
    union = (found + truth - found * truth).sum((1, 2))
    assert float(iou_loss(found, truth)) == pytest.approx(float((1 - both / union).mean()), abs=1e-6)


def test_ssim_is_skimages_where_whole_windows_are() -> None:
    found, truth = example(4)
    shifted = truth.roll(2, 2) * 0.8 + 0.1
    values = ssim_loss(torch.stack([found, shifted]), truth)
    for value, given in zip(values, (found, shifted), strict=True):
        expected = []
        for x, y in zip(given.double().numpy(), truth.double().numpy(), strict=True):
            # Gaussian weights of sigma 1.5 cut off at 3.5 sigma: 11 taps
            _, full = structural_similarity(
                x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, full=True
            )
            expected.append(full[5:-5, 5:-5].mean())
        assert float(value) == pytest.approx(1 - np.mean(expected), abs=1e-5)


def test_ssim_refuses_maps_below_its_window() -> None:
    with pytest.raises(ConfigError, match="11 px"):
        ssim_loss(torch.rand(1, 1, 10, 30), torch.rand(1, 10, 30))


def test_boundary_loss_is_the_sum_over_outputs_and_zero_when_right() -> None:
    found, truth = example(5)
    outputs = [torch.logit(found, 1e-4), torch.logit(truth.roll(1, 1) * 0.9 + 0.05)]
    expected = sum(
        F.binary_cross_entropy_with_logits(output, truth)
        + iou_loss(output.sigmoid(), truth)
        + ssim_loss(output.sigmoid()[None], truth)[0]
        for output in outputs
    )
    assert float(boundary_loss(outputs, truth)) == pytest.approx(float(expected), rel=1e-5)
    right = (2 * truth - 1) * 30
    assert float(boundary_loss([right, right], truth)) == pytest.approx(0, abs=1e-5)
