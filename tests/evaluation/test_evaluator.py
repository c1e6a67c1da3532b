import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console

from selfseg.cli import main
from selfseg.data.labelled.catalog import open_labelled
from selfseg.drawing.result_charts import compare_results
from selfseg.errors import ConfigError, LabelError, RunError, TooManyBadImages
from selfseg.evaluation import (
    Beside,
    Clusters,
    EvaluationConfig,
    Extractor,
    Linear,
    Objects,
    Prototypes,
    Reading,
    evaluate,
    evaluate_extractors,
    format_table,
    read_results,
)
from selfseg.evaluation.measure.features import backbone_extractor, features_extractor
from selfseg.evaluation.measure.passes import sample
from selfseg.evaluation.measure.results import result_name
from selfseg.models.embedder import Embedder, EmbedderConfig, Looks
from selfseg.ops.crf import CRFConfig

COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], np.uint8)
QUICK = Linear(pixels=2000, steps=60, batch=256)
FOUR = Clusters(k=(4,))
BOTH = (FOUR, QUICK)
ALONE = Beside(baselines=False)


def draw(root: Path, images: int = 4, wrong: float = 0.0, size: tuple[int, int] = (40, 56)) -> Path:
    """Stripes of four pure colours; the label is the colour's index, but for a share of wrong ones; a void corner."""
    generator = np.random.default_rng(0)
    (root / "classes.txt").parent.mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("red\ngreen\nblue\nyellow\nnever\n")
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (root / split / kind).mkdir(parents=True)
        for index in range(images):
            label = np.repeat(generator.permutation(4), size[1] // 4)[None].repeat(size[0], 0).astype(np.uint8)
            cv2.imwrite(str(root / split / "images" / f"{index}.png"), COLOURS[label][..., ::-1])
            mislabelled = generator.random(label.shape) < wrong
            label[mislabelled] = (label[mislabelled] + 1) % 4
            label[:5, :5] = 255
            cv2.imwrite(str(root / split / "labels" / f"{index}.png"), label)
    return root


def one_hot(image: np.ndarray) -> torch.Tensor:
    distance = np.abs(image[None].astype(int) - COLOURS[:, None, None].astype(int)).sum(3)
    return torch.nn.functional.one_hot(torch.from_numpy(distance.argmin(0)), 4).permute(2, 0, 1).float()


PERFECT = Extractor("perfect", one_hot, normalised=True)


def test_a_perfect_embedding_is_perfect(tmp_path):
    root = draw(tmp_path / "stripes")
    results = evaluate(PERFECT, root, BOTH, seeds=3, beside=ALONE)
    # The most frequent class belongs to the baselines.
    assert [(r.what, r.protocol, r.k) for r in results] == [("perfect", "clusters", 4), ("perfect", "linear", None)]
    for result in results:
        assert result.metrics["miou"] == 1.0
        assert result.metrics["accuracy"] == 1.0
        assert result.class_iou == (1.0, 1.0, 1.0, 1.0, None)
        assert result.options["absent_classes"] == ["never"]
        assert result.counts["images"] == 4
        assert result.counts["void"] == 4 * 25
        assert result.counts["pixels"] == 4 * (40 * 56 - 25)
        assert sum(map(sum, result.confusion)) == result.counts["pixels"]


def test_wrong_labels_cost_their_share(tmp_path):
    root = draw(tmp_path / "stripes", wrong=0.2)
    for result in evaluate(PERFECT, root, BOTH, seeds=1, beside=ALONE):
        assert result.metrics["accuracy"] == pytest.approx(0.8, abs=0.01)
        assert result.metrics["miou"] == pytest.approx(0.8 / 1.2, abs=0.02)


def test_interpolated_cells_keep_edges_in_place(tmp_path):
    # Stripes of 16 px are 4 whole cells: between the centres of two cells the scores cross exactly at the edge.
    root = draw(tmp_path / "stripes", size=(40, 64))
    coarse = Extractor("coarse", lambda image: one_hot(image[::4, ::4]))
    for result in evaluate(coarse, root, BOTH, seeds=1, beside=ALONE):
        assert result.metrics["accuracy"] == 1.0


def test_an_embedder_is_also_measured_with_the_place_of_its_pixels(tmp_path):
    # Everything looks the same and the class is the side of the image: only the place can tell.
    root = tmp_path / "sides"
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (root / split / kind).mkdir(parents=True)
        for index in range(2):
            cv2.imwrite(str(root / split / "images" / f"{index}.png"), np.full((64, 64, 3), 120, np.uint8))
            label = np.repeat(np.arange(2, dtype=np.uint8), 32)[None].repeat(64, 0)
            cv2.imwrite(str(root / split / "labels" / f"{index}.png"), label)
    embedder = Embedder(EmbedderConfig(dim=4, output_stride=32, decoder="linear", resolution=64)).eval()
    results = evaluate(embedder, root, BOTH, seeds=1, beside=Beside(baselines=False, position=50.0))
    assert [r.what for r in results] == ["embedder", "embedder", "embedder + position", "embedder + position"]
    assert results[2].options["position"] == 50.0
    assert "position" not in results[0].options
    assert results[2].metrics["accuracy"] > 0.99
    assert [r.metrics for r in results[:2]] == [
        r.metrics for r in evaluate(embedder, root, BOTH, seeds=1, beside=ALONE)
    ]


def test_with_the_crf_every_protocol_has_a_second_result(tmp_path):
    root = draw(tmp_path / "stripes")

    def speckled(image):
        """Every eleventh pixel is rather taken for one of the other classes, each in turn."""
        vectors = one_hot(image).flatten(1)
        for other in (1, 2, 3):
            part = vectors[:, 11 * other :: 33]
            vectors[:, 11 * other :: 33] = 0.55 * part + 0.75 * part.roll(other, 0)
        return torch.nn.functional.normalize(vectors, dim=0).reshape(4, *image.shape[:2])

    noisy = Extractor("noisy", speckled, normalised=True, prototypes=torch.eye(4))
    protocols = (*BOTH, Prototypes())
    results = evaluate(noisy, root, protocols, seeds=2, crf=CRFConfig(iterations=3))
    alone = [result for result in results if not result.crf]
    refined = [result for result in results if result.crf]
    assert [r.metrics for r in alone] == [r.metrics for r in evaluate(noisy, root, protocols, seeds=2)]
    plain = [r for r in alone if r.protocol != "constant"]
    assert [(r.what, r.protocol, r.k) for r in refined] == [(r.what, r.protocol, r.k) for r in plain]
    before = {r.protocol: r.metrics["accuracy"] for r in plain if r.what == "noisy"}
    ours = {r.protocol: r for r in refined if r.what == "noisy"}
    assert before == pytest.approx(dict.fromkeys(ours, 10 / 11), abs=0.01)
    assert {name: r.metrics["accuracy"] for name, r in ours.items()} == dict.fromkeys(ours, 1.0)
    assert {name: r.options["crf"]["temperature"] for name, r in ours.items()} == {
        "clusters": 0.1,
        "linear": 1.0,
        "prototypes": 0.1,
    }
    assert ours["linear"].options["crf"]["iterations"] == 3
    names = {result_name(result) for result in results}
    assert len(names) == len(results)
    assert "stripes-val-clusters-k4-crf-noisy.json" in names
    titles = [str(column.header) for column in format_table(results).columns]
    assert titles[1:4] == ["clusters k=4, majority", "linear", "prototypes k=4, hungarian"]
    assert titles[4:] == [f"{title} + CRF" for title in titles[1:4]]


def test_more_clusters_than_classes_vote(tmp_path):
    root = draw(tmp_path / "stripes")
    noisy = Extractor("noisy", lambda image: one_hot(image) + 0.3 * torch.rand(4, *image.shape[:2]))
    (result,) = evaluate(noisy, root, [Clusters(k=(12,))], seeds=2, beside=ALONE)
    assert result.matching == "majority"
    assert result.metrics["miou"] > 0.99
    assert result.metrics["hungarian_accuracy"] < 0.8  # 12 clusters, 4 of them named
    (hungarian,) = evaluate(noisy, root, [Clusters(k=(12,), matching="hungarian")], seeds=2, beside=ALONE)
    assert hungarian.counts["unassigned"] > 0
    assert sum(map(sum, hungarian.confusion)) + hungarian.counts["unassigned"] == hungarian.counts["pixels"]


def test_fewer_clusters_than_classes(tmp_path):
    root = draw(tmp_path / "stripes")
    (result,) = evaluate(PERFECT, root, [Clusters(k=(2,), matching="hungarian")], seeds=1, beside=ALONE)
    assert sum(value is not None and value > 0 for value in result.class_iou) == 2


def test_numbers_of_other_weights_are_not_in_one_row(tmp_path):
    """A run is measured, trained on, and measured by another protocol."""
    root, run = draw(tmp_path / "stripes"), tmp_path / "run"
    (run / "embedder").mkdir(parents=True)
    (run / "recipe.yaml").write_text("epochs: 1\n")
    for seed, protocol in ((0, Clusters(k=(3,), points=500)), (1, QUICK)):
        torch.manual_seed(seed)
        Embedder(EmbedderConfig(backbone="test_resnet", dim=8, output_stride=32, resolution=None)).save(
            run / "embedder"
        )
        evaluate(run, root, [protocol], seeds=1, beside=ALONE)
    (found,) = compare_results(run)
    rows = {what: [cell is not None for cell in cells] for what, _, cells in found.rows if "embedder" in what}
    assert rows == {"embedder": [False, True], "embedder of earlier weights": [True, False]}
    table = (run / "results" / "table.md").read_text()
    assert "| embedder of earlier weights |" in table
    evaluate(run, root, [Clusters(k=(3,), points=500)], seeds=1, beside=ALONE)
    assert "earlier weights" not in (run / "results" / "table.md").read_text()


@pytest.mark.slow
def test_a_run_leaves_stable_files_with_baselines(tmp_path):
    root = draw(tmp_path / "stripes")
    run = tmp_path / "run"
    Embedder(EmbedderConfig(dim=8, output_stride=32, resolution=None)).save(run / "embedder")
    (run / "recipe.yaml").write_text("epochs: 1\n")
    # Four colours can't make nine clusters, and the error says both.
    with pytest.raises(ConfigError, match=r"k=5 .* 4 distinct"):
        evaluate(run, root, [Clusters(k=(5, 9), points=2000), QUICK], seeds=1)
    assert not (run / "results").exists()

    protocols = Clusters(k=(3, 4), points=2000), QUICK
    results = evaluate(run, root, protocols, seeds=1)
    names = sorted(path.name for path in (run / "results").glob("*.json"))
    expected = [
        f"stripes-val-clusters-k{k}-{what}.json" for k in (3, 4) for what in ("colour", "colour-position", "embedder")
    ]
    expected += [f"stripes-val-linear-{what}.json" for what in ("colour", "colour-position", "embedder")]
    assert names == sorted([*expected, "stripes-val-constant-most-frequent-class.json"])
    assert {result.what for result in results} == {"embedder", "colour", "colour + position", "most frequent class"}
    assert sorted(map(repr, read_results(run))) == sorted(map(repr, results))
    for result in results:
        assert len(result.recipe_hash) == (16 if result.what == "embedder" else 0)
    heard = []
    again = evaluate(run, root, protocols, seeds=1, progress=lambda *told: heard.append(told))
    assert again == results
    fits = [told for told in heard if told[0] == "fit clusters, embedder"]
    assert fits == [("fit clusters, embedder", done, 2) for done in range(3)]
    assert ("fit linear, embedder", 1, 1) in heard
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file; give a new folder with --out"):  # before anything is measured
        evaluate(run, root, protocols, out=tmp_path / "file", progress=lambda *_: pytest.fail("it was measured"))
    assert sorted(path.name for path in (run / "results").iterdir()) == sorted([*names, "table.md"])

    console = Console(width=200, file=io.StringIO())
    console.print(format_table(results))
    text = console.file.getvalue()
    for word in ("embedder", "colour + position", "most frequent class", "clusters k=4", "linear", "stripes val"):
        assert word in text


def test_the_most_frequent_class(tmp_path):
    root = draw(tmp_path / "stripes")
    for index in range(4):
        path = root / "train" / "labels" / f"{index}.png"
        cv2.imwrite(str(path), np.full_like(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), 2))
    result = evaluate(PERFECT, root, [FOUR], seeds=1)[-1]
    assert result.what == "most frequent class"
    assert result.options["class"] == "blue"
    share = np.mean([(open_labelled(root, "val").read_label(i) == 2).sum() / (40 * 56 - 25) for i in range(4)])
    assert result.metrics["accuracy"] == pytest.approx(share)
    assert result.metrics["miou"] == pytest.approx(share / 4)


