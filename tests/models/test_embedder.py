import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from selfseg.errors import CheckpointError, ConfigError
from selfseg.models.decoders import move_cells
from selfseg.models.embedder import Embedder, EmbedderConfig, Looks


def _needs(config: EmbedderConfig) -> None:
    """Skip where the package of a decoder is not installed."""
    if config.decoder == "deeplabv3plus":
        pytest.importorskip("segmentation_models_pytorch")


@pytest.mark.parametrize(
    ("config", "stride"),
    [
        (EmbedderConfig(output_stride=8, dim=16), 4),
        (EmbedderConfig(output_stride=32, dim=16, centred=True), 4),
        (EmbedderConfig(output_stride=8, decoder="deeplabv3plus", dim=16), 4),
        (EmbedderConfig(output_stride=8, decoder="deeplabv3", dim=16), 8),
        (EmbedderConfig(output_stride=16, decoder="deeplabv3", dim=16), 16),
        (EmbedderConfig(output_stride=16, decoder="linear", dim=16), 16),
        (EmbedderConfig(backbone="convnext_atto", output_stride=32, dim=16), 4),
    ],
)
def test_every_kind_gives_unit_vectors_at_its_stride(config: EmbedderConfig, stride: int) -> None:
    _needs(config)
    embedder = Embedder(config).eval()
    embedding = embedder(torch.rand(1, 3, 64, 96))
    assert embedder.stride == stride
    assert embedding.shape == (1, 16, 64 // stride, 96 // stride)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones_like(embedding[:, 0]), atol=1e-4, rtol=0)


def test_saved_and_loaded_embedders_agree(tmp_path: Path) -> None:
    embedder = Embedder(EmbedderConfig(output_stride=32, dim=8)).eval()
    embedder.save(tmp_path)
    image = torch.rand(1, 3, 40, 56)
    assert torch.equal(Embedder.load(tmp_path)(image), embedder(image))
    assert not list(tmp_path.glob(".tmp*"))


@pytest.mark.parametrize("decoder", ["fpn", "deeplabv3", "deeplabv3plus", "linear", "projector", "none"])
def test_a_saliency_head_stands_beside_every_decoder_and_is_kept(tmp_path: Path, decoder: Any) -> None:
    config = EmbedderConfig(output_stride=16, decoder=decoder, hidden=24, dim=8, centred=True, saliency=True)
    _needs(config)
    embedder = Embedder(config).eval()
    image = torch.rand(2, 3, 64, 96)
    embedding, saliency = embedder.raw_and_saliency(image)
    assert saliency.shape == (2, *embedding.shape[2:])
    assert embedder.saliency_head is not None
    features = embedder.features(image)
    weight, bias = embedder.saliency_head.weight, embedder.saliency_head.bias
    torch.testing.assert_close(saliency, torch.nn.functional.conv2d(features, weight, bias)[:, 0])
    torch.testing.assert_close(embedding, embedder.raw(image))
    embedder.save(tmp_path)
    assert torch.equal(Embedder.load(tmp_path).saliency(image), embedder.saliency(image))


def test_the_foreground_of_one_image_is_on_the_grid_of_its_embedding() -> None:
    torch.manual_seed(0)
    embedder = Embedder(EmbedderConfig(output_stride=32, dim=8, resolution=64, saliency=True)).train()
    image = np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)
    foreground = embedder.foreground(image)
    assert foreground.shape == embedder.embed(image).shape[1:]
    assert 0 <= foreground.min() < foreground.max() <= 1
    assert embedder.training
    assert not foreground.requires_grad
    with pytest.raises(ConfigError, match="no saliency head"):
        Embedder(EmbedderConfig(output_stride=32, dim=8)).foreground(image)


def test_without_a_saliency_head_nothing_else_changes(tmp_path: Path) -> None:
    config = EmbedderConfig(output_stride=32, dim=8)
    plain, with_head = Embedder(config), Embedder(replace(config, saliency=True))
    assert with_head.state_dict().keys() - plain.state_dict().keys() == {"saliency_head.weight", "saliency_head.bias"}
    with pytest.raises(ConfigError, match="no saliency head"):
        plain.saliency(torch.rand(1, 3, 64, 64))
    plain.save(tmp_path)
    values = json.loads((tmp_path / "embedder.json").read_text())
    del values["saliency"]  # a file that was written before there was one
    (tmp_path / "embedder.json").write_text(json.dumps(values))
    assert Embedder.load(tmp_path).config == config


def test_deeplabv3_trains_on_a_batch_of_one() -> None:
    embedder = Embedder(EmbedderConfig(output_stride=8, decoder="deeplabv3", dim=8)).train()
    embedder.raw(torch.rand(1, 3, 64, 64)).square().sum().backward()
    gradients = [p.grad for p in embedder.decoder.parameters()]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)


