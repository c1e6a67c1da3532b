import errno
import json
import math
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from selfseg.collection.clustering import cluster
from selfseg.collection.clusters import (
    add_position,
    assign_pixels,
    available_clusters,
    diverse,
    load_clusters,
    load_tree,
)
from selfseg.collection.concepts import concepts
from selfseg.collection.embedding import embed
from selfseg.collection.opening import load
from selfseg.collection.segmenting import segment
from selfseg.data.labelled.legend import Legend
from selfseg.data.reading.listing import list_images
from selfseg.drawing.pictures import palette
from selfseg.errors import ConfigError, RunError, StorageError, TooManyBadImages
from selfseg.models.embedder import Embedder, EmbedderConfig, Looks


def values(path):
    """A palette PNG's indices."""
    with Image.open(path) as file:
        assert file.mode == "P"
        return np.asarray(file)


SIZES = ((61, 83), (64, 64), (97, 40))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    torch.manual_seed(0)
    config = EmbedderConfig(backbone="resnet18", output_stride=32, decoder="fpn", dim=8, resolution=64)
    Embedder(config).save(folder / "embedder")
    (folder / "log.jsonl").write_text("")
    return folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i, (height, width) in enumerate(SIZES):
        image = cv2.resize(rng.integers(0, 255, (5, 5, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
        path = folder / ("deep/inner" if i == 2 else ".") / f"photo.{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), image)
    return folder


@pytest.fixture(scope="module")
def clustered(run, photographs):
    cluster(run, photographs, k=(3, 5), points=500, progress=False)
    return run


def test_load_says_what_is_missing(tmp_path, run):
    assert load(run, "cpu").dim == 8
    with pytest.raises(RunError, match="there is no run at"):
        load(tmp_path / "nothing")
    with pytest.raises(RunError, match="is not a run"):
        load(tmp_path)
    (tmp_path / "log.jsonl").write_text("")
    with pytest.raises(RunError, match="no embedder yet"):
        load(tmp_path)
    with pytest.raises(ConfigError, match="teapot"):
        load(run, "teapot")


def test_embed_writes_what_the_embedder_gives(run, photographs, tmp_path):
    index = json.loads(embed(run, photographs, tmp_path, device="cpu", progress=False).read_text())
    collection, embedder = list_images(photographs), load(run, "cpu")
    assert [entry["name"] for entry in index["images"]] == list(collection.names)
    assert (index["dim"], index["normalised"]) == (8, True)
    for i, entry in enumerate(index["images"]):
        stored = np.load(tmp_path / entry["file"], mmap_mode="r")
        expected = embedder.embed(collection.paths[i])
        assert stored.dtype == np.float16
        assert list(stored.shape) == [8, *entry["embedding_size"]]
        np.testing.assert_allclose(stored, expected.numpy(), atol=1e-3)
        assert entry["image_size"] == list(collection.read(i).shape[:2])
        assert min(entry["resized_size"]) == 64


@pytest.mark.slow
def test_embeddings_are_not_written_through_a_map(run, photographs, tmp_path, monkeypatch):
    """On a full disk, who fills a map of a file without blocks is ended by SIGBUS."""
    made, memmap = [], np.memmap

    def noted(file, dtype=np.uint8, mode="r+", *rest, **options):
        made.append(mode)
        return memmap(file, dtype, mode, *rest, **options)

    monkeypatch.setattr(np, "memmap", noted)
    monkeypatch.setattr(np.lib.format, "open_memmap", noted)
    embed(run, photographs, tmp_path, device="cpu", progress=False)
    assert len(list(tmp_path.rglob("*.npy"))) == 3
    assert set(made) <= {"r", "c"}


def test_an_interrupted_embed_goes_on(run, photographs, tmp_path):
    embed(run, photographs, tmp_path, device="cpu", progress=False)
    files = sorted(tmp_path.rglob("*.npy"))
    before = [path.stat().st_mtime_ns for path in files]
    files[1].write_bytes(files[1].read_bytes()[:100])
    (tmp_path / "index.json").unlink()
    with (tmp_path / "progress.jsonl").open("a") as journal:
        journal.write('{"name": "cut o')
    embed(run, photographs, tmp_path, device="cpu", progress=False)
    after = [path.stat().st_mtime_ns for path in files]
    assert (after[0], after[2]) == (before[0], before[2])
    assert np.load(files[1]).shape[0] == 8
    assert len(json.loads((tmp_path / "index.json").read_text())["images"]) == 3


def test_a_full_disk_leaves_whole_files_and_what_is_missing_is_made_later(
    clustered, photographs, tmp_path, monkeypatch
):
    replace, full = os.replace, True

    def until_full(source, target):
        if full and str(target).endswith(("photo.1.npy", "photo.1.jpg")):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", until_full)
    for verb, kind in ((embed, "npy"), (segment, "jpg")):
        out = tmp_path / kind
        with pytest.raises(StorageError, match="no space left"):
            verb(clustered, photographs, out, device="cpu", progress=False)
        assert not list(out.rglob(".tmp-*"))
        assert not list(out.rglob(f"photo.1.{kind}"))
        assert not (out / "index.json").exists()
    done = [json.loads(line)["name"] for line in (tmp_path / "npy" / "progress.jsonl").read_text().splitlines()]
    assert "photo.1" not in done
    full = False
    embed(clustered, photographs, tmp_path / "npy", device="cpu", progress=False)
    done = [json.loads(line)["name"] for line in (tmp_path / "npy" / "progress.jsonl").read_text().splitlines()]
    assert sorted(set(done)) == sorted(list_images(photographs).names)


@pytest.mark.gpu
def test_a_gpu_writes_what_a_cpu_writes(clustered, photographs, tmp_path):
    """TF32 rounds a product's factors to 10 bits, so that a convolution's output is some thousandths off."""
    both = {}
    for device in ("cpu", "cuda"):
        embed(clustered, photographs, tmp_path / device, device=device, progress=False)
        segment(clustered, photographs, tmp_path / f"{device}_segments", k=3, device=device, progress=False)
        own = tmp_path / f"{device}_run"
        shutil.copytree(clustered, own)
        cluster(own, photographs, k=(3,), points=500, device=device, progress=False)
        both[device] = load_clusters(own, 3)
    for name in list_images(photographs).names:
        embedded = [np.load(tmp_path / device / f"{name}.npy").astype(np.float32) for device in both]
        np.testing.assert_allclose(*embedded, atol=1e-2)
        ids = [values(tmp_path / f"{device}_segments" / "index" / f"{name}.png") for device in both]
        assert np.mean(ids[0] != ids[1]) < 0.02
    assert both["cuda"].info["inertia"] == pytest.approx(both["cpu"].info["inertia"], rel=0.1)


@pytest.mark.slow
def test_another_embedder_embeds_anew(run, photographs, tmp_path):
    embed(run, photographs, tmp_path / "out", device="cpu", progress=False)
    first = np.load(next((tmp_path / "out").rglob("*.npy")))
    torch.manual_seed(1)
    Embedder(load(run, "cpu").config).save(tmp_path / "other" / "embedder")
    embed(tmp_path / "other", photographs, tmp_path / "out", device="cpu", progress=False)
    assert not np.array_equal(first, np.load(next((tmp_path / "out").rglob("*.npy"))))


def test_clusters_describe_the_collection(clustered, photographs):
    assert available_clusters(clustered) == (3, 5)
    clusters = load_clusters(clustered, 5)
    assert clusters.centroids.shape == (5, 8)
    assert sum(clusters.share) == pytest.approx(1)
    assert list(clusters.share) == sorted(clusters.share, reverse=True)
    assert {name for names in clusters.typical for name in names} <= set(list_images(photographs).names)
    assert load_clusters(clustered).k == 5
    with pytest.raises(RunError, match=r"no clusters with k = 4, only with 3, 5; .* -k 4"):
        load_clusters(clustered, 4)


def test_clustering_repeats_and_refuses(clustered, photographs):
    before = load_clusters(clustered, 3)
    cluster(clustered, photographs, k=(3,), points=500, progress=False)
    assert torch.equal(before.centroids, load_clusters(clustered, 3).centroids)
    with pytest.raises(ConfigError, match="k = 1000 is more than 500 points"):
        cluster(clustered, photographs, k=(1000,), points=500, progress=False)
    with pytest.raises(ConfigError, match="2 or more"):
        cluster(clustered, photographs, k=(1,), progress=False)


def test_position_is_nearness_in_the_image():
    embedding = F.normalize(torch.randn(6, 4, 8), dim=0)
    joined = add_position(3 * embedding, 0.5)
    assert joined.shape == (10, 4, 8)
    assert torch.allclose(joined.norm(dim=0), torch.ones(4, 8), atol=1e-6)
    likeness = embedding[:, 1, 2] @ embedding[:, 3, 7]
    across, down = math.cos(5 / 8 * math.pi / 2), math.cos(2 / 4 * math.pi / 2)
    expected = (likeness + 0.25 * (across + down)) / 1.5
    assert float(joined[:, 1, 2] @ joined[:, 3, 7]) == pytest.approx(float(expected), abs=1e-6)
    assert add_position(embedding, 0.0) is embedding
    with pytest.raises(ConfigError, match="at least 0, not -1"):
        add_position(embedding, -1)


def test_clusters_of_place_cut_a_plain_image_by_place(run, tmp_path):
    (tmp_path / "plain").mkdir()
    image = np.full((64, 128, 3), 90, np.uint8)
    assert cv2.imwrite(str(tmp_path / "plain" / "wall.png"), image)
    shutil.copytree(run, tmp_path / "run")
    # A weight that leaves no say to what is seen: two clusters are the two halves of a wide image.
    cluster(tmp_path / "run", tmp_path / "plain", k=2, points=500, position=100.0, progress=False)
    clusters = load_clusters(tmp_path / "run", 2)
    assert (clusters.position, clusters.centroids.shape) == (100.0, (2, 12))
    segment(tmp_path / "run", tmp_path / "plain", tmp_path / "out", k=2, device="cpu", progress=False)
    ids = values(tmp_path / "out" / "index" / "wall.png")
    halves = [
        np.bincount(half.ravel(), minlength=2) / half.size for half in (ids[:, :64], ids[:, 64:], ids[:32], ids[32:])
    ]
    assert max(abs(halves[0] - halves[1]).max(), abs(halves[2] - halves[3]).max()) > 0.9


def test_segments_have_the_images_size(clustered, photographs, tmp_path):
    segment(clustered, photographs, tmp_path, device="cpu", progress=False)
    collection = list_images(photographs)
    for i, name in enumerate(collection.names):
        size = collection.read(i).shape[:2]
        index = values(tmp_path / "index" / f"{name}.png")
        assert index.dtype == np.uint8
        assert index.shape == size
        assert index.max() < 5
        assert cv2.imread(str(tmp_path / "overlay" / f"{name}.jpg")).shape[:2] == size
    legend = json.loads((tmp_path / "legend.json").read_text())
    assert [int(one["colour"][1:3], 16) for one in legend["clusters"]] == palette(5)[:, 0].tolist()
    classes = Legend.from_json(legend["clusters"]).classes
    assert [one.name for one in classes] == [f"cluster {c}" for c in range(5)]
    with Image.open(tmp_path / "index" / "photo.0.png") as file:  # and a viewer shows these colours
        shown = np.asarray(file.convert("RGB"))
    assert (shown == palette(5)[values(tmp_path / "index" / "photo.0.png")]).all()
    assert [one.colour for one in classes] == [tuple(colour) for colour in palette(5).tolist()]


def test_segment_needs_clusters(run, photographs, tmp_path):
    other = tmp_path / "run"
    load(run, "cpu").save(other / "embedder")
    with pytest.raises(RunError, match="selfseg cluster"):
        segment(other, photographs, tmp_path / "out", progress=False)


def test_clusters_of_an_earlier_embedder_are_refused(clustered, tmp_path):
    torch.manual_seed(2)
    Embedder(load(clustered, "cpu").config).save(tmp_path / "embedder")
    (tmp_path / "clusters").mkdir()
    for path in (clustered / "clusters").glob("k3.*"):
        (tmp_path / "clusters" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(RunError, match="earlier embedder"):
        load_clusters(tmp_path)


@pytest.mark.slow
def test_bad_images_are_skipped_and_listed(clustered, photographs, tmp_path):
    paths = [*list_images(photographs).paths] * 1
    images = tmp_path / "images"
    images.mkdir()
    for i in range(30):
        (images / f"{i:02}.png").write_bytes(paths[i % 3].read_bytes())
    (images / "bad.png").write_bytes(b"no picture")
    segment(clustered, images, tmp_path / "out", k=3, device="cpu", progress=False)
    skipped = [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert [entry["name"] for entry in skipped] == ["bad"]
    assert len(list((tmp_path / "out" / "index").glob("*.png"))) == 30
    for i in range(4):
        (images / f"{i:02}.png").write_bytes(b"")
    with pytest.raises(TooManyBadImages):
        segment(clustered, images, tmp_path / "more", k=3, device="cpu", progress=False)
    segment(clustered, images, tmp_path / "more", k=3, device="cpu", progress=False, max_bad=0.5)
    assert len(list((tmp_path / "more" / "index").glob("*.png"))) == 26


@pytest.mark.parametrize("verb", ["segment", "embed", "cluster"])
def test_too_many_bad_images_are_refused_before_any_work_and_all_are_listed(
    verb, clustered, photographs, tmp_path, monkeypatch
):
    images = tmp_path / "images"
    images.mkdir()
    for i in range(6):
        (images / f"{i}.png").write_bytes(list_images(photographs).paths[i % 3].read_bytes())
    for i in (3, 4, 5):  # the first ones are whole
        (images / f"{i}.png").write_bytes(b"no picture")
    run = tmp_path / "run"
    shutil.copytree(clustered, run)

    def worked(*_):
        raise AssertionError("an image was embedded")

    monkeypatch.setattr(Embedder, "embed", worked)
    further = {"segment": [tmp_path / "out"], "embed": [tmp_path / "out"], "cluster": [[2]]}[verb]
    with pytest.raises(TooManyBadImages, match="3 of 6 images"):
        {"segment": segment, "embed": embed, "cluster": cluster}[verb](
            run, images, *further, device="cpu", progress=False
        )
    listed = (run / "clusters" if verb == "cluster" else tmp_path / "out") / "skipped.jsonl"
    assert [json.loads(line)["name"] for line in listed.read_text().splitlines()] == ["3", "4", "5"]


@pytest.mark.parametrize(("cells", "size"), [((5, 7), (33, 20)), ((1, 1), (4, 4)), ((6, 3), (6, 3)), ((8, 9), (5, 4))])
def test_pixels_get_the_winner_of_upsampled_scores(cells, size):
    torch.manual_seed(0)
    embedding = F.normalize(torch.randn(6, *cells), dim=0)
    centroids = F.normalize(torch.randn(300, 6), dim=1)
    scores = torch.einsum("kd,dhw->khw", centroids, embedding)
    upsampled = F.interpolate(scores[None], size=size, mode="bilinear", align_corners=False)[0]
    ids = assign_pixels(embedding, centroids, size)
    assert ids.dtype == np.uint16
    chosen = upsampled.flatten(1).gather(0, torch.from_numpy(ids.astype(np.int64)).reshape(1, -1))
    torch.testing.assert_close(chosen[0], upsampled.flatten(1).amax(0))


@pytest.mark.parametrize("name", ["k3.json", "k3.safetensors"])
def test_damaged_clusters_are_said_with_the_way_out(clustered, tmp_path, name):
    run = tmp_path / "run"
    shutil.copytree(clustered, run)
    path = run / "clusters" / name
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(RunError, match=r"k = 3 in .* are damaged .*run: selfseg cluster .* IMAGES -k 3"):
        load_clusters(run, 3)


def test_merged_clusters_are_cut_at_any_number(run, photographs, tmp_path):
    own = Path(shutil.copytree(run, tmp_path / "run"))
    shutil.rmtree(own / "clusters", ignore_errors=True)
    paths = cluster(own, photographs, k=(3, 5), merge=20, points=500, device="cpu", progress=False)
    assert [path.name for path in paths] == ["k3.json", "k5.json"]
    tree = load_tree(own)
    assert len(tree.centroids) == 20
    # A number that nobody asked for: the parts of 5 are joined to 4, and every pixel follows.
    embedding = load(own, "cpu").embed(list_images(photographs).read(0))
    fine, coarse = (load_clusters(own, k).assign(embedding, (40, 50)) for k in (5, 4))
    assert len({*zip(fine.ravel().tolist(), coarse.ravel().tolist(), strict=True)}) == len(np.unique(fine))
    four = load_clusters(own, 4)
    assert (four.k, len(four.typical)) == (4, 4)
    assert sum(four.share) == pytest.approx(1)
    assert list(four.share) == sorted(four.share, reverse=True)
    assert load_clusters(own, 3).info["merge"] == 20
    segment(own, photographs, tmp_path / "out", k=4, device="cpu", progress=False)
    assert concepts(own, photographs, k=5, device="cpu", progress=False).is_file()
    with pytest.raises(RunError, match="no clusters with k = 21"):
        load_clusters(own, 21)
    (own / "clusters" / "tree.json").write_text("{")
    with pytest.raises(RunError, match=r"tree of clusters in .* is damaged"):
        load_clusters(own, 4)
    for wrong in ({"merge": 4, "k": (5,)}, {"merge": 1000, "k": (5,)}):
        with pytest.raises(ConfigError, match="merge"):
            cluster(own, photographs, points=500, device="cpu", progress=False, **wrong)


def test_typical_images_are_not_neighbours():
    ranked = [(f"{i:03}", i) for i in (10, 11, 12, 50, 51, 90)]
    assert diverse(ranked, images=100, most=3) == ("010", "050", "090")
    assert diverse(ranked, images=100, most=5) == ("010", "050", "090", "011", "012")
    assert diverse(ranked[:2], images=4, most=5) == ("010", "011")


def test_more_looks_make_other_files_and_say_so(run, photographs, tmp_path):
    once = json.loads(embed(run, photographs, tmp_path / "out", device="cpu", progress=False).read_text())
    looks = Looks((1.0, 1.5), flip=True)
    more = json.loads(embed(run, photographs, tmp_path / "out", looks=looks, device="cpu", progress=False).read_text())
    assert (more["scales"], more["flip"], more["stride"]) == ([1.0, 1.5], True, once["stride"] / 1.5)
    embedder = load(run, "cpu", looks)
    first = more["images"][0]
    expected = embedder.embed(list_images(photographs).read(0)).half().numpy()
    assert np.array_equal(np.load(tmp_path / "out" / first["file"]), expected)
    assert first["embedding_size"] == list(expected.shape[1:])
    assert first["embedding_size"] != once["images"][0]["embedding_size"]
