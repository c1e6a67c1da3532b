"""Faults of what a run holds, when it was damaged, edited, or comes from a stranger."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from torture.first_version.bench import Bench, Seen, fault, passed, refused
from torture.first_version.labels import MEASURE

TRUST = "tests/collection/test_trust.py"
TENSORS = "tests/storage/test_tensors.py::test_values_shapes_and_kinds_are_looked_at"
READING = "tests/storage/test_reading.py"
ARTEFACTS = "tests/torture/test_parts.py::test_the_quick_half_holds"

_EDIT = """
import json, sys, torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
path, how = sys.argv[1:]
tensors = load_file(path)
with safe_open(path, "pt") as file:
    metadata = dict(file.metadata() or {})
for name, value in tensors.items():
    if value.is_floating_point():
        tensors[name] = {"nan": torch.full_like(value, float("nan")), "rows": value[:-1].contiguous(),
                         "columns": value[..., :-1].contiguous() if value.dim() > 1 else value}[how]
metadata.pop("digest", None)
if "selfseg" in metadata:
    said = json.loads(metadata["selfseg"])
    if isinstance(said, dict):
        said.pop("digest", None)
        metadata["selfseg"] = json.dumps(said)
save_file(tensors, path, metadata)
"""


def _edit(bench: Bench, path: Path, how: str = "nan") -> None:
    """Tensors of a file become NaN, or lose a row or a column; no digest stands in the way."""
    done = bench.call(path, how, code=_EDIT)
    if done.code:
        raise RuntimeError(done.said)


def _set(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def _not_a_number(bench: Bench, file: str, *words: object) -> Seen:
    run = bench.run()
    _edit(bench, run / file)
    return refused(bench.call(*words))


@fault("NaN weights: `embed` writes NaN, exit 0", f"{TRUST}::test_weights_and_clusters_that_are_no_numbers_are_refused")
def _embed(bench: Bench) -> Seen:
    return _not_a_number(bench, "embedder/weights.safetensors", "embed", "run", "photos", "--out", "out")


@fault("NaN prototypes: `concepts`, exit 0", TENSORS)
def _concepts(bench: Bench) -> Seen:
    return _not_a_number(bench, "embedder/prototypes.safetensors", "concepts", "run", "photos")


@fault("NaN centroids: `segment`, exit 0", f"{TRUST}::test_weights_and_clusters_that_are_no_numbers_are_refused")
def _segment(bench: Bench) -> Seen:
    return _not_a_number(
        bench, "clusters/k5.safetensors", "segment", "run", "photos", "--out", "out", "-k", "5"
    )  # fmt: skip


@fault("NaN centroids: `report`, exit 0", f"{TRUST}::test_weights_and_clusters_that_are_no_numbers_are_refused")
def _report(bench: Bench) -> Seen:
    run = bench.run()
    (run / "clusters" / "k3.safetensors").unlink()
    (run / "clusters" / "k3.json").unlink()
    _edit(bench, run / "clusters" / "k5.safetensors")
    done = bench.call("report", run, "--images", "photos")
    page = (run / "report.html").read_text() if done.code == 0 else ""
    if "no finite numbers" in page:
        return Seen(False, "the page says that the clusters are damaged")
    return refused(done)


@fault(
    "NaN prototypes: `evaluate` ends in ZeroDivisionError",
    f"{TRUST}::test_weights_and_clusters_that_are_no_numbers_are_refused",
)
def _evaluate(bench: Bench) -> Seen:
    data = bench.labelled()
    run = bench.run()
    _edit(bench, run / "embedder" / "prototypes.safetensors")
    words = ("--protocols", "prototypes", *MEASURE[2:])
    return refused(bench.call("evaluate", run, data, *words))


def _clusters(bench: Bench, change: Callable[[Path], object]) -> Seen:
    run = bench.run()
    change(run / "clusters")
    (run / "clusters" / "k3.json").touch()
    return refused(bench.call("segment", run, "photos", "--out", "out", "-k", "5"))


@fault("clusters of another K: traceback", TENSORS)
def _rows(bench: Bench) -> Seen:
    return _clusters(bench, lambda folder: _edit(bench, folder / "k5.safetensors", "rows"))


@fault("clusters of another D: traceback", TENSORS)
def _columns(bench: Bench) -> Seen:
    return _clusters(bench, lambda folder: _edit(bench, folder / "k5.safetensors", "columns"))


def _told_of(bench: Bench, **values: object) -> Seen:
    """What k5.json says is changed, and an older version's file is made of it: without what the header says."""
    run = bench.run()
    path = run / "clusters" / "k5.json"
    content = json.loads(path.read_text()) | values
    content = {key: value for key, value in content.items() if value is not None and key != "digest"}
    path.write_text(json.dumps(content))
    bare = (
        "import sys; from safetensors.torch import load_file, save_file; save_file(load_file(sys.argv[1]), sys.argv[1])"
    )
    bench.call(run / "clusters" / "k5.safetensors", code=bare)
    return refused(bench.call("segment", run, "photos", "--out", "out", "-k", "5"))


