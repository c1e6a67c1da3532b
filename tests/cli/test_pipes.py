"""What the command does with the streams that it is given, and with names that don't fit into them."""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from selfseg.cli import main
from selfseg.cli.console import prepare_streams


@pytest.mark.slow
@pytest.mark.parametrize("words", [["evaluate", "--help"], ["--help"]])  # printed by two libraries
def test_a_reader_that_has_seen_enough_is_no_error(words: list[str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "selfseg.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()  # as `| head` does, only sooner
        said = running.stderr.read().decode()
    assert "Traceback" not in said
    assert "BrokenPipe" not in said


def test_a_name_that_is_no_utf_8_can_be_told(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["data", os.fsdecode(b"/nowhere/caf\xe9")]) == 3
    assert b"caf" in capfdbinary.readouterr().err


def test_no_file_takes_the_place_of_a_closed_stream() -> None:
    code = (
        "import os; from selfseg.cli import main; code = main(['--version']); "
        "assert os.open(os.devnull, os.O_RDONLY) > 2; os._exit(code)"
    )
    words = ["/bin/sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code]
    assert subprocess.run(words, check=False).returncode == 0


def test_a_full_disk_for_what_is_printed_is_an_error_without_a_traceback() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "selfseg.cli", "--help"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 4
    assert b"can't write what is printed: No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


def test_letters_that_a_terminal_has_not_are_shown_as_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", narrow)
    prepare_streams()
    print("caf\udce9 \u2192 \xe9", end="")
    narrow.flush()
    assert narrow.buffer.getvalue() == b"caf\xe9 \\u2192 \xe9"  # type: ignore[attr-defined]


def test_names_do_not_reach_the_terminal_as_commands(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "/nowhere/\x1b]0;title\x07\x1b[2J"]) == 3
    err = capfd.readouterr().err
    assert "\x1b]" not in err
    assert "\x07" not in err
    assert r"/nowhere/\x1b]0;title\x07\x1b[2J" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cluster", "RUN", "IMAGES", "-k", "8", "-k", "12"], "-k is given twice"),
        (["cluster", "RUN", "IMAGES", "-k", "8", "--k=12"], "-k and --k say the same thing twice"),
        (["train", "vice", "IMAGES", "--out", "a", "--out", "b"], "--out is given twice"),
        (["train", "vice", "IMAGES", "--batch_size", "2", "--batch-size", "3"], "say the same thing twice"),
        (["embed", "RUN", "IMAGES", "--out", "o", "--flip", "--no-flip"], "say the same thing twice"),
        (["masks", "", "--out", "masks"], "there is an empty word"),
        (["masks", "photos", "--out", ""], "there is an empty word after --out"),
        (["masks", "photos", "--out="], "there is an empty word in --out="),
    ],
)
def test_words_that_would_be_ignored_are_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_terminal_that_is_too_narrow_for_words_is_taken_for_a_wider_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--help` never came to an end."""
    monkeypatch.setenv("COLUMNS", "1")
    prepare_streams()
    assert shutil.get_terminal_size().columns == 20


def test_messages_that_cannot_be_printed_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of a training may lie on a disk that is full, or its terminal may be closed."""
    done = []

    def work(words: list[str]) -> int:
        print("a message", file=sys.stderr, flush=True)
        Console(stderr=True).print("another one")
        done.append(words)
        return 0

    monkeypatch.setattr("selfseg.cli.training.doctor", work)
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert main(["doctor"]) == 0
        monkeypatch.undo()
        assert done == [[]]
        with pytest.raises(OSError, match="No space left"):
            full.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())


def test_a_current_folder_that_was_removed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["data", str(tmp_path)]) == 2
    assert "the current folder was removed" in capsys.readouterr().err


@pytest.mark.slow
def test_the_end_of_a_command_prints_nothing_of_what_is_loaded() -> None:
    pytest.importorskip("triton")
    script = (
        "import sys, triton.language; sys.argv[1:] = ['--version']; from selfseg.cli import entry; sys.exit(entry())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
