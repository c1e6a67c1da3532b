import errno
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import selfseg
from selfseg import cli
from selfseg.errors import ConfigError, MissingExtra, RunError, StorageError
from selfseg.evaluation.protocols.detection import DetectionConfig
from selfseg.evaluation.protocols.transfer import PRESETS, TransferConfig
from selfseg.exporting import export as exporting
from selfseg.exporting.export import card_of, export, find_exporter
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.plugins import registered
from selfseg.storage.hashes import embedder_hash
from selfseg.types import IMAGENET_MEAN, IMAGENET_STD

COLOURS = IMAGENET_MEAN, IMAGENET_STD


def make_run(folder: Path, **settings: Any) -> Path:
    """A run as training leaves it: new BatchNorms of timm's ResNets would switch the residual branches off."""
    torch.manual_seed(0)
    embedder = Embedder(EmbedderConfig(**{"dim": 8, "output_stride": 32, **settings}))
    for module in embedder.modules():
        if isinstance(module, torch.nn.BatchNorm2d) and module.affine:
            module.weight.data.uniform_(0.5, 1)
            module.bias.data.uniform_(-0.1, 0.1)
    with torch.no_grad():
        embedder.train()(torch.rand(2, 3, 64, 64))
    embedder.save(folder / "embedder")
    (folder / "recipe.yaml").write_text("kind: Recipe\n")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run")


