"""`make audit` tells what a database of vulnerabilities knows, and never takes silence for good news."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(name="audit")
def _audit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("audit")


def report(*faults: dict[str, object]) -> str:
    return json.dumps({"dependencies": [{"name": "pillow", "version": "13.0.0", "vulns": list(faults)}], "fixes": []})


FAULT = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["13.0.1"], "description": "bad"}


def test_nothing_known_is_0_and_something_known_is_1(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.main([], lambda *_: (report(), "")) == 0
    assert "1 packages: no known" in capsys.readouterr().out
    assert audit.main([], lambda *_: (report(FAULT), "")) == 1
    assert "pillow 13.0.0: PYSEC-1, CVE-1 (repaired in 13.0.1)" in capsys.readouterr().out
    monkeypatch.setattr(audit, "ACCEPTED", {"CVE-1": "selfseg reads no such file"})
    assert audit.main([], lambda *_: (report(FAULT), "")) == 0
    assert "accepted: selfseg reads no such file" in capsys.readouterr().out


def test_the_second_service_is_asked_and_silence_is_2(audit: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    asked = []

    def second_answers(service: str, file: Path) -> tuple[str, str]:
        asked.append((service, file.name))
        return (report(), "") if service == "osv" else ("", "Traceback\nConnectionError: no way")

    assert audit.main([], second_answers) == 0
    assert asked == [("pypi", "constraints.txt"), ("osv", "constraints.txt")]
    assert "pypi: ConnectionError: no way" in capsys.readouterr().out
    assert audit.main([], lambda *_: ("", "")) == 2
    assert "nothing is known about constraints.txt" in capsys.readouterr().out
    skipped = json.dumps({"dependencies": [{"name": "pillow", "skip_reason": "not found"}], "fixes": []})
    assert audit.main([], lambda *_: (skipped, "")) == 2  # a mirror that has packages and no vulnerabilities
    assert "knows none of 1 packages" in capsys.readouterr().out
