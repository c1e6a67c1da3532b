"""Which build of PyTorch `make setup` takes."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PINS = "timm==1.0\ntorch==2.15.0\ntorchmetrics==1.9.0\ntorchvision==0.29.2\n"
BUILDS = ["torch==2.15.0+cpu", "torchvision==0.29.2+cpu"]


@pytest.fixture(name="tool")
def _tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The tool on an Intel machine with Linux, without a GPU, and with an empty environment."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    tool = importlib.import_module("cpu_torch")
    monkeypatch.setattr(tool, "has_gpu", lambda: False)
    monkeypatch.setattr(tool, "installed", list)
    monkeypatch.setattr(tool.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(tool.sys, "platform", "linux")
    return tool


def test_the_pinned_builds_are_asked_for(tool: ModuleType) -> None:
    asked = []
    fine, told = tool.choose(PINS, "", lambda builds: asked.append(builds) is None)
    assert fine
    assert asked == [BUILDS]
    assert "build for CPUs (torch==2.15.0+cpu" in told


def test_the_constraints_of_the_project_pin_both(tool: ModuleType) -> None:
    assert all(build.endswith("+cpu") for build in tool.cpu_builds((ROOT / "constraints.txt").read_text()))
    with pytest.raises(ValueError, match="pin no torchvision"):
        tool.cpu_builds("torch==2.15.0\ntorchvision-extra==1\n")


def test_without_a_build_for_cpus_the_usual_one_is_taken_and_the_way_told(tool: ModuleType) -> None:
    fine, told = tool.choose(PINS, "", lambda builds: False)
    assert fine
    assert "PIP_EXTRA_INDEX_URL" in told
    assert "usual build" in told
    fine, told = tool.choose(PINS, "cpu", lambda builds: False)
    assert not fine
    assert " and ".join(BUILDS) in told


@pytest.mark.parametrize("case", ["gpu", "macos", "arm", "here already", "usual", "unknown"])
def test_otherwise_nothing_is_installed(case: str, tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    if case == "gpu":
        monkeypatch.setattr(tool, "has_gpu", lambda: True)
    if case == "macos":
        monkeypatch.setattr(tool.sys, "platform", "darwin")
    if case == "arm":
        monkeypatch.setattr(tool.platform, "machine", lambda: "aarch64")
    if case == "here already":
        monkeypatch.setattr(tool, "installed", lambda: ["torch 2.15.0"])
    fine, told = tool.choose(PINS, case if case in ("usual", "unknown") else "", pytest.fail)
    assert fine == (case != "unknown"), told


def test_a_gpu_is_seen_by_its_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    tool = importlib.import_module("cpu_torch")
    monkeypatch.setattr(tool, "GPU", (str(tmp_path / "nvidiactl"),))
    assert not tool.has_gpu()
    (tmp_path / "nvidiactl").touch()
    assert tool.has_gpu()
