"""Files in the naming of other projects: the right copy of the backbone comes out of each, and is told truthfully."""

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from timm.models._features import FeatureGetterNet
from timm.models.eva import checkpoint_filter_fn as eva_of_meta
from timm.models.swin_transformer import checkpoint_filter_fn as swin_of_microsoft
from timm.models.vision_transformer import checkpoint_filter_fn as vit_of_meta
from torch import Tensor, nn

from selfseg.errors import CheckpointError
from selfseg.models.checkpoints import fill_backbone, read_weights

State = dict[str, Tensor]
SMALL_VIT = {"depth": 2, "embed_dim": 32, "num_heads": 2, "num_classes": 0}
SMALL_RESNET = {"channels": (8, 8, 16, 16), "num_classes": 0}


def whole(name: str, **options: Any) -> Any:
    small = SMALL_RESNET if name == RESNET else SMALL_VIT
    return timm.create_model(name, pretrained=False, **small, **options)


def stages(network: Any) -> nn.Module:
    """As `make_backbone` wraps a ViT; it can't make such small ones."""
    return FeatureGetterNet(network, out_indices=2, norm=True)


def small_resnet() -> nn.Module:
    return timm.create_model(RESNET, pretrained=False, features_only=True, channels=SMALL_RESNET["channels"])


def drawn(network: nn.Module, seed: int) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        for key, value in network.state_dict().items()
    }


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def renamed(state: State, *pairs: tuple[str, str]) -> State:
    for pattern, name in pairs:
        state = {re.sub(pattern, name, key): value for key, value in state.items()}
    return state


def of_dinov2(state: State) -> State:
    """One position more, which is the class token's; the token for masked patches."""
    state = dict(state)
    extra = torch.full_like(state["cls_token"], 0.25)
    state["register_tokens"] = state.pop("reg_token")
    state["pos_embed"] = torch.cat([extra, state["pos_embed"]], dim=1)
    state["cls_token"] = state["cls_token"] - extra
    return {**state, "mask_token": torch.zeros(1, 32)}


def of_dinov3(state: State) -> State:
    state = renamed(state, ("^reg_token", "storage_tokens"), (r"\.gamma_([12])$", r".ls\1.gamma"))
    for block in (0, 1):
        stem = f"blocks.{block}.attn."
        query, value = state.pop(f"{stem}q_bias"), state.pop(f"{stem}v_bias")
        state[f"{stem}qkv.bias"] = torch.cat([query, torch.full_like(query, 9.0), value])
        state[f"{stem}qkv.bias_mask"] = torch.ones(96)
    return {**state, "mask_token": torch.zeros(1, 32), "rope_embed.periods": torch.ones(4)}


def heads(*names: str) -> State:
    return {name: torch.ones(3, 3) for name in names}


@dataclass(frozen=True)
class Layout:
    """How a project writes its files: (ours, the other copy) to the file's content, and where ours is in it."""

    project: str
    network: str
    write: Callable[[State, State], Any]
    prefix: str
    says: str = ""


RESNET, VIT = "resnet18", "vit_tiny_patch16_224"
DINOV2, DINOV3 = "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3_qkvb"
CHUNKS = (r"^blocks\.0\.", "blocks.0.0."), (r"^blocks\.1\.", "blocks.1.1.")
LAYERS = ("^conv1", "0"), ("^bn1", "1"), *((f"^layer{n}", f"{n + 3}") for n in (1, 2, 3, 4))
ARGUMENTS = argparse.Namespace(arch="vit_tiny", lr=np.float64(0.1), crops=[2, 8], seed=np.int64(3))

