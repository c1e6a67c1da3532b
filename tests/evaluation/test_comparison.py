"""Several runs under one protocol: the same figures as `evaluate`, nothing measured twice, one page."""

import shutil
from dataclasses import replace
from statistics import mean, stdev

import numpy as np
import pytest
import torch

from selfseg.errors import ConfigError, RunError
from selfseg.evaluation import Beside, Clusters, EvaluationConfig, Linear, Objects, Prototypes, Reading, comparison
from selfseg.evaluation.comparison import BASELINES, UNTRAINED, compare, file_name, parse_rows
from selfseg.evaluation.evaluator import evaluate
from selfseg.evaluation.subjects import Subjects, open_run
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.models.prototypes import load_prototypes, save_prototypes
from selfseg.storage.files import read_json
from selfseg.storage.hashes import embedder_hash

ALONE = Beside(baselines=False)
THREE = Clusters(k=(3,))
ONCE = {"protocols": [THREE], "seeds": 1, "count": 1, "beside": ALONE}
SMALL = EmbedderConfig(backbone="resnet10t", output_stride=32, decoder="fpn", dim=6, resolution=64)


def make_run(folder, seed, prototypes=0):
    torch.manual_seed(seed)
    Embedder(SMALL).save(folder / "embedder")
    (folder / "recipe.yaml").write_text(f"kind: Recipe\nout: {folder}\nsteps: 3\nseed: {seed}\n")
    if prototypes:
        vectors = torch.nn.functional.normalize(torch.randn(prototypes, SMALL.dim), dim=1)
        save_prototypes(folder, vectors)
    return folder


@pytest.fixture
def runs(tmp_path):
    return make_run(tmp_path / "first", 1, prototypes=4), make_run(tmp_path / "second", 2)


@pytest.mark.slow
def test_rows_are_what_evaluate_measures(runs, labelled, tmp_path):
    options = {"seeds": 2, "protocols": [Clusters(k=(4,))]}
    page, results = compare(runs, labelled, tmp_path / "out", count=2, **options)
    alone = evaluate(runs[1], labelled, **options)
    for result in alone:
        what = {"embedder": "second"}.get(result.what, result.what)
        same = next(r for r in results if (r.what, r.protocol, r.k) == (what, result.protocol, result.k))
        assert same == replace(result, what=what)
    assert {result.what for result in results} == {
        "first",
        "second",
        "colour",
        "colour + position",
        "most frequent class",
    }
    assert page == tmp_path / "out" / "compare.html"
    lines = (tmp_path / "out" / "compare.md").read_text("utf-8").splitlines()
    rows = [line.split(" | ")[0] for line in lines if "±" in line and line.startswith("|")]
    assert rows[:2] == ["| first", "| second"]
    assert sorted(rows[2:4]) == ["| colour", "| colour + position"]
    assert rows[4:] == ["| 2 trainings: first, second"]
    mious = [r.metrics["miou"] for r in results if r.what in ("first", "second")]
    told = f"{mean(mious):.3f} ± {stdev(mious):.3f}"
    assert any(line.startswith(f"| 2 trainings: first, second | {told} / ") for line in lines)
    assert "2 trainings: first, second" in page.read_text("utf-8")


@pytest.mark.slow
def test_a_row_is_measured_once_and_again_when_it_changes(runs, labelled, tmp_path, monkeypatch):
    measured = []
    real = comparison.evaluate_extractors

    def spy(extractors, *arguments, **options):
        measured.append(extractors[0].name)
        return real(extractors, *arguments, **options)

    monkeypatch.setattr(comparison, "evaluate_extractors", spy)
    options = {"protocols": [THREE], "seeds": 1, "count": 1}
    _, before = compare(runs[:1], labelled, tmp_path / "out", **options)
    _, after = compare(runs, labelled, tmp_path / "out", **options)
    assert measured == ["first", "colour", "second"]
    assert [r for r in after if r.what != "second"] == before
    make_run(runs[0], 7)
    _, changed = compare(runs, labelled, tmp_path / "out", **options)
    assert measured[3:] == ["first"]
    assert [r for r in changed if r.what == "second"] == [r for r in after if r.what == "second"]
    compare(runs, labelled, tmp_path / "out", **{**options, "protocols": [Clusters(k=(4,))]})
    assert measured[4:] == ["first", "second", "colour"]


