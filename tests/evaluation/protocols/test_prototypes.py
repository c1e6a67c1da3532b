import itertools

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfseg.drawing.result_charts import compare_results
from selfseg.errors import ConfigError, RunError
from selfseg.evaluation import Beside, Clusters, Extractor, Prototypes, Reading, evaluate, read_results
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.models.prototypes import save_prototypes

ALONE = Beside(baselines=False)
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
SIZE = (24, 36)


@pytest.fixture
def stripes(tmp_path):
    """Only a val split: three stripes of pure colours in a drawn order, many pixels mislabelled, a void corner."""
    root = tmp_path / "stripes"
    random = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (root / "val" / kind).mkdir(parents=True)
    (root / "classes.txt").write_text("red\ngreen\nblue\n")
    for index in range(3):
        truth = np.repeat(random.permutation(3), SIZE[1] // 3)[None].repeat(SIZE[0], 0)
        cv2.imwrite(str(root / "val" / "images" / f"{index}.png"), COLOURS[truth][..., ::-1])
        label = np.where(random.random(SIZE) < 0.4, random.integers(0, 3, SIZE), truth).astype(np.uint8)
        label[:3, :3] = 255
        cv2.imwrite(str(root / "val" / "labels" / f"{index}.png"), label)
    return root


def cells(image):
    """A coarse embedding: every fourth pixel's colour as a unit vector, a bit blurred."""
    small = torch.from_numpy(cv2.blur(image, (7, 1))[::4, ::4].astype(np.float32)).permute(2, 0, 1)
    return F.normalize(small + 20, dim=0)


def extractor(prototypes):
    return Extractor("drawn", cells, normalised=True, prototypes=torch.tensor(prototypes, dtype=torch.float32))


def oracle(root, prototypes):
    """(K, C) counts, by plain resizing of all cosines."""
    prototypes = F.normalize(torch.tensor(prototypes, dtype=torch.float32), dim=1)
    counts = np.zeros((len(prototypes), 3), np.int64)
    for index in range(3):
        image = cv2.imread(str(root / "val" / "images" / f"{index}.png"))[..., ::-1]
        label = cv2.imread(str(root / "val" / "labels" / f"{index}.png"), cv2.IMREAD_GRAYSCALE)
        cosines = torch.einsum("kd,dhw->khw", prototypes, cells(np.ascontiguousarray(image)))
        best = F.interpolate(cosines[None], SIZE, mode="bilinear", align_corners=False)[0].argmax(0).numpy()
        for prototype, true in zip(best[label != 255], label[label != 255], strict=True):
            counts[prototype, true] += 1
    return counts


def miou(counts, mapping):
    """Of prototypes named by `mapping`, class by class; prototypes without a class are misses."""
    values = []
    for c in range(3):
        mine = [j for j, name in enumerate(mapping) if name == c]
        hit = counts[mine, c].sum()
        values.append(hit / (counts[mine].sum() + counts[:, c].sum() - hit))
    return float(np.mean(values)), [float(v) for v in values]


def best_one_to_one(counts):
    """Tries every assignment."""
    k = len(counts)
    names = [c for c in range(3)] + [-1] * max(0, k - 3)
    return max((miou(counts, order)[0], miou(counts, order)[1]) for order in itertools.permutations(names, k))


THREE = [[0.1, 0.1, 1.0], [1.0, 0.2, 0.2], [0.2, 1.0, 0.3]]


def test_as_many_prototypes_as_classes_match_one_to_one(stripes):
    (result,) = evaluate(extractor(THREE), stripes, [Prototypes()], beside=ALONE)
    counts = oracle(stripes, THREE)
    expected, by_class = best_one_to_one(counts)
    assert (result.protocol, result.k, result.matching) == ("prototypes", 3, "hungarian")
    assert result.metrics["miou"] == pytest.approx(expected)
    assert result.class_iou == pytest.approx(by_class)
    right = sum(counts[j, c] for j, c in ((0, 2), (1, 0), (2, 1)))
    assert result.metrics["accuracy"] == pytest.approx(right / counts.sum())
    assert (result.fit_split, result.options["matched_on"], result.seeds) == ("none", "val", ())
    assert result.counts["pixels"] == counts.sum() == 3 * (SIZE[0] * SIZE[1] - 9)
    assert result.counts["fit_images"] == 0


def test_fewer_prototypes_leave_classes_without_one(stripes):
    (result,) = evaluate(extractor(THREE[:2]), stripes, [Prototypes()], beside=ALONE)
    assert result.matching == "hungarian"
    counts = oracle(stripes, THREE[:2])
    expected = max(miou(counts, order)[0] for order in itertools.permutations(range(3), 2))
    assert result.metrics["miou"] == pytest.approx(expected)
    assert sorted(result.class_iou)[0] == 0


def test_more_prototypes_vote_and_the_strict_figure_is_beside_it(stripes):
    many = [*THREE, [0.3, 0.1, 1.0], [0.5, 0.5, 0.5], [-1.0, -1.0, -1.0]]
    (result,) = evaluate(extractor(many), stripes, [Prototypes()], beside=ALONE)
    counts = oracle(stripes, many)
    assert (counts[5] == 0).all()  # dead
    assert result.options["dead"] == (counts.sum(1) == 0).sum()
    assert (result.k, result.matching) == (6, "majority")
    votes = [int(row.argmax()) if row.sum() else -1 for row in counts]
    assert result.metrics["miou"] == pytest.approx(miou(counts, votes)[0])
    assert result.counts["unassigned"] == 0
    (strict,) = evaluate(extractor(many), stripes, [Prototypes(matching="hungarian")], beside=ALONE)
    assert strict.metrics["miou"] == result.metrics["hungarian_miou"]
    assert strict.counts["unassigned"] > 0
    # The assignment maximises the sum of IoUs of pairs, in which prototypes without a class count for nobody.
    best = 0.0
    for order in itertools.permutations([0, 1, 2, -1, -1, -1]):
        pairs = [(j, c) for j, c in enumerate(order) if c >= 0]
        best = max(best, sum(counts[j, c] / (counts[j].sum() + counts[:, c].sum() - counts[j, c]) for j, c in pairs))
    assert strict.metrics["miou"] == pytest.approx(best / 3)


def test_the_lengths_of_prototypes_do_not_matter(stripes):
    longer = (np.array(THREE) * [[1], [50], [0.1]]).tolist()
    first, second = (evaluate(extractor(p), stripes, [Prototypes()], beside=ALONE)[0] for p in (THREE, longer))
    assert first.confusion == second.confusion


def test_the_most_frequent_class_stands_beside_it_and_nothing_else(stripes):
    results = evaluate(extractor(THREE), stripes, [Prototypes()])
    assert [(r.what, r.protocol, r.fit_split) for r in results] == [
        ("drawn", "prototypes", "none"),
        ("most frequent class", "constant", "val"),
    ]


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    torch.manual_seed(0)
    Embedder(EmbedderConfig(dim=8, output_stride=32, resolution=32)).save(folder / "embedder")
    return folder


@pytest.mark.slow
def test_a_run_is_measured_at_320_px_in_a_pass_of_its_own_or_at_what_is_asked(run, stripes, labelled):
    with pytest.raises(RunError, match="has no prototypes"):
        evaluate(run, labelled, [Prototypes()])
    save_prototypes(run, F.normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(1)), dim=1))
    passes = []
    protocols, settings = [Prototypes(), Clusters(k=(3,), points=300)], {"seeds": 1, "device": "cpu"}
    results = evaluate(
        run,
        labelled,
        protocols,
        progress=lambda what, done, total: passes.append(what) if done == total else None,
        **settings,
    )
    found = {(r.what, r.protocol): r for r in results}
    assert set(found) == {
        ("embedder", "clusters"),
        ("embedder", "prototypes"),
        ("colour", "clusters"),
        ("colour + position", "clusters"),
        ("most frequent class", "constant"),
    }
    assert found["embedder", "clusters"].resolution == 32
    assert found["embedder", "prototypes"].resolution == 320
    assert found["most frequent class", "constant"].fit_split == "train"
    assert passes[:4] == ["sample embedder", "fit clusters, embedder", "measure embedder", "measure embedder"]
    assert (run / "results" / "labelled-val-prototypes-k5-embedder.json").is_file()
    assert len(read_results(run)) == 5
    assert any("nothing fitted" in line for line in compare_results(run)[0].fine_print)

    passes.clear()
    both = evaluate(
        run,
        labelled,
        protocols,
        reading=Reading(resolution=32),
        beside=ALONE,
        progress=lambda what, done, total: passes.append(what) if done == total else None,
        **settings,
    )
    assert [(r.protocol, r.resolution) for r in both] == [("clusters", 32), ("prototypes", 32)]
    assert passes == ["sample embedder", "fit clusters, embedder", "measure embedder"]  # one pass over val for both
    own = evaluate(run, stripes, [Prototypes(resolution=None)], beside=ALONE)
    assert own[0].resolution == 32