def test_what_the_layer_learned_from_can_not_be_measured(tmp_path):
    root = draw(tmp_path / "stripes")
    with pytest.raises(ConfigError, match="'val' can't be measured on it"):
        evaluate(PERFECT, root, reading=Reading(fit_split="val"))
    (result,) = evaluate(PERFECT, root, [FOUR], seeds=1, reading=Reading(fit_split="val"), beside=ALONE)
    assert (result.fit_split, result.split) == ("val", "val")


def test_options_that_can_not_work(tmp_path):
    for wrong, said in ((["linear"], r"some of Clusters\(\), .* not 'linear'"), ([], "not 'none'")):
        with pytest.raises(ConfigError, match=said):
            evaluate(PERFECT, tmp_path, wrong)
    with pytest.raises(ConfigError, match="measured once, not clusters, clusters"):
        evaluate(PERFECT, tmp_path, [Clusters(k=(3,)), FOUR])
    for wrong_k in ((0,), (), 4):
        with pytest.raises(ConfigError, match="at least 1"):
            Clusters(k=wrong_k)
    with pytest.raises(ConfigError, match="seed"):
        evaluate(PERFECT, tmp_path, seeds=0)
    with pytest.raises(ConfigError, match="at most 512 clusters, not 600"):
        evaluate(PERFECT, tmp_path, [Clusters(k=(4, 600))], crf=CRFConfig())
    with pytest.raises(ConfigError, match="above 0, not 0"):
        EvaluationConfig(temperature=0)
    with pytest.raises(ConfigError, match="give a run's folder"):
        evaluate(3, tmp_path)


