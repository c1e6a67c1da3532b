import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from selfseg.errors import ConfigError
from selfseg.ops import crf
from selfseg.ops.crf import CRFConfig, refine, refine_logits
from selfseg.ops.kernels import crf_torch as _crf_torch


def kernel_of(features):
    """The Gaussian between all pairs of features (N, D), symmetrically normalised, float64."""
    apart = ((features[:, None] - features) ** 2).sum(2)
    kernel = np.exp(-0.5 * apart)
    root = np.sqrt(kernel.sum(1))
    return kernel / root / root[:, None]


def kernels(image, config):
    """Both kernels, unweighted, of (H, W, 3)."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    place = np.stack([x, y], 2).reshape(-1, 2).astype(np.float64)
    colour = image.reshape(-1, 3) / config.appearance_rgb
    return kernel_of(place / config.smooth_xy), kernel_of(np.hstack([place / config.appearance_xy, colour]))


def brute_force(logits, image, config):
    """Mean field by (N, N) matrices in float64: (C, H, W) to (C, H, W)."""
    smooth, appearance = kernels(image, config)
    pairwise = config.smooth_weight * smooth + config.appearance_weight * appearance
    unary = np.log(softmax(logits.reshape(len(logits), -1).T.astype(np.float64)).clip(config.floor))
    values = softmax(unary)
    for _ in range(config.iterations):
        values = softmax(unary + pairwise @ values)
    return values.T.reshape(logits.shape)


def softmax(scores):
    exponential = np.exp(scores - scores.max(1, keepdims=True))
    return exponential / exponential.sum(1, keepdims=True)


def case(seed=0, classes=4, height=30, width=42):
    """An image of smooth colours with edges, and logits that roughly follow it: (C, H, W) float32, (H, W, 3)."""
    random = np.random.default_rng(seed)
    blobs = cv2.resize(random.random((5, 7, 3)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    image = np.floor(blobs * 4) * 50 + random.normal(0, 2, (height, width, 3))
    noise = cv2.resize(random.normal(0, 1.5, (8, 11, classes)).astype(np.float32), (width, height))
    logits = noise.reshape(height, width, classes).transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(logits)), image.clip(0, 255).astype(np.uint8)


def by_torch(logits, image, config):
    unary = torch.log_softmax(logits, 0).clamp(min=np.log(config.floor))
    return crf._mean_field(unary, torch.from_numpy(image), config, _crf_torch)


@pytest.mark.parametrize("path", [refine_logits, by_torch])
@pytest.mark.parametrize("deviation", [0.7, 1.0, 6.0])
def test_the_smoothness_kernel_equals_the_sum_over_all_pairs(path, deviation):
    # Up to what lies beyond the cut at 4 deviations.
    logits, image = case()
    config = CRFConfig(smooth_xy=deviation, appearance_weight=0)
    expected = brute_force(logits.numpy(), image, config)
    np.testing.assert_allclose(path(logits, image, config).numpy(), expected, atol=2e-3)


@pytest.mark.parametrize("path", [refine_logits, by_torch])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_lattice_is_near_the_sum_over_all_pairs(path, seed):
    # One application of the appearance kernel. The lattice is an approximation: the bounds are what it reaches.
    logits, image = case(seed)
    config = CRFConfig(appearance_rgb=13.0)
    lattice = crf._Normalised(lattice_of(path, image, config), 1.0, torch.ones(image[..., 0].size, 1))
    values = torch.softmax(logits, 0).flatten(1).T.contiguous()
    error = np.abs(lattice(values).numpy() - kernels(image, config)[1] @ values.numpy().astype(np.float64))
    assert error.mean() < 0.01
    assert error.max() < 0.1


def lattice_of(path, image, config):
    from selfseg.ops.kernels import crf_cpu as _crf_cpu

    module = _crf_torch if path is by_torch else _crf_cpu
    return module.Lattice(crf._points(torch.from_numpy(image), config))


@pytest.mark.parametrize("path", [refine_logits, by_torch])
@pytest.mark.parametrize("config", [CRFConfig(), CRFConfig(appearance_xy=20, appearance_rgb=10)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_mean_field_is_near_the_sum_over_all_pairs(path, config, seed):
    logits, image = case(seed)
    found, expected = path(logits, image, config).numpy(), brute_force(logits.numpy(), image, config)
    changed = (expected.argmax(0) != logits.numpy().argmax(0)).mean()
    assert changed > 0.05  # the CRF does something
    assert np.abs(found - expected).mean() < 0.02
    assert (found.argmax(0) != expected.argmax(0)).mean() < 0.03


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (41, 2), (33, 50)])
@pytest.mark.parametrize("classes", [1, 2, 5])
def test_compiled_kernels_and_torch_operations_agree(shape, classes):
    logits, image = case(3, classes, *shape)
    found = refine_logits(logits, image)
    assert (found.shape, found.dtype) == (logits.shape, torch.float32)
    assert torch.allclose(found.sum(0), torch.ones(shape), atol=1e-5)
    torch.testing.assert_close(found, by_torch(logits, image, CRFConfig()), atol=1e-4, rtol=0)


@pytest.mark.gpu
def test_the_gpu_finds_the_same():
    logits, image = case(3, 5, 100, 120)
    found = refine_logits(logits.cuda(), image)
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), refine_logits(logits, image), atol=1e-3, rtol=0)


def test_noise_has_more_vertices_than_there_is_room_for_at_first():
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    logits = case(0, 3, 40, 40)[0]
    found = refine_logits(logits, image)
    torch.testing.assert_close(found, by_torch(logits, image, CRFConfig()), atol=1e-4, rtol=0)


def test_the_order_of_classes_does_not_matter():
    logits, image = case()
    order = [2, 0, 3, 1]
    torch.testing.assert_close(refine_logits(logits[order], image), refine_logits(logits, image)[order])


def test_mirrored_input_gives_mirrored_output_up_to_the_lattice():
    logits, image = case()
    mirrored = refine_logits(logits.flip(2), image[:, ::-1]).flip(2)
    assert (mirrored - refine_logits(logits, image)).abs().mean() < 0.02


def test_without_kernels_it_is_the_softmax():
    logits, image = case()
    alone = refine_logits(logits, image, CRFConfig(smooth_weight=0, appearance_weight=0))
    torch.testing.assert_close(alone, torch.softmax(logits, 0), atol=1e-5, rtol=0)


def test_probabilities_and_their_logits_are_the_same_question():
    logits, image = case()
    expected = refine_logits(logits, image)
    torch.testing.assert_close(refine(torch.softmax(logits, 0), image), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(refine_logits(logits + 100, image), expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(refine_logits(logits.double(), torch.from_numpy(image)), expected)


def test_images_of_a_batch_do_not_touch():
    (first, one), (second, other) = case(0), case(1)
    both = refine_logits(torch.stack([first, second]), np.stack([one, other]))
    assert torch.equal(both, torch.stack([refine_logits(first, one), refine_logits(second, other)]))


def test_the_input_stays_as_it_is():
    logits, image = case()
    probabilities = torch.softmax(logits, 0).requires_grad_()
    copies = probabilities.detach().clone(), image.copy()
    assert not refine(probabilities, image).requires_grad
    refine(probabilities.detach(), np.asfortranarray(image))
    assert torch.equal(probabilities.detach(), copies[0])
    np.testing.assert_array_equal(image, copies[1])


def test_a_hard_zero_does_not_rule_a_class_out():
    image = np.full((20, 20, 3), 90, np.uint8)
    probabilities = torch.zeros(2, 20, 20)
    probabilities[0] = 1
    probabilities[:, 10, 10] = torch.tensor([0.0, 1.0])  # one wrong pixel in a plain image
    refined = refine(probabilities, image, CRFConfig(smooth_weight=10, appearance_weight=10))
    assert refined[0, 10, 10] > 0.9


def test_an_edge_of_colour_stops_what_flows():
    image = np.zeros((30, 40, 3), np.uint8)
    image[:, 20:] = (200, 120, 40)
    probabilities = torch.full((2, 30, 40), 0.5)
    probabilities[0, :, :5], probabilities[0, :, 35:] = 0.9, 0.1
    probabilities[1] = 1 - probabilities[0]
    refined = refine(probabilities, image)
    assert bool((refined[0, :, :20] > 0.5).all())
    assert bool((refined[0, :, 20:] < 0.5).all())


def scores(*shape, **options):
    return torch.full(shape, 1 / shape[-3], **options)


IMAGE = np.zeros((4, 6, 3), np.uint8)


@pytest.mark.parametrize(
    ("probabilities", "image", "message"),
    [
        (np.zeros((2, 4, 6)), IMAGE, "not ndarray"),
        (torch.zeros(4, 6), IMAGE, r"\(4, 6\)"),
        (torch.zeros(2, 4, 6, dtype=torch.int64), IMAGE, "int64"),
        (torch.zeros(0, 4, 6), IMAGE, "nothing"),
        (scores(513, 4, 6), IMAGE, "513"),
        (scores(2, 4, 6), IMAGE.astype(np.float32), "float32"),
        (scores(2, 4, 6), [[0]], "list"),
        (scores(2, 4, 5), IMAGE, r"\(4, 5, 3\), not \(4, 6, 3\)"),
        (scores(1, 2, 4, 6), IMAGE, r"\(1, 4, 6, 3\)"),
        (scores(2, 4, 6) * 2, IMAGE, "add up to 1.*off by up to 1"),
        (torch.tensor([2.0, -1.0])[:, None, None].expand(2, 4, 6), IMAGE, r"\[-1, 2\].*refine_logits"),
        (scores(2, 4, 6) * float("nan"), IMAGE, "48 of 48"),
    ],
)
def test_bad_input_is_named(probabilities, image, message):
    with pytest.raises(ConfigError, match=message):
        refine(probabilities, image)


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"iterations": 0}, "0"),
        ({"iterations": 2.0}, "2.0"),
        ({"smooth_xy": 0}, "0"),
        ({"appearance_xy": float("inf")}, "inf"),
        ({"appearance_rgb": -3}, "-3"),
        ({"smooth_weight": -1}, "-1"),
        ({"appearance_weight": float("nan")}, "nan"),
        ({"floor": 0}, "0"),
    ],
)
def test_bad_options_are_named(options, value):
    with pytest.raises(ConfigError, match=f"{next(iter(options))}.*{value}"):
        CRFConfig(**options)


def test_deviations_that_the_lattice_can_not_hold():
    logits, image = case()
    with pytest.raises(ConfigError, match=r"too small for 42x30 pixels; \d"):
        refine_logits(logits, image, CRFConfig(appearance_rgb=0.01))
    refine_logits(logits, image, CRFConfig(appearance_rgb=0.01, appearance_weight=0))
    narrow = CRFConfig(appearance_rgb=0.25)  # near the end of what fits
    torch.testing.assert_close(refine_logits(logits, image, narrow), by_torch(logits, image, narrow), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_importing_is_cheap():
    """Numba is loaded by the first call, not by the import."""
    code = "import sys, selfseg.ops.crf; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("seed", [0, 1])
def test_it_agrees_with_pydensecrf(seed):
    """Kraehenbuehl's own program: `pip install pydensecrf2`. Its smoothness kernel is a lattice too, ours is exact."""
    densecrf = pytest.importorskip("pydensecrf.densecrf")
    logits, image = case(seed, 5, 90, 120)
    values = torch.softmax(logits, 0)
    theirs = densecrf.DenseCRF2D(120, 90, 5)
    theirs.setUnaryEnergy(-values.flatten(1).clamp(min=1e-5).log().numpy())
    theirs.addPairwiseGaussian(sxy=1, compat=3)
    theirs.addPairwiseBilateral(sxy=67, srgb=3, rgbim=image, compat=4)
    expected = np.array(theirs.inference(10)).reshape(5, 90, 120)
    found = refine(values, image).numpy()
    changed = (expected.argmax(0) != logits.numpy().argmax(0)).mean()
    assert changed > 0.05
    assert np.abs(found - expected).mean() < 0.02
    assert (found.argmax(0) != expected.argmax(0)).mean() < 0.02


