"""The bill of materials has what comes with the package, as pinned, and nothing of the developer's own."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEEDS = {"": {"torch", "onnx", "gcsfs"}, "torch": {"sympy"}, "sympy": set(), "onnx": {"sympy"}, "gcsfs": set()}
REQUIRED = {"": {"torch"}, "torch": {"sympy"}, "sympy": set()}


@pytest.fixture(name="bom")
def _bom(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("bom")


def environment(*names: str) -> dict[str, Any]:
    parts = [{"name": name, "version": "1.0", "bom-ref": f"{name}==1.0"} for name in names]
    arrows = [{"ref": part["bom-ref"], "dependsOn": ["pytest==1.0"]} for part in parts]
    return {"metadata": {"component": {"bom-ref": "root"}}, "components": parts, "dependencies": arrows}


def test_what_users_get_is_kept(bom: ModuleType) -> None:
    found = bom.reduced(environment("torch", "Sympy", "onnx", "pytest"), REQUIRED, NEEDS, {"torch": "1.0"})
    scopes = {part["name"]: part["scope"] for part in found["components"]}
    assert scopes == {"onnx": "optional", "Sympy": "required", "torch": "required"}
    assert {arrow["ref"]: arrow["dependsOn"] for arrow in found["dependencies"]} == {
        "root": ["onnx==1.0", "torch==1.0"],
        "onnx==1.0": ["Sympy==1.0"],
        "torch==1.0": ["Sympy==1.0"],
        "Sympy==1.0": [],
    }
    assert {"name": "selfseg:not included", "value": "gcsfs"} in found["metadata"]["properties"]


def test_another_environment_is_refused(bom: ModuleType) -> None:
    with pytest.raises(bom.BomError, match=r"torch is 1\.0 here, and 2\.0 in constraints"):
        bom.reduced(environment("torch", "sympy"), REQUIRED, NEEDS, {"torch": "2.0"})
    with pytest.raises(bom.BomError, match="sympy is required, and not installed"):
        bom.reduced(environment("torch"), REQUIRED, NEEDS, {})
