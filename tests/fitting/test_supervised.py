import pytest
import torch

from selfseg.data.labelled.catalog import open_labelled
from selfseg.errors import ConfigError, DataError
from selfseg.evaluation.protocols.segmentation import CropDataset, SegmentationConfig
from selfseg.fitting.supervised import FineTuningConfig, fine_tune
from selfseg.storage.files import mark_output


def test_a_batch_of_one_that_batchnorm_can_t_take_says_so(tmp_path):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.BatchNorm2d(2))
    with pytest.raises(ConfigError, match="--batch-size of 2"):
        fine_tune(
            model,
            FineTuningConfig(steps=1, batch_size=1),
            lambda network, batch: network(batch).sum(),
            lambda step: iter([torch.zeros(1, 3, 1, 1)]),
            _marked(tmp_path / "out"),
            progress=False,
        )


def test_an_image_that_can_t_be_read_ends_a_loader_with_a_sentence(labelled):
    data = open_labelled(labelled, "train")
    data.images.paths[0].write_bytes(b"no picture")
    with pytest.raises(DataError, match="an image to learn from can't be read") as told:
        CropDataset(data, SegmentationConfig(crop=8))[0, 0]
    assert type(told.value)(str(told.value)).args  # loaders make it again of its sentence


def _marked(folder):
    mark_output(folder)
    return folder