def exact_channels(p: torch.Tensor, image: np.ndarray, config: CRFConfig) -> torch.Tensor:
    """The module's equations, literally, in C channels and without what is void."""
    classes, height, width = p.shape
    n = height * width
    y, x = np.divmod(np.arange(n), width)
    colour = image.reshape(n, -1).astype(float)
    there = colour.any(1)
    u = np.log(p.reshape(classes, n).numpy().T.astype(float).clip(config.floor, 1))
    q = np.exp(u) / np.exp(u).sum(1, keepdims=True)
    kernels = []
    for weight, appearance in ((config.smooth_weight, False), (config.appearance_weight, True)):
        xy = config.appearance_xy if appearance else config.smooth_xy
        k = np.zeros((n, n))
        for i in range(n):
            if there[i]:
                far = ((x - x[i]) ** 2 + (y - y[i]) ** 2) / (2 * xy**2)
                if appearance:
                    alike = ((colour - colour[i]) ** 2).sum(1) * 3 / colour.shape[1]
                    far = far + alike / (2 * config.appearance_rgb**2)
                k[i] = np.exp(-far) * there
        total = k.sum(1).clip(1e-12)
        kernels.append(weight * k / np.sqrt(total[:, None] * total))
    for _ in range(config.iterations):
        s = u + sum(k @ q for k in kernels)
        q = np.exp(s - s.max(1, keepdims=True))
        q /= q.sum(1, keepdims=True)
    return torch.from_numpy(q.T.reshape(classes, height, width))


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_measured_channels_are_near_the_sum_over_all_pairs(channels: int) -> None:
    rng = np.random.default_rng(channels)
    coarse = rng.integers(1, 256, (4, 5, channels), np.uint8)
    image = np.ascontiguousarray(np.kron(coarse, np.ones((6, 5, 1), np.uint8)))  # (24, 25, C), sharp edges
    image[:6, 10:20] = 0
    p = torch.softmax(torch.from_numpy(rng.normal(0, 1, (3, 24, 25)).astype(np.float32)), 0)
    config = CRFConfig(appearance_xy=8, appearance_rgb=10)
    found, expected = refine(p, image, config, rgb=False), exact_channels(p, image, config)
    assert float((found.argmax(0) != expected.argmax(0)).float().mean()) < 0.06
    assert float((expected.argmax(0) != p.argmax(0)).float().mean()) > 0.3  # the CRF has something to do
    void = torch.from_numpy(~image.any(2))
    torch.testing.assert_close(found[:, void], p[:, void])


