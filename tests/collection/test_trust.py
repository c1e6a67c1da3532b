"""Outputs of several makers are not mixed, and what a stranger or a kill left does no harm."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import draw_scene
from named_runs import add_clusters, make_run
from selfseg.collection import embedding
from selfseg.collection.clustering import cluster
from selfseg.collection.clusters import load_clusters, save_clusters
from selfseg.collection.embedding import embed
from selfseg.collection.opening import choose_device, collect, load
from selfseg.collection.segmenting import segment
from selfseg.data.reading.images import ImageCollection
from selfseg.drawing.pictures import write_image
from selfseg.errors import CheckpointError, ConfigError, RunError
from selfseg.models.embedder import Embedder
from selfseg.storage.files import mark_output, read_json, sole_use, write_json
from selfseg.storage.outputs.claiming import own_output


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def test_maps_of_other_clusters_go_and_unknown_ones_are_refused(run: Path, photos: Path, tmp_path: Path) -> None:
    add_clusters(run, 3)
    few = tmp_path / "few.txt"
    few.write_text(
        str(next(path for path in sorted(photos.rglob("*.*")) if path.is_file() and not path.name.startswith(".")))
        + "\n"
    )
    out = tmp_path / "out"
    segment(run, photos, out, k=5, device="cpu", progress=False)
    assert len(list(out.glob("index/**/*.png"))) > 1
    segment(run, few, out, k=3, device="cpu", progress=False)
    assert len(list(out.glob("index/**/*.png"))) == 1
    assert json.loads((out / "legend.json").read_text())["k"] == 3
    (out / "progress.jsonl").unlink()  # as of a version that wrote none, nor who made the maps
    write_json(out / "legend.json", {"k": 3})
    with pytest.raises(ConfigError, match=r"holds index/.*png, which an older selfseg wrote, and nothing says which"):
        segment(run, few, out, k=5, device="cpu", progress=False)


def test_embeddings_of_another_embedder_go_and_empty_files_are_made_anew(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    index = json.loads(embed(run, photos, out, device="cpu", progress=False).read_text())
    empty = out / index["images"][0]["file"]
    whole = empty.read_bytes()
    empty.write_bytes(b"")
    embed(run, photos, out, device="cpu", progress=False)
    assert empty.read_bytes() == whole
    few = tmp_path / "few.txt"
    few.write_text(
        str(next(path for path in sorted(photos.rglob("*.*")) if path.is_file() and not path.name.startswith(".")))
        + "\n"
    )
    embed(make_run(tmp_path / "other", resolution=96), few, out, device="cpu", progress=False)
    assert len(list(out.rglob("*.npy"))) == 1


def test_no_index_tells_of_embeddings_that_are_being_removed_or_replaced(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    index, stale, touched = out / "index.json", list[str](), set[str]()
    unlink, write = Path.unlink, embedding._write_embedding

    def look(name: str) -> None:
        touched.add(name)
        if index.exists() and name in [image["name"] for image in read_json(index)["images"]]:
            stale.append(name)

    def removing(path: Path, missing_ok: bool = False) -> None:
        if path.parent == out and path.suffix == ".npy" and path.exists():
            look(path.stem)
        unlink(path, missing_ok)

    def replacing(*arguments: Any) -> dict[str, Any]:
        look(arguments[4])
        return write(*arguments)

    for seed, name in enumerate("abc"):
        write_image(photos / f"{name}.png", draw_scene(seed, 40, 30)[0])
    embed(run, photos, out, device="cpu", progress=False)
    monkeypatch.setattr(Path, "unlink", removing)
    monkeypatch.setattr(embedding, "_write_embedding", replacing)

    def change() -> None:
        write_image(photos / "a.png", draw_scene(7, 50, 30)[0])

    changes: tuple[tuple[Callable[[], object], Path], ...] = (
        (change, run),  # an image is another one
        ((photos / "b.png").unlink, run),  # one is gone
        (lambda: (photos / "c.png").write_bytes(b"damaged"), run),  # one can't be read any more
        (lambda: None, make_run(tmp_path / "other", resolution=96)),  # another embedder
    )
    for step, embedder in changes:
        touched.clear()
        step()
        embed(embedder, photos, out, device="cpu", progress=False, max_bad=0.9)
        assert touched
        assert not stale
        listed = [image["file"] for image in read_json(index)["images"]]
        assert sorted(listed) == sorted(path.name for path in out.glob("*.npy"))


def test_two_cannot_cluster_one_run_at_once(run: Path, photos: Path) -> None:
    mark_output(run / "clusters")
    with sole_use(run / "clusters"), pytest.raises(RunError, match=r"at work on .*; wait until it has ended$"):
        cluster(run, photos, k=(3,), points=500, device="cpu", progress=False)


@pytest.mark.parametrize(
    ("key", "value"),
    [("backbone", "hf-hub:timm/resnet18.a1_in1k"), ("backbone", "local-dir:/etc"), ("resolution", 10**9), ("dim", "8")],
)
def test_a_description_that_cannot_be_is_refused(run: Path, key: str, value: object) -> None:
    path = run / "embedder" / "embedder.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(CheckpointError, match=key):
        load(run, "cpu")


def test_weights_and_clusters_that_are_no_numbers_are_refused(run: Path) -> None:
    clusters = load_clusters(run, 5)
    add_clusters(run, 5, position=1.0)
    assert load_clusters(run, 5).position == 1.0
    clusters.centroids[0, 0] = float("nan")
    save_clusters(run, clusters)
    with pytest.raises(RunError, match=r"damaged .*centroids.* no finite numbers.*selfseg cluster"):
        load_clusters(run, 5)
    embedder = Embedder.load(run / "embedder")
    embedder.mean.fill_(float("inf"))
    embedder.save(run / "embedder")
    with pytest.raises(CheckpointError, match=r"'mean' that are no finite numbers"):
        load(run, "cpu")


def test_a_map_whose_line_was_never_written_is_not_taken_for_the_former_clusters(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    """A kill between a file and its line: what the last line says of it is of another maker's file."""
    add_clusters(run, 3)
    kinds = {"maps": lambda k, out: segment(run, photos, out, k=k, device="cpu", progress=False)}
    embedders = {5: run, 3: make_run(tmp_path / "other", resolution=96)}
    kinds["embeddings"] = lambda k, out: embed(embedders[k], photos, out, device="cpu", progress=False)
    for kind, make in kinds.items():
        out = tmp_path / kind
        make(5, out)
        five = {path: path.read_bytes() for path in out.rglob("photo*.*")}
        make(3, out)
        lines = (out / "progress.jsonl").read_text().splitlines()
        kept = [line for line in lines if "photo0" not in line or lines.index(line) < 6]
        assert len(kept) == len(lines) - 1
        (out / "progress.jsonl").write_text("\n".join(kept) + "\n")
        make(5, out)
        assert {path: path.read_bytes() for path in out.rglob("photo*.*")} == five


