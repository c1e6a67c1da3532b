"""Run folders of a stranger, and such that were edited by hand or cut off.

Each file of a run is replaced by something that it should not be, and everything that reads it is called: what comes
back must be a value or an error of `selfseg.errors`, never another exception, and neither much memory nor much time.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import selfseg
from selfseg.collection.clusters import load_clusters, load_tree
from selfseg.collection.opening import load
from selfseg.collection.proposal import load_proposal
from selfseg.drawing.result_charts import compare_results
from selfseg.errors import SelfsegError
from selfseg.evaluation.measure.results import write_table
from selfseg.fitting.stepping import read_log
from selfseg.models.prototypes import load_prototypes
from selfseg.segmenter.segmenter import Segmenter
from selfseg.storage.checkpoint import load_newest
from selfseg.storage.hashes import run_hash
from selfseg.storage.progress import ProgressFile
from selfseg.studio.decisions.log import DecisionLog
from selfseg.training.recipe import read_recipe
from torture.rows import Row
from torture.written import ARTEFACTS, K, copy, make_run

PROMISE = "files of a run that are damaged, edited or hostile end in a clear error; nothing in them is run or fetched"
MEMORY = 300 << 20
SECONDS = 20.0
RAN = "selfseg-torture-ran"


class _Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.mark),)


def run(work: Path, quick: bool) -> list[Row]:
    """As of every part."""
    work.mkdir(parents=True, exist_ok=True)
    whole = _whole_run(work / "whole")
    mark = work / RAN
    rows = [
        _attack("safetensors", whole, work / "run", dict(tensor_files(mark)), TENSORS, quick),
        _attack("JSON", whole, work / "run", dict(json_files(mark)), JSONS, quick),
        _attack("lines of JSON", whole, work / "run", dict(line_files(mark)), LINES, quick),
        _attack("YAML", whole, work / "run", dict(yaml_files(mark)), {"recipe.yaml": _read_recipe}, quick),
        _attack_values(whole, work / "run", quick),
        _attack_network(whole, work / "run"),
    ]
    rows.append(Row("pickles that were run", 1, not mark.exists(), "" if not mark.exists() else f"{mark} was made"))
    return rows


def _whole_run(folder: Path) -> Path:
    run_ = make_run(folder)
    for artefact in ARTEFACTS:
        if artefact.name in ("checkpoint", "segmenter"):
            artefact.write(run_, 1)
    (run_ / "recipe.yaml").write_text("kind: Recipe\nimages: nowhere\n")
    (run_ / "clusters" / "proposal.json").write_text("{}")
    (run_ / "progress.jsonl").write_text("")
    DecisionLog.open(run_ / "studio").append("name", cluster=f"{K}/3", name="road")
    return run_


def _read_results(run_: Path) -> None:
    write_table(run_ / "results")
    try:
        compare_results(run_)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass  # the report, which is what shows them, says so
    selfseg.report(run_, device="cpu")


def _read_recipe(run_: Path) -> None:
    assert run_hash(run_) is not None
    read_recipe(run_ / "recipe.yaml")


TENSORS: Mapping[str, Callable[[Path], object]] = {
    "embedder/weights.safetensors": lambda run_: load(run_, "cpu"),
    "embedder/prototypes.safetensors": load_prototypes,
    f"clusters/k{K}.safetensors": lambda run_: load_clusters(run_, K),
    "clusters/tree.safetensors": load_tree,
    "segmenter/weights.safetensors": lambda run_: Segmenter.load(run_ / "segmenter"),
    "checkpoints/step_00000001/state.safetensors": lambda run_: load_newest(run_ / "checkpoints"),
}
JSONS: Mapping[str, Callable[[Path], object]] = {
    "embedder/embedder.json": lambda run_: load(run_, "cpu"),
    f"clusters/k{K}.json": lambda run_: load_clusters(run_, K),
    "clusters/tree.json": load_tree,
    "clusters/proposal.json": load_proposal,
    "segmenter/segmenter.json": lambda run_: Segmenter.load(run_ / "segmenter"),
    "checkpoints/step_00000001/state.json": lambda run_: load_newest(run_ / "checkpoints"),
    "checkpoints/step_00000001/COMPLETE": lambda run_: load_newest(run_ / "checkpoints"),
    "results/camvid-val-linear-embedder.json": _read_results,
}
LINES: Mapping[str, Callable[[Path], object]] = {
    "log.jsonl": lambda run_: selfseg.report(run_, device="cpu") and read_log(run_),
    "progress.jsonl": lambda run_: ProgressFile(run_ / "progress.jsonl", "embedder", "x").of_others(),
    "studio/decisions.jsonl": lambda run_: DecisionLog.open(run_ / "studio").state(),
}


def tensor_files(mark: Path) -> Iterator[tuple[str, bytes]]:
    """Attacks on the format of safetensors, and files of other formats."""
    body, one = bytes(8), {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    entry = json.dumps({"a": one}).encode()

    def file(header: object, data: bytes = body, length: int | None = None) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text) if length is None else length) + text + data

    yield "empty", b""
    yield "header of 4 EiB", file(b"{}", b"", 1 << 62)
    yield "header of 99 MB in a file of 10 bytes", file(b"{}", b"", 99_999_999)
    yield "offsets that overlap", file({"a": one, "b": {**one, "data_offsets": [4, 12]}}, bytes(12))
    yield "offsets outside", file({"a": {**one, "data_offsets": [0, 1 << 40]}})
    yield "negative offsets", file({"a": {**one, "data_offsets": [-8, 0]}})
    yield "offsets in reverse", file({"a": {**one, "data_offsets": [8, 0]}})
    yield "a gap", file({"a": {**one, "data_offsets": [8, 16]}}, bytes(16))
    yield "bytes that nothing tells of", file({"a": one}, bytes(1000))
    yield "a name twice", file(entry[:-1] + b"," + entry[1:])
    yield "nested 100,000 times", file(b'{"a":' * 100_000)
    yield "lists, nested 100,000 times", file(b"[" * 100_000)
    yield "metadata that nests", file({"__metadata__": {"selfseg": {"a": {}}}, "a": one})
    yield "metadata of deep JSON", file({"__metadata__": {"selfseg": "[" * 200_000}, "a": one})
    yield "a dtype that isn't there", file({"a": {**one, "dtype": "F99"}})
    yield "a dtype of another size", file({"a": {**one, "dtype": "F64"}})
    yield "a shape that overflows", file({"a": {**one, "shape": [1 << 40, 1 << 40]}})
    yield "an empty tensor of 2^60 columns", file({"a": {**one, "shape": [0, 1 << 60], "data_offsets": [0, 0]}}, b"")
    yield "a header that is not UTF-8", file(b'{"\xff": 1}')
    yield "tensors of 8-bit floats", file({"centroids": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}})
    yield "a pickle", pickle.dumps(_Bomb(mark))
    yield "a list of pickles", pickle.dumps([_Bomb(mark)] * 3, 0)


def json_files(mark: Path) -> Iterator[tuple[str, bytes]]:
    """What a JSON file of a run should not be."""
    yield "empty", b""
    yield "cut off", b'{"format": 1, "cl'
    yield "lists, nested 200,000 times", b"[" * 200_000
    yield "objects, nested 200,000 times", b'{"a":' * 200_000
    yield "nested, and closed again", b"[" * 100_000 + b"]" * 100_000
    yield "a number of 10,000 digits", b'{"format": ' + b"9" * 10_000 + b"}"
    yield "a number of 300 digits", b'{"format": ' + b"9" * 300 + b', "step": ' + b"9" * 300 + b"}"
    yield "not UTF-8", b'{"a": "\xff\xfe"}'
    yield "UTF-16", '{"a": 1}'.encode("utf-16")
    yield "null", b"null"
    yield "a number", b"1e999"
    yield "a text", b'"text"'
    yield "a list", b"[1, 2]"
    yield "an empty object", b"{}"
    yield "NaN", b"NaN"
    yield "a lone surrogate", b'{"a": "\\ud800"}'
    yield "zeros", bytes(4096)
    yield "a pickle", pickle.dumps(_Bomb(mark), 0)


def line_files(mark: Path) -> Iterator[tuple[str, bytes]]:
    """Lines that are no objects, and objects of other values."""
    for name, content in json_files(mark):
        yield name, content + b"\n"
    yield "values of other kinds", b'{"step": "x", "name": [], "embedder": {}, "seq": "1", "kind": 5}\n'
    yield "a step of a text among numbers", b'{"step": 1, "loss": 2.0}\n{"step": "2", "loss": "x"}\n'
    yield "numbers of hundreds of digits", b'{"step": 1, "loss": ' + b"9" * 400 + b"}\n"
    yield "values that are texts", b'{"step": 1, "loss": "x", "lr": null}\n{"step": 2, "loss": [1]}\n'
    yield "values that are no numbers", b'{"step": 1, "loss": NaN}\n{"step": 2, "loss": Infinity}\n'
    yield "names that lead elsewhere", b'{"name": "../../etc/passwd", "embedder": "y"}\n'


def yaml_files(mark: Path) -> Iterator[tuple[str, bytes]]:
    """What a recipe should not be."""
    yield from json_files(mark)
    yield (
        "aliases of aliases",
        b"a: &a [1,1,1,1,1,1,1,1,1]\n"
        + b"".join(b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in range(ord("b"), ord("l"))),
    )
    yield "itself", b"a: &a [*a]\n"
    yield "a Python object", f"!!python/object/apply:os.mkdir ['{mark}']\n".encode()
    yield "a date that there isn't", b"images: 2026-13-45\n"
    yield "a list as a key", b"? [1, 2]\n: 3\n"
    yield "a recipe of other kinds", b"kind: Recipe\nimages: {}\nsteps: []\nmethod: 5\n"


def _attack(
    what: str,
    whole: Path,
    run_: Path,
    files: Mapping[str, bytes],
    readers: Mapping[str, Callable[[Path], object]],
    quick: bool,
) -> Row:
    """Put each file in each place, also as a pipe and as a folder."""
    problems, tries = [], 0
    for place, reader in readers.items():
        copy(whole, run_)
        original = (run_ / place).read_bytes()
        cuts = {f"cut after {n} bytes": original[:n] for n in (7, 8, 20, len(original) // 2, len(original) - 1)}
        slow = "report" in reader.__code__.co_names or "write_table" in reader.__code__.co_names
        chosen = list({**files, **cuts}.items())
        for name, content in chosen[:: (6 if slow else 1) if quick else 1]:
            (run_ / place).write_bytes(content)
            tries += 1
            problems += _problem(f"{place}: {name}", lambda reader=reader: reader(run_))
        for name in ("a pipe", "a folder", "a link to itself"):
            _remove(run_ / place)
            if name == "a pipe":
                os.mkfifo(run_ / place)
            elif name == "a folder":
                (run_ / place).mkdir()
            else:
                (run_ / place).symlink_to(run_ / place)
            tries += 1
            problems += _problem(f"{place}: {name}", lambda reader=reader: reader(run_))
    return Row(f"{what} of a run", tries, not problems, "; ".join(problems[:6]))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _problem(case: str, read: Callable[[], object]) -> list[str]:
    begin, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        read()
    except SelfsegError as error:
        if not str(error):
            return [f"{case}: an error without a word"]
    except Exception as error:
        return [f"{case}: {type(error).__name__}: {str(error)[:120]}"]
    taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    if taken > MEMORY:
        return [f"{case}: {taken >> 20} MiB"]
    return [f"{case}: {time.monotonic() - begin:.0f} s"] if time.monotonic() - begin > SECONDS else []


def _attack_values(whole: Path, run_: Path, quick: bool) -> Row:
    """Whole files with values that can't be: each must be refused."""
    problems, tries = [], 0
    for name, place, change, read in _changes():
        copy(whole, run_)
        change(run_ / place)
        tries += 1
        try:
            read(run_)
            problems.append(f"{place}, {name}: taken")
        except SelfsegError:
            pass
        except Exception as error:
            problems.append(f"{place}, {name}: {type(error).__name__}: {str(error)[:120]}")
    del quick  # they take a second
    return Row("values and shapes that can't be", tries, not problems, "; ".join(problems[:6]))


