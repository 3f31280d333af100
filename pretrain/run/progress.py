"""Progress of a long job: one live line on a terminal, plain lines elsewhere.

A silent job looks like one that hangs: the first step is reported at once, and while it lasts
longer than :data:`PATIENCE_S` a line is printed, again after twice as long and so on.
"""

import contextlib
import os
import threading
import time
from typing import Any, Self, TextIO

from tqdm import tqdm

from pretrain.run import console
from pretrain.run.throughput import Smoothed

# tqdm's own lock holds a semaphore of the system, which ranks that exit at once would leak.
tqdm.set_lock(threading.RLock())

PATIENCE_S = 15.0
"""Seconds that a first step may last before a line is printed about it."""

LIVE_LINE = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {spent}, {left} left{postfix}"


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss, with the days where there are any."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days} d " if days else "") + f"{hours}:{minutes:02d}:{rest:02d}"


class Progress:
    """Step, loss, tokens per second and time left, on standard error.

    Args:
        shown: print anything at all.
        every: seconds between plain lines where there is no terminal.
        patience: seconds until a line is printed about a first step that lasts.
    """

    def __init__(self, *, shown: bool, every: float = 10.0, patience: float = PATIENCE_S) -> None:
        self._stream = console.stderr()
        self._live = shown and self._stream.isatty()
        self._plain = shown and not self._live
        self._every, self._logged, self._patience = every, 0.0, patience
        self._total = self._step = self._first = 0
        self._loss = ""
        self._speed = Smoothed()
        self._bar: _Line | None = None
        self._first_step_over = threading.Event()

    def start(self, total: int, initial: int) -> None:
        """Begin with step ``initial`` + 1 of ``total``."""
        self._total = total
        self._step = self._first = initial
        self._started = time.monotonic()
        self._bar = _Line(
            total=total, initial=initial, unit="step", desc="train", disable=not self._live,
            bar_format=LIVE_LINE, file=self._stream, **_width(self._stream),
        )  # fmt: skip
        if self._live:
            console.live_line(lambda text: tqdm.write(text, file=self._stream))
        if (self._live or self._plain) and initial < total:
            threading.Thread(target=self._wait_for_first_step, daemon=True).start()

    def _wait_for_first_step(self) -> None:
        begun, wait = time.monotonic(), self._patience
        while not self._first_step_over.wait(wait):
            spent = clock(time.monotonic() - begun)
            console.log(f"first step still running after {spent}; a request to stop waits for it")
            wait = time.monotonic() - begun

    def show_loss(self, loss: float) -> None:
        """Show this loss from now on."""
        self._loss = f", loss {loss:.4f}"

    def advance(self, tokens: int, seconds: float) -> None:
        """Count a step that took ``seconds`` for ``tokens`` tokens."""
        self._first_step_over.set()
        self._step += 1
        if self._step == self._first + 2:
            self._speed = Smoothed()  # the first step warms up, and is slower than the others
        self._speed.add(tokens, seconds)
        shown = f"{self._loss}, {self._speed.tokens_per_second:,.0f} tokens/s"
        left = (self._total - self._step) * self._speed.seconds_per_step
        assert self._bar is not None
        self._bar.left = clock(left)
        self._bar.set_postfix_str(shown.removeprefix(", "), refresh=False)
        self._bar.update()
        if self._live and self._loss and self._step == self._first + 1:
            console.log(f"first loss{self._loss.removeprefix(', loss')}, of step {self._step}")
        now = time.monotonic()
        if self._plain and (now - self._logged >= self._every or self._step == self._total):
            self._logged = now
            console.log(
                f"step {self._step}/{self._total}{shown}, {clock(now - self._started)} elapsed, "
                f"{clock(left)} left"
            )

    def close(self) -> None:
        """End the live line."""
        self._first_step_over.set()
        if self._live:
            console.live_line(None)
        if self._bar is not None:
            self._bar.close()


class Counter:
    """Progress of a job of many like items, as a context manager: a live line, or plain ones.

    Args:
        shown: print anything at all.
        every: seconds between plain lines where there is no terminal.
    """

    def __init__(
        self, total: int, unit: str, name: str, *, shown: bool, every: float = 30.0
    ) -> None:
        self._total, self._unit, self._name, self._done = total, unit, name, 0
        stream = console.stderr()
        live = shown and stream.isatty()
        self._plain, self._every = shown and not live, every
        self._started = self._logged = time.monotonic()
        self._bar = _Line(
            total=total, unit=unit, desc=name, disable=not live, bar_format=LIVE_LINE,
            file=stream, **_width(stream),
        )  # fmt: skip

    def update(self, num: int) -> None:
        """Count ``num`` more items as done."""
        self._done += num
        now = time.monotonic()
        spent = now - self._started
        left = clock(max(0, self._total - self._done) * spent / max(1, self._done))
        self._bar.left = left
        self._bar.update(num)
        if self._plain and now - self._logged >= self._every:
            self._logged = now
            console.log(
                f"{self._name} {self._done}/{self._total} {self._unit}s, {clock(spent)} elapsed, "
                f"{left} left"
            )

    def expect(self, total: int) -> None:
        """Expect this many items in all: the job has turned out to be of another size."""
        self._total = self._bar.total = total

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()


def _width(stream: TextIO) -> dict[str, Any]:
    """Width of the live line: the terminal's, or 80 columns where it has none, as in `script`."""
    with contextlib.suppress(OSError, ValueError):
        if not os.get_terminal_size(stream.fileno()).columns:
            return {"ncols": 80}
    return {"dynamic_ncols": True}


class _Line(tqdm):
    """A bar whose times are h:mm:ss; the time left is set from outside."""

    left = "?"

    @property
    def format_dict(self) -> Any:
        """Fields that the format of the line can use."""
        fields = super().format_dict
        return {**fields, "spent": clock(fields["elapsed"]), "left": self.left}
