import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from selfseg.cli import main
from selfseg.collection.reporting.report import report
from selfseg.data.labelled.catalog import open_labelled
from selfseg.drawing.result_charts import compare_results, few_label_curves
from selfseg.errors import CheckpointError, ConfigError, RecipeMismatch, RunError
from selfseg.evaluation.measure.results import read_results
from selfseg.evaluation.protocols import few_labels as fewlabels
from selfseg.evaluation.protocols.contenders import FineTunedEmbedder, contenders
from selfseg.evaluation.protocols.few_labels import FewLabelsConfig, finetune, subset_order, subset_size
from selfseg.exporting.export import export
from selfseg.fitting import supervised as finetuning
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.segmenter.segmenter import Segmenter, load_segmenter
from selfseg.storage import checkpoint

SMALL = EmbedderConfig(backbone="test_resnet", output_stride=32, dim=8, resolution=64)
TINY = FewLabelsConfig(steps=2, batch_size=2, crop=48)
QUIET = {"device": "cpu", "workers": 0, "progress": False}


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(checkpoint, "_sync", lambda path: None)


@pytest.fixture
def run(tmp_path):
    torch.manual_seed(5)
    Embedder(replace(SMALL, centred=True, saliency=True)).save(tmp_path / "run" / "embedder")
    return tmp_path / "run"


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_split_is_nested_and_of_its_own():
    orders = [subset_order(40, 0, split) for split in range(3)]
    assert all(sorted(order) == list(range(40)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert subset_order(40, 0, 1) == orders[1] != subset_order(40, 1, 1)
    assert [subset_size(40, labels) for labels in (0.1, 1, 3.75, 50, 100)] == [1, 1, 2, 20, 40]


@pytest.mark.slow
def test_the_curve(run, labelled, monkeypatch):
    seen = {}
    real = fewlabels.train_segmenter

    def watched(model, fit, config, out, **settings):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        real(model, fit, config, out, **settings)
        seen[out.name] = (fit.images.names, config, settings["groups"][1]["scale"], before)

    monkeypatch.setattr(fewlabels, "train_segmenter", watched)
    results = finetune(run, labelled, labels=[50, 0.1], splits=2, config=TINY, **QUIET)
    assert [(r.what, r.labels) for r in results] == [
        ("embedder", 0.1), ("random", 0.1), ("embedder", 50), ("random", 50),
        ("most frequent class", None),
    ]  # fmt: skip
    assert len(seen) == 8
    for split in range(2):
        few, half = (seen[f"embedder-{share}-split{split}"][0] for share in ("0.1", "50"))
        assert (len(few), len(half)) == (1, 3)
        assert half[:1] == few
        listed = (run / "finetune" / "labelled" / "splits" / f"split{split}.txt").read_text().split()
        assert len(set(listed)) == 6
        assert tuple(listed[:3]) == half
        for share in ("0.1", "50"):
            mine, theirs = seen[f"embedder-{share}-split{split}"], seen[f"random-{share}-split{split}"]
            assert mine[0] == theirs[0]
            assert mine[1].seed == theirs[1].seed == split
            assert torch.equal(mine[3]["classifier.weight"], theirs[3]["classifier.weight"])
            assert (theirs[1].lr, theirs[2]) == (0.004, 1.0)
            assert (mine[1].lr, mine[2]) == ((0.001, pytest.approx(100)) if share == "0.1" else (0.004, 1.0))
    assert seen["embedder-50-split0"][0] != seen["embedder-50-split1"][0]
    held = Embedder.load(run / "embedder").backbone.state_dict()
    start = {split: seen[f"random-50-split{split}"][3] for split in range(2)}
    assert same(held, {k.removeprefix("embedder.backbone."): v for k, v in seen["embedder-50-split1"][3].items()})
    assert not torch.equal(start[0]["embedder.backbone.conv1.0.weight"], start[1]["embedder.backbone.conv1.0.weight"])

    for result in results[:-1]:
        assert (result.protocol, result.seeds, result.fit_split) == ("finetune", (0, 1), "train")
        each = result.options["miou_of_splits"]
        assert result.metrics["miou"] == pytest.approx(np.mean(each))
        assert result.metrics["miou_std"] == pytest.approx(np.std(each, ddof=1))
        assert result.counts["fit_images"] == subset_size(6, result.labels)
        assert sum(map(sum, result.confusion)) == result.counts["pixels"]
    assert results[0].options["lr"] == 0.001
    assert results[0].options["last_layer_lr"] == 0.1
    assert {r.to_dict()["labels"] for r in read_results(run)} == {0.1, 50, None}
    plain = [json.dumps(r.to_dict(), sort_keys=True) for r in results]
    assert sorted(json.dumps(r.to_dict(), sort_keys=True) for r in read_results(run)) == sorted(plain)
    # What only a resume needs is gone.
    left = {path.name for path in (run / "finetune").rglob("*") if path.is_file() and path.name[0] != "."}
    assert left == {"finetune.json", "split0.txt", "split1.txt", "cell.json", "log.jsonl", "curve.svg"}


@pytest.mark.slow
def test_what_is_done_is_not_done_again(run, labelled, monkeypatch):
    straight = finetune(run, labelled, [20, 100], 1, TINY, run.parent / "straight", **QUIET)
    real, steps = finetuning.save_checkpoint, []

    def killed(folder, step, *rest):
        path = real(folder, step, *rest)
        steps.append((folder.parent.name, step))
        if len(steps) == 3:  # in the middle of the second cell
            raise KeyboardInterrupt
        return path

    monkeypatch.setattr(finetuning, "save_checkpoint", killed)
    out = run.parent / "out"
    with pytest.raises(KeyboardInterrupt):
        finetune(run, labelled, [20], 1, TINY, out, checkpoint_every=1, **QUIET)
    assert not (out / "curve.svg").exists()
    assert finetune(run, labelled, [20, 100], 1, TINY, out, checkpoint_every=1, **QUIET) == straight
    assert steps == [
        (f"{what}-{share}-split0", step) for share in (20, 100) for what in ("embedder", "random") for step in (1, 2)
    ]
    finetune(run, labelled, [20], 2, TINY, out, **QUIET)  # a further split
    assert steps[8:] == [("embedder-20-split1", 2), ("random-20-split1", 2)]
    with pytest.raises(RecipeMismatch, match=r"crop: 48 -> 40"):
        finetune(run, labelled, [20], 1, replace(TINY, crop=40), out, **QUIET)


@pytest.mark.slow
def test_another_run_in_the_same_folder_is_refused(run, labelled):
    finetune(run, labelled, [20], 1, TINY, **QUIET)
    label = labelled / "val" / "labels" / "scene6.png"
    before = label.read_bytes()
    label.write_bytes((labelled / "val" / "labels" / "scene7.png").read_bytes())
    with pytest.raises(RecipeMismatch, match="files"):  # numbers of labels that were corrected since
        finetune(run, labelled, [20], 1, TINY, **QUIET)
    label.write_bytes(before)
    Embedder(SMALL).save(run / "embedder")
    with pytest.raises(RecipeMismatch, match="contenders"):
        finetune(run, labelled, [20], 1, TINY, **QUIET)
    (run.parent / "other").mkdir()
    (run.parent / "other" / "photo.jpg").touch()
    with pytest.raises(RunError, match="no finetune of selfseg"):
        finetune(run, labelled, [20], 1, TINY, run.parent / "other", **QUIET)


@pytest.mark.slow
def test_statistics_that_came_with_weights_stay(run, labelled, tmp_path):
    torch.manual_seed(1)
    before = Embedder(SMALL).backbone.state_dict()
    before["bn1.running_mean"] += 1
    save_file(before, tmp_path / "start.safetensors")
    image = torch.rand(2, 3, 64, 64)

    def moved(contender, frozen=True):
        model = contender.segmenter(4, 0, frozen).train()
        held = {name: value.clone() for name, value in model.named_buffers() if "running" in name}
        model(image)
        now = dict(model.named_buffers())
        return {name for name, value in held.items() if not torch.equal(value, now[name])}, len(held)

    trained, random = contenders(run)
    assert moved(trained)[0] == set()
    assert len(moved(random)[0]) == moved(random)[1] > 20
    assert len(moved(trained, False)[0]) == moved(trained)[1]
    (run / "recipe.yaml").write_text(f"init: {tmp_path / 'start.safetensors'}\n")
    _, start = contenders(run)
    assert start.what == "start.safetensors"
    assert moved(start)[0] == set()  # an FPN has none of its own
    assert same(before, start.make(0).backbone.state_dict())
    assert contenders(run, "random")[1].what == "random"
    # Affine weights do learn.
    model = trained.segmenter(4, 0, True).train()
    model(image).sum().backward()
    assert model.embedder.backbone.bn1.weight.grad.abs().sum() > 0


def test_a_decoders_own_statistics_begin_anew(tmp_path):
    torch.manual_seed(1)
    embedder = Embedder(EmbedderConfig(backbone="resnet18", output_stride=16, decoder="deeplabv3", dim=8))
    save_file(embedder.backbone.state_dict(), tmp_path / "start.safetensors")
    _, start = contenders(embedder, str(tmp_path / "start.safetensors"))
    model = start.segmenter(3, 0, True).train()
    assert not model.embedder.backbone.bn1.training
    assert model.embedder.decoder.merge[0][1].training
    model.features(torch.rand(1, 3, 64, 64))  # a batch of one image


def test_weights_that_went_away_are_told(run, labelled):
    (run / "recipe.yaml").write_text("init: nowhere.pth\n")
    with pytest.raises(CheckpointError, match="tell where they are with --init"):
        finetune(run, labelled, [20], 1, TINY, **QUIET)
    assert not (run / "finetune").exists()


def test_slotcons_projector_is_left_out(tmp_path):
    embedder = Embedder(EmbedderConfig(backbone="resnet18", decoder="projector", hidden=12, dim=8))
    model = FineTunedEmbedder(contenders(embedder)[0].make(0), 3).eval()
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 3, 8, 8)
    assert model.classifier.in_channels == 512
    assert same(embedder.backbone.state_dict(), model.embedder.backbone.state_dict())


@pytest.mark.slow
def test_it_learns_from_one_image(labelled):
    torch.manual_seed(0)
    embedder = Embedder(replace(SMALL, dim=16))
    config = FewLabelsConfig(steps=40, batch_size=2, crop=64, lr=0.05, few_lr=0.05, scale=(0.9, 1.1))
    results = finetune(embedder, labelled, [1], 1, config, labelled.parent / "out", **QUIET)
    mine, random, constant = results
    assert mine.counts["fit_images"] == 1
    # Both are random weights; the second has no statistics to keep.
    assert random.metrics["miou"] > 1.5 * constant.metrics["miou"]
    assert json.loads((labelled.parent / "out" / "results" / "labelled-val-finetune-labels1-random.json").read_text())


@pytest.mark.slow
def test_the_report_shows_the_plot(run, labelled):
    (run / "recipe.yaml").write_text(f"images: {labelled / 'train' / 'images'}\n")
    finetune(run, labelled, [20, 100], 2, TINY, **QUIET)
    (curve,) = few_label_curves(run)
    assert [c.x for c in curve.curves] == [(20, 100), (20, 100)]
    assert curve.curves[0].name == "this run's weights"
    page = report(run, device="cpu", progress=False, count=1).read_text()
    assert curve.svg() in page
    assert "finetune, 20 % of the labels" in page
    (table,) = compare_results(run)
    assert table.columns == ("finetune, 20 % of the labels", "finetune, 100 % of the labels")
    assert next(row[0] for row in table.rows) == "embedder"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"labels": []}, "not none"),
        ({"labels": [0, 5]}, "in \\(0, 100\\], not 0, 5"),
        ({"labels": [101]}, "in \\(0, 100\\], not 101"),
        ({"splits": 0}, "splits >= 1"),
        ({"workers": -1}, "workers >= 0, not 3, 1000 and -1"),
        ({"device": "cuda:9"}, "not there"),
    ],
)
def test_requests_that_can_not_work_leave_nothing(run, labelled, change, sentence):
    with pytest.raises(ConfigError, match=sentence):
        finetune(run, labelled, **{"config": TINY, **QUIET, **change})
    assert not (run / "finetune").exists()