@fault("clusters with a text as `position`: traceback", TENSORS)
def _position(bench: Bench) -> Seen:
    return _told_of(bench, position="here")


@fault("clusters without `images`: traceback", TENSORS)
def _images(bench: Bench) -> Seen:
    return _told_of(bench, images=None)


@fault(
    "prototypes of another D: traceback",
    "tests/collection/test_concepts.py::test_prototypes_of_another_length_are_refused",
    gone=True,
)
def _prototypes(bench: Bench) -> Seen:
    run = bench.run()
    _edit(bench, run / "embedder" / "prototypes.safetensors", "columns")
    return refused(bench.call("concepts", run, "photos"))


@fault("embedder.json with `hf-hub:`: `embed` asks a hub", f"{TRUST}::test_a_description_that_cannot_be_is_refused")
def _hub(bench: Bench) -> Seen:
    run = bench.run()
    _set(run / "embedder" / "embedder.json", backbone="hf-hub:timm/resnet18.a1_in1k")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        env = {"HF_ENDPOINT": address, "HF_HOME": str(bench.work / "hub"), "HF_HUB_DOWNLOAD_TIMEOUT": "2"}
        env |= {"HF_HUB_ETAG_TIMEOUT": "2", "HF_HUB_OFFLINE": "0"}
        done = bench.call("embed", run, "photos", "--out", "out", limit=25, env=env)
        try:
            server.accept()[0].close()
            return Seen(True, "a server was asked")
        except TimeoutError:
            return refused(done, "backbone")


_WATCHED = """
import sys
def watch(event, arguments):
    if event == "open" and "elsewhere" in str(arguments[0]):
        sys.stderr.write(f"OPENED {arguments[0]}\\n")
sys.addaudithook(watch)
from selfseg.cli import main
sys.exit(main(sys.argv[1:]))
"""


@fault(
    "embedder.json with `local-dir:`: a path elsewhere is opened",
    f"{TRUST}::test_a_description_that_cannot_be_is_refused",
)
def _local(bench: Bench) -> Seen:
    run = bench.run()
    elsewhere = bench.work / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "config.json").write_text('{"architecture": "resnet18"}')
    _set(run / "embedder" / "embedder.json", backbone=f"local-dir:{elsewhere}")
    done = bench.call("embed", run, "photos", "--out", "out", code=_WATCHED)
    return Seen(True, "elsewhere/config.json was opened") if "OPENED" in done.said else refused(done, "backbone")


@fault("embedder.json with a resolution of 10^9: traceback", f"{TRUST}::test_a_description_that_cannot_be_is_refused")
def _large(bench: Bench) -> Seen:
    run = bench.run()
    _set(run / "embedder" / "embedder.json", resolution=10**9)
    return refused(bench.call("embed", run, "photos", "--out", "out", data=3072), "resolution")


@fault("embedder.json with a resolution of NaN: traceback", f"{TRUST}::test_a_description_that_cannot_be_is_refused")
def _nan(bench: Bench) -> Seen:
    run = bench.run()
    _set(run / "embedder" / "embedder.json", resolution=float("nan"))
    return refused(bench.call("embed", run, "photos", "--out", "out"))