def test_what_can_not_work_is_said(run, stripes):
    with pytest.raises(ConfigError, match="nothing that is measured has prototypes"):
        evaluate(Extractor("plain", cells, normalised=True), stripes, [Prototypes()])
    with pytest.raises(ConfigError, match="drawn gives vectors of any length"):
        evaluate(Extractor("drawn", cells, prototypes=torch.eye(3)), stripes, [Prototypes()])
    with pytest.raises(ConfigError, match="an embedder alone has no prototypes"):
        evaluate(Embedder.load(run / "embedder"), stripes, [Prototypes()])
    with pytest.raises(ConfigError, match="resolution=8"):
        Prototypes(resolution=8)
    with pytest.raises(ConfigError, match="one of hungarian, majority, not 'best'"):
        Prototypes(matching="best")
    save_prototypes(run, torch.eye(7))
    with pytest.raises(RunError, match=r"\(7, 7\), not float \(any, 8\)"):
        evaluate(run, stripes, [Prototypes()])


def test_the_rule_follows_the_number_of_prototypes():
    assert [Prototypes().matching_for(k, 4) for k in (3, 4, 5)] == ["hungarian", "hungarian", "majority"]
    assert Prototypes(matching="majority").matching_for(3, 4) == "majority"


def test_a_run_that_is_not_there_or_damaged_is_one_sentence(run, stripes):
    with pytest.raises(RunError, match=r"there is no run at .*absent; give the folder that training wrote"):
        evaluate(run / "absent", stripes)
    with pytest.raises(ConfigError, match="device 'tpu' is not known; use auto, cpu"):
        evaluate(run, stripes, device="tpu")
    (run / "embedder" / "prototypes.safetensors").write_bytes(b"cut off")
    with pytest.raises(RunError, match=r"prototypes.safetensors is damaged .* the same train command writes it again"):
        evaluate(run, stripes, [Prototypes()])
