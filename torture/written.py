"""What selfseg writes, in two versions each: how it is written, and how a reader tells which version lies there.

A reader raises `Mixed` for anything that is neither the one version nor the other as a whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

import selfseg
from selfseg.collection.clusters import Clusters, ClusterTree, load_clusters, load_tree, save_clusters, save_tree
from selfseg.collection.opening import load
from selfseg.data.labelled.legend import Legend
from selfseg.models.embedder import Embedder, EmbedderConfig
from selfseg.models.prototypes import load_prototypes, save_product
from selfseg.ops.merging import merge_tree
from selfseg.segmenter.segmenter import Segmenter
from selfseg.storage.checkpoint import load_newest, save_checkpoint
from selfseg.storage.files import read_json, write_json
from selfseg.storage.hashes import embedder_hash
from selfseg.types import EvalResult

DIM, K = 8, 5
CONFIG = EmbedderConfig(backbone="test_resnet", output_stride=32, dim=DIM, resolution=64, centred=True)


class Mixed(AssertionError):
    """What lies there is no version as a whole."""


@dataclass(frozen=True)
class Artefact:
    """One kind of what is written.

    Attributes:
        name: its name.
        prepare: makes in an empty folder what it needs.
        write: writes a version, a number from 0, into the folder.
        read: the version that lies there.
    """

    name: str
    prepare: Callable[[Path], object]
    write: Callable[[Path, int], object]
    read: Callable[[Path], int]


def make_embedder(seed: int) -> Embedder:
    """An embedder of random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Embedder(CONFIG).eval()