LAYOUTS = [
    Layout("torchvision", RESNET, lambda a, b: {**a, **heads("fc.weight")}, ""),
    Layout("timm", RESNET, lambda a, b: {"state_dict": a, "state_dict_ema": b}, "state_dict.", "trained model"),
    Layout(
        "DINO, ViT",
        VIT,
        lambda a, b: {
            "student": {**under("module.backbone.", b), **heads("module.head.mlp.0.weight")},
            "teacher": {**under("backbone.", a), **heads("head.mlp.0.weight")},
            "epoch": 100,
            "args": ARGUMENTS,
        },
        "teacher.backbone.",
        "the teacher, not the other copy under 'student.module.backbone.'",
    ),
    Layout(
        "DINO, ResNet",
        RESNET,
        lambda a, b: {
            "student": under("module.backbone.", b), "teacher": under("module.backbone.", a), "args": ARGUMENTS
        },
        "teacher.module.backbone.",
        "the teacher",
    ),
    Layout("DINO, backbone alone", VIT, lambda a, b: a, ""),
    Layout(
        "iBOT",
        VIT,
        lambda a, b: {
            "student": {**under("module.backbone.", b), **heads("module.backbone.masked_embed")},
            "teacher": {**under("module.backbone.", a), **heads("module.head.last_layer.weight_g")},
        },
        "teacher.module.backbone.",
        "the teacher",
    ),
    Layout("DINOv2", DINOV2, lambda a, b: of_dinov2(a), ""),
    Layout("DINOv2, in chunks", DINOV2, lambda a, b: {"teacher": under("backbone.", renamed(of_dinov2(a), *CHUNKS))},
           "teacher.backbone."),
    Layout(
        "DINOv2, all of a training",
        DINOV2,
        lambda a, b: {
            "model": {**under("student.backbone.", of_dinov2(b)), **under("teacher.backbone.", of_dinov2(a))},
            "iteration": 7,
        },
        "model.teacher.backbone.",
        "the teacher",
    ),
    Layout("DINOv3", DINOV3, lambda a, b: of_dinov3(a), ""),
    Layout("MAE", VIT, lambda a, b: {"model": {**a, **heads("mask_token", "decoder_pos_embed")}},
           "model."),
    Layout("MAE, fine-tuned", VIT, lambda a, b: {"model": renamed(a, ("^norm", "fc_norm"))}, "model."),
    Layout(
        "MoCo v3",
        VIT,
        lambda a, b: {
            "state_dict": {
                **under("module.momentum_encoder.", b),
                **under("module.base_encoder.", {**a, **heads("head.0.weight")}),
            },
            "optimizer": {"state": {0: {"exp_avg": torch.zeros(2), "step": 1}}, "param_groups": [{"lr": 0.1}]},
        },
        "state_dict.module.base_encoder.",
        "the trained encoder",
    ),
    Layout(
        "MoCo v2",
        RESNET,
        lambda a, b: {
            "state_dict": {
                **under("module.encoder_k.", b), **under("module.encoder_q.", a), **heads("module.queue", "module.ptr")
            },
            "arch": "resnet18",
        },
        "state_dict.module.encoder_q.",
        "the trained encoder",
    ),
    Layout("DenseCL, extracted", RESNET, lambda a, b: {"state_dict": a, "author": "someone"}, "state_dict."),
    Layout(
        "DenseCL, training",
        RESNET,
        lambda a, b: {
            "meta": {"epoch": 1},
            "state_dict": {**under("encoder_q.0.", a), **under("encoder_k.0.", b), **under("backbone.", a)},
        },
        "state_dict.backbone.",
        "the trained encoder",
    ),
    Layout("mmseg", RESNET, lambda a, b: {"state_dict": {**under("backbone.", a), **heads("decode_head.conv.weight")}},
           "state_dict.backbone."),
    Layout(
        "BYOL",
        RESNET,
        lambda a, b: {
            **under("online_encoder.net.", a), **under("target_encoder.net.", b), **heads("online_predictor.0.weight")
        },
        "online_encoder.net.",
        "the online network",
    ),
    Layout(
        "BYOL, layers by number",
        RESNET,
        lambda a, b: {
            "online_network_state_dict": under("encoder.", renamed(a, *LAYERS)),
            "target_network_state_dict": under("encoder.", renamed(b, *LAYERS)),
        },
        "online_network_state_dict.encoder.",
        "the online network",
    ),
    Layout(
        "DetCon",
        RESNET,
        lambda a, b: {
            "state_dict": {**under("online_network.encoder.", a), **under("target_network.encoder.", b)}
        },
        "state_dict.online_network.encoder.",
        "the online network",
    ),
    Layout(
        "PixPro",
        RESNET,
        lambda a, b: {
            "opt": ARGUMENTS,
            "model": {
                **under("module.encoder.", a), **under("module.encoder_k.", b), **heads("module.projector.weight")
            },
        },
        "model.module.encoder.",
        "the trained encoder",
    ),
    Layout(
        "InfoMin",
        RESNET,
        lambda a, b: {
            "opt": ARGUMENTS, "model": under("module.encoder.", a), "model_ema": under("module.encoder.", b)
        },
        "model.module.encoder.",
        "the trained model",
    ),
    Layout(
        "SlotCon",
        RESNET,
        lambda a, b: {
            "opt": ARGUMENTS,
            "model": {
                **under("module.encoder_q.", b),
                **under("module.encoder_k.", a),
                **heads("module.grouping_q.slot_embed.weight", "module.grouping_k.slot_embed.weight"),
            },
        },
        "model.module.encoder_k.",
        "the teacher, not the other copy under 'model.module.encoder_q.'",
    ),
    Layout(
        "Leopart",
        VIT,
        lambda a, b: {
            "state_dict": {**under("model.", b), **under("teacher.", a), **heads("model.projection_head.0.weight")},
            "hyper_parameters": {"lr": 0.1},
        },
        "state_dict.teacher.",
        "the teacher",
    ),
    Layout("Leopart, student alone", VIT, lambda a, b: {"state_dict": under("model.backbone.", a)},
           "state_dict.model.backbone."),
    Layout(
        "STEGO",
        VIT,
        lambda a, b: {
            "state_dict": {**under("net.model.", a), **heads("net.cluster1.0.weight", "cluster_probe.clusters")},
            "pytorch-lightning_version": "1.6.0",
        },
        "state_dict.net.model.",
    ),
    Layout(
        "MaskContrast",
        RESNET,
        lambda a, b: {
            "model": {
                **under("module.model_q.backbone.", a),
                **under("module.model_k.backbone.", b),
                **heads("module.model_q.decoder.4.weight", "module.queue"),
            },
        },
        "model.module.model_q.backbone.",
        "the trained model",
    ),
    Layout(
        "VISSL",
        RESNET,
        lambda a, b: {"classy_state_dict": {"base_model": {"model": {"trunk": under("_feature_blocks.", a)}}}},
        "classy_state_dict.base_model.model.trunk._feature_blocks.",
    ),
    Layout("SwAV", RESNET, lambda a, b: {**under("module.", a), **heads("module.prototypes.weight")}, "module."),
]  # fmt: skip
by_project = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.project)