def test_settings_that_can_not_work_say_so():
    with pytest.raises(ConfigError, match="few is a share"):
        replace(TINY, few=101)
    with pytest.raises(ConfigError, match="few_lr > 0"):
        replace(TINY, few_lr=0)
    with pytest.raises(ConfigError, match="give out"):
        finetune(Embedder(SMALL), "data", config=TINY)


@pytest.mark.slow
def test_the_command(run, labelled, capsys):
    words = f"finetune {run} {labelled} --labels 20 100 --splits 1 --steps 1 --batch-size 2 --crop 40 --workers 0"
    assert main([*words.split(), "--device", "cpu"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "finetune, 20 %" in said
    assert f"selfseg report {run}" in said
    assert main(["finetune", "--help-all"]) == 0
    assert "--few-last-lr" in capsys.readouterr().out


@pytest.mark.slow
def test_kept_networks_predict_what_was_measured(run, labelled, tmp_path, capsys):
    without = finetune(run, labelled, labels=[50], splits=1, config=TINY, **QUIET)
    place = run / "finetune" / "labelled"
    assert not (place / "predictions.html").exists()
    results = finetune(run, labelled, labels=[50], splits=1, config=TINY, keep=True, **QUIET)
    assert [r.metrics for r in results] == [r.metrics for r in without]  # trained again, to the same end
    measured = open_labelled(labelled, "val")
    for result in results[:2]:
        folder = place / "cells" / f"{result.what}-50-split0" / "segmenter"
        segmenter = load_segmenter(folder, "cpu")
        counts = np.zeros((4, 5), np.int64)
        for index in range(len(measured)):
            label = measured.read_label(index)
            np.add.at(counts, (label[label < 4], segmenter(measured.images.read(index))[label < 4]), 1)
        assert counts[:, :4].tolist() == [list(row) for row in result.confusion]
        assert segmenter.legend.names == measured.class_names
        assert Segmenter.load(folder).digest() == segmenter.digest()
    page = (place / "predictions.html").read_text()
    assert page.count("data:image/webp") == 4 * len(measured)
    assert "50 % of the labels: 3 of 6 images" in page
    out = tmp_path / "masks"
    assert main(["segment", str(folder), str(labelled / "val" / "images"), "--out", str(out), "--device", "cpu"]) == 0
    assert len(list((out / "masks").glob("*.png"))) == len(measured)
    capsys.readouterr()
    assert main(["segment", str(folder), str(labelled / "val" / "images"), "--out", str(out), "-k", "3"]) == 2
    assert "leave out -k" in " ".join(capsys.readouterr().err.split())
    exported = export(folder, "timm", tmp_path / "network.safetensors")
    assert exported.is_file()