def header(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def code_of(card: Path, language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", card.read_text("utf-8"), re.DOTALL)
    assert found
    return found[1]


def last_stage(run: Path, image: Tensor) -> Tensor:
    embedder = selfseg.load(run, "cpu")
    with torch.no_grad():
        return embedder.backbone((image - embedder.mean) / embedder.std)[-1]  # type: ignore[no-any-return]


def whole(network: Any, image: Tensor) -> Tensor:
    """The last stage of another project's network, with the statistics that the header tells."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    image = (image - mean) / std
    with torch.no_grad():
        if hasattr(network, "forward_features"):
            return network.eval().forward_features(image)  # type: ignore[no-any-return]
        return torch.nn.Sequential(*list(network.eval().children())[:8])(image)


@pytest.mark.parametrize("format", ["timm", "torchvision"])
def test_the_lines_of_the_card_load_the_backbone(
    format: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = export(run, format, tmp_path / "deep" / "backbone.safetensors")
    monkeypatch.chdir(path.parent)
    names: dict[str, Any] = {}
    exec(code_of(card_of(path), "python"), names)
    for size in ((64, 64), (96, 160), (45, 83)):
        image = torch.rand(1, 3, *size)
        torch.testing.assert_close(whole(names["network"], image), last_stage(run, image), rtol=1e-5, atol=1e-5)


def test_the_header_tells_what_the_file_is(run: Path) -> None:
    path = export(run, "timm")
    assert path == run / "export" / "resnet18_timm.safetensors"
    told = header(path)
    assert told["format"] == "timm"
    assert (told["architecture"], told["output_stride"]) == ("resnet18", "32")
    assert (told["mean"], told["std"]) == ("0.485 0.456 0.406", "0.229 0.224 0.225")
    assert told["input"].startswith("RGB in [0, 1]")
    assert told["embedder"] == embedder_hash(run)
    assert re.fullmatch("[0-9a-f]{16}", told["recipe"])
    assert told["network"] == "timm.create_model('resnet18', num_classes=0)"


def test_the_header_tells_a_vits_own_stride(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", backbone="vit_tiny_patch16_224", decoder="projector", hidden=16)
    assert header(export(run, "timm"))["output_stride"] == "16"


def test_the_card_tells_the_dimension_of_a_run_without_a_decoder(tmp_path: Path) -> None:
    path = export(make_run(tmp_path / "run", decoder="none"), "safetensors")
    assert "512 numbers per pixel" in card_of(path).read_text()


@pytest.mark.slow
def test_a_dilated_run_says_how_to_build_the_network(tmp_path: Path) -> None:
    dilated = make_run(tmp_path / "run", backbone="resnet50", output_stride=8, decoder="linear")
    path = export(dilated, "torchvision")
    network = torchvision.models.resnet50(replace_stride_with_dilation=[False, True, True])
    network.fc = torch.nn.Identity()
    network.load_state_dict(load_file(path), strict=True)
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(whole(network, image), last_stage(dilated, image), rtol=1e-5, atol=1e-5)
    assert "replace_stride_with_dilation=[False, True, True]" in card_of(path).read_text()
    assert "output_stride=8" in header(export(dilated, "timm"))["network"]


def test_detectron2_reads_tensors_and_gets_its_configuration(run: Path, tmp_path: Path) -> None:
    path = export(run, "detectron2", tmp_path / "r18.pth")
    content = torch.load(path, weights_only=True)
    assert content["matching_heuristics"] is True
    assert content["__author__"] == "selfseg"
    assert content["meta"]["architecture"] == "resnet18"
    ours = load_file(run / "embedder" / "weights.safetensors")
    assert torch.equal(content["model"]["res3.0.shortcut.weight"], ours["backbone.layer2.0.downsample.0.weight"])
    assert torch.equal(content["model"]["stem.conv1.norm.running_mean"], ours["backbone.bn1.running_mean"])
    config = yaml.safe_load(code_of(card_of(path), "yaml"))
    assert config["INPUT"]["FORMAT"] == "RGB"
    np.testing.assert_allclose(config["MODEL"]["PIXEL_MEAN"], [123.675, 116.28, 103.53])
    np.testing.assert_allclose(config["MODEL"]["PIXEL_STD"], [58.395, 57.12, 57.375])
    assert config["MODEL"]["RESNETS"] == {"DEPTH": 18, "RES2_OUT_CHANNELS": 64}


def test_mmseg_finds_the_backbone_by_its_prefix(run: Path, tmp_path: Path) -> None:
    path = export(run, "mmseg", tmp_path / "r18.pth")
    names: dict[str, Any] = {}
    exec(code_of(card_of(path), "python"), names)
    backbone = names["model"]["backbone"]
    prefix = backbone["init_cfg"]["prefix"]
    state = torch.load(tmp_path / backbone["init_cfg"]["checkpoint"], weights_only=True)["state_dict"]
    # As mmengine's loader takes what is below a prefix.
    found = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    network = timm.create_model("resnet18", num_classes=0)  # the same names as theirs
    network.load_state_dict(found, strict=True)
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(whole(network, image), last_stage(run, image), rtol=1e-5, atol=1e-5)
    assert (backbone["type"], backbone["depth"], backbone["style"]) == ("ResNet", 18, "pytorch")
    assert names["model"]["data_preprocessor"]["bgr_to_rgb"] is True


def test_detectron2_gets_the_papers_fine_tuning(run: Path, tmp_path: Path) -> None:
    path = export(run, "detectron2", tmp_path / "r18.pth")
    assert {each.name for each in tmp_path.iterdir()} == {
        "r18.pth", "r18.pth.md", "r18_coco_1x.yaml", "r18_coco_2x.yaml"
    }  # fmt: skip
    assert "r18_coco_1x.yaml, r18_coco_2x.yaml" in card_of(path).read_text()
    once, twice = (yaml.safe_load((tmp_path / f"r18_coco_{n}x.yaml").read_text()) for n in (1, 2))
    assert once["MODEL"]["WEIGHTS"] == "r18.pth"
    assert once["MODEL"]["RESNETS"]["DEPTH"] == 18
    assert once["MODEL"]["BACKBONE"]["FREEZE_AT"] == 0
    assert once["INPUT"]["FORMAT"] == "RGB"
    np.testing.assert_allclose(once["MODEL"]["PIXEL_MEAN"], [123.675, 116.28, 103.53])
    config = PRESETS["coco-1x"]()
    assert isinstance(config, DetectionConfig)
    solver = once["SOLVER"]
    assert (solver["IMS_PER_BATCH"], solver["BASE_LR"], solver["MAX_ITER"], solver["WARMUP_ITERS"]) == (
        config.batch_size, config.lr, config.steps, config.warmup
    )  # fmt: skip
    assert eval(solver["STEPS"]) == tuple(round(share * config.steps) for share in config.milestones)
    assert eval(once["INPUT"]["MIN_SIZE_TRAIN"]) == config.short_sides
    assert (twice["SOLVER"]["MAX_ITER"], twice["SOLVER"]["STEPS"]) == (180_000, "(120000, 160000)")


@pytest.mark.parametrize("task", ["voc12aug", "cityscapes", "ade20k"])
def test_mmseg_gets_the_papers_fine_tuning(task: str, run: Path, tmp_path: Path) -> None:
    """What stands in its configuration is what `selfseg transfer` does."""
    export(run, "mmseg", tmp_path / "r18.pth")
    config = PRESETS[task]()
    assert isinstance(config, TransferConfig)
    theirs: dict[str, Any] = {}
    exec((tmp_path / f"r18_{task}.py").read_text(), theirs)
    model = theirs["model"]
    backbone, head, auxiliary = model["backbone"], model["decode_head"], model["auxiliary_head"]
    assert (backbone["type"], backbone["depth"]) == ("ResNet", 18)
    assert backbone["init_cfg"]["checkpoint"] == "{{ fileDirname }}/r18.pth"
    assert 4 * int(np.prod(backbone["strides"])) == config.output_stride
    assert (head["channels"], head.get("dilation", 1)) == (config.head_channels, config.head_dilation)
    assert (head["concat_input"], head["dropout_ratio"]) == (config.head_concat, config.dropout)
    assert (0.0 if auxiliary is None else auxiliary["loss_decode"]["loss_weight"]) == config.auxiliary
    steps = {step["type"]: step for step in theirs["train_pipeline"]}
    assert ("PhotoMetricDistortion" in steps) == config.distort
    assert steps["RandomCrop"]["crop_size"] == (config.crop, config.crop)
    assert steps["RandomCrop"].get("cat_max_ratio", 1.0) == config.one_class
    assert steps["RandomResize"]["ratio_range"] == config.scale
    assert config.short_side in (None, steps["RandomResize"]["scale"][1])
    optimizer = theirs["optim_wrapper"]["optimizer"]
    assert (optimizer["lr"], optimizer["momentum"], optimizer["weight_decay"]) == (
        config.lr, config.momentum, config.weight_decay
    )  # fmt: skip
    (schedule,) = theirs["param_scheduler"]
    if config.decay == "poly":
        assert (schedule["power"], schedule["eta_min"], schedule["end"]) == (
            config.power,
            config.final_lr,
            config.steps,
        )
    else:
        assert schedule["milestones"] == [round(share * config.steps) for share in config.milestones]
    assert theirs["train_cfg"]["max_iters"] == config.steps
    assert 2 * theirs["train_dataloader"]["batch_size"] == config.batch_size
    dataset = theirs["train_dataloader"]["dataset"]
    sets = dataset["datasets"] if dataset["type"] == "ConcatDataset" else [dataset]
    assert len(sets) == (2 if task == "voc12aug" else 1)  # VOC's own masks, and SBD's
    assert all(each["pipeline"] is theirs["train_pipeline"] for each in sets)


def test_cards_of_bottlenecks_and_groups(tmp_path: Path) -> None:
    from selfseg.exporting.cards import loading

    config = EmbedderConfig(backbone="resnext50_32x4d", output_stride=16)
    theirs = yaml.safe_load(loading("detectron2", "x.pth", config, COLOURS).split("```")[1].removeprefix("yaml"))
    assert theirs["MODEL"]["RESNETS"] == {
        "DEPTH": 50,
        "STRIDE_IN_1X1": False,
        "NUM_GROUPS": 32,
        "WIDTH_PER_GROUP": 4,
        "RES5_DILATION": 2,
    }
    names: dict[str, Any] = {}
    exec(loading("mmseg", "x.pth", config, COLOURS).split("```")[1].removeprefix("python"), names)
    backbone = names["model"]["backbone"]
    assert (backbone["type"], backbone["groups"], backbone["base_width"]) == ("ResNeXt", 32, 4)
    assert (backbone["strides"], backbone["dilations"]) == ((1, 2, 2, 1), (1, 1, 1, 2))


def test_only_exports_are_replaced(run: Path, tmp_path: Path) -> None:
    weights = run / "embedder" / "weights.safetensors"
    before = weights.read_bytes()
    with pytest.raises(ConfigError, match=r"weights\.safetensors is there and is no export of selfseg"):
        export(run, "timm", weights)
    assert weights.read_bytes() == before
    out = tmp_path / "mine" / "backbone.safetensors"
    out.parent.mkdir()
    card = out.with_name("backbone.safetensors.md")
    card.write_text("notes of my own")
    with pytest.raises(ConfigError, match=r"backbone\.safetensors\.md is there"):
        export(run, "timm", out)
    assert card.read_text() == "notes of my own"
    card.unlink()
    export(run, "timm", out)
    export(run, "timm", out)


@pytest.mark.slow
def test_the_whole_embedder_goes_into_a_folder_that_can_be_replaced(run: Path, tmp_path: Path) -> None:
    folder = export(run, "safetensors", tmp_path / "shared")
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(Embedder.load(folder)(image), selfseg.load(run, "cpu")(image))
    assert header(folder / "weights.safetensors")["embedder"] == embedder_hash(run)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    assert "Embedder.load('shared')" in (folder / "README.md").read_text()
    assert {path.name for path in folder.iterdir()} == {"weights.safetensors", "embedder.json", "README.md"}
    other = make_run(tmp_path / "other", dim=5)
    assert export(other, "safetensors", folder) == folder
    assert Embedder.load(folder).dim == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "shared"]


def test_prototypes_go_with_the_embedder(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run")
    rows = torch.nn.functional.normalize(torch.rand(4, 8), dim=1)
    save_file({"prototypes": rows}, made / "embedder" / "prototypes.safetensors")
    folder = export(made, "safetensors")
    assert torch.equal(load_file(folder / "prototypes.safetensors")["prototypes"], rows)
    assert "prototypes.safetensors" in (folder / "README.md").read_text()
    (made / "embedder" / "prototypes.safetensors").write_bytes(b"cut off")
    with pytest.raises(RunError, match=r"prototypes.safetensors is damaged"):
        export(made, "safetensors", tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"centred": True}, {"decoder": "linear", "output_stride": 8}])
def test_onnx_gives_the_embedding_at_any_size(settings: dict[str, Any], tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    run = make_run(tmp_path / "run", **settings)
    path = export(run, "onnx", tmp_path / "e.onnx")
    model = onnx.load(path)
    assert {prop.key: prop.value for prop in model.metadata_props}["architecture"] == "resnet18"
    image = torch.rand(2, 3, 65, 90)
    (found,) = ReferenceEvaluator(model).run(None, {"image": image.numpy()})
    with torch.no_grad():
        expected = selfseg.load(run, "cpu")(image)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_onnx_that_is_not_there_is_an_extra(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtra, match=r"selfseg\[onnx\]"):
        export(run, "onnx", tmp_path / "e.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_onnx_can_not_express_is_said(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")

    def refuse(*_: Any, **__: Any) -> None:
        raise TypeError("no operator for this\nand a long story")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(ConfigError, match=r"backbone 'resnet18'.*no operator for this; the formats safe"):
        export(run, "onnx", tmp_path / "e.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("format", ["timm", "detectron2", "safetensors", "onnx"])
def test_a_file_that_gives_other_features_is_not_left(
    format: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One weight in a thousand is a little off, as by a wrong cast: only the comparison can see it."""
    if format == "onnx":
        pytest.importorskip("onnx")
    out = tmp_path / f"out{find_exporter(format).suffix}"
    export(run, format, out)
    content = (out / "weights.safetensors" if out.is_dir() else out).read_bytes()
    before = sorted(tmp_path.iterdir())

    class Off(Embedder):
        @classmethod
        def load(cls, folder: str | Path) -> Embedder:
            return spoil(Embedder.load(folder))

    def spoil(embedder: Embedder) -> Embedder:
        weight = embedder.get_parameter("backbone.layer1.0.conv1.weight")
        weight.data[0, 0] += 0.01
        return embedder

    def shifted(read: Callable[[Path], dict[str, Tensor]]) -> Callable[[Path], dict[str, Tensor]]:
        return lambda path: {key: value + 0.01 * (value.ndim == 4) for key, value in read(path).items()}

    if format == "safetensors":
        monkeypatch.setattr(exporting, "Embedder", Off)
    elif format == "onnx":
        evaluate = exporting.evaluate_graph
        monkeypatch.setattr(exporting, "evaluate_graph", lambda *given: evaluate(*given) + 1e-3)
    else:
        name = "load_file" if format == "timm" else "read_weights"
        monkeypatch.setattr(exporting, name, shifted(getattr(exporting, name)))
    with pytest.raises(RunError, match=rf"{out.name} was not written: loaded again, it gives other features"):
        export(run, format, out)
    assert sorted(tmp_path.iterdir()) == before
    assert (out / "weights.safetensors" if out.is_dir() else out).read_bytes() == content


def test_weights_that_are_not_numbers_are_not_exported(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run")
    weights = load_file(made / "embedder" / "weights.safetensors")
    weights["backbone.layer4.1.bn2.weight"][0] = float("nan")
    save_file(weights, made / "embedder" / "weights.safetensors")
    with pytest.raises(RunError, match="no finite numbers"):
        export(made, "timm", tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_a_full_disk_is_said_and_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(exporting, "save_file", full)
    monkeypatch.setattr(Path, "write_bytes", full)
    for format in ("timm", "mmseg", "safetensors"):
        with pytest.raises(StorageError, match="no space left"):
            export(run, format, tmp_path / f"x{find_exporter(format).suffix}")
    assert list(tmp_path.iterdir()) == []


def test_what_can_not_be_exported_says_why(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no format 'keras'; the formats are detectron2, hub, mmseg, onnx"):
        export(run, "keras")
    with pytest.raises(RunError, match="there is no run at"):
        export(tmp_path / "nothing", "timm")
    (tmp_path / "log.jsonl").write_text("")
    with pytest.raises(RunError, match="has no embedder yet"):
        export(tmp_path, "timm")
    with pytest.raises(ConfigError, match=r"is a folder; give the file to write, e\.g\. --out .*backbone\.safetensors"):
        export(run, "timm", tmp_path)
    with pytest.raises(ConfigError, match=r"a file for detectron2 ends in \.pth; give e\.g\. --out r18\.pth"):
        export(run, "detectron2", "r18.safetensors")
    with pytest.raises(ConfigError, match="is a file; the format safetensors writes a folder"):
        export(run, "safetensors", tmp_path / "log.jsonl")


def test_a_folder_of_something_else_is_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("my project")
    (tmp_path / "thesis.tex").write_text("years of work")
    for folder in (tmp_path, run / "embedder"):
        before = sorted(folder.iterdir())
        with pytest.raises(ConfigError, match="holds other files than an export"):
            export(run, "safetensors", folder)
        assert sorted(folder.iterdir()) == before


def test_the_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "b.safetensors"
    assert cli.main(["export", str(run), "--format", "timm", "--out", str(out)]) == 0
    assert out.is_file()
    said = capsys.readouterr().out
    assert f"written: {out}; {out}.md says how to load it" in said
    assert cli.main(["export", str(run), "--format", "keras"]) == 2
    assert "keras" in capsys.readouterr().err
    assert cli.main(["export", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(format in shown for format in registered("selfseg.exporters"))


def test_a_format_of_another_package_is_found_by_its_name(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, embedder: Embedder, about: Mapping[str, str], run: Path) -> exporting.Written:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(about["architecture"])
        return "read it", ["A note."]

    words = exporting.Exporter(".txt", whole=True, write=write)
    monkeypatch.setattr(exporting, "registered", lambda group: {"words": None})
    monkeypatch.setattr(exporting, "load_plugin", lambda group, name: words)
    path = export(run, "words")
    assert path == run / "export" / "embedder.txt"
    assert path.read_text() == "resnet18"
    card = card_of(path).read_text()
    assert "| input | RGB in [0, 1] |" in card
    assert "- A note." in card
    assert "read it" in card


@pytest.mark.slow
def test_a_folder_is_of_one_moment_of_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = make_run(tmp_path / "run", backbone="test_resnet")
    real = Embedder.save

    def replaced(self: Embedder, folder: Path) -> None:
        real(self, folder)
        with torch.no_grad():
            next(self.parameters()).add_(1)
        monkeypatch.undo()
        self.save(own / "embedder")  # as a training does meanwhile

    for format in ("safetensors", "hub"):
        monkeypatch.setattr(Embedder, "save", replaced)
        with pytest.raises(RunError, match="was trained on while it was exported, and nothing was written"):
            export(own, format)
        assert not list((own / "export").iterdir())