def network_of(layout: Layout) -> nn.Module:
    return small_resnet() if layout.network == RESNET else stages(whole(layout.network))


def written(layout: Layout, path: Path, without: str = "") -> State:
    """Writes a file in the layout; returns timm's tensors that should come out of it."""
    network = whole(layout.network)
    ours, other = drawn(network, 1), drawn(network, 2)
    torch.save(layout.write({key: value for key, value in ours.items() if key != without}, other), path)
    return ours


@by_project
def test_the_backbone_of_a_project_loads(layout: Layout, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    ours = written(layout, path)
    backbone = network_of(layout)
    sentence = fill_backbone(backbone, read_weights(path), "the file")
    for key, value in backbone.state_dict().items():
        torch.testing.assert_close(value, ours[key.removeprefix("model.")], msg=key)
    assert f"{len(backbone.state_dict())} tensors of the backbone from the file" in sentence
    assert (f"under {layout.prefix!r}" in sentence) == bool(layout.prefix)
    assert layout.says in sentence
    assert ("not the other copy" in sentence) == bool(layout.says)
    assert "resampled" not in sentence
    assert ("the last norm is the file's fc_norm" in sentence) == (layout.project == "MAE, fine-tuned")


@by_project
def test_a_missing_tensor_is_refused_and_changes_nothing(layout: Layout, tmp_path: Path) -> None:
    """Even if another copy in the file is whole."""
    path = tmp_path / "weights.pth"
    lost = "layer2.0.conv2.weight" if layout.network == RESNET else "blocks.1.mlp.fc2.weight"
    written(layout, path, without=lost)
    backbone = network_of(layout)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(CheckpointError, match=rf"does not hold this backbone.*: 1 of .*first: (model\.)?{lost}"):
        fill_backbone(backbone, read_weights(path), "the file")
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize(
    ("name", "write", "theirs"),
    [(DINOV2, of_dinov2, vit_of_meta), (DINOV3, of_dinov3, eva_of_meta)],
)
def test_metas_names_are_read_as_timm_reads_them(name: str, write: Any, theirs: Any) -> None:
    network = whole(name)
    file = write(drawn(network, 3))
    expected = theirs(dict(file), network)
    backbone = stages(network)
    fill_backbone(backbone, file, "the file")
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, expected[key.removeprefix("model.")]), key


