"""The command on a real S3 server on loopback, whose answers fail now and then: the results are those of folders."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.numpy import load as load_tensors

import selfseg
import tiny
from conftest import draw_scene
from faulty_proxy import FaultyProxy
from remote_servers import s3_server
from selfseg.cli import main
from selfseg.evaluation import Clusters

FAULTS = ["", "", "500", "", "cut", "", "", "slow", "", "drop", "503", ""]
_OF_TIME = {"time", "data_wait", "seconds", "images_per_second", "data", "date", "version"}


class Store:
    """A bucket on a server behind a proxy, and the file system with which a test looks at it without the proxy."""

    def __init__(self, url: str, proxy: FaultyProxy) -> None:
        import s3fs

        self.proxy = proxy
        self.system = s3fs.S3FileSystem(endpoint_url=url, skip_instance_cache=True, use_listings_cache=False)
        self.system.mkdir("bucket")

    def files(self, folder: str) -> dict[str, bytes]:
        names = self.system.find(f"bucket/{folder}")
        return {name.removeprefix(f"bucket/{folder}/"): self.system.cat_file(name) for name in names}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("SELFSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SELFSEG_REMOTE_PAUSE", "0.01")
    monkeypatch.delenv("SELFSEG_SESSION", raising=False)
    with s3_server(monkeypatch) as url, FaultyProxy(url, FAULTS, delay=0.1) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        from selfseg.storage.remote import connecting

        monkeypatch.setattr(connecting, "_systems", {})
        yield Store(url, proxy)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six images to train on, and labelled ones."""
    for split, count in (("train", 6), ("val", 2)):
        for kind in ("images", "labels"):
            (tmp_path / "lab" / split / kind).mkdir(parents=True)
        for i in range(count):
            image, label = draw_scene(10 * i + count)
            Image.fromarray(image).save(tmp_path / "lab" / split / "images" / f"{i}.png")
            Image.fromarray(label).save(tmp_path / "lab" / split / "labels" / f"{i}.png")
    (tmp_path / "lab" / "classes.txt").write_text("sky\nground\nball\nhouse\n")
    return tmp_path / "lab"


def verbs(images: str, labelled: str, out: str) -> None:
    """What a person does with a folder, with one thread so that two calls do the same."""
    recipe = tiny.vice(Path(images), Path(f"{out}/run"), workers=0)
    selfseg.train(recipe, progress=False)
    selfseg.cluster(f"{out}/run", images, k=[3], points=600, progress=False)
    selfseg.segment(f"{out}/run", images, f"{out}/segments", progress=False)
    results = selfseg.evaluate(
        f"{out}/run", labelled, [Clusters(k=(3,))], seeds=1, beside=selfseg.Beside(baselines=False)
    )
    assert results
    selfseg.name_clusters(f"{out}/run", {0: "a", 1: "b"})
    selfseg.apply(f"{out}/run", images, f"{out}/applied", progress=False)
    selfseg.embed(f"{out}/run", images, f"{out}/vectors", progress=False)


