"""The quick half of parts of the torture, and its runner."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("artefacts", "bombs", "corpus", "curves", "disk", "kills", "paths")
"""Of the others the suite has tests of its own: tests/training, tests/cli/test_signals.py."""


@pytest.fixture(name="runner")
def _runner(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("torture.run")


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_the_quick_half_holds(name: str, runner: ModuleType, tmp_path: Path) -> None:
    promise, rows, _ = runner.run_part(name, tmp_path / name, quick=True)
    assert promise
    assert [row for row in rows if not row.ok] == []
    assert sum(row.tries for row in rows) > 0


def test_what_is_broken_ends_the_runner_with_1_and_stands_in_the_table(
    runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = importlib.import_module("torture.rows").Row
    part = ModuleType("torture.parts.paths")
    part.PROMISE = "nothing outside is read"  # type: ignore[attr-defined]
    part.run = lambda work, quick: [row("a | b", 3, False, "see x")]  # type: ignore[attr-defined]
    monkeypatch.setitem(importlib.import_module("sys").modules, "torture.parts.paths", part)
    arguments = ["--part", "paths", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    monkeypatch.setattr(runner, "names", lambda: ["paths", "other"])
    assert runner.main(arguments) == 1
    assert "| a \\| b | 3 | **broken** | see x |" in (tmp_path / "out" / "paths.md").read_text()


def test_every_fault_of_the_first_version_names_a_test_that_exists(runner: ModuleType) -> None:
    faults = importlib.import_module("torture.faults")
    assert len({shown.what for shown in faults.FAULTS}) == len(faults.FAULTS) > 60
    for shown in faults.FAULTS:
        file, _, name = shown.test.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text("utf-8"), shown


def test_a_fault_that_is_back_ends_the_script_with_1(
    runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = importlib.import_module("torture.faults")
    bench = importlib.import_module("torture.first_version.bench")
    kept = [shown for shown in faults.FAULTS if "--epochs nan" in shown.what]
    back = bench.Fault("it | is back", "tests/a.py::test_b", lambda _: bench.Seen(True, "traceback"))
    monkeypatch.setattr(faults, "FAULTS", [*kept, back])
    out = tmp_path / "faults.md"
    assert faults.main(["--only", "is back", "--out", str(out)]) == 1
    assert "| it \\| is back | `tests/a.py::test_b` | fault: traceback |" in out.read_text()
    assert faults.main(["--only", "nothing is called so", "--out", str(out)]) == 0


def test_an_error_that_a_part_lets_through_is_told(
    runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = ModuleType("torture.parts.paths")
    part.PROMISE = "p"  # type: ignore[attr-defined]
    part.run = lambda work, quick: 1 / 0  # type: ignore[attr-defined]
    monkeypatch.setitem(importlib.import_module("sys").modules, "torture.parts.paths", part)
    _, rows, _ = runner.run_part("paths", tmp_path, quick=True)
    assert not rows[0].ok
    assert "ZeroDivisionError" in rows[0].detail
