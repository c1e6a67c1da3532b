from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numba
import numpy as np
import pytest
import torch
from scipy import ndimage

from ahead_of_time import compile_for, numpy_is_too_new_for_the_interpreter
from selfseg.errors import ConfigError
from selfseg.ops.regions import superpixel_quality as quality
from selfseg.ops.regions.slic import slic, slic_batched, smallest_piece


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Discs of random colours with noise: textured, and with true edges."""
    random = np.random.default_rng(seed)
    image = np.full((height, width, 3), 120, np.uint8)
    for _ in range(12):
        centre = int(random.integers(0, width)), int(random.integers(0, height))
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        cv2.circle(image, centre, int(random.integers(3, max(4, min(height, width) // 3))), colour, -1)
    return np.clip(image + random.normal(0, 12, image.shape), 0, 255).astype(np.uint8)


def pieces(regions: np.ndarray) -> int:
    """The number of 4-connected pieces of all regions together, by another implementation."""
    return sum(ndimage.label(regions == identity)[1] for identity in range(regions.max() + 1))


SHAPES = [(1, 1), (1, 50), (50, 1), (2, 2), (33, 47), (64, 64), (65, 129), (7, 200)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [2, 7, 20, 10**9])
@pytest.mark.parametrize("kind", ["picture", "noise", "constant", "grey"])
def test_any_image_gives_dense_connected_regions(shape: tuple[int, int], size: int, kind: str) -> None:
    image = picture(*shape)
    if kind == "noise":
        image = np.random.default_rng(1).integers(0, 256, image.shape, dtype=np.uint8)
    elif kind == "constant":
        image[:] = 77
    elif kind == "grey":
        image[:] = image[:, :, :1]
    regions = slic(image, size)
    assert regions.shape == shape
    assert regions.dtype == np.int32
    areas = np.bincount(regions.ravel())
    assert areas.min() >= max(1, smallest_piece(size, *shape))
    assert pieces(regions) == len(areas)
    scattered = slic(image, size, connectivity=False)
    assert np.bincount(scattered.ravel()).min() > 0
    for ids in (regions, scattered):  # numbered in raster order
        assert (np.diff(np.unique(ids, return_index=True)[1]) > 0).all()


def test_the_number_of_superpixels_is_near_the_nominal_one() -> None:
    image = picture(240, 320)
    for size in (8, 16, 40):
        assert 0.6 < (slic(image, size).max() + 1) / (240 * 320 / size**2) < 1.8


def test_a_constant_image_gives_the_grid() -> None:
    regions = slic(np.full((60, 80, 3), 130, np.uint8), size=20)
    expected = np.arange(60)[:, None] // 20 * 4 + np.arange(80) // 20
    np.testing.assert_array_equal(regions, expected)


def test_edges_are_followed_and_the_ruler_squares() -> None:
    image = np.zeros((60, 60, 3), np.uint8)
    image[:, 25:] = 255  # inside of a grid cell
    regions = slic(image, size=20)
    assert not np.intersect1d(regions[:, :25], regions[:, 25:]).size
    noisy = picture(120, 120)

    def border(ruler: float) -> int:
        return int(quality.boundaries(slic(noisy, 12, ruler)).sum())

    assert border(100) < border(10) < border(2)


def test_the_distance_is_the_documented_one() -> None:
    """Against a direct search over the same candidates, with the colours of scikit-image."""
    color = pytest.importorskip("skimage.color")
    image, size, ruler = picture(36, 48), 6, 15.0
    lab = color.rgb2lab(image)
    rows, columns = 6, 8
    y, x = np.mgrid[:36, :48]
    points = np.concatenate([lab, np.stack([x, y], 2) * (ruler / size)], 2)
    labels = y // size * columns + x // size
    centres = np.zeros((rows * columns, 5))
    for _ in range(4):
        for cell in np.unique(labels):
            centres[cell] = points[labels == cell].mean(0)
        distance = ((points[:, :, None] - centres) ** 2).sum(3)
        cell = np.arange(rows * columns)
        near = (abs(cell // columns - (y // size)[..., None]) <= 1) & (
            abs(cell % columns - (x // size)[..., None]) <= 1
        )
        labels = np.where(near, distance, np.inf).argmin(2)
    ours = slic(image, size, ruler, iterations=4, connectivity=False)
    overlap = np.zeros((ours.max() + 1, rows * columns), int)
    np.add.at(overlap, (ours.ravel(), labels.ravel()), 1)
    assert overlap.max(1).sum() > 0.98 * ours.size  # colours differ a little: ours come from tables


def test_small_pieces_join_the_neighbour_of_the_nearest_colour() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, 20:] = 200
    image[10:13, 19:22] = 215  # on the border, much more like the right side
    regions = slic(image, size=20, ruler=0.5)
    assert not np.isin(regions[10:13, 19:22], regions[:, :19]).any()


def test_the_same_image_gives_the_same_regions_from_any_thread() -> None:
    images = [picture(90, 120, seed) for seed in range(4)] + [picture(70, 110, 9)]
    alone = [slic(image, 10) for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: slic(image, 10), images * 4))
    for index, regions in enumerate(together):
        np.testing.assert_array_equal(regions, alone[index % len(images)])


def test_any_memory_layout_is_read() -> None:
    image = picture(50, 70)
    expected = slic(image, 10)
    np.testing.assert_array_equal(slic(np.asfortranarray(image), 10), expected)
    np.testing.assert_array_equal(slic(image[:, :, ::-1].copy()[:, :, ::-1], 10), expected)
    image.flags.writeable = False
    np.testing.assert_array_equal(slic(image, 10), expected)


@pytest.mark.parametrize(
    ("shape", "size"), [((1, 1), 20), ((33, 47), 10), ((64, 129), 200), ((70, 5), 3), ((96, 128), 9)]
)
@pytest.mark.parametrize("connectivity", [True, False])
def test_the_batched_path_finds_the_same_regions(shape: tuple[int, int], size: int, connectivity: bool) -> None:
    images = np.stack([picture(*shape, seed) for seed in range(3)])
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    regions = slic_batched(batch, size, connectivity=connectivity)
    assert regions.dtype == torch.int64
    for image, found in zip(images, regions.numpy(), strict=True):
        np.testing.assert_array_equal(found, slic(image, size, connectivity=connectivity))


@pytest.mark.slow
def test_the_triton_kernel_finds_the_same_regions_in_the_interpreter() -> None:
    if numpy_is_too_new_for_the_interpreter():
        pytest.skip("this numpy is too new for this Triton's interpreter")
    code = (
        "import torch\n"
        "from selfseg.ops.kernels import slic_cuda\n"
        "from selfseg.ops.regions import slic\n"
        "torch.manual_seed(0)\n"
        "cases = [((2, 14, 21), 6, True), ((5, 9, 17), 5, True), ((1, 1, 1), 20, True), ((3, 19, 11), 7, False)]\n"
        "cases += [((1, 1, 30), 7, True), ((1, 30, 1), 9, False), ((1, 15, 13), 10**9, True)]\n"
        "batches = [torch.rand(b, 3, h, w) for (b, h, w), _, _ in cases]\n"
        "def regions(x, case): return slic.slic_batched(x, case[1], iterations=3, connectivity=case[2])\n"
        "expected = [regions(x, case) for x, case in zip(batches, cases)]\n"
        "slic.by_triton = lambda device: True\n"
        "slic_cuda.PART = 2\n"
        "for x, case, wanted in zip(batches, cases, expected):\n"
        "    assert torch.equal(regions(x, case), wanted)\n"
    )
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.mark.slow
def test_the_triton_kernels_compile_for_an_h100() -> None:
    pytest.importorskip("triton")
    from selfseg.ops.kernels import slic_cuda as cuda

    types = {"images": "*u8", "lab": "*i16"}
    types |= dict.fromkeys(("light", "root", "labels", "cell_x", "cell_y", "edge_x", "edge_y"), "*i32")
    types |= dict.fromkeys(("centres", "weight"), "*fp32")
    sizes = ("height", "width", "rows", "columns", "shift", "lines", "first_y", "step_y", "plane")
    types |= dict.fromkeys(sizes, "i32")
    for kernel in (cuda._to_lab, cuda._assign, cuda._move):
        taken = compile_for(kernel, types, {"BLOCK": cuda._BLOCK}, 90, enable_fp_fusion=False)
        assert taken.stack == 0


@pytest.mark.gpu
@pytest.mark.parametrize("size", [5, 10, 24])
@pytest.mark.parametrize("shape", [(1, 120, 160), (40, 90, 121), (3, 375, 500), (2, 1, 7)])
def test_the_gpu_finds_the_same_regions(shape: tuple[int, int, int], size: int) -> None:
    count, height, width = shape
    images = np.stack([picture(height, width, seed) for seed in range(count)])
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    for connectivity in (True, False):
        regions = slic_batched(batch.cuda(), size, connectivity=connectivity)
        assert regions.is_cuda
        for image, found in zip(images, regions.cpu().numpy(), strict=True):
            np.testing.assert_array_equal(found, slic(image, size, connectivity=connectivity))


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"size": 1}, "1"),
        ({"size": 2.5}, "2.5"),
        ({"ruler": 0}, "0"),
        ({"ruler": float("nan")}, "nan"),
        ({"iterations": 0}, "0"),
        ({"iterations": True}, "True"),
    ],
)
def test_bad_options_are_named(options: dict[str, float], value: str) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))}.*{value}"):
        slic(picture(8, 8), **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"{next(iter(options))}.*{value}"):
        slic_batched(torch.zeros(1, 3, 8, 8), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4), np.uint8), r"\(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), "0 x 4"),
        ([[1]], "list"),
    ],
)
def test_bad_images_are_named(image: np.ndarray, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        slic(image)


@pytest.mark.slow
def test_importing_is_cheap() -> None:
    """Numba is loaded by the first call, not by the import."""
    code = "import sys, selfseg.ops.regions.slic; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_it_works_where_no_cache_can_be_written() -> None:
    code = (
        "import numba\n"
        "from numba.core.caching import FunctionCache\n"
        "def refuse(*_): raise RuntimeError('cannot cache function')\n"
        "FunctionCache.__init__ = refuse\n"
        "from selfseg.ops.kernels.slic_cpu import compiled\n"
        "print(compiled('i8(i8)')(lambda x: x + 1)(2))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "3\n"


@pytest.mark.slow
@pytest.mark.shared_data
def test_quality_is_no_worse_than_scikit_image(shared_data: Path) -> None:
    segmentation = pytest.importorskip("skimage.segmentation")
    folder = shared_data / "bsds500" / "val"
    ours, theirs = [], []
    for path in sorted((folder / "images").glob("*.jpg"))[:6]:
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        truth = cv2.imread(str(folder / "regions" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        mine = slic(image, 24)
        other = segmentation.slic(image, n_segments=int(mine.max()) + 40, compactness=10, start_label=0)
        for regions, table in ((mine, ours), (other, theirs)):
            table.append(
                (
                    regions.max() + 1,
                    quality.boundary_recall(regions, truth),
                    -quality.undersegmentation_error(regions, truth),
                    quality.explained_variation(regions, image),
                    quality.achievable_segmentation_accuracy(regions, truth),
                )
            )
    count, *mine_mean = np.mean(ours, 0)
    other_count, *other_mean = np.mean(theirs, 0)
    assert count <= 1.4 * other_count
    assert (np.array(mine_mean) > np.array(other_mean)).all(), (count, other_count, mine_mean, other_mean)


def measured_picture(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    """`picture` in any number of channels, at least 1 everywhere but in a corner, which is void."""
    parts = [picture(height, width, seed + i) for i in range(-(-channels // 3))]
    image = np.maximum(np.concatenate(parts, 2)[..., :channels], 1)
    image[: height // 3, : width // 4] = 0
    return np.ascontiguousarray(image)


def literal_slic(image: np.ndarray, size: int, ruler: float, iterations: int) -> np.ndarray:
    """The module's first equation in C dimensions, pixel by pixel, without connectivity and with all rows."""
    height, width, channels = image.shape
    rows, columns = max(1, (height + size // 2) // size), max(1, (width + size // 2) // size)
    top, left = (height - rows * size) // 2, (width - columns * size) // 2
    cell = [
        [(min(max((y - top) // size, 0), rows - 1), min(max((x - left) // size, 0), columns - 1)) for x in range(width)]
        for y in range(height)
    ]
    scaled = image * (100 / (254 * np.sqrt(channels)))
    there = image.any(2)
    owner = {(y, x): cell[y][x] for y in range(height) for x in range(width) if there[y, x]}
    centres: dict[tuple[int, int], np.ndarray] = {}
    for step in range(iterations + 1):
        for name in set(owner.values()):
            mine = [place for place, whose in owner.items() if whose == name]
            colour = np.mean([scaled[place] for place in mine], axis=0)
            centres[name] = np.concatenate([colour, np.mean(mine, axis=0) * ruler / size])
        if step == iterations:
            break
        for y, x in owner:
            row, column = cell[y][x]
            near = [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (row + i, column + j) in centres]
            point = np.concatenate([scaled[y, x], np.array([y, x]) * ruler / size])
            owner[y, x] = min(near, key=lambda name: float(np.square(point - centres[name]).sum()))
    found = np.full((height, width), -1)
    for (y, x), (row, column) in owner.items():
        found[y, x] = row * columns + column
    return found


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_measured_channels_are_clustered_in_as_many_dimensions(channels: int) -> None:
    image = measured_picture(26, 70, channels)  # more than one tile wide; rows are skipped from size 8 on
    expected = literal_slic(image, 7, 20.0, 3)
    found = slic(image, 7, 20.0, 3, connectivity=False, rgb=False)
    np.testing.assert_array_equal(found < 0, expected < 0)
    pairs = np.unique(np.stack([found.ravel(), expected.ravel()]), axis=1)
    agree = sum(
        int((found[expected == e] == np.bincount(found[expected == e] + 1).argmax() - 1).sum())
        for e in np.unique(expected)
    )
    assert pairs.shape[1] < 1.1 * len(np.unique(expected)) + 2
    assert agree > 0.995 * found.size  # float32 against float64: ties may go another way


@pytest.mark.parametrize("channels", [1, 3, 5, 8])
@pytest.mark.parametrize("shape", [(1, 1), (33, 47), (65, 129)])
def test_superpixels_of_measured_channels_are_dense_and_connected_around_void(
    shape: tuple[int, int], channels: int
) -> None:
    image = measured_picture(*shape, channels)
    regions = slic(image, 9, rgb=False)
    np.testing.assert_array_equal(regions < 0, ~image.any(2))
    areas = np.bincount(regions[regions >= 0])
    assert areas.min(initial=10**9) >= max(1, smallest_piece(9, *shape))
    assert pieces(regions) == len(areas)
    firsts = np.unique(regions[regions >= 0], return_index=True)[1]
    assert (np.diff(firsts) > 0).all()  # numbered in raster order


def test_an_island_in_void_stays_and_all_void_has_no_region() -> None:
    image = np.zeros((40, 40, 2), np.uint8)
    assert slic(image, 10, rgb=False).max() == -1
    image[20:22, 20:22] = 9
    image[:, :8] = 200
    regions = slic(image, 10, rgb=False)
    island = regions[20, 20]
    assert (regions == island).sum() == 4


def test_the_same_regions_whatever_a_channel_is_called() -> None:
    """Channels have no order, and one that says nothing only scales the others."""
    image = measured_picture(40, 50, 4)
    np.testing.assert_array_equal(
        slic(image, 10, rgb=False), slic(np.ascontiguousarray(image[..., ::-1]), 10, rgb=False)
    )


def test_photographs_must_have_three_channels() -> None:
    with pytest.raises(ConfigError, match="rgb=False"):
        slic(measured_picture(20, 20, 5))


@pytest.mark.parametrize("misses", [0, 1])
def test_the_first_compilation_is_told(misses: int, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """It takes up to half a minute, and looked like hanging."""
    from selfseg.ops.kernels.slic_cpu import compiled

    made = SimpleNamespace(stats=SimpleNamespace(cache_misses={"void()": misses} if misses else {}))
    monkeypatch.setattr(numba, "njit", lambda *_, **__: lambda _: made)
    with caplog.at_level("INFO", "selfseg.told"):
        assert compiled("void()")(lambda: None) is made
    assert ("compiling for this machine" in caplog.text) == bool(misses)
