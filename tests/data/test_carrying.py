"""How batches come from loader processes: whatever the way, they are the same."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from selfseg.data import carrying, loader
from selfseg.data.carrying import Carrier, Piped
from selfseg.errors import ConfigError
from selfseg.types import Batch, View


def _batch(_samples: object = None) -> Batch:
    image = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).reshape(2, 4, 5, 3).permute(0, 3, 1, 2)
    view = View(image, torch.rand(2, 2, 3), torch.zeros(2, 0, 0, dtype=torch.int64))
    return Batch((view,), torch.tensor([3, 1]), ((3, "empty"),))


def _there(monkeypatch: pytest.MonkeyPatch, free: int | None) -> object:
    monkeypatch.setattr(carrying, "get_worker_info", lambda: object())
    monkeypatch.setattr(carrying, "free_shared_memory", lambda: free)
    return Carrier(lambda samples: _batch(), processes=2)([])


def test_a_batch_takes_the_pipe_where_shared_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    assert isinstance(_there(monkeypatch, 2**30), Batch)
    assert isinstance(_there(monkeypatch, None), Batch)  # no such limit on this system
    torch.manual_seed(0)
    piped = _there(monkeypatch, 2**14)
    assert isinstance(piped, Piped)
    assert "has only 0.0 MiB left" in piped.sentence()
    assert "--shm-size" in piped.sentence()
    torch.manual_seed(0)
    wanted, got = _batch(), piped.unpacked()
    assert torch.equal(got.views[0].image, wanted.views[0].image)
    assert got.views[0].image.stride() == wanted.views[0].image.stride()  # channels-last, as it was
    assert torch.equal(got.views[0].to_image, wanted.views[0].to_image)
    assert got.views[0].regions.shape == (2, 0, 0)
    assert (got.index.tolist(), got.skipped) == ([3, 1], ((3, "empty"),))


def test_a_batch_whose_memory_is_refused_takes_the_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: torch.Tensor) -> None:
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)
    piped = _there(monkeypatch, 2**30)
    assert isinstance(piped, Piped)
    assert "cannot be had" in piped.sentence()


def test_in_the_training_process_a_batch_stays_as_it_is() -> None:
    made = Carrier(lambda samples: np.zeros(3), processes=1)([])
    assert isinstance(made, np.ndarray)


@pytest.mark.parametrize(
    ("codes", "words"), [([1, 1], "ended as it began (exit code 1)"), ([-9], "SIGKILL); if memory"), ([], "SIGKILL")]
)
def test_why_a_loader_process_ended(codes: list[int], words: str) -> None:
    assert words in loader._why_ended(codes)
    assert ("__main__" in loader._why_ended(codes)) == (codes == [1, 1])


def test_a_process_that_runs_the_script_again_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Beginning:
        _inheriting = True

    loader.refuse_second_run()
    monkeypatch.setattr(loader.multiprocessing, "current_process", Beginning)
    with pytest.raises(ConfigError, match='if __name__ == "__main__"'):
        loader.refuse_second_run()


_SCRIPT = """
import logging
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from selfseg import train
from tiny import vice
logging.basicConfig(level=logging.INFO, format="%(message)s")
train(vice(Path(sys.argv[2]), Path(sys.argv[3]), steps=3, workers=2), progress=False)
"""


@pytest.mark.slow
def test_a_script_without_a_guard_in_a_container_without_shared_memory(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(_SCRIPT)
    words = [sys.executable, "script.py", str(Path(__file__).parents[1]), str(photos), str(tmp_path / "run")]
    small = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=64k none /dev/shm && exec "$@"', "sh"]
    alone = subprocess.run([*small, "true"], capture_output=True, check=False).returncode == 0
    command = [*(small if alone else []), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 3
    assert ("through pipes" in done.stderr) == alone
    assert "Traceback" not in done.stderr
