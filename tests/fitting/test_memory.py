"""Memory is kept while steps run, and the process is as before when they end."""

import os
from pathlib import Path

import pytest
import torch

from selfseg.fitting import memory
from selfseg.fitting.memory import kept_memory
from selfseg.training.loop import train
from tiny import assert_same_state, vice

CPU = torch.device("cpu")
MIB = 400


def resident() -> float:
    """MiB of memory that the process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def left_by_a_tensor() -> float:
    """MiB that the process holds more after a large tensor has come and gone."""
    before = resident()
    torch.ones(MIB << 18)
    return resident() - before


@pytest.mark.slow
@pytest.mark.skipif(memory._glibc() is None, reason="only glibc can be told")
def test_memory_is_kept_inside_and_given_back_at_the_end() -> None:
    libc = memory._glibc()
    assert libc is not None
    libc.malloc_trim(0)  # what tests before this one left would be used again, and not be counted
    with kept_memory(CPU):
        assert left_by_a_tensor() > 0.9 * MIB
        inside = resident()
    assert inside - resident() > 0.9 * MIB
    with pytest.raises(ZeroDivisionError), kept_memory(CPU):
        _ = 1 / 0
    assert left_by_a_tensor() < 0.1 * MIB
    with kept_memory(torch.device("cuda")):
        assert left_by_a_tensor() < 0.1 * MIB


@pytest.mark.slow
def test_another_c_library_trains_the_same(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = train(vice(photos, tmp_path / "kept", steps=2), progress=False)
    monkeypatch.setattr(memory.os, "confstr", lambda _: None)
    assert memory._glibc() is None
    assert_same_state(kept, train(vice(photos, tmp_path / "other", steps=2), progress=False))
