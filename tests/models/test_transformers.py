"""Transformers at any image size, and that features are timm's own."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models import FeatureInfo
from torch import Tensor, nn

from selfseg.errors import ConfigError
from selfseg.models.backbones import Windows, make_backbone
from selfseg.models.checkpoints import fill_backbone
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.training.plain import from_plain, to_plain

VIT, SWIN = "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"


def drawn(height: int, width: int, images: int = 1) -> Tensor:
    return torch.rand(images, 3, height, width, generator=torch.Generator().manual_seed(0))


def frozen(name: str, whole: nn.Module) -> Embedder:
    """The embedder of a backbone alone, with a network's weights."""
    embedder = Embedder(EmbedderConfig(backbone=name, output_stride=32, decoder="none", frozen=True, resolution=None))
    fill_backbone(embedder.backbone, whole.state_dict(), "timm")
    return embedder.train()  # a frozen backbone stays in eval mode


def assert_same(embedder: Embedder, image: Tensor, expected: Tensor) -> None:
    with torch.no_grad():
        found = embedder.raw(image)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def seeded(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, **options).eval()


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "convnext_atto"])
@pytest.mark.parametrize("size", [(64, 96), (75, 53)])
def test_a_frozen_cnn_gives_timms_last_stage(name: str, size: tuple[int, int]) -> None:
    """Nothing is filled up: at a size that is no multiple of its stride a CNN does what it does by itself."""
    whole = seeded(name)
    image = drawn(*size, images=2)
    embedder = frozen(name, whole)
    with torch.no_grad():
        pixels = (image - embedder.mean) / embedder.std
        expected = whole.forward_intermediates(pixels, intermediates_only=True)[-1]
    assert_same(embedder, image, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "patch"),
    [(VIT, 16), ("vit_small_patch14_reg4_dinov2", 14), ("vit_small_patch16_dinov3", 16)],
)
@pytest.mark.parametrize("off", [(0, 0), (-3, -13)])
def test_a_frozen_vit_gives_timms_last_tokens(name: str, patch: int, off: tuple[int, int]) -> None:
    """After the last norm. The last patches of an image that isn't whole ones are filled up with the mean colour."""
    whole = seeded(name, dynamic_img_size=True)
    rows, columns = 5, 7
    image = drawn(rows * patch + off[0], columns * patch + off[1], images=2)
    embedder = frozen(name, whole)
    with torch.no_grad():
        filled = F.pad((image - embedder.mean) / embedder.std, (0, -off[1], 0, -off[0]))
        tokens = whole.forward_features(filled)[:, whole.num_prefix_tokens :]
    expected = tokens.transpose(1, 2).unflatten(2, (rows, columns))
    assert_same(embedder, image, expected)
    assert embedder.stride == patch


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_small_r26_s32_224", "vit_small_resnet50d_s16_224", "qwen3_vit_88m"])
def test_other_vits_are_filled_up_to_whole_patches_too(name: str) -> None:
    with torch.device("meta"):
        backbone = make_backbone(name, 32, final_norm=True).eval()
        (stride, *_) = cast(Any, backbone.feature_info).reduction()
        stages = backbone(torch.zeros(1, 3, 70, 101))
    assert [stage.shape[2:] for stage in stages] == [(-(-70 // stride), -(-101 // stride))] * 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    # timm gives the third one other windows at other sizes.
    [(SWIN, (224, 224)), (SWIN, (250, 311)), ("swinv2_cr_tiny_224", (224, 224))],
)
def test_a_frozen_swin_gives_timms_last_stage(name: str, size: tuple[int, int]) -> None:
    """As timm builds it for that size, filled up to whole patches of 4 px."""
    height, width = (-(-side // 4) * 4 for side in size)
    whole = seeded(name, img_size=(height, width))
    image = drawn(*size)
    embedder = frozen(name, whole)
    with torch.no_grad():
        filled = F.pad((image - embedder.mean) / embedder.std, (0, width - size[1], 0, height - size[0]))
        expected = whole.forward_intermediates(filled, intermediates_only=True)[-1]
    assert_same(embedder, image, expected)
    assert expected.shape[2:] == (-(-size[0] // 32), -(-size[1] // 32))


@pytest.mark.slow
def test_a_swin_goes_from_size_to_size_and_can_be_copied() -> None:
    embedder = Embedder(EmbedderConfig(backbone=SWIN, output_stride=32, decoder="fpn", dim=6)).eval()
    twin = copy.deepcopy(embedder)
    for height, width in ((64, 64), (301, 230), (64, 64)):
        image = drawn(height, width)
        with torch.no_grad():
            found = embedder(image)
        assert found.shape == (1, 6, -(-height // 4), -(-width // 4))
        assert torch.equal(found, twin(image))


def test_each_block_of_a_vit_is_a_stage_of_the_pyramid() -> None:
    torch.manual_seed(0)
    config = EmbedderConfig(backbone=VIT, decoder="pyramid", stages=(-12, -4, -1), dim=8, final_norm=True)
    image = drawn(32, 48)
    for norm in (True, False):
        embedder = Embedder(replace(config, final_norm=norm)).eval()
        network = cast(Any, embedder.backbone).model
        pixels = (image - embedder.mean) / embedder.std
        with torch.no_grad():
            blocks = network.forward_intermediates(pixels, norm=norm, intermediates_only=True)
        assert len(blocks) == 12
        stages = embedder.pyramid_stages(image)
        for stage, block in zip(stages, (0, 8, 11), strict=True):
            torch.testing.assert_close(stage, blocks[block], rtol=0, atol=1e-5)
        lengths = [float(stage.std(1).mean()) for stage in stages]
        assert (max(abs(length - 1) for length in lengths) < 0.01) == norm
    assert embedder.stride == 16
    with pytest.raises(ConfigError, match=rf"{VIT} has 12 blocks, not those of stages=\(-13, -1\)"):
        Embedder(replace(config, stages=(-13, -1)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stages", "then"), [((-3, -1), (-3, -1)), ((0, 2), (-3, -1))], ids=["from the last", "from the first"]
)
def test_an_older_embedder_of_a_vit_is_what_it_was(tmp_path: Path, stages: Any, then: Any) -> None:
    """It had no last norm, and its last three blocks were its stages."""
    config = EmbedderConfig(backbone=VIT, decoder="pyramid", stages=then, dim=8, final_norm=False)
    embedder = Embedder(config).eval()
    embedder.fit_pyramid([torch.randn(50, 192), torch.randn(50, 192)])
    embedder.save(tmp_path)
    values = json.loads((tmp_path / "embedder.json").read_text())
    del values["final_norm"]
    values["stages"] = list(stages)
    (tmp_path / "embedder.json").write_text(json.dumps(values))
    again = Embedder.load(tmp_path)
    assert again.config == config
    image = drawn(32, 40)
    assert torch.equal(again(image), embedder(image))
    assert not any("norm.weight" in key and "blocks" not in key for key in again.state_dict())


def test_an_older_recipe_of_a_vit_has_no_last_norm_and_one_of_a_cnn_is_todays() -> None:
    for backbone, norm in ((VIT, False), ("resnet18", None)):
        now = EmbedderConfig(backbone=backbone, decoder="linear")
        values = to_plain(now)
        assert from_plain(EmbedderConfig, values, {"EmbedderConfig": EmbedderConfig}) == now
        del values["final_norm"]
        older = from_plain(EmbedderConfig, values, {"EmbedderConfig": EmbedderConfig})
        assert older == replace(now, final_norm=norm)
    assert Embedder(EmbedderConfig(backbone=VIT, decoder="linear")).state_dict().keys() > {
        "backbone.model.norm.weight",
        "backbone.model.norm.bias",
    }


class Means(nn.Module):
    """Stands for a network of a fixed size: mean colours of cells of 8 and 32 px."""

    def __init__(self, cut: int = 0) -> None:
        super().__init__()
        info = [{"num_chs": 3, "reduction": stride, "module": str(stride)} for stride in (8, 32)]
        self.feature_info = FeatureInfo(info, out_indices=(0, 1))
        self.cut, self.seen = cut, cast(list[int], [])

    def forward(self, image: Tensor) -> list[Tensor]:
        assert image.shape[2:] == (96, 64)
        self.seen.append(len(image))
        return [F.avg_pool2d(image, stride)[:, :, self.cut :] for stride in (8, 32)]


@pytest.mark.parametrize("size", [(96, 64), (200, 150), (40, 300), (97, 65)])
def test_what_does_not_depend_on_the_place_is_the_same_through_windows(size: tuple[int, int]) -> None:
    image = drawn(*size, images=2)
    found = Windows(Means(), (96, 64))(image)
    height, width = size
    for stage, stride in zip(found, (8, 32), strict=True):
        filled = F.pad(image, (0, -width % stride, 0, -height % stride))
        torch.testing.assert_close(stage, F.avg_pool2d(filled, stride))


def test_windows_are_blended_from_their_middles() -> None:
    class Places(Means):
        """Each window tells its number, 0 and 1."""

        def forward(self, image: Tensor) -> list[Tensor]:
            numbers = torch.arange(len(image)).view(-1, 1, 1, 1).float()
            return [numbers.expand(-1, 3, 96 // stride, 64 // stride) for stride in (8, 32)]

    fine, coarse = Windows(Places(), (96, 64))(drawn(96, 96))  # two windows, 32 px apart: cells 0-7 and 4-11
    weights = torch.tensor([0.5, 1.5, 2.5, 3.5])
    share = weights / (weights + weights.flip(0))
    expected = torch.cat([torch.zeros(4), share, torch.ones(4)])
    torch.testing.assert_close(fine[0, 0, 3], expected)
    torch.testing.assert_close(coarse[0, 0, 1], torch.tensor([0, 0.5, 1]))


def test_maps_that_can_not_be_put_together_are_refused() -> None:
    assert Windows(Means(cut=1), (96, 64))(drawn(96, 64))[1].shape == (1, 3, 2, 2)
    with pytest.raises(ConfigError, match=r"maps of \(3, 11, 8\) for images of 96 x 64 px where \(3, 12, 8\)"):
        Windows(Means(cut=1), (96, 64))(drawn(100, 64))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convit_tiny", "levit_128s", "maxvit_rmlp_pico_rw_256"])
def test_networks_of_a_fixed_size_take_any_and_are_timms_own_at_theirs(name: str) -> None:
    torch.manual_seed(0)
    backbone = make_backbone(name, 32).eval()
    assert isinstance(backbone, Windows)
    own = timm.create_model(name, features_only=True).eval()
    own.load_state_dict(backbone.windowed.state_dict())
    image = drawn(*backbone.size)
    with torch.no_grad():
        for found, expected in zip(backbone(image), own(image), strict=True):
            assert torch.equal(found, expected)
        stages = backbone(drawn(150, 301))
    strides = cast(Any, backbone.feature_info).reduction()
    assert [stage.shape[2:] for stage in stages] == [(-(-150 // stride), -(-301 // stride)) for stride in strides]
    again = make_backbone(name, 32).eval()
    again.load_state_dict(own.state_dict())  # names from before there were windows
    assert torch.equal(again(image)[-1], backbone(image)[-1])
    fill_backbone(again, timm.create_model(name).state_dict(), "timm")
