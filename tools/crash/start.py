"""One start of ``python -m pretrain``, with all its processes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

GONE_S = 60.0
"""Seconds that processes may take to end once they have a reason to."""

_MARK = "PALIMPSEST_CRASH"


class Violation(Exception):  # noqa: N818
    """A broken invariant, which the message describes."""


class Start:
    """A run that has been started, with its processes known by a mark in their environment.

    Ranks lead sessions of their own and outlive their parents for a moment, so that neither
    a process group nor a tree would name them all.

    Args:
        words: of the command line; log: where what it prints is appended.
        cores: it may use; all by default.
    """

    def __init__(self, words: Sequence[str], log: Path, cores: set[int] | None = None) -> None:
        value = str(uuid.uuid4())
        self._mark = f"{_MARK}={value}".encode()
        self._log = log
        self._output_before = log.stat().st_size if log.exists() else 0
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pretrain", *words],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env={**os.environ, _MARK: value},
            )
        if cores is not None:
            os.sched_setaffinity(self._process.pid, cores)
        self.began = time.monotonic()

    # -- what it does -----------------------------------------------------------------------

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.poll()

    @property
    def output(self) -> str:
        """Its output since this start."""
        with self._log.open("rb") as stream:
            stream.seek(self._output_before)
            return stream.read().decode(errors="replace")

    def processes(self) -> list[int]:
        """All its processes, whoever their parent is now."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if self._mark in (entry / "environ").read_bytes():
                        found.append(int(entry.name))
        return sorted(found)

    def ranks(self) -> list[int]:
        """Its ranks: forks of a process of its own, which have that one's command line."""
        members = set(self.processes())
        return [pid for pid in sorted(members) if self._is_fork(pid, members)]

    @staticmethod
    def _is_fork(pid: int, members: set[int]) -> bool:
        try:
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            lines = [Path(f"/proc/{each}/cmdline").read_bytes() for each in (pid, parent)]
        except OSError:
            return False
        return parent in members and lines[0] == lines[1]

    # -- what is done to it -----------------------------------------------------------------

    def ask_to_stop(self) -> None:
        """SIGTERM: save, and leave."""
        self._process.send_signal(signal.SIGTERM)

    def kill_launcher(self) -> None:
        """SIGKILL to the process that watches over the ranks."""
        self._process.kill()

    def kill_all(self) -> None:
        """SIGKILL to all of its processes, as when a machine goes down."""
        for pid in self.processes():
            kill(pid)

    def wait(self, timeout_s: float = GONE_S) -> int:
        """Until all its processes are gone; the exit status.

        Raises:
            Violation: some are still there.
        """
        deadline = time.monotonic() + timeout_s
        while self.status is None or self.processes():
            if time.monotonic() > deadline:
                left = self.processes()
                self.end()
                raise Violation(f"processes {left} had not ended after {timeout_s:.0f} s")
            time.sleep(0.02)
        assert self.status is not None
        return self.status

    def finish(self, timeout_s: float) -> None:
        """Until it has ended by itself, with status 0.

        Raises:
            Violation: it ended with another, or not at all.
        """
        try:
            status = self.wait(timeout_s)
        finally:
            self.end()
        if status != 0:
            raise Violation(f"the run ended with {status}:\n{self.output}")

    def end(self) -> None:
        """Kill all its processes."""
        while self.processes():
            self.kill_all()
            time.sleep(0.01)
        self._process.wait()


def kill(pid: int) -> None:
    """SIGKILL, if it still lives."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