def test_a_label_outside_of_the_classes(tmp_path):
    root = draw(tmp_path / "stripes")
    label = np.zeros((40, 56), np.uint8)
    label[3, 3] = 5
    cv2.imwrite(str(root / "val" / "labels" / "2.png"), label)
    with pytest.raises(LabelError, match=r"the value 5 but there are 5 classes"):
        evaluate(PERFECT, root, BOTH, seeds=1, beside=ALONE)


def test_bad_images_are_skipped_and_counted(tmp_path):
    root = draw(tmp_path / "stripes", images=21)
    (root / "val" / "images" / "3.png").write_bytes(b"")
    (result,) = evaluate(PERFECT, root, [FOUR], seeds=1, beside=ALONE)
    assert (result.counts["images"], result.counts["skipped"], result.metrics["miou"]) == (20, 1, 1.0)
    (root / "val" / "images" / "4.png").write_bytes(b"")
    with pytest.raises(TooManyBadImages):
        evaluate(PERFECT, root, [FOUR], seeds=1, beside=ALONE)


def test_an_embedding_that_is_not_finite(tmp_path):
    root = draw(tmp_path / "stripes")
    broken = Extractor("broken", lambda image: one_hot(image) / 0)
    with pytest.raises(RunError, match=r"broken gives values that are not finite for 0"):
        evaluate(broken, root)


