import html
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from conftest import draw_scene
from selfseg.collection.clustering import cluster
from selfseg.collection.clusters import load_clusters
from selfseg.collection.points.drawing import look_twice
from selfseg.collection.proposal import load_proposal
from selfseg.collection.reporting.beside import matching_clusters, measure
from selfseg.collection.reporting.report import report
from selfseg.errors import RunError
from selfseg.models.embedder import Embedder, EmbedderConfig, Looks
from selfseg.ops.matching import overlaps

PYRAMID = EmbedderConfig(
    backbone="test_resnet", output_stride=32, decoder="pyramid", correction=8, frozen=True, dim=8, resolution=64
)


def make_embedder(learned: float) -> Embedder:
    """A pyramid whose correction has been moved away from its start."""
    torch.manual_seed(0)
    embedder = Embedder(PYRAMID).eval()
    with torch.no_grad():
        embedder.decoder.correction[-1].weight.normal_(std=1).mul_(learned)
    return embedder


def save_run(folder, embedder, images):
    embedder.save(folder / "embedder")
    (folder / "recipe.yaml").write_text(json.dumps({"name": "tiny", "images": str(images)}))
    return folder


@pytest.fixture
def scenes(tmp_path):
    folder = tmp_path / "scenes"
    folder.mkdir()
    for seed in range(9):
        Image.fromarray(draw_scene(seed)[0]).save(folder / f"scene{seed}.png")
    return folder


def words_of(page):
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page.read_text())).split())


def test_a_copy_of_the_same_segments_is_matched_whatever_the_clusters_numbers():
    ids = np.random.default_rng(0).integers(0, 5, (20, 30))
    shuffle = np.array([3, 0, 4, 1, 2])
    pairs = matching_clusters(overlaps(ids, shuffle[ids], 5))
    assert pairs.tolist() == shuffle.tolist()


def test_clusters_with_little_in_common_are_not_matched():
    table = np.array([[100, 0, 0], [0, 3, 97], [0, 60, 40]])
    assert matching_clusters(table).tolist() == [0, 2, 1]
    assert matching_clusters(np.array([[100, 2], [100, 0]])).tolist() == [-1, 0]


def test_specks_and_what_turns_with_the_image_are_told_from_calm_segments():
    image = np.zeros((60, 80, 3), np.uint8)
    image[:, 40:] = 255
    calm = (image[:, :, 0] > 0).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 2, calm.shape).astype(np.uint8)
    beside = np.roll(calm, 20, axis=1)
    good, bad = measure(image, calm, calm), measure(image, noise, noise[:, ::-1])
    assert (good["mirror"], good["specks"]) == (1.0, 0.0)
    assert bad["mirror"] < 0.6
    assert bad["specks"] > 0.3
    assert good["edges"] > 5 * measure(image, beside, beside)["edges"]
    assert good["clusters"] == pytest.approx(2)
    assert measure(image, np.zeros_like(calm), calm)["edges"] == 1


@pytest.mark.parametrize("looks", [Looks(), Looks((1.0, 1.5), flip=True)])
def test_one_pass_finds_both_embeddings(looks):
    embedder = make_embedder(1.0)
    embedder.looks = looks
    before = embedder.before_training()
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        both = look_twice(embedder, before)(image)
        assert torch.equal(both[:, :8], embedder.look(image))
        assert torch.equal(both[:, 8:], before.look(image))
    assert not torch.allclose(both[:, :8], both[:, 8:], atol=0.05)


@pytest.mark.parametrize("merge", [None, 12])
def test_the_starts_clusters_are_kept_beside_the_runs(scenes, tmp_path, merge):
    run = save_run(tmp_path / "run", make_embedder(1.0), scenes)
    cluster(run, scenes, k=4, points=600, merge=merge, progress=False)
    found = load_clusters(run, 4)
    assert found.before.centroids.shape == found.centroids.shape
    assert sum(found.before.share) == pytest.approx(1)
    assert not torch.allclose(found.before.centroids, found.centroids, atol=0.05)
    assert (found.before.groups is None) == (merge is None)

    unlearned = save_run(tmp_path / "unlearned", make_embedder(0.0), scenes)
    cluster(unlearned, scenes, k=4, points=600, merge=merge, progress=False)
    same = load_clusters(unlearned, 4)
    # Before and after are one embedding; k-means, begun from its own result, moves a little on.
    assert same.before.share == pytest.approx(same.share, abs=0.03)


