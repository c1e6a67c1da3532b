import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from selfseg.cli import main
from selfseg.errors import CheckpointError, ConfigError, NonFiniteLoss, RecipeMismatch, RunError
from selfseg.evaluation.measure.results import read_results
from selfseg.evaluation.protocols.segmentation import random_crop, segmentation_loss
from selfseg.evaluation.protocols.transfer import (
    FCN,
    PRESETS,
    TransferConfig,
    ade20k,
    cityscapes,
    transfer,
    voc12aug,
)
from selfseg.evaluation.sources import open_source
from selfseg.fitting import supervised as finetuning
from selfseg.fitting.supervised import rate_at
from selfseg.models.backbones import make_backbone
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.storage.files import mark_output, sole_use

COLOURS = np.array([[40, 60, 40], [220, 60, 50], [60, 90, 230]], np.uint8)
SIDE = 64
TINY = TransferConfig(
    backbone="test_resnet",
    steps=4,
    batch_size=2,
    lr=0.01,
    crop=48,
    short_side=None,
    scale=(0.8, 1.25),
    output_stride=16,
    head_channels=16,
    head_dilation=1,
)
QUIET = {"device": "cpu", "workers": 0, "progress": False}


def draw(root: Path, images: int = 12) -> Path:
    """Shapes of two colours on a third: squares are class 1, discs class 2; a frame of void."""
    (root).mkdir()
    (root / "classes.txt").write_text("ground\nsquare\ndisc\n")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (root / split / kind).mkdir(parents=True)
        for index in range(images):
            label = np.zeros((SIDE, SIDE), np.uint8)
            x, y = rng.integers(2, 22, 2)
            label[y : y + 24, x : x + 24] = 1
            cv2.circle(label, tuple(int(v) for v in rng.integers(36, 50, 2)), 13, 2, -1)
            image = COLOURS[label].astype(int) + rng.integers(-15, 16, (SIDE, SIDE, 3))
            label[[0, -1]] = 255
            cv2.imwrite(str(root / split / "images" / f"{index}.png"), np.clip(image, 0, 255).astype(np.uint8))
            cv2.imwrite(str(root / split / "labels" / f"{index}.png"), label)
    return root


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("transfer") / "shapes")


