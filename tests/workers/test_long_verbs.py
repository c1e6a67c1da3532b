"""Every verb makes of a long list what it makes of a short one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from named_runs import make_run
from selfseg import apply, embed, mine_masks, segment
from selfseg.collection.clustering import cluster
from selfseg.data.reading.long import images as long_images
from selfseg.errors import ConfigError
from selfseg.studio.carrying.naming import name_clusters
from selfseg.workers import long_lists
from selfseg.workers.long_lists import FILE

pytestmark = pytest.mark.slow


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files but those that say what was done, and pages, which say when."""
    own = {"progress.jsonl", FILE, "skipped.jsonl", "index.json", "index.jsonl", "masks.json", "masks.html"}
    files = (file for file in folder.rglob("*") if file.is_file() and file.name not in own)
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_verbs_go_through_long_lists(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run")
    name_clusters(run, {0: "sky", 1: "ground", 3: "ground"})
    (photos / "bad.jpg").write_bytes((photos / "photo0.jpg").read_bytes()[:500])
    images = tmp_path / "list.txt"
    images.write_text("".join(f"photos/{name}\n" for name in sorted(os.listdir(photos))))

    def all_verbs(out: Path) -> None:
        segment(run, images, out / "segment", k=5, progress=False, max_bad=0.5)
        embed(run, images, out / "embed", progress=False, max_bad=0.5)
        apply(run, images, out / "apply", progress=False, max_bad=0.5)
        mine_masks(images, out / "masks", "mean", progress=False, max_bad=0.5)
        if not (out / "run").exists():
            shutil.copytree(run, out / "run")
            cluster(out / "run", images, k=3, points=192, progress=False, max_bad=0.5)  # of three drawn images

    short, long = tmp_path / "short", tmp_path / "long"
    all_verbs(short)
    monkeypatch.setattr("selfseg.data.reading.listing.LONG", 1)
    for module in (long_images.Lines.__init__.__globals__, vars(long_lists)):
        monkeypatch.setitem(module, "BLOCK", 2)  # four shards
    all_verbs(long)
    for verb in ("segment", "embed", "apply", "masks", "run"):
        assert contents(short / verb) == contents(long / verb), verb
        assert verb == "run" or (long / verb / FILE).is_file()
    index = json.loads((short / "embed" / "index.json").read_text())
    lines = (long / "embed" / "index.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == index.pop("images")
    assert json.loads((long / "embed" / "index.json").read_text()) == {**index, "images_in": "index.jsonl"}
    told, before = (json.loads((out / "masks" / "masks.json").read_text()) for out in (long, short))
    for key in ("how", "images", "count", "kept", "rejected", "skipped", "reasons", "objects"):
        assert told[key] == before[key], key
    assert told["mean_share"] == pytest.approx(before["mean_share"])
    page = (long / "masks" / "masks.html").read_text()
    assert page.count("<figure") == (short / "masks" / "masks.html").read_text().count("<figure") > 3

    # What is there is kept, what is gone is made again, and what another segmenter made is removed.
    gone = [long / "segment/overlay/photo2.jpg", long / "embed/photo2.npy", long / "masks/soft/photo2.png"]
    kept = [long / "segment/overlay/photo5.jpg", long / "embed/photo5.npy", long / "masks/soft/photo5.png"]
    times = [file.stat().st_mtime_ns for file in kept]
    for file in gone:
        file.unlink()
    name_clusters(run, {0: "water"})
    (long / "apply/masks/photo0.png").write_bytes(b"of the other one")
    all_verbs(long)
    assert all(file.is_file() for file in gone)
    assert [file.stat().st_mtime_ns for file in kept] == times
    assert contents(long / "masks") == contents(short / "masks")
    shutil.rmtree(short / "apply")
    monkeypatch.setattr("selfseg.data.reading.listing.LONG", 1 << 20)
    apply(run, images, short / "apply", progress=False, max_bad=0.5)
    assert contents(short / "apply") == contents(long / "apply")
    monkeypatch.setattr("selfseg.data.reading.listing.LONG", 1)
    with pytest.raises(ConfigError, match="leave out --labels"):
        mine_masks(images, tmp_path / "measured", "mean", labels=photos, progress=False)