@pytest.mark.parametrize("verb", [segment, embed])
def test_outputs_follow_the_images(verb: Any, run: Path, photos: Path, tmp_path: Path) -> None:
    """Removed, renamed, replaced, no image any more, joined by one of the same name: the folder has what is there."""
    out = tmp_path / "out"

    def made() -> list[str]:
        verb(run, photos, out, device="cpu", progress=False, max_bad=0.9)
        folder = out / "index" if verb is segment else out
        return sorted(path.stem for path in folder.glob("*.png" if verb is segment else "*.npy"))

    assert made() == [f"photo{i}" for i in range(6)]
    (photos / "photo0.jpg").unlink()
    (photos / "photo1.jpg").rename(photos / "renamed.jpg")
    (photos / "photo2.jpg").write_bytes(b"no image any more")
    shutil.copy(photos / "photo4.jpg", photos / "photo3.jpeg")
    assert made() == ["photo3.jpeg", "photo3.jpg", "photo4", "photo5", "renamed"]
    assert '"photo2"' in (out / "skipped.jsonl").read_text()
    shutil.copy(photos / "photo4.jpg", photos / "photo2.jpg")
    assert "photo2" in made()
    assert not (out / "skipped.jsonl").read_text()  # it is of now
    if verb is segment:
        assert sorted(path.stem for path in (out / "overlay").iterdir() if path.suffix == ".jpg") == made()


def test_polygons_of_an_earlier_map_go(run: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    old = out / "geojson" / "photo1.geojson"
    segment(run, photos, out, device="cpu", progress=False)
    for name in ("photo0", "photo1"):  # as --geojson writes them
        (out / "geojson").mkdir(exist_ok=True)
        (out / "geojson" / f"{name}.geojson").write_text("{}")
    shutil.copy(photos / "photo5.jpg", photos / "photo1.jpg")
    segment(run, photos, out, device="cpu", progress=False)
    assert not old.exists()
    assert (out / "geojson" / "photo0.geojson").exists()


@pytest.mark.parametrize("verb", [segment, embed])
def test_nothing_is_written_where_something_else_lies(verb: Any, run: Path, photos: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    (masks / "masks.json").write_text('{"how": {}}')
    for out, said in ((photos, "holds other files, such as photo0.jpg"), (run, "holds a run"), (masks, "holds masks")):
        before = sorted(out.rglob("*"))
        with pytest.raises(ConfigError, match=said):
            verb(run, photos, out, device="cpu", progress=False)
        assert sorted(out.rglob("*")) == before
    with own_output(tmp_path / "out", "clusters" if verb is segment else "embedder"):
        with pytest.raises(RunError, match="another process is at work on"):
            verb(run, photos, tmp_path / "out", device="cpu", progress=False)


@pytest.mark.parametrize("verb", [segment, embed])
def test_a_file_that_is_replaced_while_it_is_looked_at_is_looked_at_again(
    verb: Any, run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = ImageCollection.read

    def replaced(self: ImageCollection, index: int, *rest: Any) -> Any:
        image = read(self, index, *rest)
        if self.names[index] == "photo2":
            shutil.copy(photos / "photo5.jpg", photos / "photo2.jpg")
        return image

    one, other = tmp_path / "one", tmp_path / "other"
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(ImageCollection, "read", replaced)
        verb(run, photos, one, device="cpu", progress=False)
    for out in (one, other):
        verb(run, photos, out, device="cpu", progress=False)
    file = "index/photo2.png" if verb is segment else "photo2.npy"
    assert (one / file).read_bytes() == (other / file).read_bytes()


def test_clusters_are_of_the_embedder_that_looked(run: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that goes on replaces the embedder: before, its hash stood with the centroids of the earlier one."""

    def trained_meanwhile(*args: Any) -> Any:
        found = collect(*args)
        make_run(run, resolution=96)
        return found

    monkeypatch.setattr("selfseg.collection.clustering.collect", trained_meanwhile)
    cluster(run, photos, k=(3,), points=500, device="cpu", progress=False)
    with pytest.raises(RunError, match="made by an earlier embedder"):
        load_clusters(run, 3)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"batches": -1}, {"position": -1.0}, {"position": 1e39}])
def test_numbers_that_clustering_cannot_work_with_are_refused(run: Path, photos: Path, wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        cluster(run, photos, k=(3,), device="cpu", progress=False, **wrong)  # type: ignore[arg-type]


def test_devices_that_hold_no_values_are_refused() -> None:
    with pytest.raises(ConfigError, match="'meta' can't be used here"):
        choose_device("meta")
