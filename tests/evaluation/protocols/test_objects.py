import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfseg.cli import main
from selfseg.data.labelled.catalog import open_labelled
from selfseg.errors import BadMask, ConfigError, DataError
from selfseg.evaluation import Beside, Linear, Objects, Reading, Retrieval, evaluate
from selfseg.evaluation.measure.confusion import metrics_of
from selfseg.evaluation.measure.features import Extractor, colour
from selfseg.evaluation.measure.results import column_of, result_name
from selfseg.evaluation.protocols.object_vectors import (
    ObjectTable,
    collect_objects,
    mask_finder,
    saliency_finder,
)
from selfseg.evaluation.protocols.objects import (
    evaluate_objects,
    name_object_clusters,
    object_counts,
    object_labels,
    retrieve,
)
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.ops.kmeans import assign, kmeans

NAMES = ("ground", "red", "green", "blue", "never")
COLOURS = np.array([[90, 90, 90], [220, 30, 30], [30, 210, 40], [40, 50, 230]], np.uint8)


def draw(root, kinds, masks, size=(40, 60), noise=0):
    """Images of one square each of the given class (0 = none) on gray; the masks of the squares; a void frame."""
    rng = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("\n".join(NAMES))
    for split, classes in kinds.items():
        for folder in (root / split / "images", root / split / "labels"):
            folder.mkdir(parents=True)
        masks.mkdir(exist_ok=True)
        for index, kind in enumerate(classes):
            label = np.zeros(size, np.uint8)
            y, x = rng.integers(2, 14), rng.integers(2, 30)
            if kind:
                label[y : y + 20, x : x + 22] = kind
            image = COLOURS[label].astype(int) + rng.integers(-noise, noise + 1, (*size, 3))
            name = f"{split}{index}"
            cv2.imwrite(
                str(root / split / "images" / f"{name}.png"), np.clip(image, 0, 255).astype(np.uint8)[..., ::-1]
            )
            if kind:
                cv2.imwrite(str(masks / f"{name}.png"), (label > 0).astype(np.uint8))
            label[[0, -1]] = 255
            cv2.imwrite(str(root / split / "labels" / f"{name}.png"), label)
    return root


REFERENCE = Objects(weighting="logit", threshold=0.5, whiten=32)


@pytest.fixture
def scenes(tmp_path):
    kinds = {"train": [1, 2, 3, 1, 2, 3, 0], "val": [3, 2, 1, 0, 2]}
    return draw(tmp_path / "scenes", kinds, tmp_path / "masks", noise=8), tmp_path / "masks"


def by_name(results, **wanted):
    (found,) = [r for r in results if all(getattr(r, key) == value for key, value in wanted.items())]
    return found


def test_objects_of_distinct_colours_are_told_apart(scenes):
    root, masks = scenes
    extractor = Extractor("colour", colour)
    results = evaluate(extractor, root, [Objects(k=(4, 5), masks=masks), Retrieval()], seeds=2)
    for what in ("embedder", "colour + position"):
        assert by_name(results, what=what, protocol="retrieval").metrics["accuracy"] == 1
        for split in ("train", "val"):
            # 3 clusters for 3 colours, and the background.
            assert by_name(results, what=what, k=4, fit_split=split).metrics["miou"] == 1
    one = by_name(results, what="embedder", protocol="objects", k=4, fit_split="train")
    assert (one.matching, one.seeds, one.class_iou) == ("majority", (0, 1), (1, 1, 1, 1, None))
    assert one.options["absent_classes"] == ["never"]
    assert one.counts["objects"] == 4
    assert one.counts["fit_objects"] == 6
    assert one.counts["without_object"] == 1
    assert sum(map(sum, one.confusion)) == one.counts["pixels"] == 5 * 38 * 60
    # As many as classes, one class of which nobody has: 4 clusters for 3 colours; one of them is wrong.
    assert by_name(results, what="embedder", k=5, fit_split="train").matching == "hungarian"
    constant = by_name(results, protocol="constant")
    assert constant.metrics["accuracy"] < 0.9
    assert len(results) == 2 * (2 * 2 + 1) + 1


