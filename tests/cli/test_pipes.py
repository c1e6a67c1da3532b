"""What the command does when nobody reads on, and with names that are no UTF-8."""

import os
import subprocess
import sys

import pytest

from selfseg.cli import main


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
