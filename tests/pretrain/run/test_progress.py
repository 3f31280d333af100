"""What a run says while it goes on: at once, with hours, and without noise."""

import io
import os
import pty
import re
import select
import sys
import time

import pytest

from pretrain.run import console
from pretrain.run.progress import Counter, Progress, clock
from pretrain.run.throughput import Smoothed


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00:00"),
        (59.6, "0:01:00"),
        (3599, "0:59:59"),
        (3600, "1:00:00"),
        (86399, "23:59:59"),
        (90061, "1 d 1:01:01"),
        (-3, "0:00:00"),
    ],
)
def test_times_have_hours(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_without_a_terminal_there_are_plain_lines_and_the_first_loss_comes_at_once(capsys) -> None:
    progress = Progress(shown=True)
    progress.start(3, 0)
    progress.show_loss(7.25)
    for _ in range(3):
        progress.advance(100, 7200.0)
    progress.close()
    first, last = capsys.readouterr().err.splitlines()
    assert first == "step 1/3, loss 7.2500, 0 tokens/s, 0:00:00 elapsed, 4:00:00 left"
    assert last.startswith("step 3/3, loss 7.2500, 0 tokens/s, ")
    assert last.endswith("0:00:00 left")


def test_on_a_terminal_the_line_has_hours_too(monkeypatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress(shown=True)
    progress.start(100, 40)
    progress.show_loss(2.5)
    time.sleep(0.15)  # tqdm draws no more often
    progress.advance(5000, 100.0)
    console.log("a word")
    progress.close()
    text = terminal.getvalue()
    assert "a word\n" in text
    line = next(part for part in re.split(r"[\r\n]", text) if "41/100" in part)
    assert "0:00:00, 1:38:20 left" in line
    assert "loss 2.5000, 50 tokens/s" in line


def test_a_terminal_without_a_width_is_written_to_as_well(monkeypatch) -> None:
    """As under `script` or in a container, where nobody has said how wide it is."""
    master, slave = pty.openpty()
    assert os.get_terminal_size(slave).columns == 0
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        progress = Progress(shown=True)
        progress.start(100, 40)
        progress.show_loss(2.5)
        time.sleep(0.15)
        progress.advance(5000, 100.0)
        progress.close()
        shown = b""
        while select.select([master], [], [], 0.5)[0]:
            shown += os.read(master, 2**16)
    os.close(master)
    text = shown.decode()
    assert "41/100 0:00:00, 1:38:20 left, loss 2.5000, 50 tokens/s" in text
    assert "first loss 2.5000, of step 41" in text  # it stays when the line has moved on


def test_speed_is_smoothed_and_forgets_the_first_step() -> None:
    speed = Smoothed()
    for _ in range(100):
        speed.add(1000, 1.0)
    assert speed.tokens_per_second == pytest.approx(1000)
    speed.add(1000, 3.0)  # one slow step: a dip, not a plunge to 333
    assert 800 < speed.tokens_per_second < 1000
    for _ in range(300):
        speed.add(500, 1.0)
    assert speed.tokens_per_second == pytest.approx(500, rel=1e-3)
    assert speed.seconds_per_step == pytest.approx(1.0, rel=1e-3)


def test_the_time_left_forgets_the_first_step(capsys) -> None:
    progress = Progress(shown=True, every=0.0)
    progress.start(11, 0)
    progress.advance(10, 600.0)
    progress.advance(10, 1.0)
    progress.close()
    assert capsys.readouterr().err.splitlines()[1].endswith("0:00:09 left")


def test_a_long_first_step_says_so_and_the_next_ones_do_not(capsys) -> None:
    progress = Progress(shown=True, patience=0.05)
    progress.start(3, 0)
    time.sleep(0.5)
    progress.advance(10, 0.5)
    said = [line for line in capsys.readouterr().err.splitlines() if "first step still" in line]
    assert 1 <= len(said) <= 5  # each time after twice as long
    time.sleep(0.3)
    assert "first step" not in capsys.readouterr().err
    progress.close()


@pytest.mark.parametrize("shown", [False, True])
def test_a_short_first_step_or_a_silent_rank_says_nothing_of_it(capsys, shown: bool) -> None:
    progress = Progress(shown=shown, patience=0.05 if not shown else 5.0)
    progress.start(3, 0)
    time.sleep(0.2)
    progress.close()
    assert capsys.readouterr().err == ""


def test_messages_before_and_after_the_live_line_are_plain(monkeypatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress(shown=True)
    console.log("early")
    assert terminal.getvalue() == "early\n"
    progress.start(2, 0)
    progress.close()
    console.log("late")
    assert terminal.getvalue().endswith("\nlate\n")


def test_a_count_of_items_is_told_in_plain_lines_too(capsys) -> None:
    with Counter(400, "window", "evaluate", shown=True, every=0.0) as counter:
        counter.update(100)
    assert capsys.readouterr().err == ("evaluate 100/400 windows, 0:00:00 elapsed, 0:00:00 left\n")
    with Counter(400, "window", "evaluate", shown=False, every=0.0) as counter:
        counter.update(100)
    with Counter(4, "step", "sample", shown=True) as counter:
        counter.update(4)  # a short job says nothing
    assert capsys.readouterr().err == ""


def test_a_count_of_items_has_hours_on_a_terminal(monkeypatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Counter(400, "window", "evaluate", shown=True) as counter:
        counter._started -= 3600
        time.sleep(0.15)
        counter.update(100)
    assert "100/400" in terminal.getvalue()
    assert "3:00:0" in terminal.getvalue()