def test_seeds_are_recorded_and_spread(tmp_path):
    root = draw(tmp_path / "stripes")
    noise = Extractor(
        "noise", lambda image: torch.rand(3, *image.shape[:2], generator=torch.Generator().manual_seed(1))
    )
    fit, measured = open_labelled(root, "train"), open_labelled(root, "val")
    results = evaluate_extractors([noise], fit, measured, EvaluationConfig(BOTH, seeds=(3, 7, 8, 9)))
    by = {result.protocol: result for result in results}
    assert by["clusters"].seeds == (3, 7, 8, 9)
    assert by["clusters"].metrics["miou_std"] > 0
    assert by["linear"].seeds == (3, 7, 8)


@pytest.mark.slow
def test_the_backbone_before_the_decoder(tmp_path):
    root = draw(tmp_path / "stripes", images=2)
    embedder = Embedder(EmbedderConfig(dim=8, output_stride=32, resolution=64)).eval()
    results = evaluate(embedder, root, [QUICK], seeds=1, beside=Beside(baselines=False, backbone=True))
    assert [r.what for r in results] == ["embedder", "backbone"]
    extractor = backbone_extractor(embedder)
    image = np.full((64, 96, 3), 90, np.uint8)
    stage = embedder.backbone((torch.full((1, 3, 64, 96), 90 / 255) - embedder.mean) / embedder.std)[-1]
    torch.testing.assert_close(extractor.extract(image), torch.nn.functional.normalize(stage, dim=1)[0])


