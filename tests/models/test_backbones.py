import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from selfseg.errors import CheckpointError, MissingExtra
from selfseg.models.backbones import cell_centres, make_backbone
from selfseg.models.checkpoints import fill_backbone
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.models.start import load_backbone


def _weights() -> dict[str, Tensor]:
    torch.manual_seed(5)
    backbone = make_backbone("resnet18", 32)
    weights = {key: torch.randn_like(v) if v.is_floating_point() else v for key, v in backbone.state_dict().items()}
    return {**weights, "fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}


def test_safetensors_load(tmp_path: Path) -> None:
    weights = _weights()
    save_file(weights, tmp_path / "weights.safetensors")
    backbone = make_backbone("resnet18", 32)
    assert "120 tensors" in load_backbone(backbone, tmp_path / "weights.safetensors", "resnet18").loaded
    assert torch.equal(backbone.state_dict()["conv1.weight"], weights["conv1.weight"])


def test_another_architecture_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    save_file(_weights(), tmp_path / "weights.safetensors")
    backbone = make_backbone("resnet34", 32)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(CheckpointError, match="does not hold this backbone"):
        load_backbone(backbone, tmp_path / "weights.safetensors", "")
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


class _Surprise:
    pass


def test_a_file_with_objects_loads_and_says_that_they_were_left(tmp_path: Path) -> None:
    torch.save({"state_dict": _weights(), "extra": _Surprise()}, tmp_path / "objects.pth")
    loaded = load_backbone(make_backbone("resnet18", 32), tmp_path / "objects.pth", "").loaded
    assert loaded.endswith("_Surprise")
    assert "and without tensors extra; not opened: " in loaded
    with pytest.raises(CheckpointError, match="no weights at"):
        load_backbone(make_backbone("resnet18", 32), tmp_path / "absent.pth", "")


def test_no_network_is_an_error_not_a_start_from_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("timm.create_model", refuse)
    backbone = torch.nn.Conv2d(3, 8, 3)
    with pytest.raises(CheckpointError, match="give it as --init FILE"):
        load_backbone(backbone, "imagenet", "resnet18")


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "segmentation_models_pytorch.decoders.deeplabv3.decoder"
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"pip install 'selfseg\[smp\]'"):
        Embedder(EmbedderConfig(decoder="deeplabv3plus"))


def test_weights_of_networks_that_timm_renames_for_features_load(tmp_path: Path) -> None:
    whole = timm.create_model("convnext_atto", pretrained=False)
    save_file(whole.state_dict(), tmp_path / "weights.safetensors")
    backbone = make_backbone("convnext_atto", 32)
    load_backbone(backbone, tmp_path / "weights.safetensors", "")
    name = "blocks.0.mlp.fc1.weight"
    assert torch.equal(backbone.state_dict()[f"stages_1.{name}"], whole.state_dict()[f"stages.1.{name}"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["convnextv2_atto", "tf_efficientnet_lite0", "dpn48b", "efficientvit_b0", "legacy_xception"]
)
def test_the_whole_networks_weights_load_whatever_timm_calls_its_stages(name: str) -> None:
    with torch.device("meta"):
        backbone = make_backbone(name, 32)
        whole = timm.create_model(name, pretrained=False).state_dict()
    sentence = fill_backbone(backbone, {f"net.{key}": value for key, value in whole.items()}, "the file")
    assert sentence == f"{len(backbone.state_dict())} tensors of the backbone from the file under 'net.'"


def test_a_vit_takes_images_of_any_size_and_its_weights_load(tmp_path: Path) -> None:
    whole = timm.create_model("vit_tiny_patch16_224", pretrained=False)
    save_file(whole.state_dict(), tmp_path / "weights.safetensors")
    embedder = Embedder(
        EmbedderConfig(backbone="vit_tiny_patch16_224", output_stride=16, decoder="projector", hidden=16, dim=8)
    ).eval()
    load_backbone(embedder.backbone, tmp_path / "weights.safetensors", "")
    name = "blocks.3.attn.qkv.weight"
    assert torch.equal(embedder.backbone.state_dict()[f"model.{name}"], whole.state_dict()[name])
    assert embedder.stride == 16
    assert embedder(torch.rand(1, 3, 70, 100)).shape == (1, 8, 5, 7)


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "vit_small_plus_patch16_dinov3"])
def test_vits_of_timms_other_modules_are_vits_too(name: str) -> None:
    with torch.device("meta"):
        backbone = make_backbone(name, 32)
    assert backbone.feature_info.reduction() == [16] * 3  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(2), {"epoch": 3}])
def test_torch_files_without_named_tensors_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth holds"):
        load_backbone(make_backbone("resnet18", 32), tmp_path / "other.pth", "")


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "tf_mobilenetv3_small_minimal_100", "convnext_atto"])
def test_cells_look_where_their_gradient_is(name: str) -> None:
    backbone = make_backbone(name, 32).eval()
    centres = cell_centres(backbone)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):  # equal weights: a symmetric field of view
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.MaxPool2d):  # whose gradient is where the image happens to be bright
            module.forward = nn.AvgPool2d(module.kernel_size, module.stride, module.padding).forward  # type: ignore[method-assign]
        elif isinstance(module, nn.LayerNorm):  # would take the mean away
            module.forward = lambda x: x  # type: ignore[method-assign]
    image = torch.rand(1, 3, 288, 288).requires_grad_()
    for stage, stride in zip(backbone(image), backbone.feature_info.reduction(), strict=True):
        if stride > 8:  # further fields of view would be cut at the edges
            break
        cell = stage.shape[3] // 2
        (gradient,) = torch.autograd.grad(stage[0, :, cell, cell].sum(), image, retain_graph=True)
        weight = gradient[0].abs().sum((0, 1))
        middle = float((weight * (torch.arange(288) + 0.5)).sum() / weight.sum())
        assert middle == pytest.approx(cell * stride + centres[stride], abs=0.3)