def test_vectors_and_labels_are_as_by_hand(tmp_path):
    rng = np.random.default_rng(1)
    root, masks = tmp_path / "data", tmp_path / "masks"
    for folder in (root / "val" / "images", root / "val" / "labels", masks):
        folder.mkdir(parents=True)
    (root / "classes.txt").write_text("a\nb\nc\n")
    drawn = []
    for index in range(5):
        image = rng.integers(0, 256, (24, 32, 3)).astype(np.uint8)
        label = rng.choice(np.array([0, 1, 2, 255], np.uint8), (24, 32))
        ids = rng.integers(0, 4, (24, 32)).astype(np.uint8)  # three objects
        for place, values in ((root / "val" / "images", image), (root / "val" / "labels", label), (masks, ids)):
            cv2.imwrite(str(place / f"{index}.png"), values)
        drawn.append((label, ids.astype(int) - 1))
    data = open_labelled(root, "val")

    def extract(image):  # four-pixel cells
        return torch.from_numpy(image[::4, ::4].astype(np.float32) / 255).permute(2, 0, 1)

    table = collect_objects(mask_finder(extract, masks), data, Objects(masks=masks))
    assert table.pixels.shape == (15, 3)
    background = np.zeros(3, int)
    for index, (label, ids) in enumerate(drawn):
        image = data.images.read(index)
        cells = extract(image).numpy()
        for number in range(3):
            row, total = 3 * index + number, np.zeros(3)
            for y in range(24):
                for x in range(32):
                    if ids[y, x] == number:
                        total += cells[:, y // 4, x // 4]
            assert table.vectors["embedder"][row].numpy() == pytest.approx(total / np.linalg.norm(total), abs=1e-5)
            inside = ids == number
            rows, columns = np.nonzero(inside)
            place = [*(image[inside].mean(0) / 255), (columns + 0.5).mean() / 32, (rows + 0.5).mean() / 24]
            assert table.vectors["colour + position"][row].numpy() == pytest.approx(place, abs=1e-5)
            assert table.pixels[row].tolist() == [int((inside & (label == c)).sum()) for c in range(3)]
        background += [int(((ids < 0) & (label == c)).sum()) for c in range(3)]
    assert table.background.tolist() == background.tolist()
    assert table.without == 0


def random_table(objects=30, classes=4, dimensions=6, seed=0):
    rng = np.random.default_rng(seed)
    vectors = F.normalize(torch.from_numpy(rng.normal(size=(objects, dimensions))).float(), dim=1)
    pixels = rng.integers(0, 50, (objects, classes)) * (rng.random((objects, classes)) < 0.6)
    return ObjectTable({"embedder": vectors}, pixels, rng.integers(0, 500, classes))


def test_clusters_are_matched_as_by_trying_everything():
    for seed in range(5):
        table = random_table(seed=seed)
        vectors = table.vectors["embedder"]
        counts = object_counts(vectors, vectors, table, 4, seed, True)
        cluster = assign(vectors, kmeans(vectors, 3, seed, spherical=True).centroids, True).tolist()
        expected = np.zeros((4, 4), int)
        expected[0] = table.background
        for row, found in enumerate(cluster):
            expected[found + 1] += table.pixels[row]
        assert counts.tolist() == expected.tolist()
        assert counts.sum() == table.pixels.sum() + table.background.sum()

        def miou(names):
            confusion = np.zeros((4, 4), int)
            for row, name in enumerate((0, *names)):
                confusion[:, name] += counts[row]  # noqa: B023
            return metrics_of(confusion).miou

        best = max(miou(names) for names in itertools.permutations(range(1, 4)))
        assert metrics_of(name_object_clusters(counts, "hungarian")).miou == pytest.approx(best)
        voted = tuple(int(counts[row].argmax()) for row in range(1, 4))
        assert metrics_of(name_object_clusters(counts, "majority")).miou == pytest.approx(miou(voted))


def test_the_nearest_are_found_as_by_looking_at_all():
    fit, measured = random_table(20, seed=3), random_table(13, seed=4)
    labels = object_labels(fit.pixels)
    a, b = fit.vectors["embedder"].numpy(), measured.vectors["embedder"].numpy()
    for neighbours in (1, 3, 50):
        found = retrieve(fit.vectors["embedder"], labels, measured.vectors["embedder"], neighbours)
        for row, vector in enumerate(b):
            order = sorted(range(len(a)), key=lambda i: -float(a[i] @ vector))[:neighbours]
            votes = [labels[i] for i in order]
            most = max(votes.count(value) for value in votes)
            assert found[row] == next(value for value in votes if votes.count(value) == most)


def test_retrieval_of_some_classes_leaves_out_the_others(scenes):
    root, masks = scenes
    finder = mask_finder(colour, masks)
    config, wanted = Objects(masks=masks), Retrieval(classes=("red", "blue"))
    splits = open_labelled(root, "train"), open_labelled(root, "val")
    (result,) = evaluate_objects(finder, *splits, [replace(wanted, objects=config)], baselines=False)
    assert result.class_names == ("ground", "red", "blue")
    assert result.metrics["miou"] == 1
    assert result.counts["candidates"] == 4
    assert result.counts["void"] == 5 * 2 * 60 + 2 * 20 * 22  # the frames and two green squares
    assert sum(map(sum, result.confusion)) == result.counts["pixels"]
    with pytest.raises(ConfigError, match="no class cat among the objects; there are red, green"):
        evaluate_objects(finder, *splits, [Retrieval(classes=("cat",))])
    with pytest.raises(ConfigError, match="no object of train has a labelled pixel"):
        evaluate_objects(mask_finder(colour, root), *splits, [wanted])
    with pytest.raises(ConfigError, match="would find themselves"):
        evaluate_objects(finder, splits[0], splits[0], [config, Retrieval()])
    with pytest.raises(ConfigError, match="measured on the same objects"):
        evaluate_objects(finder, *splits, [config, Retrieval(objects=Objects(whiten=3))])


def test_few_objects(tmp_path):
    root = draw(tmp_path / "few", {"train": [1, 2, 3], "val": [2]}, tmp_path / "masks")
    finder = mask_finder(colour, tmp_path / "masks")
    splits = open_labelled(root, "train"), open_labelled(root, "val")
    with pytest.raises(ConfigError, match="k=5 is the background and 4 clusters, but there are 3 objects"):
        evaluate_objects(finder, *splits, [Objects()])
    with pytest.raises(ConfigError, match="k=1 leaves no cluster beside the background"):
        evaluate_objects(finder, *splits, [Objects(k=(1,))])
    results = evaluate_objects(finder, *splits, [Objects(k=(2, 4)), Retrieval()], seeds=[0], baselines=False)
    # The one image of val has an object for k = 2, and none for more.
    assert [(r.protocol, r.k, r.fit_split) for r in results] == [
        ("objects", 2, "train"), ("objects", 4, "train"), ("objects", 2, "val"), ("retrieval", None, "train"),
    ]  # fmt: skip
    assert all(r.metrics["accuracy"] == 1 for r in results if r.k != 2 or r.fit_split == "val")


def test_a_split_without_any_object_is_background(tmp_path):
    root = draw(tmp_path / "none", {"train": [1, 2, 3], "val": [0, 0]}, tmp_path / "masks")
    with (root / "classes.txt").open("a") as classes:  # labels of 0 and 255 alone are refused without it
        classes.write("\n255 void\n")
    finder = mask_finder(colour, tmp_path / "masks")
    splits = open_labelled(root, "train"), open_labelled(root, "val")
    results = evaluate_objects(finder, *splits, [Objects(k=(3,)), Retrieval()], seeds=[0])
    assert {r.metrics["accuracy"] for r in results} == {1}
    assert all(r.counts["without_object"] == 2 for r in results if r.protocol != "constant")
    assert "val" not in {r.fit_split for r in results}


def test_masks_may_lie_by_split(scenes):
    root, masks = scenes
    data = open_labelled(root, "val")
    flat = collect_objects(mask_finder(colour, masks), data, Objects())
    (masks / "val").mkdir()
    for path in masks.glob("val*.png"):
        path.rename(masks / "val" / path.name)
    assert np.array_equal(collect_objects(mask_finder(colour, masks), data, Objects()).pixels, flat.pixels)
    with pytest.raises(DataError, match="nowhere does not exist"):
        mask_finder(colour, masks / "nowhere")


def test_a_mask_that_can_not_be_used_is_told(scenes):
    root, masks = scenes
    cv2.imwrite(str(masks / "val0.png"), np.ones((7, 60), np.uint8))
    with pytest.raises(BadMask, match="val0"):
        collect_objects(mask_finder(colour, masks), open_labelled(root, "val"), Objects())


@pytest.fixture
def salient():
    torch.manual_seed(0)
    config = EmbedderConfig(backbone="resnet18", output_stride=32, dim=8, resolution=64, saliency=True)
    return Embedder(config).eval()


def centre_saliency(embedder, images):
    """About half of all places are objects, with logits of some size."""
    with torch.no_grad():
        logits = embedder.saliency(images)
        scale = 2 / logits.std()
        embedder.saliency_head.weight *= scale
        embedder.saliency_head.bias.sub_(logits.median()).mul_(scale)


def test_what_the_saliency_head_finds(salient):
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)
    pixels = cv2.resize(image, (90, 64), interpolation=cv2.INTER_LINEAR)
    embedding = salient.embed(image)
    centre_saliency(salient, torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255)
    plain = saliency_finder(salient, Objects())(image, "val", "")
    assert torch.allclose(plain.embedding, embedding, atol=1e-5)
    inside = plain.weight[0] > 0
    assert 0.2 < inside.float().mean() < 0.8
    assert set(np.unique(plain.ids)) == {-1, 0}
    assert plain.ids.shape == (50, 70)
    # Where the object ends lies between cells.
    again = F.interpolate((plain.weight[None] > 0).float(), (50, 70), mode="nearest")[0, 0].numpy() > 0
    assert ((plain.ids == 0) == again).mean() > 0.7

    weighted = saliency_finder(salient, REFERENCE)(image, "val", "")
    assert bool((weighted.weight[weighted.weight > 0] > 0.5).all())
    assert 0 < (weighted.weight > 0).sum() < inside.sum()
    with torch.no_grad():
        salient.saliency_head.bias -= 100
    nothing = saliency_finder(salient, Objects())(image, "val", "")
    assert len(nothing.weight) == 0
    assert (nothing.ids == -1).all()
    with pytest.raises(ConfigError, match="no saliency head"):
        saliency_finder(Embedder(replace(salient.config, saliency=False)), Objects())