Change = tuple[str, str, Callable[[Path], None], Callable[[Path], object]]


def _changes() -> Iterator[Change]:
    weights, prototypes = "embedder/weights.safetensors", "embedder/prototypes.safetensors"
    clusters, config = f"clusters/k{K}.safetensors", "embedder/embedder.json"
    for value in (float("nan"), float("inf")):
        for place, name in ((weights, "mean"), (prototypes, "prototypes"), (clusters, "centroids")):
            yield f"{value} in {name}", place, _tensor(name, lambda t, v=value: t.fill_(v)), TENSORS[place]
        yield (
            f"{value} in the rows",
            "segmenter/weights.safetensors",
            _tensor("weight", lambda t, v=value: t.fill_(v)),
            TENSORS["segmenter/weights.safetensors"],
        )
    for name, change in (
        ("one dimension", lambda t: t[0]),
        ("another D", lambda t: t[:, :3]),
        ("no rows", lambda t: t[:0]),
        ("integers", lambda t: t.long()),
    ):
        yield name, prototypes, _tensor("prototypes", change), TENSORS[prototypes]
        yield name, clusters, _tensor("centroids", change), TENSORS[clusters]
    yield "another K", clusters, _tensor("centroids", lambda t: t[:3]), TENSORS[clusters]
    for key, value in (
        ("backbone", "hf-hub:timm/resnet18.a1_in1k"),
        ("backbone", "local-dir:/etc"),
        ("backbone", "../resnet18"),
        ("backbone", 5),
        ("backbone", "resnet18" * 40),
        ("resolution", 10**9),
        ("resolution", float("nan")),
        ("resolution", "320"),
        ("resolution", True),
        ("dim", 10**9),
        ("hidden", 10**12),
        ("dim", -1),
        ("output_stride", 7),
        ("decoder", "pickle"),
        ("stages", "ab"),
        ("stages", [1e300]),
        ("mean", [0.5, "x", 0.5]),
        ("std", [0.5, float("nan"), 0.5]),
        ("border", 10**9),
        ("smooth", float("inf")),
        ("window", 10**12),
        ("channels", {"names": 5}),
        ("channels", [1]),
        ("frozen_stages", 1e9),
    ):
        yield f"{key} = {value!r:.30}", config, _json(key, value), TENSORS[weights]
    read = JSONS[f"clusters/k{K}.json"]
    for key, value in (
        ("position", "1"),
        ("position", -1.0),
        ("images", None),
        ("count", "3"),
        ("clusters", []),
        ("clusters", [{"share": "x", "typical": []}] * K),
        ("clusters", [{"share": 0.2, "typical": [5]}] * K),
        ("before", ["x"] * K),
        ("k", K + 1),
    ):
        yield f"{key} = {value!r:.30}", f"clusters/k{K}.json", _of_an_older_version(key, value), read
    yield (
        "a step of 99",
        "checkpoints/step_00000001/state.json",
        _json("step", 99),
        TENSORS["checkpoints/step_00000001/state.safetensors"],
    )