@pytest.mark.slow
def test_it_learns_and_tells_so(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = replace(TINY, steps=60, batch_size=4, lr=0.05, crop=40, output_stride=8)
    result = transfer("random", shapes, config, out, **QUIET)
    losses = [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.5 * losses[0]
    # Everything the ground: an IoU of about .75 for it and 0 for two more.
    assert result.metrics["miou"] > 0.5
    assert (result.protocol, result.what, result.class_names) == ("transfer", "random", ("ground", "square", "disc"))
    assert result.counts["images"] == 12
    assert result.counts["void"] == 12 * 2 * SIDE
    assert sum(map(sum, result.confusion)) == result.counts["pixels"] == 12 * SIDE * (SIDE - 2)
    assert result.options["steps"] == 60
    assert result.options["lr"] == 0.05
    assert read_results(out)[0].metrics == result.metrics
    weights = load_file(out / "weights.safetensors")
    model = FCN(make_backbone("test_resnet", 8), 3, TINY.head_channels, TINY.head_dilation)
    model.load_state_dict(weights)


@pytest.mark.slow
def test_stopped_and_resumed_is_straight(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = transfer("random", shapes, TINY, tmp_path / "straight", **QUIET)
    real, seen = finetuning.save_checkpoint, []

    def killed(folder: Path, step: int, *rest: object) -> Path:
        path = real(folder, step, *rest)  # type: ignore[arg-type]
        seen.append(step)
        if step == 2:
            raise KeyboardInterrupt
        return path

    monkeypatch.setattr(finetuning, "save_checkpoint", killed)
    out = tmp_path / "resumed"
    with pytest.raises(KeyboardInterrupt):
        transfer("random", shapes, TINY, out, checkpoint_every=2, **QUIET)
    assert not (out / "results").exists()
    resumed = transfer("random", shapes, TINY, out, checkpoint_every=2, **QUIET)
    assert seen == [2, 4]
    first, second = (load_file(folder / "weights.safetensors") for folder in (tmp_path / "straight", out))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert resumed == straight
    # Once more: nothing is trained, the answer is the same.
    assert transfer("random", shapes, TINY, out, **QUIET) == straight
    assert seen == [2, 4]
    with pytest.raises(RecipeMismatch, match=r"lr: 0.01 -> 0.02"):
        transfer("random", shapes, replace(TINY, lr=0.02), out, **QUIET)


def test_a_folder_of_something_else_is_left_alone(shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(RunError, match="no transfer"):
        transfer("random", shapes, TINY, tmp_path, **QUIET)


@pytest.mark.slow
def test_a_folder_in_use_is_refused(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    mark_output(out)
    with sole_use(out), pytest.raises(RunError, match="another process is at work on"):
        transfer("random", shapes, TINY, out, **QUIET)
    assert not (out / "checkpoints").exists()
    assert not (out / "transfer.json").exists()  # or the call at work would go on under these settings
    transfer("random", shapes, TINY, out, **QUIET)


def test_a_source_or_an_option_that_can_not_work_leaves_nothing(shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    with pytest.raises(RunError, match="empty is not a run"):
        transfer(tmp_path / "empty", shapes, TINY, out, **QUIET)
    with pytest.raises(ConfigError, match="checkpoint_every >= 1"):
        transfer("random", shapes, TINY, out, checkpoint_every=0, **QUIET)
    with pytest.raises(ConfigError, match="workers >= 0, not 1000 and -1"):
        transfer("random", shapes, TINY, out, **{**QUIET, "workers": -1})
    assert not out.exists()


def test_a_loss_that_is_no_number_stops_before_the_weights(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, before = torch.nn.Linear(2, 1), {}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(NonFiniteLoss, match="iteration 1 is nan"):
        finetuning.fine_tune(
            model,
            TINY,
            lambda network, batch: network(batch).sum() * float("nan"),
            lambda step: iter([torch.ones(1, 2)]),
            tmp_path,
            progress=False,
        )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_every_source_gives_its_backbone(shapes: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    embedder = Embedder(EmbedderConfig(backbone="resnet18", output_stride=8, dim=8))
    embedder.save(tmp_path / "run" / "embedder")
    wanted = embedder.backbone.state_dict()
    save_file({f"module.encoder_q.{k}": v for k, v in wanted.items()}, tmp_path / "moco.safetensors")
    config = replace(TINY, backbone="resnet50")
    for source, what in ((embedder, "embedder"), (tmp_path / "run", "embedder")):
        start, effective = open_source(source, config, 16)
        assert (effective.backbone, start.what) == ("resnet18", what)
        assert all(torch.equal(value, wanted[name]) for name, value in start.backbone.state_dict().items())
    config = replace(TINY, backbone="resnet18")
    start, _ = open_source(tmp_path / "moco.safetensors", config, 16)
    assert start.what == "moco.safetensors"
    assert all(torch.equal(value, wanted[name]) for name, value in start.backbone.state_dict().items())
    assert open_source("random", config, 16)[0].weights == open_source("random", config, 32)[0].weights != start.weights
    with pytest.raises(CheckpointError, match="give a run, a file of weights, default, imagenet or random"):
        open_source(tmp_path / "nowhere.pth", TINY, 16)


def test_the_papers_network(shapes: Path) -> None:
    config = voc12aug()
    start, _ = open_source("random", replace(TINY, backbone="resnet50"), config.output_stride)
    model = FCN(start.backbone, 21, config.head_channels, config.head_dilation).eval()
    with torch.no_grad():
        assert model(torch.rand(1, 3, 65, 97)).shape == (1, 21, 5, 7)
    last = [module for name, module in model.backbone.named_modules() if name.startswith("layer4")]
    convolutions = [m for m in last if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)]
    assert [m.stride for m in convolutions] == [(1, 1)] * 3
    assert [m.dilation for m in convolutions] == [(1, 1), (2, 2), (2, 2)]
    head = [m for m in model.head if isinstance(m, torch.nn.Conv2d)]
    assert [(m.out_channels, m.kernel_size, m.dilation) for m in head] == [(256, (3, 3), (6, 6))] * 2


def test_the_papers_schedules() -> None:
    assert {name for name in PRESETS} == {"voc12aug", "cityscapes", "ade20k", "coco-1x", "coco-2x"}
    voc, streets, ade, coco = voc12aug(), cityscapes(), ade20k(), PRESETS["coco-1x"]()
    assert [rate_at(voc, step) for step in (0, 20_999)] == [0.003, 0.003]
    assert [rate_at(voc, step) for step in (21_000, 26_999)] == pytest.approx([3e-4, 3e-4])
    assert rate_at(voc, 27_000) == pytest.approx(3e-5)
    assert (streets.steps, streets.crop, rate_at(streets, 63_000)) == (90_000, 769, pytest.approx(0.001))
    assert rate_at(ade, 0) == pytest.approx(0.01)
    assert rate_at(ade, 40_000) == pytest.approx(0.0099 * 0.5**0.9 + 1e-4)
    assert [rate_at(coco, step) for step in (0, 500, 1000, 59_999)] == pytest.approx([2e-5, 0.01001, 0.02, 0.02])
    assert [rate_at(coco, step) for step in (60_000, 79_999, 80_000)] == pytest.approx([2e-3, 2e-3, 2e-4])
    assert PRESETS["coco-2x"]().steps == 180_000
    for preset in PRESETS.values():
        assert "Paper: " in (preset.__doc__ or "")


def test_the_standard_schedule_of_ade20k() -> None:
    """MMSegmentation's FCN at stride 8: what its configuration holds beside the schedule."""
    config = ade20k()
    assert (config.head_concat, config.dropout, config.auxiliary) == (True, 0.1, 0.4)
    assert (config.one_class, config.distort) == (0.75, True)
    for preset in (voc12aug(), cityscapes()):
        assert (preset.auxiliary, preset.distort, preset.one_class, preset.dropout) == (0.0, False, 1.0, 0.0)
    model = FCN(make_backbone("test_resnet", 8), 5, 16, 1, concat=True, dropout=0.1, auxiliary=0.4)
    assert model.join is not None
    assert model.auxiliary is not None
    assert model.join[0].weight.shape == (16, 96 + 16, 3, 3)
    assert model.auxiliary.head[0].weight.shape == (256, 192, 3, 3)  # on the third stage
    assert model.auxiliary.classifier.weight.shape == (5, 256, 1, 1)


def test_the_auxiliary_head_has_its_share_of_the_loss() -> None:
    torch.manual_seed(0)
    model = FCN(make_backbone("test_resnet", 16), 3, 8, 1, auxiliary=0.4).eval()
    image = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)
    label = torch.randint(0, 3, (2, 32, 48), dtype=torch.uint8)
    label[0, :4] = 255
    loss = segmentation_loss(model, (image, label))
    loss.backward()
    stages = model.backbone((image.float() / 255 - model.mean) / model.std)
    expected = torch.zeros(())
    assert model.auxiliary is not None
    for weight, logits in (
        (1.0, model.classifier(model.head(stages[4]))),
        (0.4, model.auxiliary.classifier(model.auxiliary.head(stages[3]))),
    ):
        large = torch.nn.functional.interpolate(logits, (32, 48), mode="bilinear", align_corners=False)
        chosen = [
            -large[b].log_softmax(0)[int(label[b, y, x]), y, x]
            for b in range(2) for y in range(32) for x in range(48) if label[b, y, x] != 255
        ]  # fmt: skip
        expected = expected + weight * torch.stack(chosen).mean()
    torch.testing.assert_close(loss, expected)
    assert model.auxiliary.classifier.weight.grad is not None
    with torch.no_grad():
        torch.testing.assert_close(model(image.float() / 255), model.training_logits(image.float() / 255)[0][1])


def test_a_crop_of_almost_one_class_is_drawn_again() -> None:
    label = np.zeros((64, 64), np.uint8)
    label[:, 56:] = 1
    image = np.zeros((64, 64, 3), np.uint8)
    config = replace(TINY, crop=32, scale=(1.0, 1.0))

    def shares(config: TransferConfig) -> list[float]:
        crops = [random_crop(image, label, config, np.random.default_rng(seed))[1] for seed in range(60)]
        return [float((crop == 0).mean()) for crop in crops]

    # A third of the crops hold any of the second class, and half of those enough of it.
    assert sum(share < 0.9 for share in shares(config)) < 15
    assert sum(share < 0.9 for share in shares(replace(config, one_class=0.9))) > 45
    # Nothing else can be drawn: the last one is taken.
    assert random_crop(image, label * 0, replace(config, one_class=0.5), np.random.default_rng(0))[1].max() == 0


def test_colours_are_distorted_and_labels_are_not() -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (64, 64, 3), np.uint8)
    label = rng.integers(0, 3, (64, 64), np.uint8)
    config = replace(TINY, scale=(1.0, 1.0))
    plain = random_crop(image, label, config, np.random.default_rng(3))
    changed = random_crop(image, label, replace(config, distort=True), np.random.default_rng(3))
    assert np.array_equal(plain[1], changed[1])
    assert not np.array_equal(plain[0], changed[0])


@pytest.mark.slow
def test_a_folder_of_before_the_new_settings_goes_on(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = transfer("random", shapes, replace(TINY, steps=1), out, **QUIET)
    record = json.loads((out / "transfer.json").read_text())
    for name in ("one_class", "distort", "head_concat", "dropout", "auxiliary"):
        del record[name]
    (out / "transfer.json").write_text(json.dumps(record))
    assert transfer("random", shapes, replace(TINY, steps=1), out, **QUIET) == first
    for name in ("one_class", "distort"):
        record.pop(name, None)
    (out / "transfer.json").write_text(json.dumps(record))
    with pytest.raises(RecipeMismatch, match=r"auxiliary: None -> 0\.4"):
        transfer("random", shapes, replace(TINY, steps=1, auxiliary=0.4), out, **QUIET)


def test_bf16_trains(shapes: Path, tmp_path: Path) -> None:
    result = transfer("random", shapes, replace(TINY, steps=2, precision="bf16-mixed"), tmp_path / "out", **QUIET)
    assert 0 <= result.metrics["miou"] <= 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"lr": 0.0}, "lr > 0"),
        ({"final_lr": 1.0}, r"final_lr in \[0, lr\]"),
        ({"momentum": 1.0}, "momentum"),
        ({"milestones": (0.7, 1.5)}, "milestones"),
        ({"warmup": -1}, "warmup"),
        ({"split": "train"}, "can't be measured on it"),
        ({"crop": 0}, "crop must be at least 1, not 0"),
        ({"scale": (2.0, 0.5)}, "scale must be a range"),
        ({"short_side": 0}, "short_side"),
        ({"one_class": 0.0}, "one_class is a share"),
        ({"dropout": 1.0}, "dropout in"),
        ({"auxiliary": -0.1}, "auxiliary >= 0"),
    ],
)
def test_settings_that_can_not_work_say_so(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        replace(TINY, **change)  # type: ignore[arg-type]


def test_the_command(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = f"transfer voc12aug random {shapes} --out {out} --backbone test_resnet --steps 1 --batch-size 2 --crop 40"
    words += " --short-side 64 --head-channels 8 --workers 0 --device cpu"
    assert main(words.split()) == 0
    assert "random on shapes val: miou 0." in " ".join(capsys.readouterr().out.split())
    assert json.loads((out / "transfer.json").read_text())["steps"] == 1
    assert main(["transfer", "--help"]) == 0
    assert "ade20k" in capsys.readouterr().out
    assert main(["transfer", "voc", "run", "data", "--out", str(out)]) == 2
    assert "there is no preset 'voc'; the presets are voc12aug" in " ".join(capsys.readouterr().err.split())
    assert main(["transfer", "coco-1x", "--help-all"]) == 0
    assert "--short-sides" in capsys.readouterr().out