def test_an_untrained_network_beside_the_trained(tmp_path):
    root = draw(tmp_path / "stripes", images=2)
    embedder = Embedder(EmbedderConfig(dim=8, output_stride=32, resolution=32))
    state = torch.random.get_rng_state()
    results = evaluate(embedder, root, [QUICK], seeds=1, beside=Beside(baselines=False, untrained=True))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [(r.what, r.resolution) for r in results] == [("embedder", 32), ("untrained", 32)]
    other = evaluate(embedder, root, [QUICK], seeds=1, beside=ALONE, reading=Reading(resolution=48))
    assert (other[0].resolution, embedder.resolution) == (48, 32)


def test_a_probe_of_another_data_set_is_of_the_protocol_domain(tmp_path):
    here, there = draw(tmp_path / "here"), draw(tmp_path / "there", wrong=0.1)
    results = evaluate(PERFECT, here, BOTH, seeds=1, reading=Reading(fit_data=there))
    probes = [r for r in results if r.what == "perfect"]
    assert [(r.protocol, r.fit_split) for r in probes] == [("clusters", "there/train"), ("domain", "there/train")]
    assert all(r.dataset == "here" and r.metrics["miou"] == 1 for r in probes)
    assert results[-1].what == "most frequent class"
    # The measured split's name is no reason to refuse another data set's.
    assert evaluate(PERFECT, here, [QUICK], seeds=1, reading=Reading(fit_data=there, fit_split="val"), beside=ALONE)
    (there / "classes.txt").write_text("blue\ngreen\nred\nyellow\nnever\n")
    with pytest.raises(ConfigError, match="other classes"):
        evaluate(PERFECT, here, [QUICK], reading=Reading(fit_data=there))


def test_objects_are_no_pixels(tmp_path):
    root = draw(tmp_path / "stripes")
    splits = open_labelled(root, "train"), open_labelled(root, "val")
    with pytest.raises(ConfigError, match="objects measure objects; call evaluate"):
        evaluate_extractors([PERFECT], *splits, EvaluationConfig((Linear(), Objects())))


