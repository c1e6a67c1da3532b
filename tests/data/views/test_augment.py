"""Appearance: the same as torchvision's, up to the stated rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from selfseg.data.views import augment


def _picture(seed: int = 0, size: int = 64) -> NDArray[np.uint8]:
    """Smooth, saturated colours with some texture; every level occurs."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    waves = [127 + 127 * np.sin(6 * (a * x + b * y) + c) for a, b, c in rng.uniform(-1, 1, (3, 3)) * 3]
    return np.clip(np.stack(waves, 2) + rng.normal(0, 10, (size, size, 3)), 0, 255).astype(np.uint8)


def _torch(image: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)


def _difference(ours: NDArray[np.uint8], theirs: torch.Tensor) -> NDArray[np.int64]:
    return np.abs(ours.astype(np.int64) - theirs.permute(1, 2, 0).numpy().astype(np.int64))


@pytest.mark.parametrize("factor", [0.2, 0.7, 1.0, 1.3, 1.8])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_factors_agree_with_torchvision(name: str, factor: float) -> None:
    image = _picture()
    ours = getattr(augment, f"adjust_{name}")(image, factor)
    theirs = getattr(reference, f"adjust_{name}")(_torch(image), factor)
    assert _difference(ours, theirs).max() <= 2


@pytest.mark.parametrize("shift", [-0.2, -0.05, 0.0, 0.13, 0.2])
def test_hue_agrees_with_torchvision(shift: float) -> None:
    image = _picture()
    difference = _difference(augment.adjust_hue(image, shift), reference.adjust_hue(_torch(image), shift))
    assert difference.mean() < 3
    assert np.percentile(difference, 99) <= 10


def test_gray_agrees_with_torchvision() -> None:
    image = _picture()
    assert _difference(augment.to_gray(image), reference.rgb_to_grayscale(_torch(image), 3)).max() <= 1


@pytest.mark.parametrize("sigma", [0.1, 0.8, 2.0])
def test_blur_agrees_with_torchvision(sigma: float) -> None:
    image = _picture()
    theirs = reference.gaussian_blur(_torch(image), [25, 25], [sigma, sigma])
    assert _difference(augment.blur(image, sigma), theirs).max() <= 2


@pytest.mark.parametrize("threshold", [0, 77, 128, 256])
def test_solarisation_agrees_with_torchvision(threshold: int) -> None:
    image = _picture()
    wanted = reference.solarize(torch.from_numpy(image), threshold) if threshold < 256 else torch.from_numpy(image)
    assert np.array_equal(augment.solarise(image, threshold), wanted.numpy())


def test_jitter_has_the_spread_of_torchvision() -> None:
    image = _picture(size=24)
    strength = (0.8, 0.8, 0.8, 0.2)
    rng = np.random.default_rng(0)
    ours = np.array([augment.jitter(image, strength, rng).mean() for _ in range(1500)])
    torch.manual_seed(0)
    transform = v2.ColorJitter(*strength)
    theirs = np.array([transform(_torch(image)).float().mean().item() for _ in range(1500)])
    # Mean levels are spread over some 170 of 255; three standard errors of the mean and of the deviation.
    assert abs(ours.mean() - theirs.mean()) < 3 * theirs.std() * np.sqrt(2 / 1500)
    assert abs(ours.std() - theirs.std()) < 3 * theirs.std() / np.sqrt(1500)


def test_jitter_of_no_strength_is_the_same_image() -> None:
    image = _picture()
    assert np.array_equal(augment.jitter(image, (0, 0, 0, 0), np.random.default_rng(0)), image)


def test_draws_do_not_depend_on_the_strengths() -> None:
    image = _picture(size=8)
    first, second = np.random.default_rng(0), np.random.default_rng(0)
    augment.jitter(image, (0, 0, 0, 0), first)
    augment.jitter(image, (0.8, 0.8, 0.8, 0.2), second)
    assert first.random() == second.random()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (8, 2000)])
def test_any_size_works_and_the_argument_stays(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    before = image.copy()
    for seed in range(5):
        changed = augment.jitter(image, (0.8, 0.8, 0.8, 0.2), np.random.default_rng(seed))
        changed = augment.blur(augment.to_gray(changed), 1.3)
        assert changed.shape == image.shape
        assert changed.dtype == np.uint8
    assert np.array_equal(image, before)


def test_the_distortion_is_ssds_written_literally() -> None:
    """Its nine draws, then each change on float levels that are cut off and rounded down."""
    import cv2

    image, seen = _picture(), set()
    for seed in range(40):
        ours = augment.photometric_distortion(image, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        brighter, contrasted, saturated, turned, first = (bool(value) for value in rng.random(5) < 0.5)
        added, contrast, saturation, hue = rng.random(4)
        expected = image.copy()

        def convert(levels: NDArray[np.uint8], alpha: float, beta: float) -> NDArray[np.uint8]:
            return np.clip(levels.astype(np.float32) * np.float32(alpha) + np.float32(beta), 0, 255).astype(np.uint8)

        if brighter:
            expected = convert(expected, 1, -32 + 64 * added)
        if contrasted and first:
            expected = convert(expected, 0.5 + contrast, 0)
        if saturated:
            hsv = cv2.cvtColor(expected, cv2.COLOR_RGB2HSV)
            hsv[..., 1] = convert(hsv[..., 1], 0.5 + saturation, 0)
            expected = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        if turned:
            hsv = cv2.cvtColor(expected, cv2.COLOR_RGB2HSV)
            hsv[..., 0] = (hsv[..., 0].astype(int) - 18 + int(36 * hue)) % 180
            expected = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        if contrasted and not first:
            expected = convert(expected, 0.5 + contrast, 0)
        seen.add((brighter, contrasted, saturated, turned, first))
        if saturated and turned:  # once through HSV instead of twice: rounding
            assert np.abs(ours.astype(int) - expected.astype(int)).mean() < 3
        else:
            assert np.array_equal(ours, expected)
    assert len(seen) > 15
    assert np.array_equal(image, _picture())