@pytest.mark.slow
def test_the_report_holds_a_run_against_its_start(scenes, tmp_path):
    for learned, changed in ((0.0, False), (3.0, True)):
        run = save_run(tmp_path / f"run{learned}", make_embedder(learned), scenes)
        cluster(run, scenes, k=(3, 5), points=600, progress=False)
        words = words_of(report(run, count=9, device="cpu", progress=False))
        assert "Did training help?" in words
        assert "in 5 clusters of both" in words
        share = int(re.search(r"Training gave (\d+) % of the pixels of these 8 images another cluster", words)[1])
        assert (share > 5) == changed
        assert ("almost nothing" in words) != changed
        assert "None of them knows what is in a picture" in words


@pytest.mark.slow
def test_another_run_stands_beside_this_one(scenes, tmp_path):
    plain = Embedder(EmbedderConfig(backbone="test_resnet", output_stride=32, decoder="fpn", dim=6, resolution=64))
    run = save_run(tmp_path / "run", plain, scenes)
    other = save_run(tmp_path / "a start", make_embedder(0.0), scenes)
    with pytest.raises(RunError, match="this run has no clusters yet"):
        report(run, beside=other, device="cpu", progress=False)
    cluster(run, scenes, k=(3, 4), points=600, progress=False)
    assert "Did training help?" not in words_of(report(run, device="cpu", progress=False))
    with pytest.raises(RunError, match=r"none of this run's numbers of clusters \(3 4\); run: .* -k 3 4"):
        report(run, beside=other, device="cpu", progress=False)
    cluster(other, scenes, k=3, points=600, progress=False)
    words = words_of(report(run, count=3, beside=other, device="cpu", progress=False))
    assert "in 3 clusters of a start and of this run" in words
    assert "% of the pixels of these 3 images have another cluster than in a start" in words
    assert "With so few images the numbers can't say which is better" in words
    assert "clustered in different ways" not in words
    cluster(other, scenes, k=3, points=600, merge=9, progress=False)
    words = words_of(report(run, count=3, beside=other, device="cpu", progress=False))
    assert "clustered in different ways (--merge none here, --merge 9 in a start), which moves pixels too" in words
    with pytest.raises(RunError, match="there is no run at"):
        report(run, beside=tmp_path / "nothing", device="cpu", progress=False)


@pytest.mark.slow
def test_what_was_found_about_k_stands_with_the_clusters(tmp_path):
    images = tmp_path / "many"
    images.mkdir()
    for seed in range(17):
        Image.fromarray(draw_scene(seed)[0]).save(images / f"scene{seed:02}.png")
    run = save_run(tmp_path / "run", make_embedder(0.0), images)
    cluster(run, images, k=3, points=2000, progress=False, propose=True)
    found = load_proposal(run)
    assert (found.images, len(found.agreement) > 3) == (17, True)
    words = words_of(report(run, count=2, device="cpu", progress=False))
    assert found.sentence in words
    assert "How far two halves agree" in words
    cluster(run, images, k=3, points=1000, progress=False)
    assert load_proposal(run) is None  # it was of the clusters before


def test_clusters_of_an_older_version_say_how_to_get_the_starts(scenes, tmp_path):
    run = save_run(tmp_path / "run", make_embedder(1.0), scenes)
    (file,) = cluster(run, scenes, k=3, points=600, progress=False)
    values = json.loads(file.read_text())
    del values["before"]
    file.write_text(json.dumps(values))
    tensors = load_file(file.with_suffix(".safetensors"))
    save_file({"centroids": tensors["centroids"]}, file.with_suffix(".safetensors"))  # without a header
    assert load_clusters(run, 3).before is None
    words = words_of(report(run, count=2, device="cpu", progress=False))
    assert "cluster again to see both" in words
    assert "Did training help?" not in words