def test_a_row_that_was_cut_off_is_measured_again(runs, labelled, tmp_path, monkeypatch):
    real = comparison.write_json
    with monkeypatch.context() as patch:

        def fail(path, value):
            if path.name == "row.json":
                raise KeyboardInterrupt
            real(path, value)

        patch.setattr(comparison, "write_json", fail)
        with pytest.raises(KeyboardInterrupt):
            compare(runs[:1], labelled, tmp_path / "out", **ONCE)
    assert not (tmp_path / "out" / "compare.html").exists()
    _, results = compare(runs[:1], labelled, tmp_path / "out", **ONCE)
    assert [result.what for result in results] == ["first"]


@pytest.mark.slow
def test_prototypes_are_of_those_that_have_some(runs, labelled, tmp_path):
    protocols = [Linear(pixels=900, steps=30, batch=64), Prototypes()]
    options = {"protocols": protocols, "seeds": 1, "count": 1, "beside": ALONE}
    _, results = compare(runs, labelled, tmp_path / "out", **options)
    found = {(result.what, result.protocol) for result in results}
    assert found == {("first", "linear"), ("first", "prototypes"), ("second", "linear")}
    alone = evaluate(runs[0], labelled, protocols, seeds=1, beside=ALONE)
    assert [replace(result, what="first") for result in alone] == [r for r in results if r.what == "first"]
    with pytest.raises(ConfigError, match="second has no prototypes"):
        compare(runs, labelled, tmp_path / "out", **{**options, "protocols": [Prototypes()]})


def test_pictures_hold_the_classes_that_were_predicted(runs, labelled, tmp_path):
    import cv2

    out = tmp_path / "out"
    compare(runs[:1], labelled, out, [Clusters(k=(6,))], seeds=1, count=2, beside=Beside(position=1.0))
    drawings = read_json(out / "rows" / "first" / "row.json")["drawings"]
    assert {drawing["what"] for drawing in drawings} == {"first", "first + position"}
    for drawing in drawings:
        assert len(drawing["files"]) == 2
        for file in drawing["files"]:
            picture = cv2.imread(str(out / file), cv2.IMREAD_UNCHANGED)
            assert picture.shape[:2] == (90, 120)
            assert (picture.ndim == 3) == (drawing["kind"] == "embedding")
            assert picture.ndim == 3 or set(np.unique(picture)) <= {0, 1, 2, 3, 255}


@pytest.mark.slow
def test_the_first_runs_network_untrained_and_a_reference(runs, labelled, tmp_path):
    _, results = compare(
        ["mine=" + str(runs[0]), "timm:resnet10t:random"],
        labelled,
        tmp_path / "out",
        [THREE],
        seeds=1,
        count=1,
        beside=Beside(baselines=False, untrained=True, backbone=True),
    )
    assert [result.what for result in results] == [
        "mine", "mine, backbone", "resnet10t, random", "resnet10t, random, backbone", UNTRAINED
    ]  # fmt: skip
    assert results[2].options["backbone"] == "resnet10t"