def test_what_is_void_sends_nothing() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(1, 256, (20, 24, 5), np.uint8)
    image[:, 12:] = 0
    p = torch.softmax(torch.from_numpy(rng.normal(0, 1, (2, 20, 24)).astype(np.float32)), 0)
    other = p.clone()
    other[:, :, 12:] = other[:, :, 12:].flip(0)
    first, second = (refine(each, image, rgb=False)[:, :, :12] for each in (p, other))
    torch.testing.assert_close(first, second)


def test_one_channel_is_as_gray() -> None:
    """|I - I'|^2 times 3 / C: the exact kernels are the same; the lattices differ as approximations do."""
    gray = np.kron(np.random.default_rng(2).integers(1, 256, (4, 5, 1), np.uint8), np.ones((6, 6, 1), np.uint8))
    p = torch.softmax(torch.randn(2, 24, 30, generator=torch.Generator().manual_seed(0)), 0)
    one, three = refine(p, gray, rgb=False), refine(p, np.repeat(gray, 3, 2))
    assert float((one.argmax(0) == three.argmax(0)).float().mean()) > 0.9


def test_an_image_of_channels_is_no_photograph() -> None:
    with pytest.raises(ConfigError, match="need an image of"):
        refine_logits(torch.zeros(2, 8, 8), np.ones((8, 8, 5), np.uint8))


