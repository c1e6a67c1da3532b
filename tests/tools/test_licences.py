"""Nothing that is installed for selfseg is under a licence that would bind those who use it."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(name="licences")
def _licences(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("licences")


@pytest.mark.slow
def test_what_is_installed_may_be_used(licences: ModuleType) -> None:
    found, _ = licences.dependencies()
    by_name = {entry.name.lower(): entry for entry in found}
    assert {"torch", "numpy", "pytest", "markupsafe"} <= by_name.keys()  # asked for, and needed by what is asked for
    bad = [entry for entry in found if entry.kind >= licences.Kind.UNKNOWN]
    assert not bad
    own_terms = {entry.name for entry in found if entry.kind == licences.Kind.OWN_TERMS}
    assert all(name.startswith(("nvidia-", "cuda-")) for name in own_terms), own_terms


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("Apache-2.0", "PERMISSIVE"),
        ("BSD 3-Clause License", "PERMISSIVE"),
        ("BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0", "PERMISSIVE"),
        ("Apache-2.0 WITH LLVM-exception", "PERMISSIVE"),
        ("BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1", "PERMISSIVE"),
        ("MIT OR GPL-3.0-only", "PERMISSIVE"),
        ("MPL-2.0 AND MIT", "FILE_COPYLEFT"),
        ("Mozilla Public License 2.0 (MPL 2.0)", "FILE_COPYLEFT"),
        ("LicenseRef-NVIDIA-Proprietary", "OWN_TERMS"),
        ("UNKNOWN", "UNKNOWN"),
        ("", "UNKNOWN"),
        ("MIT AND UNKNOWN", "UNKNOWN"),
        ("GPL-3.0-or-later", "FORBIDDEN"),
        ("AGPL-3.0-only", "FORBIDDEN"),
        ("LGPL-2.1-or-later", "FORBIDDEN"),
        ("GNU General Public License v2 (GPLv2)", "FORBIDDEN"),
        ("GNU Affero General Public License v3", "FORBIDDEN"),
        ("MIT AND (Apache-2.0 OR GPL-2.0-only)", "PERMISSIVE"),
        ("(MIT OR Apache-2.0) AND GPL-2.0-only", "FORBIDDEN"),
        ("CC-BY-NC-4.0", "FORBIDDEN"),
    ],
)
def test_what_a_licence_asks_for(licences: ModuleType, expression: str, kind: str) -> None:
    assert licences.kind(expression).name == kind


def test_a_forbidden_licence_ends_with_1(
    licences: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = licences.Dependency("bad", "1.0", "AGPL-3.0-only", licences.Kind.FORBIDDEN, "pyproject.toml")
    monkeypatch.setattr(licences, "dependencies", lambda: ([entry], {"absent"}))
    assert licences.main([]) == 1
    said = capsys.readouterr().out
    assert "bad 1.0 | AGPL-3.0-only (forbidden) | pyproject.toml" in said
    assert "not installed: absent" in said
