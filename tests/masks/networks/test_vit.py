from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from selfseg.errors import CheckpointError, ConfigError
from selfseg.masks.networks import vit
from selfseg.masks.networks.vit import TransformerForeground, attention_map, normalised_cut

NAME = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights in DINO's naming."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vit") / "dino.safetensors"
    state = timm.create_model(NAME, pretrained=False, num_classes=0).state_dict()
    save_file({f"backbone.{key}": value for key, value in state.items()}, path)
    return path


def two_kinds(size: int, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Keys of a grid of 12 x 12 patches with a square of another kind, and where it is."""
    random = np.random.default_rng(0)
    inside = np.zeros((12, 12), bool)
    inside[3 : 3 + size, 4 : 4 + size] = True
    kinds = random.normal(size=(2, 64))
    return kinds[inside.ravel().astype(int)] + noise * random.normal(size=(144, 64)), inside.ravel()


@pytest.mark.parametrize("size", [3, 5])
def test_the_cut_parts_the_kinds_and_the_smaller_is_the_object(size: int) -> None:
    keys, inside = two_kinds(size)
    found = normalised_cut(keys)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() == pytest.approx(1)
    assert ((found > 0.5) == inside).all()


def test_the_cut_solves_the_papers_equation() -> None:
    keys, _ = two_kinds(4, noise=1.0)
    unit = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    weights = np.where(unit @ unit.T > 0.2, 1.0, 1e-5)
    degrees = np.diag(weights.sum(1))
    values, vectors = np.linalg.eig(np.linalg.inv(degrees) @ (degrees - weights))
    vector = np.real(vectors[:, np.argsort(np.real(values))[1]])
    vector *= np.sign(vector[np.abs(vector).argmax()])
    found = normalised_cut(keys)
    assert ((found > 0.5) == (vector > vector.mean())).all()
    assert np.corrcoef(found, vector)[0, 1] > 0.99


def test_nothing_to_part_is_nothing() -> None:
    assert not normalised_cut(np.ones((1, 4))).any()
    assert attention_map(np.zeros(3)).shape == (3,)


def test_attention_half_is_60_percent_of_the_mass() -> None:
    attention = np.random.default_rng(1).random(100) ** 4
    found = attention_map(attention)
    above = found > 0.5
    assert attention[above].sum() / attention.sum() >= 0.6
    smallest = attention[above].min()
    assert (attention[above].sum() - smallest) / attention.sum() < 0.6  # no more than needed
    assert (np.argsort(-found, kind="stable") == np.argsort(-attention, kind="stable")).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["attention", "tokencut"])
def test_maps_of_images_of_any_size(weights: Path, kind: vit.Foreground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vit, "SHORT_SIDE", 64)
    find = TransformerForeground(NAME, weights, kind)
    random = np.random.default_rng(0)
    for size in ((50, 90), (100, 70)):
        image = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        found = find(image)
        assert found.shape == size
        assert found.dtype == np.float32
        assert found.min() >= 0
        assert found.max() <= 1
        np.testing.assert_array_equal(found, find(image))


def test_queries_and_keys_give_the_blocks_own_attention(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights from the hook, on the block's values, are what the block computes."""
    monkeypatch.setattr(vit, "SHORT_SIDE", 64)
    find = TransformerForeground(NAME, weights, "attention")
    inputs, outputs = [], []
    attention = find.network.blocks[-1].attn

    def keep(_module: torch.nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        inputs.append(given[0])
        outputs.append(output)

    attention.register_forward_hook(keep)
    image = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    queries, keys, grid = find._last_block(image)
    assert grid == (4, 5)
    assert keys.shape == (3, 21, 64)
    with torch.no_grad():
        values = attention.qkv(inputs[0])[0].unflatten(-1, (3, 3, 64))[:, 2].transpose(0, 1)
        mixed = (queries @ keys.transpose(1, 2) / 8).softmax(-1) @ values  # (M, N, D)
        expected = attention.proj(mixed.transpose(0, 1).flatten(1))
    torch.testing.assert_close(outputs[0][0], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_what_is_no_transformer_or_another_one_is_refused(weights: Path) -> None:
    with pytest.raises(ConfigError, match="CLS token"):
        TransformerForeground("vit_base_patch16_siglip_224", weights, "attention")
    with pytest.raises(ConfigError, match="resnet18"):
        TransformerForeground("resnet18", weights, "attention")
    with pytest.raises(CheckpointError, match="does not hold"):
        TransformerForeground("vit_small_patch16_224", weights, "attention")