def make_images(folder: Path, count: int = 3) -> Path:
    """Some photographs of coloured fields."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(count):
        fields = random.integers(0, 255, (4, 4, 3), np.uint8)
        cv2.imwrite(str(folder / f"photo{number}.png"), cv2.resize(fields, (80 + number, 64)))
    return folder


def make_run(folder: Path, seed: int = 0) -> Path:
    """A run with an embedder, prototypes, clusters, a tree and a result, without a training."""
    save_product(folder, make_embedder(seed), _rows(seed))
    (folder / "log.jsonl").write_text("")
    _write_clusters(folder, 0)
    _write_tree(folder, 0)
    _write_result(folder, 0)
    return folder


def _rows(seed: int, count: int = K) -> torch.Tensor:
    return F.normalize(torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed)), dim=1)


def _info(run: Path, version: int) -> dict[str, object]:
    said = {"k": K, "seed": version, "count": 3, "points": 100, "inertia": 1.0, "position": 0.0, "images": "photos"}
    return {**said, "embedder": embedder_hash(run)}


def _write_clusters(run: Path, version: int) -> None:
    shares = tuple(float(share) for share in F.softmax(_rows(version)[:, 0].double(), 0))
    save_clusters(run, Clusters(_rows(version), shares, ((f"photo{version % 3}",),) * K, _info(run, version)))


def _read_clusters(run: Path) -> int:
    found = load_clusters(run, K)
    version = int(found.info["seed"])
    _agree(torch.equal(found.centroids, _rows(version)), f"centroids of another version than {version}")
    _agree(found.typical[0] == (f"photo{version % 3}",), f"images of another version than {version}")
    return version


def _write_tree(run: Path, version: int) -> None:
    rows, share = _rows(version, 12), (1 / 12,) * 12
    save_tree(run, ClusterTree(rows, merge_tree(rows), share, ((("photo0", 0, 1.0),),) * 12, _info(run, version)))


def _read_tree(run: Path) -> int:
    found = load_tree(run)
    version = int(found.info["seed"])
    _agree(torch.equal(found.centroids, _rows(version, 12)), f"centroids of another version than {version}")
    return version


def _write_product(run: Path, version: int) -> None:
    save_product(run, make_embedder(version % 2), _rows(version % 2))


def _read_product(run: Path) -> int:
    embedder, prototypes = load(run, "cpu"), load_prototypes(run)
    state = embedder.state_dict()
    for version in (0, 1):
        if torch.equal(prototypes, _rows(version)):
            wanted = make_embedder(version).state_dict()
            _agree(
                all(torch.equal(value, state[name]) for name, value in wanted.items()), "prototypes of another version"
            )
            return version
    raise Mixed("prototypes of no version")


def _write_segmenter(folder: Path, version: int) -> None:
    legend = Legend.of(["a", "b", "c", "d", f"e{version % 2}"])
    Segmenter(make_embedder(version % 2), legend, _rows(version % 2)).save(folder / "segmenter")


def _read_segmenter(folder: Path) -> int:
    found = Segmenter.load(folder / "segmenter")
    version = int(found.legend.names[-1][1:])
    _agree(torch.equal(found.weight, _rows(version)), "weights of another version")
    wanted = make_embedder(version).state_dict()
    _agree(all(torch.equal(value, found.embedder.state_dict()[name]) for name, value in wanted.items()), "an embedder")
    return version


class _Plain(torch.nn.Module):
    def __init__(self, version: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((64, 512), float(version)))


def _write_checkpoint(folder: Path, version: int) -> None:
    model = _Plain(version)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for parameter in model.parameters():
        optimizer.state[parameter]["momentum_buffer"] = torch.full_like(parameter, float(version))
    save_checkpoint(folder / "checkpoints", version, model.state_dict(), optimizer, {"version": version}, keep=2)


def _read_checkpoint(folder: Path) -> int:
    found = load_newest(folder / "checkpoints")
    if found is None:
        raise Mixed("no checkpoint")
    held = {found.step, found.meta["version"], *found.model["weight"].unique().tolist()}
    held |= set(found.optimizer[0]["momentum_buffer"].unique().tolist())
    _agree(held == {found.step}, f"parts of the versions {sorted(held)}")
    return found.step


def result(version: int) -> EvalResult:
    """A result that says its version everywhere."""
    return EvalResult(
        "linear", 1, f"version {version}", "camvid", "val", "train", {"miou": 0.5, "accuracy": 0.5}, ("a", "b"),
        (0.5, None), ((version, 0), (0, version)), "none", None, 320, "none", False, (0,), {"images": version},
    )  # fmt: skip


def _write_result(run: Path, version: int) -> None:
    write_json(run / "results" / "camvid-val-linear-embedder.json", result(version).to_dict())


def _read_result(run: Path) -> int:
    found = EvalResult.from_dict(read_json(run / "results" / "camvid-val-linear-embedder.json"))
    _agree(found == result(found.counts["images"]), "a result of several versions")
    return found.counts["images"]


def _prepare_export(folder: Path) -> None:
    for version in (0, 1):
        make_run(folder / f"run{version}", version)


def _write_export(folder: Path, version: int) -> None:
    selfseg.export(folder / f"run{version % 2}", "safetensors", folder / "exported")


def _read_export(folder: Path) -> int:
    out = folder / "exported"
    for version in (0, 1):
        of_run = folder / f"run{version}" / "embedder"
        if (out / "embedder.json").read_bytes() == (of_run / "embedder.json").read_bytes():
            found = Embedder.load(out).state_dict()
            wanted = Embedder.load(of_run).state_dict()
            if all(torch.equal(value, found[name]) for name, value in wanted.items()):
                return version
    raise Mixed("weights of no run")


def _agree(condition: bool, otherwise: str) -> None:
    if not condition:
        raise Mixed(otherwise)


def _prepare_verb(folder: Path) -> None:
    make_images(folder / "photos")
    for version in (0, 1):
        make_run(folder / f"run{version}", version)
        _run_verbs(folder, version, folder / f"wanted{version}")


def _run_verbs(folder: Path, version: int, out: Path) -> None:
    run, photos = folder / f"run{version % 2}", folder / "photos"
    selfseg.embed(run, photos, out / "embeddings", device="cpu", progress=False)
    selfseg.segment(run, photos, out / "masks", k=K, device="cpu", progress=False)


def _write_verbs(folder: Path, version: int) -> None:
    _run_verbs(folder, version, folder / "out")


def _read_embeddings(folder: Path) -> int:
    out, version = folder / "out" / "embeddings", -1
    hashes = [embedder_hash(folder / f"run{number}") for number in (0, 1)]
    if (out / "index.json").is_file():
        index = read_json(out / "index.json")
        version = hashes.index(index["embedder"])
        for image in index["images"]:  # what an index tells of is its own, whole
            _agree(_same(out / image["file"], folder / f"wanted{version}/embeddings/{image['file']}"), image["file"])
    for file in out.glob("[!.]*.npy"):
        wanted = [folder / f"wanted{number}/embeddings/{file.name}" for number in (0, 1)]
        _agree(any(_same(file, each) for each in wanted), f"{file.name} is of no version")
    return version


def _read_masks(folder: Path) -> int:
    out, version = folder / "out" / "masks", -1
    if (out / "legend.json").is_file():
        makers = [read_json(folder / f"wanted{number}/masks/legend.json")["maker"] for number in (0, 1)]
        version = makers.index(read_json(out / "legend.json")["maker"])
    for file in (*out.glob("index/[!.]*.png"), *out.glob("overlay/[!.]*.jpg")):
        place = file.relative_to(out)
        _agree(version >= 0 and _same(file, folder / f"wanted{version}/masks" / place), f"{place} of another legend")
    return version


def _same(one: Path, other: Path) -> bool:
    return one.is_file() and one.read_bytes() == other.read_bytes()


ARTEFACTS = (
    Artefact("checkpoint", lambda folder: None, _write_checkpoint, _read_checkpoint),
    Artefact("clusters", make_run, _write_clusters, _read_clusters),
    Artefact("tree of clusters", make_run, _write_tree, _read_tree),
    Artefact("embedder and prototypes", make_run, _write_product, _read_product),
    Artefact("segmenter", lambda folder: None, _write_segmenter, _read_segmenter),
    Artefact("result", make_run, _write_result, _read_result),
    Artefact("export", _prepare_export, _write_export, _read_export),
    Artefact("embeddings", _prepare_verb, _write_verbs, _read_embeddings),
    Artefact("masks", _prepare_verb, _write_verbs, _read_masks),
)
"""All but decisions, which are appended to and not replaced."""


def left_over(folder: Path) -> list[str]:
    """Temporary files in a folder and those in it."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob(".tmp*")]


def copy(source: Path, target: Path) -> Path:
    """A copy of a folder in place of whatever is there."""
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(source, target))


def as_lines(*values: object) -> str:
    """JSON lines."""
    return "".join(json.dumps(value) + "\n" for value in values)
