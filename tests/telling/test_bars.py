"""Where there is no terminal, long jobs tell how far they are in a line now and then."""

import io

from rich.console import Console

from selfseg.telling.bars import Bars, passing


class Clock:
    """A time that is set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def bars_at(clock: Clock, out: io.StringIO, shown: bool = True, terminal: bool = False) -> Bars:
    bars = Bars(shown=shown, console=Console(file=out, force_terminal=terminal, width=200))
    bars.get_time = clock
    bars._began, bars._due = clock.now, clock.now + 30
    return bars


def test_a_log_gets_a_line_now_and_then_and_the_pauses_grow():
    clock, out = Clock(), io.StringIO()
    with bars_at(clock, out) as bars:
        task = bars.add_task("embed", total=2000, completed=1000)
        for _ in range(29):
            clock.now += 1
            bars.advance(task)
        assert out.getvalue() == ""
        clock.now += 1
        bars.update(task, completed=1030)
        assert out.getvalue() == "embed: 1,030 of 2,000, about 16 min left\n"
        lines = []
        for _ in range(30, 990):  # one image a second, for another quarter of an hour
            clock.now += 1
            bars.advance(task)
            if len(out.getvalue().splitlines()) > len(lines):
                lines = out.getvalue().splitlines()
    assert 10 < len(lines) < 25
    assert lines[-1].endswith(" s left")


def test_what_the_first_one_waited_for_is_not_counted_for_the_others():
    clock, out = Clock(), io.StringIO()
    with bars_at(clock, out) as bars:
        task = bars.add_task("masks", total=101)
        clock.now += 29  # it is compiled
        bars.advance(task)
        clock.now += 2
        bars.advance(task)
    assert out.getvalue() == "masks: 2 of 101, about 3 min left\n"


def test_training_tells_its_loss_and_nothing_is_said_at_the_end():
    clock, out = Clock(), io.StringIO()
    with bars_at(clock, out) as bars:
        task = bars.add_task("train", total=10, completed=0, told="first steps")
        clock.now += 60
        bars.update(task, completed=5, told="loss 3.000")
        clock.now += 60
        bars.update(task, completed=10, told="loss 2.000")
    assert out.getvalue() == "train: 5 of 10, loss 3.000, about 60 s left\n"


def test_what_has_no_end_is_counted_and_a_name_is_no_markup():
    clock, out = Clock(), io.StringIO()
    with bars_at(clock, out) as bars:
        task = bars.add_task(r"segment \[red]a.tif", total=None)
        clock.now += 31
        bars.advance(task)
    assert out.getvalue() == "segment [red]a.tif: 1\n"


def test_silence_is_kept_and_a_terminal_has_its_bar():
    for shown, terminal in ((False, False), (False, True)):
        clock, out = Clock(), io.StringIO()
        with bars_at(clock, out, shown, terminal) as bars:
            task = bars.add_task("embed", total=2)
            clock.now += 100
            bars.advance(task)
        assert out.getvalue() == ""
    with bars_at(Clock(), out := io.StringIO(), terminal=True) as bars:
        bars.advance(bars.add_task("embed", total=2))
    assert "embed" in out.getvalue()
    assert " of " not in out.getvalue()


def test_what_passes_comes_out_again():
    assert list(passing([3, 1], "count", shown=False)) == [3, 1]
    assert list(passing(iter("ab"), "count", shown=False, total=2)) == ["a", "b"]