def test_swins_from_their_authors_are_read_as_timm_reads_them() -> None:
    name = "swin_tiny_patch4_window7_224"
    options = {"depths": (1, 1, 1, 1), "embed_dim": 12, "num_heads": (1, 1, 1, 1)}
    network = timm.create_model(name, pretrained=False, **options)
    state = {key: value for key, value in drawn(network, 4).items() if not key.startswith("head")}
    file = renamed(state, *((rf"^layers\.{n}\.downsample", f"layers.{n - 1}.downsample") for n in (1, 2, 3)))
    expected = swin_of_microsoft(dict(file), network)
    backbone = timm.create_model(name, pretrained=False, features_only=True, feature_cls="getter", **options)
    fill_backbone(backbone, {"model." + key: value for key, value in file.items()}, "the file")
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, expected[key.removeprefix("model.")]), key


@pytest.mark.parametrize("name", [VIT, "vit_small_patch14_dinov2", DINOV2])
def test_positions_for_another_grid_are_resampled(name: str) -> None:
    """With a class token's position before those of the patches, and without."""
    network = whole(name)
    side = network.patch_embed.grid_size[0]
    state = drawn(whole(name, img_size=5 * network.patch_embed.patch_size[0]), 5)
    backbone = stages(network)
    sentence = fill_backbone(backbone, state, "the file")
    assert f"positions resampled from 5 x 5 patches to {side} x {side}" in sentence
    before = 0 if name == DINOV2 else 1
    expected = resample_abs_pos_embed(state["pos_embed"], [side, side], num_prefix_tokens=before)
    assert torch.equal(backbone.state_dict()["model.pos_embed"], expected)
    assert expected.shape[1] == side * side + before


def test_positions_that_are_no_square_say_which_tensor_differs() -> None:
    state = drawn(whole(VIT), 6) | {"pos_embed": torch.zeros(1, 31, 32)}
    with pytest.raises(CheckpointError, match=r"pos_embed is \(1, 31, 32\) instead of \(1, 197, 32\)"):
        fill_backbone(stages(whole(VIT)), state, "the file")


def test_copies_that_differ_without_a_word_which_one_is_meant_are_refused() -> None:
    network = whole(RESNET)
    first, second = drawn(network, 1), drawn(network, 2)
    backbone = small_resnet()
    with pytest.raises(CheckpointError, match=r"2 times, under 'left\.', 'right\.', and they differ; save the one"):
        fill_backbone(backbone, {**under("left.", first), **under("right.", second)}, "the file")
    assert "under 'left.'" in fill_backbone(backbone, {**under("left.", first), **under("right.", first)}, "the file")