@pytest.mark.slow
def test_a_run_is_measured_and_both_variants_are_told(salient, labelled, capsys):
    images = open_labelled(labelled, "train").images
    pixels = torch.stack([torch.from_numpy(images.read(i)).permute(2, 0, 1).float() / 255 for i in range(6)])
    centre_saliency(salient, pixels)
    run = labelled.parent / "run"
    salient.save(run / "embedder")
    results = evaluate(run, labelled, [Objects(), Retrieval()], seeds=2, device="cpu")
    names = {path.name for path in (run / "results").glob("*.json")}
    assert names == {
        f"labelled-val-{rest}.json"
        for what in ("embedder", "colour-position")
        for rest in (
            f"objects-k4-{what}",
            f"objects-k4-fit-val-{what}",
            f"retrieval-{what}",
        )
    } | {"labelled-val-constant-most-frequent-class.json"}
    assert all(r.resolution == 64 for r in results if r.protocol != "constant")
    other = evaluate(run, labelled, [REFERENCE], seeds=1, device="cpu", beside=Beside(baselines=False))
    assert {(r.options["whiten"], r.options["weighting"]) for r in other} == {(32, "logit")}
    words = f"evaluate {run} {labelled} --protocols objects retrieval --seeds 1 --retrieval.classes ball"
    words += " --objects.weighting logit --objects.threshold 0.5 --objects.whiten 32"
    assert main([*words.split(), "--device", "cpu"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "retrieval" in said
    assert "labelled val, 2 classes" in said
    assert (run / "results" / "labelled-val-retrieval-2classes-embedder.json").is_file()
    with pytest.raises(ConfigError, match="need masks"):
        evaluate(Extractor("colour", colour), labelled, [Objects()])


def test_without_any_object_the_results_of_pixels_stay(salient, labelled):
    run = labelled.parent / "run"
    salient.save(run / "embedder")
    linear = Linear(pixels=200, steps=2, batch=50)
    with pytest.raises(ConfigError, match="no object was found to fit clusters on"):
        evaluate(run, labelled, [linear, Objects(threshold=1e9)], seeds=1, beside=Beside(baselines=False), device="cpu")
    assert [path.name for path in (run / "results").glob("*.json")] == ["labelled-val-linear-embedder.json"]


def test_many_clusters_are_named_by_the_rule_that_is_asked_for(scenes):
    root, masks = scenes
    found = {}
    for many in ("majority", "largest_iou"):
        results = evaluate(Extractor("colour", colour), root, [Objects(k=(4,), masks=masks, many=many)], seeds=1)
        found[many] = by_name(results, what="embedder", k=4, fit_split="train")
        assert found[many].matching == many
        assert {"hungarian_miou", "hungarian_pixels_miou"} <= set(found[many].metrics)
    assert found["majority"].metrics["miou"] == found["largest_iou"].metrics["majority_miou"]
    assert found["largest_iou"].metrics["miou"] == found["majority"].metrics["largest_iou_miou"]
    assert column_of(found["largest_iou"]) == "objects k=4, largest IoU"
    assert "-largest-iou-" in result_name(found["largest_iou"])


def test_the_largest_iou_names_a_cluster_by_a_small_class():
    counts = np.array([[900, 0, 4], [0, 90, 0], [0, 40, 30]])  # the last cluster: 40 of 130 pixels, 30 of 34
    assert name_object_clusters(counts, "majority").tolist() == [[900, 0, 0, 0], [0, 130, 0, 0], [4, 30, 0, 0]]
    assert name_object_clusters(counts, "largest_iou").tolist() == [[900, 0, 0, 0], [0, 90, 40, 0], [4, 0, 30, 0]]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"many": "vote"}, "many must be one of majority, largest_iou, not 'vote'"),
        ({"weighting": "median"}, "not 'median'"),
        ({"weighting": "logit", "masks": "folder"}, "needs the saliency head"),
        ({"weighting": "logit", "threshold": -1.0}, "threshold of at least 0"),
        ({"whiten": 0}, "whiten must be at least 1"),
        ({"neighbours": 0}, "neighbours must be at least 1"),
    ],
)
def test_settings_that_can_not_work_say_so(change, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Retrieval(**change) if "neighbours" in change else Objects(**change)


def test_masks_are_cropped_with_their_images(scenes):
    root, masks = scenes
    whole = open_labelled(root, "val")
    table = collect_objects(mask_finder(colour, masks, crop=20), whole.cropped(20), Objects(masks=masks))
    assert table.tally.pixels + table.tally.void == 5 * 20 * 20
    # Masks are exactly the objects' pixels, so after the same resize each holds its own class and nothing else.
    for index, pixels in enumerate(table.pixels):
        assert (pixels > 0).sum() == 1, index
    labels = np.stack([whole.cropped(20).read_label(i) for i in range(5)])
    assert table.background.tolist() == [int((labels == 0).sum()), 0, 0, 0, 0]
    assert table.pixels.sum(0).tolist() == [0, *(int((labels == c).sum()) for c in (1, 2, 3, 4))]
    results = evaluate(
        Extractor("colour", colour), root, [Objects(k=(3,), masks=masks)], seeds=1, reading=Reading(crop=20)
    )
    assert {result.crop for result in results} == {"20"}
