from dataclasses import replace

import numpy as np
import pytest
import torch

from selfseg.data.labelled.catalog import open_labelled
from selfseg.evaluation.protocols.segmentation import (
    CropDataset,
    SegmentationConfig,
    Segmenter,
    collate_crops,
    count_segmenter,
    random_crop,
    segmentation_loss,
)

COLOURS = np.array([[40, 60, 40], [220, 60, 50], [60, 90, 230]], np.uint8)
TINY = SegmentationConfig(crop=48, short_side=None, scale=(0.8, 1.25))


class Bare(Segmenter):
    """A classifier of colours."""

    def features(self, image):
        return image


def test_crops_keep_image_and_label_together():
    label = np.zeros((40, 60), np.uint8)
    label[10:30, 20:45] = 1
    image = COLOURS[label]
    seen = set()
    for seed in range(40):
        config = replace(TINY, crop=50, scale=(0.5, 2.0))
        cropped, cropped_label = random_crop(image, label, config, np.random.default_rng(seed))
        assert cropped.shape == (50, 50, 3)
        assert cropped_label.shape == (50, 50)
        assert cropped.dtype == cropped_label.dtype == np.uint8
        outside = cropped_label == 255
        assert (cropped[outside] == (124, 116, 104)).all()
        seen |= set(np.unique(cropped_label).tolist())
        # But for interpolated borders, each pixel has its label's colour.
        distance = np.abs(cropped[..., None, :].astype(int) - COLOURS[None, None, :2].astype(int)).sum(3).argmin(2)
        assert (distance == cropped_label)[~outside].mean() > 0.93
    assert seen == {0, 1, 255}
    again = random_crop(image, label, config, np.random.default_rng(39))
    assert np.array_equal(again[0], cropped)


def test_short_side_is_what_images_are_scaled_from():
    config = replace(TINY, crop=80, scale=(1.0, 1.0), short_side=60)
    _, label = random_crop(
        np.zeros((20, 30, 3), np.uint8), np.zeros((20, 30), np.uint8), config, np.random.default_rng(0)
    )
    assert (label != 255).sum() == 60 * 80


def test_an_example_is_a_function_of_its_key(labelled):
    dataset = CropDataset(open_labelled(labelled, "train"), TINY)
    assert np.array_equal(dataset[(3, 1)][0], dataset[(3, 1)][0])
    assert not np.array_equal(dataset[(3, 1)][0], dataset[(4, 1)][0])
    other = CropDataset(dataset.data, replace(TINY, seed=1))
    assert not np.array_equal(dataset[(3, 1)][0], other[(3, 1)][0])


def test_a_batch_without_a_label_has_a_loss_of_zero_with_gradient():
    model = Bare(3, 3)
    void = np.full((32, 32), 255, np.uint8)
    batch = collate_crops([(np.zeros((32, 32, 3), np.uint8), void)] * 2)
    loss = segmentation_loss(model, batch)
    loss.backward()
    assert loss.item() == 0
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters())


def test_a_whole_split_is_counted_as_by_hand(labelled):
    torch.manual_seed(0)
    model, data = Bare(3, 4), open_labelled(labelled, "val")
    confusion, tally = count_segmenter(model, data, TINY)
    expected = np.zeros((4, 4), int)
    for index in range(len(data)):
        logits = model(torch.from_numpy(data.images.read(index)).permute(2, 0, 1)[None].float() / 255)
        predicted, label = logits[0].argmax(0).numpy(), data.read_label(index)
        for truth in range(4):
            for other in range(4):
                expected[truth, other] += ((label == truth) & (predicted == other)).sum()
    assert confusion.tolist() == expected.tolist()
    assert (tally.images, tally.pixels, tally.skipped) == (4, expected.sum(), 0)


@pytest.mark.parametrize("channels", [1, 5])
def test_crops_of_levels_keep_their_channels_and_void_has_no_label(channels: int) -> None:
    image = np.full((60, 80, channels), 90, np.uint8)
    image[:, :20] = 0
    config = SegmentationConfig(crop=64, scale=(0.6, 1.6), distort=True)
    for seed in range(8):
        found, label = random_crop(image, np.zeros((60, 80), np.uint8), config, np.random.default_rng(seed), rgb=False)
        assert found.shape == (64, 64, channels)
        assert ((label == 255) == ~found.any(2)).all()
        assert label.min() == 0