@pytest.mark.slow
def test_what_the_heads_share_is_measured_on_request(tmp_path):
    root = draw(tmp_path / "stripes")
    config = EmbedderConfig(backbone="resnet18", output_stride=16, decoder="deeplabv3", dim=4, resolution=64)
    embedder = Embedder(config).eval()
    results = evaluate(embedder, root, [Linear(solver="sgd")], seeds=1, beside=Beside(baselines=False, features=True))
    assert [r.what for r in results] == ["embedder", "decoder features"]
    assert all(
        (r.options["solver"], r.options["weight_decay"], r.options["standardise"]) == ("sgd", 1e-4, False)
        for r in results
    )
    image = np.random.default_rng(0).integers(0, 256, (64, 80, 3)).astype(np.uint8)
    features = features_extractor(embedder).extract(image)
    assert features.shape == (256, 4, 5)
    with torch.no_grad():
        again = torch.nn.functional.normalize(embedder.decoder.project(features[None]), dim=1)[0]
    assert torch.allclose(again, embedder.embed(image), atol=1e-5)


def test_in_a_crop_every_protocol_measures_the_middle_alone(tmp_path):
    root = draw(tmp_path / "stripes", size=(40, 56))
    for split in ("train", "val"):  # what lies outside of the crop is of the fifth class, half of it
        for path in (root / split / "labels").iterdir():
            label = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            label[:, :8] = 4
            cv2.imwrite(str(path), label)
    ours = replace(PERFECT, prototypes=torch.eye(4))
    protocols = (*BOTH, Prototypes())
    results = evaluate(ours, root, protocols, seeds=1, reading=Reading(crop=40))
    assert {r.protocol for r in results} == {"clusters", "linear", "prototypes", "constant"}
    for result in results:
        assert result.crop == "40"
        assert result.options["absent_classes"][-1] == "never"
        assert result.counts["void"] == 0  # the corner is outside
        assert result.counts["pixels"] == 4 * 40 * 40
        if result.what == "perfect":
            assert result.metrics["miou"] == 1.0
    constant = results[-1]
    middles = [open_labelled(root, "val").read_label(i)[:, 8:48] for i in range(4)]
    fit = np.concatenate([open_labelled(root, "train").read_label(i)[:, 8:48].ravel() for i in range(4)])
    winner = np.bincount(fit).argmax()
    assert constant.metrics["accuracy"] == pytest.approx(np.mean([(m == winner).mean() for m in middles]))
    assert {r.resolution for r in results if r.what.startswith("colour")} == {40}
    names = {result_name(result) for result in results}
    assert "stripes-val-linear-crop40-perfect.json" in names
    assert not names & {result_name(result) for result in evaluate(ours, root, protocols, seeds=1)}
    assert "linear, crop 40" in [str(column.header) for column in format_table(results).columns]


def test_the_crop_is_what_the_network_sees(tmp_path):
    root = draw(tmp_path / "stripes", images=2)
    embedder = Embedder(EmbedderConfig(dim=4, output_stride=32, decoder="linear", resolution=128)).eval()
    (result,) = evaluate(embedder, root, [QUICK], seeds=1, beside=ALONE, reading=Reading(crop=64))
    assert (result.crop, result.resolution) == ("64", 64)
    (result,) = evaluate(embedder, root, [QUICK], seeds=1, beside=ALONE, reading=Reading(crop=64, resolution=96))
    assert (result.crop, result.resolution, result.counts["pixels"]) == ("64", 96, 2 * 64 * 64)


@pytest.mark.slow
def test_native_resolution_is_that_of_a_run_without_its_own(tmp_path):
    root = draw(tmp_path / "stripes", images=2)
    torch.manual_seed(0)
    own = Embedder(EmbedderConfig(dim=4, output_stride=32, decoder="fpn", resolution=96)).eval()
    none = Embedder(EmbedderConfig(dim=4, output_stride=32, decoder="fpn", resolution=None)).eval()
    none.load_state_dict(own.state_dict())
    options = {"protocols": [FOUR], "seeds": 1, "beside": Beside(backbone=True, features=True, untrained=True)}
    native = evaluate(own, root, **options, reading=Reading(resolution="native"))
    assert {result.resolution for result in native} == {"native"}
    assert [r.metrics for r in native] == [r.metrics for r in evaluate(none, root, **options)]
    usual = evaluate(own, root, **options)
    assert [r.resolution for r in usual if r.what in ("embedder", "backbone", "decoder features", "untrained")] == [
        96
    ] * 4
    assert own.resolution == 96
    for wrong in (0, "own", 2.5):
        with pytest.raises(ConfigError, match="a short side in px or 'native', not"):
            Reading(resolution=wrong)


