"""`selfseg masks --method network` and its like, from the command to the masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from masks.balls import TINY, draw_balls
from selfseg.cli import main
from selfseg.data.labelled.mask_files import MaskFolder
from selfseg.data.reading.listing import list_images
from selfseg.errors import CheckpointError, ConfigError, Interrupted
from selfseg.fitting import supervised as finetuning
from selfseg.masks import sources
from selfseg.masks.mining import mine_masks
from selfseg.masks.networks import vit
from selfseg.masks.networks.learning import NetworkConfig
from selfseg.masks.sources import Training, check_training, describe

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = (
    "--network.backbone test_resnet --network.size 48 --network.width 8 --network.batch-size 4 "
    "--network.lr 5e-3 --network.priors mbd --network.rounds 1 --network.round-steps 30 --network.steps 30 "
    "--network.boundary-steps 40 --network.precision 32-true --device cpu"
).split()


def overlap(found: Path, truth: Path, images: Path) -> float:
    """Mean IoU of two folders of masks."""
    values = []
    for name, path in zip(list_images(images).names, list_images(images).paths, strict=True):
        size = np.array(Image.open(path)).shape[:2]
        a, b = (MaskFolder(folder).get(name, *size) >= 0 for folder in (found, truth))
        values.append((a & b).sum() / (a | b).sum())
    return float(np.mean(values))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return draw_balls(tmp_path / "photos", range(8))


@pytest.mark.slow
def test_one_command_mines_masks_by_a_network_and_the_next_one_reuses_it(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "masks"
    words = ["masks", str(photos), "--out", str(out), *WORDS]
    assert main([*words, "--method", "network"]) == 0
    assert "masks.html" in capsys.readouterr().out
    assert overlap(out, tmp_path / "photos-masks", photos) > 0.7
    note = json.loads((out / "masks.json").read_text())
    assert note["how"]["method"] == "network"
    assert note["how"]["network"]["round_steps"] == 30
    (work,) = (out / "networks").iterdir()
    assert not (work / "squares").exists()
    first = (work / "fused" / "weights.safetensors").stat().st_mtime_ns

    draw_balls(tmp_path / "more", range(20, 22), size=(90, 70))  # other sizes too
    for path in (tmp_path / "more").iterdir():
        path.rename(photos / path.name)
    for path in (tmp_path / "more-masks").iterdir():
        path.rename(tmp_path / "photos-masks" / path.name)
    assert main([*words, "--method", "network"]) == 0  # two new images, no training
    assert (work / "fused" / "weights.safetensors").stat().st_mtime_ns == first
    assert len(list((out / "index").iterdir())) == 10
    assert main([*words, "--method", "bootstrapped"]) == 0  # goes on from the first network
    assert (work / "fused" / "weights.safetensors").stat().st_mtime_ns == first
    assert (work / "boundary" / "weights.safetensors").is_file()
    assert overlap(out, tmp_path / "photos-masks", photos) > 0.7
    assert "networks" not in " ".join(list_images(tmp_path).names)  # our folders are no images


@pytest.mark.slow
def test_a_stopped_command_goes_on(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise Interrupted("stopped by a signal")

    training = Training(TINY, device="cpu")
    straight = mine_masks(photos, tmp_path / "straight", "network", training=training, progress=False).parent
    with monkeypatch.context() as patched:
        patched.setattr(sources, "predict", stopped)  # after the training, before the first mask
        with pytest.raises(Interrupted):
            mine_masks(photos, tmp_path / "broken", "network", training=training, progress=False)
    assert not (tmp_path / "broken" / "index").exists()
    with monkeypatch.context() as patched:
        patched.setattr(finetuning, "save_checkpoint", stopped)  # nothing is trained any more
        broken = mine_masks(photos, tmp_path / "broken", "network", training=training, progress=False).parent
    for path in sorted((straight / "soft").iterdir()):
        np.testing.assert_array_equal(np.array(Image.open(path)), np.array(Image.open(broken / "soft" / path.name)))


@pytest.mark.slow
def test_mined_on_one_set_and_applied_to_another(photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    draw_balls(target, range(50, 52), size=(64, 64))
    training = Training(TINY, images=photos, device="cpu")
    mine_masks(target, tmp_path / "out", "network", training=training, progress=False)
    assert overlap(tmp_path / "out", tmp_path / "target-masks", target) > 0.7
    (work,) = (tmp_path / "out" / "networks").iterdir()
    assert len(json.loads((work / "images.json").read_text())) == 8
    assert json.loads((work / "settings.json").read_text())["train_images"] == str(photos)


@pytest.mark.slow
def test_supervised_learns_from_the_images_that_have_masks(photos: Path, tmp_path: Path) -> None:
    masks = tmp_path / "photos-masks"
    for path in sorted(masks.iterdir())[5:]:
        path.unlink()
    Image.new("L", (80, 60)).save(masks / "0.png")  # an empty one
    training = Training(TINY, masks=masks, device="cpu")
    mine_masks(photos, tmp_path / "out", "supervised", training=training, progress=False)
    (work,) = (tmp_path / "out" / "networks").iterdir()
    assert list(json.loads((work / "images.json").read_text())) == ["1", "2", "3", "4"]
    draw_balls(tmp_path / "fresh", range(30, 33))
    for path in (tmp_path / "fresh").iterdir():
        path.rename(photos / path.name)
    mine_masks(photos, tmp_path / "out", "supervised", training=training, progress=False)
    found = MaskFolder(tmp_path / "out").get("31", 60, 80) >= 0
    truth = MaskFolder(tmp_path / "fresh-masks").get("31", 60, 80) >= 0
    assert (found & truth).sum() / (found | truth).sum() > 0.7


@pytest.mark.parametrize("method", ["attention", "tokencut"])
def test_a_transformer_as_a_source(
    photos: Path, tmp_path: Path, method: vit.Foreground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vit, "SHORT_SIDE", 64)
    torch.manual_seed(0)
    weights = tmp_path / "vit.safetensors"
    save_file(timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0).state_dict(), weights)
    training = Training(NetworkConfig(backbone="vit_tiny_patch16_224", init=weights), device="cpu")
    mine_masks(photos, tmp_path / "out", method, training=training, progress=False)
    note = json.loads((tmp_path / "out" / "masks.json").read_text())
    assert note["how"]["network"]["backbone"] == "vit_tiny_patch16_224"
    assert set(note["how"]["network"]) == {"backbone", "init"}
    assert note["kept"] + note["rejected"] == 8


@pytest.mark.parametrize(
    ("method", "training", "message"),
    [
        ("mean", Training(images=Path("x")), "leave --train-images out"),
        ("network", Training(masks=Path("x")), "leave --train-masks out"),
        ("supervised", Training(), "give their folder with --train-masks"),
        ("tokencut", Training(), r"--network\.init"),
        ("network", Training(device="abacus"), "abacus"),
    ],
)
def test_options_that_do_not_fit(method: str, training: Training, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_training(method, training)


def test_nothing_is_written_for_options_that_can_not_work(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match=r"no saliency prior 'magic'.*bootstrapped"):
        mine_masks(photos, out, "magic")  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="can't read the weights"):
        mine_masks(photos, out, "network", training=Training(NetworkConfig(init=tmp_path / "none.pth")))
    assert not out.exists()


def test_other_weights_are_other_settings(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"one")
    before = describe("network", Training(NetworkConfig(init=path)))
    path.write_bytes(b"two")
    assert describe("network", Training(NetworkConfig(init=path))) != before
    assert json.loads(json.dumps(before)) == before
