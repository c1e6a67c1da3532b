import inspect
import os
import re
import runpy
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import layouts
import selfseg
from conftest import draw_scene
from selfseg import cli, errors
from selfseg.cli import main
from selfseg.cli.training import parse_recipe
from selfseg.collection.batching.room import AUTO, Batching
from selfseg.data.labelled.datasets import DATASETS
from selfseg.evaluation import (
    Beside,
    Clusters,
    Linear,
    Objects,
    Prototypes,
    Reading,
    Retrieval,
)
from selfseg.models.embedder import Looks
from selfseg.ops.crf import CRFConfig
from selfseg.storage.files import read_json
from selfseg.training.recipe import read_recipe, recipes
from selfseg.workers.plan import HERE, Where

TINY = (
    "--steps 2 --batch-size 2 --workers 0 --precision 32-true --max-bad 0.2 --method.temperature 0.2 "
    "--method.views.size 32 --method.views.short-side 48 --method.embedder.dim 8 --method.queue 10 "
    "--method.embedder.resolution 64"
).split()


def said(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """What was printed to stdout and stderr, without the line breaks of a narrow terminal."""
    out, err = capsys.readouterr()
    return " ".join(out.split()), " ".join(err.split())


@pytest.mark.parametrize("module", ["selfseg", "selfseg.cli"])
def test_both_packages_are_the_command(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [module, "no-such-verb"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module(module, run_name="__main__")
    assert stopped.value.code == 2


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"], ["help"]])
def test_help_names_every_verb(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    out, _ = said(capsys)
    assert all(f" {verb} " in out for verb in cli._VERBS)


@pytest.mark.parametrize("verb", ["cluster", "segment", "embed", "concepts", "evaluate", "compare", "masks", "report"])
def test_a_verb_refuses_an_option_that_it_does_not_know(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "run", "images", "--no-such-option", "3"]) == 2
    assert "no-such-option" in said(capsys)[1]


def test_the_help_of_train_lists_recipes_and_that_of_a_recipe_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    out, _ = said(capsys)
    assert all(name in out for name in recipes())
    assert main(["train"]) == 2
    capsys.readouterr()
    assert main(["train", "vice", "--help-all"]) == 0
    assert "--method.temperature" in said(capsys)[0]


@pytest.mark.parametrize("verb", sorted(cli._VERBS))
def test_every_verb_has_a_help_with_its_usage(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--help", "--help-all"):
        assert main([verb, option]) == 0
        assert f"usage: selfseg {verb}" in said(capsys)[0]


SHORT = [
    *sorted(cli._VERBS.keys() - cli._OF_WORDS),
    "finetune",
    "transfer voc12aug",
    "transfer coco-1x",
    "train vice",
    "train maskcontrast_voc",
]


@pytest.mark.parametrize("words", SHORT)
def test_help_is_short_and_tells_where_the_rest_is(
    words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*words.split(), "--help"]) == 0
    everyday = capsys.readouterr().out
    assert len(everyday.splitlines()) <= 56
    assert main([*words.split(), "--help-all"]) == 0
    everything = said(capsys)[0]
    options = re.compile(r"--[a-z][a-z.-]+")
    assert set(options.findall(everyday)) <= {*options.findall(everything), "--help-all"}
    hidden = set(options.findall(everything)) - set(options.findall(everyday))
    assert ("--help-all" in everyday) == bool(hidden)


def test_a_path_in_an_error_is_not_broken_by_a_narrow_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "a folder" / ("long" * 30)
    assert main(["report", str(run)]) == 4
    assert str(run) in capsys.readouterr().err


def test_idle_threads_leave_the_cores_to_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for given, expected in (({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)):
        for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        main(["--version"])
        assert os.environ.get("GOMP_SPINCOUNT") == expected
        monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert said(capsys)[0] == f"selfseg {selfseg.__version__}"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trian"], "there is no verb 'trian'; the verbs are train, cluster"),
        (
            ["train", "vise", "images", "--out", "run"],
            "there is no recipe 'vise'; the recipes are byol, deepcluster, densecl, detcon, dino, iic, instance, "
            "maskcontrast, moco, picie, pixpro, slotcon, stego, swav, vice, ",
        ),
        (["recipes", "vise"], "there is no recipe 'vise'; the recipes are "),
        (["doctor", "--fast"], "doctor takes no options, and was given --fast"),
        (["train", "vice", "images", "--out", "run", "--steps", "-1"], "steps can't be negative: -1"),
    ],
)
def test_a_wrong_word_is_answered_with_the_right_ones(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    out, err = said(capsys)
    assert out == ""
    assert f"error: {sentence}" in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("x"), 2),
        (errors.MissingExtra("x", "y", "z"), 2),
        (errors.EmptyCollection("x"), 3),
        (errors.LabelError("x"), 3),
        (errors.RecipeMismatch("x"), 4),
        (errors.StorageError("x"), 4),
        (errors.NonFiniteLoss("x"), 5),
        (errors.Interrupted("x"), 75),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_kind_of_error_has_its_exit_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(words: list[str]) -> int:
        raise error

    monkeypatch.setattr("selfseg.cli.training.doctor", fail)
    assert main(["doctor"]) == code
    assert "Traceback" not in "".join(capsys.readouterr())


def test_an_error_is_printed_as_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(words: list[str]) -> int:
        raise errors.MissingExtra("DeepLabV3+", "smp", "smp")

    monkeypatch.setattr("selfseg.cli.training.doctor", fail)
    main(["doctor"])
    assert "pip install 'selfseg[smp]'" in said(capsys)[1]


def test_recipes_are_listed_and_one_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    out, _ = said(capsys)
    assert all(f"{name} " in out for name in recipes())
    assert main(["recipes", "picie"]) == 0  # as train takes it
    assert "picie_small" in said(capsys)[0]
    assert main(["recipes", "vice_coco_highres"]) == 0
    out, _ = said(capsys)
    assert "Command: selfseg train vice_coco_highres" in out
    assert "Needs selfseg[smp]." in out


@pytest.mark.slow
def test_train_takes_overrides_and_goes_on_with_the_same_words(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run [1]"
    words = ["train", "vice", str(photos), "--out", str(run), *TINY]
    assert main(words) == 0
    out, _ = said(capsys)
    assert f"trained: {run}; next: selfseg cluster {shlex.quote(str(run))} {photos}" in out
    recipe = read_recipe(run / "recipe.yaml")
    assert (recipe.name, recipe.steps, recipe.epochs, recipe.method.temperature) == ("vice_small", 2, None, 0.2)
    assert (run / "embedder" / "weights.safetensors").is_file()
    assert main(words) == 0
    assert "already trained: 2 of 2 steps" in said(capsys)[1]
    other = words.copy()
    other[words.index("--method.temperature") + 1] = "0.3"
    assert main(other) == 4
    assert "method.temperature: 0.2 → 0.3" in said(capsys)[1]


def test_train_without_images_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "vice", str(tmp_path / "absent"), "--out", str(tmp_path / "run"), *TINY]) == 3
    assert "does not exist; give a folder of images" in said(capsys)[1]


@pytest.mark.slow
@pytest.mark.parametrize(("option", "steps", "epochs"), [("--steps", 7, None), ("--epochs", None, 7.0)])
def test_steps_take_the_place_of_epochs_and_the_other_way_round(
    option: str, steps: int | None, epochs: float | None
) -> None:
    for number, function in enumerate(recipes().values()):
        words = [f"{option}=7"] if number % 2 else [option, "7"]
        if "masks" in inspect.signature(function).parameters:
            words += ["--masks", "masks"]
        recipe = parse_recipe(function, ["images", "--out", "run", *words], "selfseg train")
        assert (recipe.steps, recipe.epochs) == (steps, epochs)
        assert (recipe.images, recipe.out) == (Path("images"), Path("run"))


@pytest.mark.parametrize("option", ["--masks", "--method.views.regions.folder"])
def test_masks_have_an_option_of_their_own(option: str) -> None:
    words = ["images", option, "my masks", "--out", "run", "--method.views.min-share", "0.2"]
    views = parse_recipe(recipes()["maskcontrast_small"], words, "selfseg train").method.views
    assert views.regions == selfseg.data.regions.ObjectMasks(Path("my masks"))
    assert (views.min_share, views.size) == (0.2, 256)


def test_masks_must_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "maskcontrast", "images", "--out", "run"]) == 2
    assert "--masks" in capsys.readouterr().err