def _tensor(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    """A tensor changed, in a file without a digest, as older versions wrote them."""

    def changed(path: Path) -> None:
        from safetensors.torch import load_file

        tensors = load_file(path)
        tensors[name] = change(tensors[name].clone()).contiguous()
        save_file(tensors, path)

    return changed


def _json(key: str, value: Any) -> Callable[[Path], None]:
    def changed(path: Path) -> None:
        held = json.loads(path.read_text())
        path.write_text(json.dumps({**held, key: value}))
        complete = path.parent / "COMPLETE"
        if complete.is_file():  # a careful forger
            sizes = json.loads(complete.read_text())
            complete.write_text(json.dumps({**sizes, path.name: path.stat().st_size}))

    return changed


def _of_an_older_version(key: str, value: Any) -> Callable[[Path], None]:
    """The JSON changed, and the header of the tensors, which would win, taken away."""

    def changed(path: Path) -> None:
        _tensor("centroids", lambda centroids: centroids)(path.with_suffix(".safetensors"))
        _json(key, value)(path)

    return changed


@contextmanager
def _without_network(asked: list[str]) -> Iterator[None]:
    connect = socket.socket.connect, socket.getaddrinfo

    def refuse(*given: Any, **named: Any) -> None:
        asked.append(repr(given[-1])[:60])
        raise OSError("no network in this test")

    socket.socket.connect, socket.getaddrinfo = refuse, refuse  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        socket.socket.connect, socket.getaddrinfo = connect  # type: ignore[method-assign]


def _attack_network(whole: Path, run_: Path) -> Row:
    """A run of a stranger's that names places on the network, under every verb that looks at it."""
    asked: list[str] = []
    problems, tries = [], 0
    with _without_network(asked):
        for backbone in ("hf-hub:timm/resnet18.a1_in1k", "hf_hub:a/b", "hf-hub://a/b", "https://example.org/x"):
            copy(whole, run_)
            _json("backbone", backbone)(run_ / "embedder" / "embedder.json")
            tries += 1
            problems += _problem(backbone, lambda: load(run_, "cpu"))
        for images in ("https://example.org/list.txt", "s3://bucket/images", ["a"], 5):
            copy(whole, run_)
            (run_ / "recipe.yaml").write_text(f"kind: Recipe\nimages: {json.dumps(images)}\n")
            tries += 1
            problems += _problem(f"images: {images}", lambda: selfseg.report(run_, device="cpu"))
    problems += [f"asked {one}" for one in asked[:3]]
    return Row("a run that names places on the network", tries, not problems, "; ".join(problems[:6]))