def several(count, classes=3, height=30, width=42):
    pairs = [case(seed, classes, height, width) for seed in range(count)]
    return torch.stack([logits for logits, _ in pairs]), np.stack([image for _, image in pairs])


def together(logits, images, config, rgb=True):
    unary = torch.log_softmax(logits, 1).clamp(min=np.log(config.floor))
    return crf._mean_field_together(unary, torch.from_numpy(images), config, rgb)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("config", [CRFConfig(), CRFConfig(smooth_weight=0), CRFConfig(appearance_weight=0)])
def test_a_batch_gives_what_its_images_give(count, config):
    logits, images = several(count)
    found = together(logits, images, config)
    for one, scores, image in zip(found, logits, images, strict=True):
        torch.testing.assert_close(one, by_torch(scores, image, config), atol=1e-5, rtol=0)
        torch.testing.assert_close(one, refine_logits(scores, image, config), atol=1e-4, rtol=0)


def test_images_of_a_batch_do_not_see_each_other():
    logits, images = several(3)
    same = np.stack([images[0]] * 3)  # every vertex of one is a vertex of all
    found = together(logits, same, CRFConfig())
    for one, scores in zip(found, logits, strict=True):
        torch.testing.assert_close(one, by_torch(scores, images[0], CRFConfig()), atol=1e-5, rtol=0)


def test_measured_images_in_a_batch_keep_their_void():
    logits, images = several(2)
    levels = np.concatenate([images, images[..., :2]], axis=3).clip(1)
    levels[0, :5] = 0
    found = together(logits, levels, CRFConfig(), rgb=False)
    for one, scores, image in zip(found, logits, levels, strict=True):
        alone = refine_logits(scores, image, rgb=False)
        torch.testing.assert_close(one, alone, atol=1e-4, rtol=0)
    torch.testing.assert_close(found[0, :, :5], torch.softmax(logits[0], 0)[:, :5], atol=1e-4, rtol=0)


def test_on_a_cpu_a_batch_is_its_images_to_the_bit():
    logits, images = several(2)
    found = refine_logits(logits, images)
    assert torch.equal(found, torch.stack([refine_logits(*each) for each in zip(logits, images, strict=True)]))


@pytest.mark.gpu
def test_a_batch_on_a_gpu_gives_what_its_images_give():
    logits, images = several(5, 5, 100, 120)
    found = refine_logits(logits.cuda(), images)
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), refine_logits(logits, images), atol=1e-3, rtol=0)