def test_another_region_source_can_be_chosen() -> None:
    words = ["images", "--out", "run", "method.views.regions:grid", "--method.views.regions.size", "12"]
    recipe = parse_recipe(recipes()["vice_small"], words, "selfseg train")
    assert recipe.method.views.regions == selfseg.data.regions.Grid(12)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, Any], list[tuple[Any, Any]]]:
    """Replace a function; the list that comes back gets the arguments of its calls."""

    def watch(module: str, name: str, result: Any) -> list[tuple[Any, Any]]:
        seen: list[tuple[Any, Any]] = []

        def stand_in(*args: Any, **named: Any) -> Any:
            seen.append((args, named))
            return result

        __import__(module)
        monkeypatch.setattr(sys.modules[module], name, stand_in)
        return seen

    return watch


def test_the_words_of_cluster_reach_it(calls: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen = calls(
        "selfseg.collection.clustering", "cluster", (Path("run/clusters/k8.json"), Path("run/clusters/k27.json"))
    )
    words = "cluster run images -k 8 27 --seed 3 --points 500 --position 0.7 --merge 90 --device cpu --max-bad 0.5"
    words += " --processes 3 --batches 2 --batch 16"
    assert main(words.split()) == 0
    expected = {
        "seed": 3,
        "points": 500,
        "position": 0.7,
        "merge": 90,
        "looks": Looks(),
        "device": "cpu",
        "max_bad": 0.5,
        "propose": True,
        "where": Where(processes=3),
        "batches": 2,
        "batch": Batching(16),
    }
    assert seen == [((Path("run"), Path("images"), (8, 27)), expected)]
    assert said(capsys)[0] == "written: run/clusters/k8.json written: run/clusters/k27.json"


def test_the_words_of_segment_reach_it(calls: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen = calls("selfseg.collection.segmenting", "segment", Path("out"))
    words = "segment run images --out out -k 8 --scales 1 1.5 --flip --max-bad 0.5 --window 512 --geojson --ray auto"
    assert main(words.split()) == 0
    looks = Looks((1.0, 1.5), flip=True)
    expected = {"k": 8, "looks": looks, "device": "auto", "max_bad": 0.5, "window": 512}
    expected |= {"geojson": True, "min_area": 0, "large_as": "tiff", "where": Where(0, "auto"), "batch": AUTO}
    assert seen == [((Path("run"), Path("images"), Path("out")), expected)]
    assert said(capsys)[0] == "written: out"


def test_the_words_of_embed_reach_it(calls: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen = calls("selfseg.collection.embedding", "embed", Path("out/index.json"))
    assert main("embed run images --out out --max-bad 0.5".split()) == 0
    expected = {"max_bad": 0.5, "window": None, "where": HERE, "batch": AUTO}
    assert seen == [((Path("run"), Path("images"), Path("out"), Looks(), "auto"), expected)]
    assert said(capsys)[0] == "written: out/index.json"
    assert main("embed run images --out out --batch 0".split()) == 2
    assert "--batch must be auto or a number of images from 1 on, not 0" in " ".join(capsys.readouterr().err.split())


def test_the_words_of_concepts_reach_it(calls: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen = calls("selfseg.collection.concepts", "concepts", Path("run/concepts.html"))
    words = (
        "concepts run images --top 5 -k 27 --resolution 256 --crop 224 --min-share 0 --whole --device cpu --max-bad 0.5"
    )
    assert main(words.split()) == 0
    expected = {"top": 5, "k": 27, "resolution": 256, "crop": 224, "min_share": 0.0}
    expected |= {"whole": True, "device": "cpu", "max_bad": 0.5}
    assert seen == [((Path("run"), Path("images")), expected)]
    assert said(capsys)[0] == "written: run/concepts.html"


def test_the_words_of_evaluate_reach_it(calls: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen = calls("selfseg.evaluation.evaluator", "evaluate", [])
    words = "evaluate run data --protocols clusters linear -k 11 64 --seeds 3 --split test --no-baselines --device cpu"
    assert main(words.split()) == 0
    ((positional, named),) = seen
    assert positional == (Path("run"), Path("data"), [Clusters(k=(11, 64)), Linear()])
    assert callable(named.pop("progress"))
    assert named == {
        "reading": Reading(split="test"),
        "beside": Beside(baselines=False),
        "seeds": 3,
        "crf": None,
        "device": "cpu",
        "out": None,
        "where": HERE,
    }
    words = "evaluate run data --protocols linear objects retrieval --linear.solver sgd --features --fit-data other"
    words += " --objects.whiten 32 --objects.masks masks -k 21 50 --retrieval.classes cat dog --retrieval.neighbours 5"
    assert main([*words.split(), "--crf"]) == 0
    positional, named = seen.pop()
    objects = Objects(whiten=32, masks=Path("masks"))
    assert positional[2] == [
        Linear(solver="sgd"),
        replace(objects, k=(21, 50)),
        Retrieval(neighbours=5, classes=("cat", "dog"), objects=objects),
    ]
    assert (named["beside"], named["crf"]) == (Beside(features=True), CRFConfig())
    assert named["reading"] == Reading(fit_data=Path("other"))
    assert main("evaluate run data --linear.solver lbfgs --clusters.points all --crop 320".split()) == 0
    positional, named = seen.pop()
    assert positional[2] == [Clusters(points="all"), Linear(solver="lbfgs")]
    assert named["reading"] == Reading(crop=320)
    assert main("evaluate run data --protocols clusters prototypes objects --matching pixels".split()) == 0
    asked = seen.pop()[0][2]
    assert asked == [Clusters(maximise="pixels"), Prototypes(maximise="pixels"), Objects(maximise="pixels")]
    assert main("evaluate run data --scales 0.5 2 --flip".split()) == 0
    assert seen.pop()[1]["reading"] == Reading(looks=Looks((0.5, 2.0), flip=True))
    assert "fractions" in said(capsys)[0]


def test_the_words_of_compare_reach_it(calls: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen = calls("selfseg.evaluation.comparison", "compare", (Path("out/compare.html"), []))
    words = "compare vice=runs/a timm:resnet18:random camvid:/data --out out -k 11 64 --seeds 2 --untrained"
    assert main([*words.split(), "--linear.solver", "lbfgs"]) == 0
    ((positional, named),) = seen
    protocols = [Clusters(k=(11, 64)), Linear(solver="lbfgs")]
    assert positional == (("vice=runs/a", "timm:resnet18:random"), "camvid:/data", Path("out"), protocols)
    assert callable(named.pop("progress"))
    assert named == {
        "reading": Reading(),
        "beside": Beside(untrained=True),
        "seeds": 2,
        "count": 6,
        "device": "auto",
    }
    assert "written: out/compare.html" in said(capsys)[0]
    assert main("compare runs/a --out out".split()) == 2
    assert "one or more runs and then the data" in said(capsys)[1]


def test_the_words_of_report_reach_it(calls: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen = calls("selfseg.collection.reporting.report", "report", Path("run/report.html"))
    assert main("report run --images photos --count 4 --device cpu".split()) == 0
    assert seen == [((Path("run"),), {"images": Path("photos"), "count": 4, "device": "cpu", "beside": None})]
    assert said(capsys)[0] == "written: run/report.html"
    assert main("report run --beside start".split()) == 0
    assert seen.pop()[1]["beside"] == Path("start")


@pytest.mark.parametrize(("healthy", "code"), [(True, 0), (False, 1)])
def test_doctor_tells_whether_training_works(
    healthy: bool, code: int, calls: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from selfseg.training.doctor import Diagnosis

    problem = "" if healthy else "RuntimeError: no kernel [sm_20]"
    calls("selfseg.training.doctor", "doctor", Diagnosis((), (), 0.25 if healthy else None, problem))
    assert main(["doctor"]) == code
    assert (problem or "works, 0.25 s") in said(capsys)[0]


def test_data_lists_what_is_known_and_checks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data"]) == 2
    assert main(["data", "--help"]) == 0
    out, _ = said(capsys)
    assert all(f"{name} " in out for name in DATASETS)
    assert "--partial" in out
    root = layouts.cityscapes(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    assert main(["data", f"cityscapes19:{root}", "--partial"]) == 0
    assert "written: cityscapes19-check.png" in said(capsys)[0]
    assert (tmp_path / "cityscapes19-check.png").is_file()
    assert main(["data", f"cityscapes19:{root}", "--sheet", "x.png"]) == 3
    assert "wrong: train: it has 2 images, the published one has 2975" in said(capsys)[0]
    assert main(["data", f"cityscapes:{root}"]) == 2
    assert "data sets are cityscapes19, cityscapes27" in said(capsys)[1]


@pytest.mark.slow
def test_data_by_name_is_trained_on_and_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "data"
    for split, seeds in (("train", range(4)), ("val", range(4, 6))):
        for seed in seeds:
            image, label = draw_scene(seed)
            for folder, pixels in (("", image), ("annot", np.where(label == 255, 11, label).astype(np.uint8))):
                (root / f"{split}{folder}").mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / f"{split}{folder}" / f"{seed}.png")
    run = tmp_path / "run"
    assert main(["train", "vice", f"camvid:{root}", "--out", str(run), *TINY]) == 0
    assert sorted(read_json(run / "images.json")) == ["0", "1", "2", "3"]
    assert main(["train", "vice", f"camvid:{root}", "--out", str(run), *TINY]) == 0  # finished: nothing to do
    words = [
        "evaluate",
        str(run),
        f"camvid:{root}",
        "-k",
        "3",
        "--seeds",
        "1",
        "--no-baselines",
        "--protocols",
        "clusters",
        "--clusters.points",
        "1000",
    ]
    assert main(words) == 0
    (path,) = (run / "results").glob("*k3*.json")
    result = read_json(path)
    assert (result["dataset"], result["class_names"][10], len(result["class_iou"])) == ("camvid", "Bicyclist", 11)
    assert main(["report", str(run)]) == 0
