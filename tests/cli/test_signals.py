"""Signals stop a command where its state can be saved, and a second one ends it at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from selfseg.cli import main
from selfseg.signals import STOPPING, Stopped, ending_on_signals, stop_signals


@pytest.mark.parametrize("number", STOPPING)
def test_the_first_signal_stops_any_verb_with_its_exit_code(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cleaned = []

    def work(words: list[str]) -> int:
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        finally:
            cleaned.append(True)
        return 0

    before = [signal.getsignal(each) for each in STOPPING]
    monkeypatch.setattr("selfseg.cli.training.doctor", work)
    assert main(["doctor"]) == 75
    assert f"stopped by {signal.Signals(number).name}" in capsys.readouterr().err
    assert cleaned == [True]
    assert [signal.getsignal(each) for each in STOPPING] == before


@pytest.mark.parametrize("number", STOPPING)
def test_training_is_asked_first(number: int) -> None:
    with ending_on_signals(), stop_signals() as stop:
        os.kill(os.getpid(), number)
        assert stop.wait(1)
        os.kill(os.getpid(), next(other for other in STOPPING if other != number))  # of another kind: asked once more


def test_what_a_shell_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with ending_on_signals():
            os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_nohup_keeps_a_training_going_when_the_terminal_is_closed() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending_on_signals(), stop_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.wait(0.05)
    finally:
        signal.signal(signal.SIGHUP, before)


_TWICE = """
import os, sys, signal, time
from selfseg.signals import ending_on_signals, stop_signals, Stopped
number = int(sys.argv[1])
with ending_on_signals():
    try:
        if sys.argv[2] == "training":
            with stop_signals() as stop:
                os.kill(os.getpid(), number)
                assert stop.is_set()
                os.kill(os.getpid(), number)
        else:
            os.kill(os.getpid(), number)
    except Stopped:
        os.kill(os.getpid(), number)
    time.sleep(30)
"""


_LATE = """
import os, sys
from selfseg.signals import ending_on_signals
class Late:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=int(sys.argv[1]), write=os.write):
        kill(pid, number)
        write(1, b"late")
late = Late()
with ending_on_signals(last=True):
    pass
os.kill(os.getpid(), int(sys.argv[1]))
"""


@pytest.mark.slow
def test_signals_while_a_command_that_is_through_ends_change_nothing() -> None:
    for number in STOPPING:
        words = [sys.executable, "-c", _LATE, str(int(number))]
        done = subprocess.run(words, check=False, timeout=60, capture_output=True)
        assert (done.returncode, done.stdout) == (0, b"late"), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("where", ["training", "elsewhere"])
def test_a_second_signal_ends_it_at_once(where: str, tmp_path: Path) -> None:
    for number in STOPPING:
        words = [sys.executable, "-c", _TWICE, str(int(number)), where]
        assert subprocess.run(words, check=False, timeout=60, capture_output=True).returncode == -number


def test_a_signal_in_a_finalizer_is_not_lost() -> None:
    class Late:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)
            time.sleep(0)  # where the handler runs, whose exception Python lets go

    def work() -> None:
        Late()
        time.sleep(20)

    with pytest.raises(Stopped), ending_on_signals():
        work()


def test_stopped_is_an_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt) as raised, ending_on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert isinstance(raised.value, Stopped)
    assert raised.value.name == "SIGTERM"