def test_foreign_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no readable embedder"):
        Embedder.load(tmp_path)
    Embedder(EmbedderConfig(output_stride=32, dim=8)).save(tmp_path)
    values = json.loads((tmp_path / "embedder.json").read_text())
    (tmp_path / "embedder.json").write_text(json.dumps({**values, "dim": 9}))
    with pytest.raises(CheckpointError, match="don't fit"):
        Embedder.load(tmp_path)
    (tmp_path / "embedder.json").write_text(json.dumps({**values, "surprise": 1}))
    with pytest.raises(CheckpointError, match="not in format"):
        Embedder.load(tmp_path)


def test_embed_takes_arrays_pil_and_files_of_any_size(tmp_path: Path) -> None:
    embedder = Embedder(EmbedderConfig(output_stride=32, dim=8, resolution=64)).train()
    pixels = np.random.default_rng(0).integers(0, 256, (50, 71, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    from_array = embedder.embed(pixels)
    assert from_array.shape[0] == 8
    assert from_array.shape[1] == 16  # 64 px at stride 4
    assert torch.equal(from_array, embedder.embed(Image.fromarray(pixels)))
    assert torch.equal(from_array, embedder.embed(tmp_path / "a.png"))
    assert embedder.training
    with pytest.raises(ConfigError, match="uint8"):
        embedder.embed(pixels.astype(np.float32))


def test_impossible_networks_say_why() -> None:
    with pytest.raises(ConfigError, match="resnet18"):
        Embedder(EmbedderConfig(backbone="resnet181"))
    with pytest.raises(ConfigError, match="output_stride 8 or 16"):
        Embedder(EmbedderConfig(decoder="deeplabv3plus", output_stride=32))
    with pytest.raises(ConfigError, match="deeplabv3 needs output_stride 8 or 16"):
        Embedder(EmbedderConfig(decoder="deeplabv3", output_stride=32))
    with pytest.raises(ConfigError, match=r"needs stages of stride 4 .* vit_tiny_patch16_224 has 16, 16, 16"):
        Embedder(EmbedderConfig(backbone="vit_tiny_patch16_224", decoder="deeplabv3plus"))
    with pytest.raises(ConfigError, match="at least 32 px, not 5"):
        EmbedderConfig(resolution=5)


def test_a_layer_can_be_trained_on_what_embed_returns() -> None:
    embedder = Embedder(EmbedderConfig(output_stride=32, dim=8, resolution=32))
    embedding = embedder.embed(np.zeros((40, 40, 3), np.uint8))
    layer = torch.nn.Conv2d(8, 2, 1)
    layer(embedding[None]).sum().backward()
    assert layer.weight.grad is not None


def test_an_aligned_embedder_is_the_plain_one_on_moved_stages() -> None:
    torch.manual_seed(0)
    plain = Embedder(EmbedderConfig(dim=6, output_stride=16, decoder="linear")).eval()
    aligned = Embedder(replace(plain.config, aligned=True)).eval()
    aligned.load_state_dict(plain.state_dict())
    # The linear decoder commutes with the move: 7.5 of 16 px.
    image = torch.rand(1, 3, 64, 96)
    torch.testing.assert_close(aligned.raw(image), move_cells(plain.raw(image), 7.5 / 16), atol=1e-5, rtol=1e-4)
    patches = EmbedderConfig(backbone="convnext_atto", dim=6, output_stride=32)
    assert Embedder(replace(patches, aligned=True)).shifts == [0.0] * 4


def test_cells_move_both_ways() -> None:
    cells = torch.arange(12.0).view(1, 1, 3, 4)
    forward = torch.tensor([[5.0, 6, 7, 7], [9, 10, 11, 11], [9, 10, 11, 11]])
    back = torch.tensor([[0.0, 0, 1, 2], [0, 0, 1, 2], [4, 4, 5, 6]])
    torch.testing.assert_close(move_cells(cells, 1.0)[0, 0], forward)
    torch.testing.assert_close(move_cells(cells, -1.0)[0, 0], back)
    torch.testing.assert_close(move_cells(cells, 0.25)[0, 0, 1, 1], torch.tensor(5 + 0.25 * 5))


def test_looks_are_averaged_by_hand() -> None:
    torch.manual_seed(0)
    embedder = Embedder(EmbedderConfig(backbone="resnet10t", output_stride=32, decoder="linear", dim=6)).eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        once = embedder.look(image)
        assert torch.equal(once, embedder(image))
        embedder.looks = Looks((1.0, 2.0), flip=True)
        found = embedder.look(image)
        large = F.interpolate(image, (128, 192), mode="bilinear", align_corners=False, antialias=True)
        total = embedder(large) + embedder(large.flip(3)).flip(3)
        for small in (once, embedder(image.flip(3)).flip(3)):
            total = total + F.interpolate(small, total.shape[2:], mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, F.normalize(total, dim=1))
    mirrored = embedder.look(image.flip(3)).flip(3)
    torch.testing.assert_close(mirrored, found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scales", [(), (0.0,), (9.0,)])
def test_looks_that_can_not_be(scales: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="multiples of an image's size"):
        Looks(scales)


@pytest.mark.parametrize("size", [(64, 96), (75, 53), (9, 40)])
def test_with_a_border_edges_look_like_any_other_place(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    config = EmbedderConfig(backbone="tf_efficientnet_lite0", output_stride=32, decoder="fpn", dim=6, aligned=True)
    plain = Embedder(config).eval()
    plain.begin_from("default")
    bordered = Embedder(replace(config, border=64)).eval()
    bordered.load_state_dict(plain.state_dict())
    image = torch.full((1, 3, *size), 0.3)
    with torch.no_grad():
        before, after = plain(image), bordered(image)
    assert after.shape == before.shape
    assert after.std((2, 3)).max() < before.std((2, 3)).max() / 3


def test_a_border_is_a_multiple_of_the_largest_stride() -> None:
    with pytest.raises(ConfigError, match="multiple of the largest stride, 32 px, not 40"):
        Embedder(EmbedderConfig(output_stride=32, dim=4, border=40))


def test_smoothing_is_of_what_is_embedded_and_not_of_the_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = Embedder(EmbedderConfig("test_resnet", decoder="linear", dim=8, resolution=64, output_stride=32)).eval()
    config = replace(plain.config, smooth=5.0)
    smoothed = Embedder(config)
    smoothed.load_state_dict(plain.state_dict())
    image = np.random.default_rng(0).integers(0, 255, (64, 90, 3), np.uint8)
    found = smoothed.embed(image)
    assert found.shape == (8, 16, 23)
    assert smoothed.looked_stride == 4
    torch.testing.assert_close(found.norm(dim=0), torch.ones(16, 23))
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    torch.testing.assert_close(smoothed.eval()(pixels), plain(pixels))
    smoothed.save(tmp_path)
    torch.testing.assert_close(Embedder.load(tmp_path).embed(image), found)
    with pytest.raises(ConfigError, match="smooth can't be negative"):
        replace(config, smooth=-1.0)


def test_before_training_a_frozen_pyramid_had_no_correction() -> None:
    torch.manual_seed(0)
    config = EmbedderConfig(
        backbone="test_resnet", output_stride=32, decoder="pyramid", correction=8, frozen=True, dim=8
    )
    embedder, image = Embedder(config).eval(), torch.rand(1, 3, 64, 64)
    start = embedder(image)  # the correction begins at zero
    with torch.no_grad():
        embedder.decoder.correction[-1].weight.normal_()
    learned = embedder(image)
    before = embedder.before_training()
    assert before is not None
    assert torch.equal(before(image), start)
    assert torch.equal(embedder(image), learned)
    assert not torch.allclose(learned, start, atol=0.01)
    for changes in ({"frozen": False}, {"centred": True}, {"correction": 0}, {"decoder": "fpn"}):
        assert Embedder(replace(config, **changes)).before_training() is None, changes


@pytest.mark.parametrize("stages", [1, 2])
def test_frozen_stages_stay_as_they_are_and_the_others_learn(stages: int) -> None:
    torch.manual_seed(0)
    embedder = Embedder(EmbedderConfig(output_stride=32, dim=4, frozen_stages=stages)).train()
    before = {name: value.clone() for name, value in embedder.backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in embedder.parameters() if p.requires_grad], lr=1.0)
    embedder.raw(torch.rand(2, 3, 64, 64)).square().mean().backward()
    optimizer.step()
    held = ("conv1", "bn1", *(f"layer{stage}" for stage in range(1, stages + 1)))
    for name, value in embedder.backbone.state_dict().items():  # BatchNorms' statistics too
        if name.split(".")[0] in held:
            assert torch.equal(value, before[name]), name
        elif name.endswith(("running_mean", "downsample.0.weight")):
            assert not torch.equal(value, before[name]), name


def test_stages_that_a_backbone_does_not_have_can_not_be_frozen() -> None:
    with pytest.raises(ConfigError, match="only 4 stages of the backbone are known, so 5 can't be frozen"):
        Embedder(EmbedderConfig(output_stride=32, dim=4, frozen_stages=5))
    with pytest.raises(ConfigError, match=r"frozen_stages must be 0 \(none\) or more, not -1"):
        EmbedderConfig(frozen_stages=-1)