def plain(name: str, content: bytes) -> Any:
    """A file's content without times, versions of sources, and places."""
    if "/clusters/" in name and name.endswith(".safetensors"):  # its header holds what the JSON beside it says
        return {key: value.tobytes() for key, value in load_tensors(content).items()}
    if not name.endswith((".json", ".jsonl")):
        return content
    lines = content.decode().splitlines() if name.endswith(".jsonl") else [content.decode()]
    return sorted(json.dumps(_timeless(json.loads(line)), sort_keys=True) for line in lines)


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        left_out = _OF_TIME | {"source", "image", "images", "data", "recipe", "start", "created", "made"}
        return {
            k: _timeless(v)
            for k, v in value.items()
            if k not in left_out or not isinstance(v, str | int | float | dict)
        }
    return [_timeless(each) for each in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_everything_at_urls_is_what_it_is_in_folders(store: Store, data: Path, tmp_path: Path) -> None:
    images = data / "train" / "images"
    store.system.put(str(data), "bucket/lab", recursive=True)
    verbs(str(images), str(data), str(tmp_path / "local"))
    verbs("s3://bucket/lab/train/images", "s3://bucket/lab", "s3://bucket/out")
    from selfseg.storage.remote.connecting import repeated

    far = store.files("out")
    here = {p.relative_to(tmp_path / "local").as_posix(): p for p in (tmp_path / "local").rglob("*") if p.is_file()}
    own = {name for name in here if name.startswith(("run/cache/", "run/tensorboard/"))}
    assert {name for name in far if "/tensorboard/" not in name} == here.keys() - own
    different = [n for n in here.keys() - own if plain(n, far[n]) != plain(n, here[n].read_bytes())]
    assert set(different) <= {"run/recipe.yaml"}  # its places
    assert sum(name.endswith((".png", ".npy", ".safetensors")) for name in far) > 20
    assert repeated() > 10
    assert min(store.proxy.done[fault] for fault in ("500", "503", "cut", "drop")) > 0


@pytest.mark.slow
def test_a_run_goes_on_from_its_url_on_another_machine(store: Store, data: Path, tmp_path: Path) -> None:
    store.system.put(str(data / "train" / "images"), "bucket/photos", recursive=True)
    recipe = tiny.vice(Path("s3://bucket/photos"), Path("s3://bucket/run"), workers=0, steps=4, checkpoint_every=2)
    selfseg.train(recipe, progress=False)
    whole = store.files("run")
    # As if it had been killed while the last checkpoint was uploaded, and this were another machine.
    store.system.rm("bucket/run/checkpoints/step_00000004/COMPLETE")
    store.system.rm("bucket/run/embedder", recursive=True)
    shutil.rmtree(tmp_path / "cache")
    selfseg.train(recipe, progress=False)
    again = store.files("run")
    for name in ("embedder/weights.safetensors", "checkpoints/step_00000004/state.safetensors", "images.json"):
        assert again[name] == whole[name]
    steps = [json.loads(line)["step"] for line in again["log.jsonl"].decode().splitlines()]
    assert steps == sorted(set(steps))


def test_errors_are_one_sentence(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["train", "vice", "s3://no-such-bucket/x", "--out", str(tmp_path / "run")]) == 3
    assert "there is nothing at s3://no-such-bucket/x; check the address" in " ".join(capsys.readouterr().err.split())
    assert main(["segment", "s3://bucket/no-run", "s3://bucket/x", "--out", str(tmp_path / "o")]) in (3, 4)
    assert "s3://bucket/no-run" in capsys.readouterr().err
    assert main(["embed", "s3://bucket/no-run", "s3://bucket/x", "--out", "https://host/o"]) in (2, 3, 4)
    assert capsys.readouterr().err.count("\n") < 8
    assert store.files("") == {}


def test_no_server_is_told_with_the_attempts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("s3fs", reason="needs the extra remote: pip install 'selfseg[remote]'")
    from selfseg.storage.remote import connecting

    monkeypatch.setattr(connecting, "_systems", {})
    for key, value in (
        ("SELFSEG_CACHE", str(tmp_path)),
        ("SELFSEG_REMOTE_PAUSE", "0.001"),
        ("AWS_ACCESS_KEY_ID", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
    ):
        monkeypatch.setenv(key, value)
    assert main(["data", "s3://bucket/photos"]) == 3
    err = " ".join(capsys.readouterr().err.split())
    assert "can't reach s3://bucket/photos" in err
    assert "6 attempts" in err
    assert "5 requests failed and were sent again" in err
    assert "Traceback" not in err


def test_a_missing_extra_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def absent(scheme: str) -> Any:
        raise ImportError("Install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec, "get_filesystem_class", absent)
    assert main(["data", "gs://bucket/photos"]) == 2
    assert "pip install 'selfseg[remote]'" in " ".join(capsys.readouterr().err.split())