@fault(
    "an empty NAME.npy that the journal lists: EOFError",
    f"{TRUST}::test_embeddings_of_another_embedder_go_and_empty_files_are_made_anew",
)
def _empty(bench: Bench) -> Seen:
    run = bench.run()
    bench.call("embed", run, "photos", "--out", "out")
    (bench.work / "out" / "0.npy").write_bytes(b"")
    seen = passed(bench.call("embed", run, "photos", "--out", "out"), "made anew")
    if seen.fault is False:
        np.load(bench.work / "out" / "0.npy")
    return seen


def _journal(bench: Bench, line: bytes) -> Seen:
    run = bench.run()
    bench.call("embed", run, "photos", "--out", "out")
    journal = bench.work / "out" / "progress.jsonl"
    journal.write_bytes(journal.read_bytes() + line + b"\n")
    return passed(bench.call("embed", run, "photos", "--out", "out"), "the line is left out")


LINES = f"{READING}::test_lines_that_are_no_objects_are_left_out_wherever_lines_are_read"


@fault("a journal's line that is no object: traceback", LINES, gone=True)
def _no_object(bench: Bench) -> Seen:
    return _journal(bench, b"[1, 2]")


@fault("a journal's line that is not UTF-8: traceback", LINES, gone=True)
def _no_text(bench: Bench) -> Seen:
    return _journal(bench, b'{"name": "\xff\xfe"}')


@fault("a journal's line that is nested deeply: traceback", LINES)
def _nested_line(bench: Bench) -> Seen:
    return _journal(bench, b"[" * 200_000)


def _put(bench: Bench, file: str, content: bytes, *words: object) -> Seen:
    run = bench.run()
    (run / file).parent.mkdir(exist_ok=True)
    (run / file).write_bytes(content)
    return refused(bench.call(*words))


EMBED = ("embed", "run", "photos", "--out", "out")
HOSTILE = f"{READING}::test_hostile_json_is_a_value_error"


@fault("deep nesting in embedder.json: traceback", HOSTILE, gone=True)
def _nested_embedder(bench: Bench) -> Seen:
    return _put(bench, "embedder/embedder.json", b"[" * 200_000, *EMBED)


@fault("deep nesting in recipe.yaml: traceback", f"{READING}::test_yaml_that_stands_for_more_than_it_says_is_refused")
def _nested_recipe(bench: Bench) -> Seen:
    done = _put(bench, "recipe.yaml", b"[" * 200_000, "report", "run", "--images", "photos")
    return Seen(False, "the page is made without it") if done.text.startswith("exit 0") else done


@fault(
    "bytes that are not UTF-8 in recipe.yaml: traceback",
    f"{READING}::test_yaml_that_stands_for_more_than_it_says_is_refused",
    gone=True,
)
def _bytes(bench: Bench) -> Seen:
    done = _put(bench, "recipe.yaml", b"name: \xff\xfe\n", "report", "run", "--images", "photos")
    return Seen(False, "the page is made without it") if done.text.startswith("exit 0") else done


@fault("a number of 10,000 digits in log.jsonl: traceback", LINES, gone=True)
def _digits(bench: Bench) -> Seen:
    run = bench.run()
    log = run / "log.jsonl"
    log.write_bytes(log.read_bytes() + b'{"step": 4, "loss": ' + b"9" * 10_000 + b"}\n")
    return passed(bench.call("report", run, "--images", "photos"), "the line is left out")


@fault("a text as `class_iou` in a result: traceback", ARTEFACTS)
def _result(bench: Bench) -> Seen:
    run, data = bench.run(), bench.labelled()
    bench.call("evaluate", run, data, *MEASURE)

    def edited(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: "text" if key == "class_iou" else edited(item) for key, item in value.items()}
        return [edited(item) for item in value] if isinstance(value, list) else value

    changed = 0
    for path in (run / "results").glob("*.json"):
        text = json.dumps(edited(json.loads(path.read_text())))
        changed += '"class_iou": "text"' in text
        path.write_text(text)
    if not changed:
        return Seen(None, "no result has class_iou")
    done = bench.call("report", run, "--images", "photos")
    return Seen(True, done.crashed) if done.crashed else Seen(False, f"exit {done.code}: {done.words[:150]}")