def test_all_cells_of_the_fit_split(tmp_path, monkeypatch):
    root = draw(tmp_path / "stripes")
    few = Extractor("few", lambda image: one_hot(image[::4, ::4]), normalised=True)
    cells = 4 * 10 * 14
    found = {}
    for points in ("all", 100):
        (found[points],) = evaluate(few, root, [Clusters(k=(4,), points=points)], seeds=1, beside=ALONE)
    assert (found["all"].options["points"], found["all"].options["cells"]) == (cells, cells)
    assert (found[100].options["points"], found[100].options["cells"]) == (100, cells)
    data = open_labelled(root, "train")
    drawn = sample(few, data, cells="all", pixels=0)
    every = torch.cat([few.extract(data.images.read(i)).flatten(1).T for i in range(4)])
    assert torch.equal(drawn.cells, every)
    monkeypatch.setattr("selfseg.evaluation.measure.passes._free_memory", lambda: 2 * 4 * 4 * cells - 1)
    with pytest.raises(ConfigError, match=r"all 560 cells of 4 dimensions would take .* give a number of points"):
        sample(few, data, cells="all", pixels=0)
    monkeypatch.setattr("selfseg.evaluation.measure.passes._free_memory", lambda: 2 * 4 * 4 * cells)
    assert len(sample(few, data, cells="all", pixels=0).cells) == cells
    for points in (0, "some"):
        with pytest.raises(ConfigError, match=f'or "all", not points={points!r}'):
            Clusters(points=points)


def test_the_command_takes_crop_points_and_solver(tmp_path, capsys):
    root, run = draw(tmp_path / "stripes", images=2), tmp_path / "run"
    torch.manual_seed(0)
    Embedder(EmbedderConfig(dim=8, output_stride=32, resolution=None)).save(run / "embedder")
    options = ["--seeds", "2", "--crop", "40", "-k", "3", "--no-baselines"]
    options += ["--clusters.points", "all", "--linear.solver", "lbfgs"]
    assert main(["evaluate", str(run), str(root), *options]) == 0
    clusters, probe = read_results(run)
    assert (clusters.protocol, clusters.crop, clusters.seeds) == ("clusters", "40", (0, 1))
    assert clusters.options["points"] == clusters.options["cells"]
    assert (probe.protocol, probe.options["solver"], probe.seeds) == ("linear", "lbfgs", (0,))
    assert probe.options["first_gradient"] < 1e-3
    assert "k=3" in capsys.readouterr().out
    plain = ["--protocols", "clusters", "-k", "3", "--no-baselines", "--seeds", "1"]
    assert main(["evaluate", str(run), str(root), *plain, "--resolution", "native"]) == 0
    assert {result.resolution for result in read_results(run) if result.crop == "none"} == {"native"}
    assert main(["evaluate", str(run), str(root), *plain, "--resolution", "48"]) == 0
    assert {result.resolution for result in read_results(run) if result.crop == "none"} == {48}
    deep = ["--linear.hidden", "4", "8", "--linear.solver", "poly", "--linear.steps", "9"]
    assert main(["evaluate", str(run), str(root), "--protocols", "linear", "--no-baselines", *deep]) == 0
    assert sorted(r.options["hidden"] for r in read_results(run) if r.options.get("solver") == "poly") == [4, 8]


def test_more_looks_are_a_column_of_their_own(tmp_path):
    root, run = draw(tmp_path / "stripes", images=2), tmp_path / "run"
    torch.manual_seed(0)
    Embedder(EmbedderConfig(dim=8, output_stride=32, resolution=None)).save(run / "embedder")
    once = evaluate(run, root, [QUICK], seeds=1, beside=ALONE)
    more = evaluate(run, root, [QUICK], seeds=1, beside=ALONE, reading=Reading(looks=Looks((1.0, 2.0), flip=True)))
    assert once[0].metrics != more[0].metrics
    assert (more[0].options["scales"], more[0].options["flip"]) == ((1.0, 2.0), True)
    assert {path.name for path in (run / "results").glob("*.json")} == {
        "stripes-val-linear-embedder.json",
        "stripes-val-linear-1x2x-mirrored-embedder.json",
    }
    assert "linear, 1x2x, mirrored" in [str(column.header) for column in format_table(more).columns]


