import base64

import cv2
import numpy as np
import pytest
import torch

from selfseg.drawing import pictures
from selfseg.errors import ConfigError
from selfseg.ops.geometry import crop_affine
from selfseg.types import Batch, View


def test_palette_is_distinct_and_stable():
    colours = pictures.palette(64).astype(int)
    distance = np.abs(colours[:, None] - colours[None]).sum(2) + 999 * np.eye(64, dtype=int)
    assert distance.min() > 20
    assert distance[:12, :12].min() > 80
    assert np.array_equal(pictures.palette(3000)[:64], colours)
    assert len(np.unique(pictures.palette(256), axis=0)) == 256


@pytest.mark.parametrize(("kind", "lowest", "k"), [("u1", 0, 256), ("u2", 0, 300), ("i4", -1, 9)])
def test_every_kind_of_ids_is_drawn_the_same_and_bands_leave_no_trace(kind, lowest, k):
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (1100, 1000, 3), np.uint8)
    ids = generator.integers(lowest, k, (11, 10)).repeat(100, 0).repeat(100, 1).astype(kind)
    drawn = pictures.overlay(image, ids)
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    expected = cv2.addWeighted(image, 0.3, gray, 0.7, 0)
    expected = cv2.addWeighted(pictures.palette(300)[np.maximum(ids, 0)], 0.6, expected, 0.4, 0)
    expected = np.where((ids < 0)[..., None], image, expected)
    edge = cv2.dilate(pictures.borders(ids).astype(np.uint8), np.ones((2, 2), np.uint8))[..., None] > 0
    np.testing.assert_array_equal(drawn, np.where(edge, (expected * 0.5 + 127.5).astype(np.uint8), expected))


def test_overlay_shows_the_photograph_the_colours_and_the_borders():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    ids = np.zeros((40, 50), np.int32)
    ids[:, 25:], ids[:10] = 1, -1
    colours = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)
    picture = pictures.overlay(image, ids, colours)
    assert np.array_equal(picture[:8], image[:8])
    left, right = picture[20:, 2:20].reshape(-1, 3).mean(0), picture[20:, 30:].reshape(-1, 3).mean(0)
    assert left[0] > left[2] + 100
    assert right[2] > right[0] + 100
    assert picture[20:, 24].min() > 120
    assert picture[20:, 5].std() > 5  # the photograph still shows through
    with pytest.raises(ConfigError, match="don't fit"):
        pictures.overlay(image, ids[1:], colours)


def test_a_background_fades_and_a_foreground_stays():
    image = np.random.default_rng(0).integers(0, 100, (40, 60, 3), np.uint8)
    sure = torch.zeros(4, 6)
    sure[:, 3:] = 1
    picture = pictures.fade_background(image, sure)
    np.testing.assert_array_equal(picture[:, 40:], image[:, 40:])
    assert picture[:, :20].min() > 180  # light, and nearly without colour
    assert np.ptp(picture[:, :20].astype(int), axis=2).max() < 10


def test_highlight_keeps_only_the_mask():
    image = np.full((20, 20, 3), 200, np.uint8)
    mask = np.zeros((20, 20), bool)
    mask[5:10, 5:10] = True
    picture = pictures.highlight(image, mask, (1, 2, 3))
    assert (picture[mask] == 200).all()
    assert picture[15, 15].max() < 100
    assert picture[4, 7].tolist() == [1, 2, 3]
    assert pictures.highlight(image // 10, mask, (1, 2, 3))[15, 15].min() > 150


def test_pca_colours_stay_for_an_embedder_and_change_with_it(tmp_path):
    torch.manual_seed(0)
    first, second = torch.randn(6, 9, 11), torch.randn(6, 9, 11) * torch.tensor([1, 9, 1, 1, 1, 1]).view(6, 1, 1)
    basis = pictures.stored_basis(tmp_path, "a", lambda: [first])
    again = pictures.stored_basis(tmp_path, "a", lambda: pytest.fail("fitted again"))
    assert np.array_equal(basis.colour(first), again.colour(first))
    other = pictures.stored_basis(tmp_path, "b", lambda: [second])
    assert not torch.equal(basis.components, other.components)
    assert torch.equal(pictures.load_basis(tmp_path / "pictures" / "pca.safetensors").components, other.components)
    assert pictures.pca_picture(first, basis, (33, 50)).shape == (33, 50, 3)


def test_views_share_colours_and_show_their_own_pixels():
    ids = torch.tensor([[3, 7], [7, -1]]).repeat_interleave(4, 0).repeat_interleave(4, 1)
    other = torch.tensor([[7, 9], [3, 3]]).repeat_interleave(2, 0).repeat_interleave(2, 1)  # a coarser map
    image = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    image[1, 0] = 250
    affine = torch.eye(2, 3)[None].repeat(2, 1, 1)
    views = (View(image, affine, ids[None].repeat(2, 1, 1)), View(image, affine, other[None].repeat(2, 1, 1)))
    picture = pictures.draw_views(Batch(views, torch.arange(2)), 1, height=80)
    assert picture[20, 20].tolist() == [250, 0, 0]
    lower = picture[86:]
    first, second = lower[:, :80], lower[:, 86:]
    assert first[60, 20].tolist() == second[20, 20].tolist()  # region 7
    assert first[20, 20].tolist() == second[60, 60].tolist()  # region 3
    assert first[20, 20].tolist() != first[60, 20].tolist()
    assert first[60, 60].tolist() == second[20, 60].tolist()  # not shared: dark
    assert max(first[60, 60]) < 80
    with pytest.raises(ConfigError, match="2 images"):
        pictures.draw_views(Batch(views, torch.arange(2)), 2)


def test_views_without_regions_show_their_common_part_alike():
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (80, 60), interpolation=cv2.INTER_CUBIC)
    boxes = ((0, 0, 40, 40), (20, 10, 60, 50))
    crops = [image[0:40, 0:40], image[10:50, 20:60][:, ::-1]]
    views = tuple(
        View(
            torch.from_numpy(crop.copy()).permute(2, 0, 1)[None],
            torch.from_numpy(crop_affine(box, (60, 80), flip))[None],
            torch.zeros(1, 0, 0, dtype=torch.int64),
        )
        for crop, box, flip in zip(crops, boxes, (False, True), strict=True)
    )
    picture = pictures.draw_views(Batch(views, torch.zeros(1)), height=40)
    expected = cv2.resize(image[10:40, 20:40], (40, 40), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(picture[46:, :40], expected)
    assert np.array_equal(picture[46:, 46:], expected)
    assert picture[10, 20].tolist() == picture[0, 46 + 39].tolist() == [255, 214, 10]  # corners of the frames
    assert np.array_equal(picture[:5, :15], crops[0][:5, :15])
    apart = (
        views[0],
        View(views[1].image, torch.from_numpy(crop_affine((50, 0, 80, 30), (60, 80)))[None], views[1].regions),
    )
    assert np.ptp(pictures.draw_views(Batch(apart, torch.zeros(1)), height=40)[46:, :40], axis=(0, 1)).max() == 0


def test_pictures_are_written_as_they_are(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    pictures.write_image(tmp_path / "a.png", picture)
    assert np.array_equal(cv2.imread(str(tmp_path / "a.png"))[..., ::-1], picture)
    ids = np.array([[0, 300], [65535, 2]], np.uint16)
    pictures.write_image(tmp_path / "b.png", ids)
    assert np.array_equal(cv2.imread(str(tmp_path / "b.png"), cv2.IMREAD_UNCHANGED), ids)
    kind, data = pictures.data_uri(picture).split(",")
    assert kind == "data:image/webp;base64"
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == picture.shape
