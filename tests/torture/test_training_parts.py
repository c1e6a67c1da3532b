"""The quick half of the torture's parts on training; that of others is as `tests/training` and `tests/cli` have it."""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("part", ["numbers", "curves"])
def test_every_promise_is_kept(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr(sys, "path", list(sys.path))
    rows = importlib.import_module(f"torture.parts.{part}").run(tmp_path, quick=True)
    assert rows
    assert [row for row in rows if not row.ok] == []