def test_merged_clusters_are_the_parts_of_one_tree(tmp_path):
    root = draw(tmp_path / "stripes")
    noisy = Extractor("noisy", lambda image: one_hot(image) + 0.1 * torch.rand(4, *image.shape[:2]), normalised=False)
    four, two = evaluate(noisy, root, [Clusters(k=(4, 2), merge=40, points=4000)], seeds=2, beside=ALONE)
    # 40 clusters of four colours: average linkage finds the colours again.
    assert (four.k, four.matching, four.metrics["miou"]) == (4, "majority", 1.0)
    assert (two.k, two.options["merge"]) == (2, 40)
    assert result_name(four) == "stripes-val-clusters-k4-merged40-noisy.json"
    assert "clusters k=4, majority, merged from 40" in [str(column.header) for column in format_table([four]).columns]
    with pytest.raises(ConfigError, match="merge=3 clusters can't be merged to k=4"):
        Clusters(k=(4,), merge=3)


def test_results_are_not_mixed_with_other_files(tmp_path):
    root, out = draw(tmp_path / "stripes"), tmp_path / "mine"
    out.mkdir()
    (out / "table.md").write_text("my own")
    for place in (out, root, root / "train" / "labels"):
        with pytest.raises(ConfigError, match="never mixed"):
            evaluate(PERFECT, root, [FOUR], seeds=1, beside=ALONE, out=place)
    assert (out / "table.md").read_text() == "my own"
    for _ in range(2):
        evaluate(PERFECT, root, [FOUR], seeds=1, beside=ALONE, out=tmp_path / "new")
    (result,) = (tmp_path / "new").glob("*.json")
    values = json.loads(result.read_text())
    (tmp_path / "new" / "edited.json").write_text(json.dumps({**values, "metrics": {}}))
    evaluate(PERFECT, root, [FOUR], seeds=1, beside=ALONE, out=tmp_path / "new")
    assert "perfect" in (tmp_path / "new" / "table.md").read_text()


def test_settings_that_can_t_be_are_refused():
    for make in (
        lambda: Beside(position=-1.0),
        lambda: Beside(position=1e39),
        lambda: Clusters(iterations=0),
        lambda: Linear(learning_rate=0.0),
        lambda: Linear(learning_rate=1e30),
        lambda: EvaluationConfig(seeds=10**12),
    ):
        with pytest.raises(ConfigError):
            make()


@pytest.mark.slow
def test_other_data_of_the_same_name_takes_nobodys_place(tmp_path):
    first, second = draw(tmp_path / "a" / "stripes"), draw(tmp_path / "b" / "stripes", images=2)
    asked = {"protocols": (FOUR,), "seeds": 1, "beside": ALONE, "out": tmp_path / "results"}
    evaluate(PERFECT, first, **asked)
    written = {file.name: file.read_bytes() for file in (tmp_path / "results").iterdir()}
    with pytest.raises(ConfigError, match=r"is of other images, whose folder is called stripes too"):
        evaluate(PERFECT, second, **asked)
    assert {file.name: file.read_bytes() for file in (tmp_path / "results").iterdir()} == written
    moved = first.rename(tmp_path / "stripes")  # the same data is measured again, wherever it lies
    evaluate(PERFECT, moved, **asked)
    for kind, ending in (("images", "png"), ("labels", "png")):  # and a folder that was added to stays itself
        shutil.copy(moved / "val" / kind / f"0.{ending}", moved / "val" / kind / f"9.{ending}")
    assert evaluate(PERFECT, moved, **asked)[0].counts["images"] == 5