def test_what_is_missing_fails_before_anything_is_measured(runs, labelled, tmp_path):
    with pytest.raises(RunError, match="there is no run at"):
        compare([*runs, tmp_path / "third"], labelled, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_native_resolution_is_part_of_what_is_measured(runs, labelled, tmp_path):
    _, own = compare(runs[:1], labelled, tmp_path / "out", **ONCE)
    _, native = compare(runs[:1], labelled, tmp_path / "out", **ONCE, reading=Reading(resolution="native"))
    assert (own[0].resolution, native[0].resolution) == (64, "native")


def test_a_crop_is_part_of_what_is_measured(runs, labelled, tmp_path):
    _, whole = compare(runs[:1], labelled, tmp_path / "out", **ONCE)
    _, cropped = compare(runs[:1], labelled, tmp_path / "out", **ONCE, reading=Reading(crop=64))
    assert (whole[0].crop, cropped[0].crop, cropped[0].resolution) == ("none", "64", 64)
    assert cropped[0].counts["pixels"] + cropped[0].counts["void"] == 4 * 64 * 64


@pytest.mark.parametrize(
    ("options", "message"),
    [({"protocols": [Objects()]}, "can't be compared here"), ({"count": 0}, "how many images to show")],
)
def test_options_that_cannot_work_are_refused(runs, labelled, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        compare(runs, labelled, tmp_path / "out", **options)


def test_rows_have_names_of_their_own(tmp_path):
    assert [row.name for row in parse_rows(["a/x", "b/x", "c/y"])] == ["a/x", "b/x", "y"]
    (tmp_path / "lr=0.1").mkdir()
    assert [row.name for row in parse_rows([tmp_path / "lr=0.1"])] == ["lr=0.1"]  # a folder's name, not NAME=RUN
    assert parse_rows(["timm:resnet18:ck/epoch=9-step=1.ckpt"])[0].source == "timm:resnet18:ck/epoch=9-step=1.ckpt"
    names = (BASELINES, "colour", "colour + position", "most frequent class", "embedder", "untrained")
    for wrong in (["n=a", "n=b"], [], ["a", "a"], ["a", "a + position=b"], *([f"{name}=a"] for name in names)):
        with pytest.raises(ConfigError, match=r"nothing else in the tables|nothing to compare"):
            parse_rows(wrong)


@pytest.mark.slow
def test_changed_data_or_damaged_rows_are_measured_again(runs, labelled, tmp_path):
    import cv2

    out = tmp_path / "out"
    _, before = compare(runs[:1], labelled, out, **ONCE)
    (file,) = (out / "rows" / "first" / "results").glob("*.json")
    for damage in (file.unlink, lambda: file.write_text("{")):
        damage()
        assert compare(runs[:1], labelled, out, **ONCE)[1] == before
    next((out / "rows" / "first" / "pictures").glob("*.png")).unlink()
    assert compare(runs[:1], labelled, out, **ONCE)[1] == before
    for path in (labelled / "val" / "labels").glob("*.png"):
        label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(label == 255, 255, 3 - label).astype(np.uint8))
    _, after = compare(runs[:1], labelled, out, **ONCE)
    assert after[0].confusion != before[0].confusion


def test_columns_are_in_the_order_that_was_asked_for(runs, labelled, tmp_path):
    protocols = [Clusters(k=(3, 11)), Prototypes()]
    _, results = compare(runs[:1], labelled, tmp_path / "out", **(ONCE | {"protocols": protocols}))
    assert [(r.protocol, r.k) for r in results] == [("clusters", 3), ("clusters", 11), ("prototypes", 4)]
    drawings = read_json(tmp_path / "out" / "rows" / "first" / "row.json")["drawings"]
    kinds = [drawing["kind"] for drawing in drawings]
    assert len(kinds) == len(set(kinds)) == 4  # one embedding, though prototypes have another resolution


def test_names_as_files_stay_different():
    names = ["a", "a b", "a-b", "a/b", "colour + position", "k=11, x"]
    files = [file_name(name) for name in names]
    assert len(set(files)) == len(names)
    assert all("/" not in file and " " not in file for file in files)


def test_a_comparison_is_not_mixed_with_other_files(runs, labelled, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    for place in (labelled, labelled / "train" / "images", tmp_path / "mine", runs[0]):
        with pytest.raises(ConfigError, match="give a new folder"):
            compare(runs, labelled, place, **ONCE)
        assert not (place / ".selfseg-output").exists()


@pytest.mark.slow
def test_a_run_that_is_trained_on_meanwhile_is_of_one_moment(tmp_path, monkeypatch):
    """A training replaces embedder and prototypes while they are read, once."""
    run = make_run(tmp_path / "run", 1, prototypes=4)
    newer = make_run(tmp_path / "newer", 2, prototypes=4)
    real, loads = Embedder.load, []

    def load(folder, *arguments):
        embedder = real(folder, *arguments)
        loads.append(folder)
        if len(loads) == 1:
            shutil.rmtree(run / "embedder")
            shutil.copytree(newer / "embedder", run / "embedder")
        return embedder

    monkeypatch.setattr(Embedder, "load", load)
    embedder, weights, prototypes = open_run(run, prototypes=True, device="cpu")
    assert len(loads) == 2
    assert weights == embedder_hash(newer)
    assert torch.equal(prototypes, load_prototypes(newer))
    wanted = real(newer / "embedder").state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in embedder.state_dict().items())
    subjects = Subjects(run, EvaluationConfig((THREE,)), Reading(), ALONE, "cpu", weights="those of before")
    with pytest.raises(RunError, match="trained or clustered again"):
        subjects.open()  # as a worker does
