"""Backbones that nobody here trained are measured by a word."""

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from selfseg.errors import CheckpointError, ConfigError
from selfseg.evaluation import Clusters, Linear, Prototypes, evaluate
from selfseg.evaluation.baselines import untrained_extractor
from selfseg.evaluation.measure.features import backbone_extractor
from selfseg.evaluation.references import Reference, is_reference, load_reference, parse_reference
from selfseg.types import IMAGENET_MEAN, IMAGENET_STD


@pytest.mark.parametrize(
    ("word", "reference"),
    [
        ("timm:resnet18", Reference("resnet18")),
        ("timm:resnet18:random", Reference("resnet18", "random")),
        ("timm:vit_small_patch14_dinov2.lvd142m:a/b.pth", Reference("vit_small_patch14_dinov2.lvd142m", "a/b.pth")),
    ],
)
def test_a_word_names_a_backbone_and_its_weights(word, reference):
    assert is_reference(word)
    assert parse_reference(word) == reference


@pytest.mark.parametrize("word", ["timm:", "timm::random", "timm:resnet18:", "runs/vice"])
def test_other_words_are_refused(word):
    with pytest.raises(ConfigError, match="write timm:NAME"):
        parse_reference(word)


def test_a_file_gives_the_networks_own_features(tmp_path):
    torch.manual_seed(5)
    theirs = timm.create_model("resnet10t", pretrained=False).eval()
    save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    embedder = load_reference(Reference("resnet10t", str(tmp_path / "theirs.safetensors")))
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    pixels = (pixels - torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)) / torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
    dilated = timm.create_model("resnet10t", pretrained=False, output_stride=16).eval()
    dilated.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        expected = torch.nn.functional.normalize(dilated.forward_features(pixels)[0], dim=0)
    torch.testing.assert_close(embedder.embed(image), expected, rtol=1e-4, atol=1e-5)


def test_random_weights_depend_on_the_seed_alone():
    image = np.full((64, 64, 3), 90, np.uint8)
    state = torch.get_rng_state()
    first = load_reference(Reference("resnet10t", "random")).embed(image)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(load_reference(Reference("resnet10t", "random")).embed(image), first)
    assert not torch.equal(load_reference(Reference("resnet10t", "random"), seed=1).embed(image), first)


def test_the_colours_are_those_that_timm_says():
    embedder = load_reference(Reference("vit_tiny_patch16_224", "random"))
    assert embedder.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert embedder.stride == 16
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    # Further rows of the same network see the same colours.
    assert torch.equal(backbone_extractor(embedder).extract(image), embedder.embed(image))
    assert torch.equal(untrained_extractor(embedder, seed=0).extract(image), embedder.embed(image))


def test_a_network_without_dilation_keeps_its_stride():
    assert load_reference(Reference("pvt_v2_b0", "random")).stride == 32


@pytest.mark.slow
def test_a_network_of_a_fixed_size_is_measured_at_any():
    embedder = load_reference(Reference("swin_tiny_patch4_window7_224", "random"))
    assert embedder.embed(np.zeros((70, 101, 3), np.uint8)).shape == (768, 3, 4)


@pytest.mark.parametrize("backbone", ["pit_ti_224", "no_such_network"])
def test_networks_that_cannot_be_measured_are_refused(backbone):
    with pytest.raises(ConfigError, match=backbone):
        load_reference(Reference(backbone, "random"))


def test_weights_of_another_network_are_refused(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="does not hold this backbone"):
        load_reference(Reference("resnet10t", str(tmp_path / "a.safetensors")))
    with pytest.raises(CheckpointError, match="no weights at"):
        load_reference(Reference("resnet10t", str(tmp_path / "none.pth")))


def test_a_reference_is_evaluated_and_written_where_asked(labelled, tmp_path):
    quick = Linear(pixels=2000, steps=60, batch=256)
    results = evaluate("timm:resnet10t:random", labelled, [Clusters(k=(4,)), quick], seeds=1, out=tmp_path / "out")
    own = [result for result in results if result.what == "resnet10t, random"]
    assert [result.protocol for result in own] == ["clusters", "linear"]
    assert all(result.options["weights"] == "random" for result in own)
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "labelled-val-linear-resnet10t-random.json",
        "labelled-val-linear-colour.json",
    }
    with pytest.raises(ConfigError, match="no prototypes"):
        evaluate("timm:resnet10t:random", labelled, [Prototypes()])
