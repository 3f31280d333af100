"""Progress of a long job: one live line on a terminal, plain lines elsewhere."""

import threading
import time

from tqdm import tqdm

from pretrain import console

# tqdm's own lock holds a semaphore of the system, which ranks that exit at once would leak.
tqdm.set_lock(threading.RLock())


class Progress:
    """Step, loss, tokens per second and time left, on standard error.

    Args:
        total: steps of this start; initial: steps done before it; shown: false for silence.
        every: seconds between plain lines where there is no terminal.
    """

    def __init__(self, total: int, initial: int, *, shown: bool, every: float = 10.0) -> None:
        self._stream = console.stderr()
        self._live = shown and self._stream.isatty()
        self._plain = shown and not self._live
        self._total, self._step, self._first = total, initial, initial
        self._every, self._said, self._started = every, 0.0, time.monotonic()
        self._facts = ""
        self._bar = tqdm(
            total=total, initial=initial, unit="step", desc="train", disable=not self._live,
            dynamic_ncols=True, file=self._stream,
        )  # fmt: skip

    def note(self, loss: float, tokens_per_second: float) -> None:
        """The newest loss and pace, to be shown from now on."""
        self._facts = f", loss {loss:.4f}, {tokens_per_second:,.0f} tokens/s"
        self._bar.set_postfix_str(self._facts.removeprefix(", "), refresh=False)

    def advance(self) -> None:
        """One step is done."""
        self._step += 1
        self._bar.update()
        now = time.monotonic()
        if self._plain and (now - self._said >= self._every or self._step == self._total):
            self._said = now
            pace = (now - self._started) / (self._step - self._first)
            left = (self._total - self._step) * pace
            self.say(f"step {self._step}/{self._total}{self._facts}, {left:.0f} s left")

    def say(self, text: str) -> None:
        """A line of its own, above the live one."""
        if self._live:
            tqdm.write(text, file=self._stream)
        elif self._plain:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Leave the terminal as it should be."""
        self._bar.close()