def test_a_deeper_networks_file_is_refused_although_it_has_every_tensor() -> None:
    deeper = timm.create_model("resnet34", pretrained=False, **SMALL_RESNET)
    with pytest.raises(
        CheckpointError, match=r"it also has layer1\.2\.conv1\.weight, so it belongs to a deeper network"
    ):
        fill_backbone(small_resnet(), under("module.", drawn(deeper, 1)), "the file")
    three = timm.create_model(VIT, pretrained=False, **{**SMALL_VIT, "depth": 3})
    with pytest.raises(CheckpointError, match=r"it also has blocks\.2\.norm1\.weight"):
        fill_backbone(stages(whole(VIT)), drawn(three, 1), "the file")


def test_heads_alone_are_refused() -> None:
    """As CAUSE keeps them, beside DINO's own file."""
    with pytest.raises(CheckpointError, match="does not hold this backbone: 30 of 30 tensors missing"):
        fill_backbone(
            stages(whole(VIT)), heads("head.f1.0.weight", "head.f2.0.weight", "projection.weight"), "the file"
        )


def test_a_file_without_a_last_norm_says_what_to_do() -> None:
    state = {key: value for key, value in drawn(whole(VIT), 7).items() if not key.startswith("norm.")}
    with pytest.raises(CheckpointError, match="it has no last norm, so set final_norm to False"):
        fill_backbone(stages(whole(VIT)), state, "the file")
    fill_backbone(FeatureGetterNet(whole(VIT), out_indices=2, norm=False), state, "the file")


def test_a_bias_that_a_network_has_no_place_for_is_refused() -> None:
    """timm has DINOv3's networks with and without it: most of the published ones are zero."""
    file = of_dinov3(drawn(whole(DINOV3), 8))
    without = stages(whole("vit_small_patch16_dinov3"))
    with pytest.raises(CheckpointError, match=r"attn\.qkv\.bias is not zero.*_dinov3_qkvb"):
        fill_backbone(without, file, "the file")
    for key in file:
        if key.endswith("qkv.bias"):
            file[key][:32] = file[key][64:] = 0
    fill_backbone(without, file, "the file")
    assert torch.equal(without.state_dict()["model.reg_token"], file["storage_tokens"])


def test_two_encoders_without_a_sign_of_their_project_are_refused() -> None:
    """SlotCon keeps the momentum encoder, MoCo the other one; a file cut down to both tells neither."""
    network = whole(RESNET)
    both = {**under("encoder_q.", drawn(network, 1)), **under("encoder_k.", drawn(network, 2))}
    with pytest.raises(CheckpointError, match="they differ; save the one that you mean in a file of its own"):
        fill_backbone(small_resnet(), both, "the file")
    for sign, kept in (("projector_k.mlp.0.weight", "encoder_k."), ("queue", "encoder_q.")):
        assert f"under {kept!r}" in fill_backbone(small_resnet(), {**both, **heads(sign)}, "the file")


class Surprise:
    pass


@pytest.mark.parametrize("extra", [Surprise(), argparse.Namespace(model=Surprise()), abs, Path("a"), {"a": {abs}}])
def test_objects_beside_the_tensors_are_left_out(extra: Any, tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(2)}, "args": extra}, tmp_path / "objects.pth")
    with pytest.raises(Exception, match=r"Unsupported|Can only|Weights only"):
        torch.load(tmp_path / "objects.pth", weights_only=True)
    assert list(read_weights(tmp_path / "objects.pth")) == ["state_dict.a"]


def test_arguments_are_no_longer_safe_afterwards(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2), "args": ARGUMENTS}, tmp_path / "weights.pth")
    assert list(read_weights(tmp_path / "weights.pth")) == ["a"]
    with pytest.raises(Exception, match="Namespace"):
        torch.load(tmp_path / "weights.pth", weights_only=True)
