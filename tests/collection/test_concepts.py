import json

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfseg.collection import concepts as discovery
from selfseg.collection.clusters import Clusters, save_clusters
from selfseg.collection.concepts import Search, concepts
from selfseg.errors import ConfigError, EmptyCollection, RunError, TooManyBadImages
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.models.prototypes import save_prototypes
from selfseg.storage.hashes import embedder_hash

COLOURS = np.array([[250, 20, 20], [20, 250, 20], [20, 20, 250], [250, 250, 20]], np.uint8)  # red, green, blue, yellow
VECTORS = F.normalize(torch.tensor(COLOURS.astype(np.float32)) / 255 - 0.5, dim=1)
CELL = 8


class ColourEmbedder(Embedder):
    """A cell's vector is its mean colour."""

    def forward(self, image):
        return F.normalize(F.avg_pool2d(image, CELL) - 0.5, dim=1)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run whose embedding is colour, with four prototypes, of which the last never occurs in `painted`."""
    folder = tmp_path / "run"
    torch.manual_seed(0)
    embedder = ColourEmbedder(EmbedderConfig(dim=3, output_stride=32, resolution=None)).eval()
    embedder.save(folder / "embedder")
    save_prototypes(folder, VECTORS)
    monkeypatch.setattr(discovery, "load", lambda run, device: embedder)
    return folder


def paint(path, cells):
    """An image with a pure colour per cell."""
    image = COLOURS[np.array(cells)].repeat(CELL, 0).repeat(CELL, 1)
    assert cv2.imwrite(str(path), image[..., ::-1])


@pytest.fixture
def painted(tmp_path):
    folder = tmp_path / "painted"
    folder.mkdir()
    paint(folder / "a.png", [[0, 0, 1, 1], [0, 0, 1, 1]])
    paint(folder / "b.png", [[0, 1, 1, 1], [1, 1, 1, 1]])
    paint(folder / "c.png", [[2, 2, 2, 2], [2, 2, 2, 2]])
    return folder


def read(run):
    return json.loads((run / "concepts" / "concepts.json").read_text())


def test_the_right_segments_are_found_counted_and_drawn(run, painted):
    page = concepts(run, painted, device="cpu", progress=False)
    values = read(run)
    found = [[(s["image"], s["share"]) for s in c["segments"]] for c in values["concepts"]]
    assert found == [[("a", 0.5), ("b", 0.125)], [("a", 0.5), ("b", 0.875)], [("c", 1.0)], []]
    assert [c["images"] for c in values["concepts"]] == [2, 2, 1, 0]
    assert [c["share"] for c in values["concepts"]] == pytest.approx([5 / 24, 11 / 24, 8 / 24, 0])
    assert values["dead"] == [3]
    assert values["active_per_image"] == pytest.approx(5 / 3)
    assert (values["source"], values["k"], values["count"], values["skipped"]) == ("prototypes", 4, 3, 0)
    assert [c["coherence"] for c in values["concepts"]] == pytest.approx([1, 1, None, None])

    picture = values["concepts"][0]["segments"][0]["picture"]
    drawn = cv2.imread(str(run / "concepts" / "pictures" / picture["file"]))[..., ::-1].astype(int)
    assert drawn.shape == (picture["height"], picture["width"], 3) == (16, 32, 3)
    red, rest = drawn[3:13, 2:11].reshape(-1, 3).mean(0), drawn[3:13, 22:].reshape(-1, 3).mean(0)
    assert red[0] - red[1:].max() > 150  # in its own colours, and the rest gray
    assert np.ptp(rest) < 12
    assert page == run / "concepts.html"
    text = page.read_text()
    assert text.count("data:image/webp") == 5
    assert "1 of 4 prototypes that no image shows" in text


def test_nearer_segments_come_first_and_of_equals_the_earlier_image(run, tmp_path):
    folder = tmp_path / "shades"
    folder.mkdir()
    for name, colour in (("d", (250, 20, 20)), ("b", (250, 20, 20)), ("a", (250, 90, 20)), ("c", (200, 20, 20))):
        cv2.imwrite(str(folder / f"{name}.png"), np.full((16, 16, 3), colour[::-1], np.uint8))
    concepts(run, folder, top=3, device="cpu", progress=False)
    segments = read(run)["concepts"][0]["segments"]
    assert [s["image"] for s in segments] == ["b", "d", "c"]
    cosines = [s["cosine"] for s in segments]
    assert cosines[0] == cosines[1] == pytest.approx(1, abs=1e-6)
    assert cosines[2] < cosines[1]


def test_small_segments_come_after_all_larger_ones(run, tmp_path):
    folder = tmp_path / "specks"
    folder.mkdir()
    paint(folder / "speck.png", [[0, 1, 1, 1]])
    for name, red in (("large", 180), ("larger", 120)):
        image = np.full((8, 32, 3), (20, 20, red), np.uint8)
        cv2.imwrite(str(folder / f"{name}.png"), image)

    def order(min_share):
        concepts(run, folder, device="cpu", progress=False, min_share=min_share)
        return [s["image"] for s in read(run)["concepts"][0]["segments"]]

    assert order(0.0)[0] == "speck"
    assert order(0.3) == [*[name for name in order(0.0) if name != "speck"], "speck"]


def test_a_second_call_gives_the_same_and_leaves_nothing_of_another(run, painted):
    concepts(run, painted, device="cpu", progress=False)
    first = (run / "concepts" / "concepts.json").read_bytes()
    pictures = {path.name: path.read_bytes() for path in (run / "concepts" / "pictures").glob("*.webp")}
    concepts(run, painted, top=1, device="cpu", progress=False)
    assert len(list((run / "concepts" / "pictures").glob("*.webp"))) == 3
    concepts(run, painted, device="cpu", progress=False)
    assert (run / "concepts" / "concepts.json").read_bytes() == first
    assert {path.name: path.read_bytes() for path in (run / "concepts" / "pictures").glob("*.webp")} == pictures


def test_clusters_serve_runs_without_prototypes(run, painted):
    (run / "embedder" / "prototypes.safetensors").unlink()
    with pytest.raises(RunError, match="selfseg cluster"):
        concepts(run, painted, device="cpu", progress=False)
    with pytest.raises(RunError, match="no clusters"):
        concepts(run, painted, k=2, device="cpu", progress=False)
    info = {"embedder": embedder_hash(run), "images": str(painted)}
    save_clusters(run, Clusters(VECTORS[:2], (0.5, 0.5), ((), ()), info))
    text = concepts(run, painted, k=2, device="cpu", progress=False).read_text()
    assert read(run)["source"] == "clusters"
    assert "cluster 1" in text
    assert "prototype" not in text


def test_crop_and_resolution_say_what_is_looked_at(run, tmp_path):
    folder = tmp_path / "wide"
    folder.mkdir()
    paint(folder / "a.png", [[0, 1, 1, 1, 1, 0]] * 4)  # 32 x 48 px
    concepts(run, folder, crop=32, device="cpu", progress=False)
    values = read(run)
    assert (values["crop"], values["resolution"]) == (32, "native")
    assert values["dead"] == [0, 2, 3]
    concepts(run, folder, crop=64, resolution=64, device="cpu", progress=False)
    segment = read(run)["concepts"][1]["segments"][0]
    assert (segment["picture"]["width"], segment["picture"]["height"], segment["share"]) == (64, 64, 1.0)


def test_bad_images_are_skipped_counted_and_listed(run, painted):
    (painted / "bad.png").write_bytes(b"")
    concepts(run, painted, device="cpu", progress=False, max_bad=0.3)
    assert (read(run)["count"], read(run)["skipped"]) == (3, 1)
    assert json.loads((run / "concepts" / "skipped.jsonl").read_text())["name"].startswith("bad")
    with pytest.raises(TooManyBadImages):
        concepts(run, painted, device="cpu", progress=False)
    (painted / "c.png").write_bytes(b"no picture")
    with pytest.raises(TooManyBadImages, match="2 of 4 images"):  # all at once, not the first alone
        concepts(run, painted, device="cpu", progress=False)
    for name in "abc":
        (painted / f"{name}.png").write_bytes(b"")
    with pytest.raises(EmptyCollection, match="none of the 4 images"):
        concepts(run, painted, device="cpu", progress=False, max_bad=1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"top": 0}, "top is 0"),
        ({"min_share": 2}, "min_share 2"),
        ({"crop": 16}, "a crop of 16 px"),
        ({"resolution": 0}, "resolution is 0"),
        ({"crop": 224, "resolution": 128}, "a crop of 224 px must be from 32 px to the resolution, 128"),
    ],
)
def test_options_that_can_not_work(run, painted, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        concepts(run, painted, device="cpu", progress=False, **options)


def test_prototypes_of_another_length_are_refused(run, painted):
    save_prototypes(run, torch.eye(5))
    with pytest.raises(RunError, match=r"\(5, 5\), not float \(any, 3\)"):
        concepts(run, painted, device="cpu", progress=False)


def random_embedding(seed, cells=30, dim=6):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(dim, 5, cells // 5, generator=generator), dim=0)


def test_a_search_keeps_the_best_and_no_more_and_counts_as_a_plain_loop_does():
    vectors = F.normalize(torch.randn(7, 6, generator=torch.Generator().manual_seed(99)), dim=1)
    search = Search(vectors, top=3, min_share=0.05)
    segments: dict[int, list[tuple[bool, float, int, torch.Tensor]]] = {c: [] for c in range(7)}
    cells = np.zeros(7, int)
    for image in range(60):
        embedding = random_embedding(image)
        search.add(image, embedding)
        assert max(len(search.best(c)) for c in range(7)) <= 3
        flat = embedding.flatten(1).T
        owner = (flat @ vectors.T).argmax(1)
        for c in range(7):
            mine = flat[owner == c]
            cells[c] += len(mine)
            if len(mine):
                mean = F.normalize(mine.mean(0), dim=0)
                segments[c].append((len(mine) / 30 >= 0.05, float(mean @ vectors[c]), image, mean))
    for c in range(7):
        expected = sorted(segments[c], key=lambda s: (s[0], s[1]), reverse=True)[:3]
        assert [-s.order for s in search.best(c)] == [s[2] for s in expected]
        assert [s.cosine for s in search.best(c)] == pytest.approx([s[1] for s in expected], abs=1e-6)
        numbers = search.numbers(c)
        assert numbers["images"] == len(segments[c])
        assert numbers["share"] == pytest.approx(cells[c] / cells.sum())
        for name, of in (("coherence", segments[c]), ("coherence_top", expected)):
            stacked = torch.stack([s[3] for s in of])
            pairs = (stacked @ stacked.T)[~torch.eye(len(of), dtype=torch.bool)]
            assert numbers[name] == pytest.approx(float(pairs.mean()), abs=1e-5)


def test_what_a_search_keeps_does_not_grow_with_the_images():
    search = Search(torch.eye(6), top=2)
    sizes = []
    for image in range(40):
        search.add(image, random_embedding(image, cells=400))
        kept = [s.vector for c in range(6) for s in search.best(c)]
        # A vector that were a view would keep all of its image's in memory.
        assert all(v.untyped_storage().nbytes() == v.numel() * v.element_size() for v in kept)
        sizes.append(len(kept))
    assert sizes[5:] == [12] * 35


@pytest.mark.gpu
def test_a_gpu_finds_the_same_segments():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(20, 8, generator=generator)
    found = {}
    for device in ("cpu", "cuda"):
        found[device] = Search(vectors.to(device), top=3, min_share=0.05)
    for image in range(4):
        coarse = torch.randn(1, 8, 3, 4, generator=generator)
        embedding = F.normalize(F.interpolate(coarse, (12, 16), mode="bilinear")[0], dim=0)
        for device, search in found.items():
            search.add(image, embedding.to(device))
    for concept in range(20):
        best = [search.best(concept) for search in found.values()]
        assert [one.order for one in best[0]] == [one.order for one in best[1]]
        for cpu, gpu in zip(*best, strict=True):
            assert gpu.cosine == pytest.approx(cpu.cosine, abs=1e-5)
            torch.testing.assert_close(gpu.vector, cpu.vector, rtol=0, atol=1e-5)


def test_a_whole_image_may_be_one_segment(run, painted):
    page = concepts(run, painted, whole=True, device="cpu", progress=False)
    values = read(run)
    # a: as much red as green, so of equals the first; b: mostly green; c: all blue.
    means = {"a": (VECTORS[0] + VECTORS[1]) / 2, "b": (VECTORS[0] + 7 * VECTORS[1]) / 8, "c": VECTORS[2]}
    for concept in values["concepts"]:
        for segment in concept["segments"]:
            mean = F.normalize(means[segment["image"]], dim=0)
            assert segment["cosine"] == pytest.approx(float(mean @ VECTORS[concept["concept"]]), abs=1e-5)
            assert segment["share"] == 1
    assert sum(c["images"] for c in values["concepts"]) == 3
    assert values["active_per_image"] == 1
    assert "Each image counts as one segment" in page.read_text()
