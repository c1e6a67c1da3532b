from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty store in fsspec's memory, a cache of this test's own, and little patience."""
    monkeypatch.setenv("SELFSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SELFSEG_REMOTE_PAUSE", "0.001")
    monkeypatch.setenv("SELFSEG_REMOTE_ATTEMPTS", "3")
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()
