import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import selfseg
from selfseg.errors import RunError, StorageError, TooManyBadImages
from selfseg.models.embedder import Looks
from selfseg.ops.regions.region_tree import cut_regions
from selfseg.ops.regions.smoothing import cell_places
from selfseg.studio import regions
from selfseg.studio.regions import RegionStore


def build(run: Path, images: Path, **options: object) -> RegionStore:
    return RegionStore.build(run, images, device="cpu", progress=False, max_bad=0.5, **options)  # type: ignore[arg-type]


def files(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "studio" / "regions").iterdir()}


def test_regions_have_the_embedding_that_lies_in_them(run: Path, scenes: Path) -> None:
    store = build(run, scenes)
    assert store.names == ("deep/scene 2", "scene 0", "scene 1", "scene 3", "scene 4")
    assert store.sizes.tolist() == [[90, 120]] * 5
    embedder = selfseg.load(run, "cpu")
    for image, file in ((0, "deep/scene 2.png"), (3, "scene 3.png")):
        embedding = embedder.embed(scenes / file)  # smoothed: constant in each region
        superpixels = store.superpixels(image)
        rows, columns = (cell_places(side) for side in superpixels.shape)
        own = store.vectors[store.first[image] : store.first[image + 1]]
        assert own.dtype == np.float16
        assert np.abs(own[superpixels[rows[:, None], columns]] - embedding.permute(1, 2, 0).numpy()).max() < 2e-3


def test_facts_are_those_of_the_pixels(run: Path, scenes: Path) -> None:
    store = build(run, scenes)
    assert np.add.reduceat(store.areas, store.first[:-1]) == pytest.approx(1, rel=1e-5)
    superpixels = store.superpixels(1)
    for region in (0, 7, int(superpixels.max())):
        row = store.first[1] + region
        inside = superpixels == region
        place = (np.argwhere(inside) + 0.5).mean(0) / superpixels.shape
        assert store.areas[row] == pytest.approx(inside.mean(), rel=1e-5)
        assert store.centres[row] == pytest.approx(place, rel=1e-5)
    picture = np.asarray(Image.open(scenes / "scene 0.png")).reshape(-1, 3).mean(0)
    weighed = store.areas[store.first[1] : store.first[2], None] * store.colours[store.first[1] : store.first[2]]
    assert np.abs(weighed.sum(0) - picture).max() < 2


def test_a_place_finds_its_region_and_the_tree_joins_all(run: Path, scenes: Path) -> None:
    store = build(run, scenes)
    superpixels = store.superpixels(2)
    height, width = superpixels.shape
    for row, column in ((0, 0), (height - 1, width - 1), (10, 33)):
        found = store.region_at(2, (column + 0.5) / width, (row + 0.5) / height)
        assert found == superpixels[row, column]
    assert store.region_at(2, 1.0, 1.0) == superpixels[-1, -1]
    count = int(store.first[3] - store.first[2])
    assert count == superpixels.max() + 1
    assert cut_regions(store.tree(2), 1).tolist() == [0] * count


def test_it_is_opened_and_not_found_again(run: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match="not found yet"):
        RegionStore.open(run)
    first = build(run, scenes)
    monkeypatch.setattr(regions, "embed_images", None)
    again = build(run, scenes)
    assert again.names == first.names == RegionStore.open(run).names
    assert (np.asarray(again.vectors) == np.asarray(first.vectors)).all()


@pytest.mark.slow
def test_a_pass_that_was_killed_anywhere_goes_on_and_equals_the_uninterrupted_one(
    run: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build(run, scenes)
    expected = files(run)
    lines = expected["images.jsonl"].splitlines(keepends=True)
    seen: list[int] = []
    embed_images = regions.embed_images

    def watched(embedder, collection, todo, *rest):  # type: ignore[no-untyped-def]
        seen.append(len(todo))
        return embed_images(embedder, collection, todo, *rest)

    monkeypatch.setattr(regions, "embed_images", watched)
    folder = run / "studio" / "regions"
    for kept, cut_off, more in ((3, 10, 17), (1, 0, 0), (0, 5, 3), (5, 1, 99)):
        text = b"".join(lines[:kept]) + lines[kept][:cut_off]
        (folder / "images.jsonl").write_bytes(text)
        ends = json.loads(lines[kept - 1]).get("ends", [0] * 4) if kept > 1 else [0] * 4
        for name, end in zip(("vectors", "facts", "superpixels", "trees"), ends, strict=True):
            data = expected[f"{name}.bin"][:end]
            (folder / f"{name}.bin").write_bytes(data + os.urandom(more))  # what was written without a line
        found = build(run, scenes)
        assert seen.pop() == 5 - max(kept - 1, 0)
        assert found.names == whole.names
        assert files(run) == expected


def test_other_images_looks_and_weights_are_found_anew(run: Path, scenes: Path, tmp_path: Path) -> None:
    before = build(run, scenes)
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    shutil.copy(scenes / "scene 1.png", fewer / "moved.png")
    found = build(run, fewer)
    assert found.names == ("moved",)
    assert found.hashes[0] == before.hashes[2]  # by content, wherever it lies
    mirrored = build(run, fewer, looks=Looks(flip=True))
    assert np.abs(np.asarray(mirrored.vectors, np.float32) - np.asarray(found.vectors, np.float32)).max() > 0.01


def test_too_many_broken_images_are_an_error(run: Path, scenes: Path) -> None:
    with pytest.raises(TooManyBadImages):
        RegionStore.build(run, scenes, device="cpu", progress=False, max_bad=0.0)


def test_a_file_that_lost_its_end_says_what_to_do(run: Path, scenes: Path) -> None:
    build(run, scenes)
    folder = run / "studio" / "regions"
    lines = (folder / "images.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "images.jsonl").write_bytes(b"".join(lines[:3]))
    (folder / "vectors.bin").write_bytes(b"")
    with pytest.raises(StorageError, match="shorter than it was; remove"):
        build(run, scenes)
