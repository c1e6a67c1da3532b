import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from selfseg.errors import BadImage, DataError, StorageError
from selfseg.storage.files import make_folder, mark_output, sole_use, write_text
from selfseg.storage.waiting import Patience, is_there, may_be_the_folder, vanished_output


def failing(times: int, number: int) -> tuple[Callable[[], str], list[int]]:
    calls: list[int] = []

    def do() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise OSError(number, "away")
        return "done"

    return do, calls


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ESTALE, errno.EIO, errno.ENOTCONN])
def test_a_folder_that_comes_back_is_waited_for(
    number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    do, calls = failing(3, number)
    looks: list[int] = []

    def vanished() -> Path | None:
        looks.append(1)
        return tmp_path if len(looks) in (1, 2, 4, 5) else None

    assert Patience(60).outlast(do, vanished) == "done"
    assert len(calls) == 4
    told = " ".join(capsys.readouterr().err.split())
    assert f"{tmp_path} can't be reached; waiting for it, for up to 60 s" in told
    assert f"{tmp_path} is back after" in told


def test_what_is_missing_in_a_folder_that_is_there_fails_at_the_second_look() -> None:
    do, calls = failing(9, errno.ENOENT)
    with pytest.raises(FileNotFoundError):
        Patience(60).outlast(do, lambda: None)
    assert len(calls) == 2


def test_other_errors_are_not_waited_for(tmp_path: Path) -> None:
    for patience, number in ((Patience(60), errno.ENOSPC), (Patience(0), errno.ESTALE)):
        do, calls = failing(9, number)
        with pytest.raises(OSError, match="away"):
            patience.outlast(do, lambda: tmp_path)
        assert len(calls) == 1


def test_a_folder_that_stays_away_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    do, _ = failing(9, errno.ESTALE)
    begin = time.monotonic()
    with pytest.raises(DataError, match=r"can't be reached any more, for 0\.2 s; bring it back.*--wait-folder"):
        Patience(0.2, DataError, loud=False).outlast(do, lambda: tmp_path)
    assert time.monotonic() - begin < 5


def test_what_counts_is_the_cause(tmp_path: Path) -> None:
    assert may_be_the_folder(BadImage("a", "mask-missing"))
    assert not may_be_the_folder(BadImage("a", "truncated"))
    error = StorageError("can't write")
    error.__cause__ = OSError(errno.EIO, "")
    assert may_be_the_folder(error)
    assert is_there(tmp_path)
    assert not is_there(tmp_path / "no")
    assert vanished_output(tmp_path) == tmp_path  # an empty place where it was mounted
    mark_output(tmp_path)
    assert vanished_output(tmp_path) is None


def test_a_held_folder_that_has_vanished_is_not_made_anew(tmp_path: Path) -> None:
    run = tmp_path / "run"
    mark_output(run)
    with sole_use(run):
        write_text(run / "new" / "a.txt", "a")
        run.rename(tmp_path / "away")
        with pytest.raises(FileNotFoundError):
            make_folder(run / "checkpoints" / "x")
        with pytest.raises(StorageError):
            write_text(run / "new" / "b.txt", "b")
        assert not run.exists()
        (tmp_path / "away").rename(run)
        write_text(run / "new" / "b.txt", "b")
    run.rename(tmp_path / "away")
    write_text(run / "c.txt", "c")  # nobody holds it any more


def test_a_lock_that_is_let_go_of_in_time_is_no_error(tmp_path: Path) -> None:
    mark_output(tmp_path)
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with sole_use(tmp_path):
            held.set()
            let_go.wait(10)

    other = threading.Thread(target=hold)
    other.start()
    held.wait(10)
    threading.Timer(0.1, let_go.set).start()
    with sole_use(tmp_path, patience=10):
        pass
    other.join()
