"""The command that is run where a GPU is, tried where none is."""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(name="gpu")
def _gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu")


@pytest.fixture(name="harness")
def _harness(gpu: ModuleType) -> ModuleType:
    return importlib.import_module("gpu_parts.harness")


# torch.compile looks at the gradient of every tensor that it meets, also where there can be none.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning")
# What torch 2.11 says of itself: its compiler instantiates functions, its profiler has one cycle; and of Python 3.13.0.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events:UserWarning")
@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0:RuntimeWarning")
def test_every_part_runs_on_a_cpu(gpu: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tiny.json"
    assert gpu.main(["--tiny", "--out", str(out)]) == 0, out.with_suffix(".md").read_text()
    record = json.loads(out.read_text())
    assert {name: part["status"] for name, part in record["parts"].items()} == dict.fromkeys(gpu.PARTS, "done")
    assert all(part["rows"] for part in record["parts"].values())
    table = out.with_suffix(".md").read_text()
    assert table in capsys.readouterr().out
    rows = [row for part in record["parts"].values() for row in part["rows"]]
    assert table.count("\n| ") == len(rows) + len(gpu.PARTS)  # each table has a head


def test_a_part_that_fails_keeps_what_it_had_and_the_next_goes_on(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(job: Any) -> None:
        job.note("before", verdict="equal")
        with job.attempt("inside"):
            raise ValueError("one of many")
        raise RuntimeError("the whole part")

    def fine(job: Any) -> None:
        job.note("after", verdict="equal")

    monkeypatch.setattr(importlib.import_module("gpu_parts.superpixels"), "run", run)
    monkeypatch.setattr(importlib.import_module("gpu_parts.verbs"), "run", fine)
    out = tmp_path / "tiny.json"
    assert gpu.main(["--tiny", "--part", "superpixels", "verbs", "--out", str(out)]) == 1
    parts = json.loads(out.read_text())["parts"]
    assert [row["what"] for row in parts["superpixels"]["rows"]] == ["before", "inside"]
    assert "one of many" in parts["superpixels"]["rows"][1]["traceback"]
    assert "the whole part" in parts["superpixels"]["error"]
    assert [row["what"] for row in parts["verbs"]["rows"]] == ["after"]


@pytest.mark.slow
def test_a_part_that_takes_too_long_is_stopped_and_keeps_its_rows(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import subprocess, sys, time\n"
        "rows = sys.argv[4]\n"
        'open(rows, \'a\').write(\'{"what": "one"}\\n{"wha\')\n'  # the second is cut off
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "open(rows + '.child', 'w').write(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr(gpu, "__file__", str(worker))
    rows, kept = tmp_path / "rows.jsonl", []
    rows.touch()
    begin = time.monotonic()
    status, _ = gpu._work_apart(
        "superpixels", tmp_path, rows, 0.0, lambda: kept.append(gpu._read_rows(rows)), True, 1.0
    )
    assert status.startswith("stopped")
    assert time.monotonic() - begin < 20
    assert kept[-1] == [{"what": "one"}]
    child = Path(f"/proc/{(tmp_path / 'rows.jsonl.child').read_text()}/stat")

    def ended() -> bool:
        try:
            return child.read_text().split()[2] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    while not ended() and time.monotonic() - begin < 20:  # killed, but a busy machine takes a moment to end it
        time.sleep(0.05)
    assert ended()


def test_differences_are_told(harness: ModuleType) -> None:
    one = {"a": torch.tensor([1.0, 2.0]), "b": [torch.tensor(4)]}
    assert harness.difference(one, one, 0.0)["verdict"] == "equal"
    near = {"a": torch.tensor([1.0, 2.0 + 1e-6]), "b": [torch.tensor(4)]}
    found = harness.difference(one, near, 1e-5)
    assert found["verdict"] == "within rounding"
    assert found["unequal"] == pytest.approx(1 / 3)
    assert found["relative"] == pytest.approx(1e-6 / 2, rel=0.2)
    assert harness.difference(one, near, 0.0)["verdict"] == "DIFFERS"
    assert harness.difference(torch.zeros(2), torch.zeros(3), 1.0)["verdict"] == "DIFFERS"
    assert harness.difference(torch.zeros(2), torch.tensor([0.0, float("nan")]), 1.0)["verdict"] == "DIFFERS"


def test_without_a_gpu_it_says_so(gpu: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert gpu.main(["--out", str(tmp_path / "x.json")]) == 2
    assert "--tiny" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()
