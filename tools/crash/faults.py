"""Faults under one run: disks that fill up or turn read-only, and ranks that die in a save.

Each fault must leave a run that goes on, or one that ends with one clear error; with the
cause removed it goes on, and in the end its curve is that of a run which nothing disturbed.
"""

import random
import re
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

from pretrain.checkpoint import store
from tools.crash.disk import PAGE, SmallDisk
from tools.crash.evidence import KEEP_LAST, Evidence, compare_bits, compare_states
from tools.crash.setting import Setting
from tools.crash.start import Start, Violation, kill

LAYOUT = "data 2"
STUCK_S = 600.0
ROOMY = 64 * 2**20
FAILED_SAVE = "could not be saved"
FULL = "error: .*No space left on device"


@dataclass(frozen=True, kw_only=True)
class Survived:
    """A fault, and what the run did."""

    fault: str
    outcome: str
    seconds: float


class Faults:
    """The run, on two disks: one for its directory and one for its checkpoints."""

    def __init__(self, setting: Setting, rng: random.Random) -> None:
        self._setting, self._rng = setting, rng
        self._path = setting.scratch / "faults"
        self._evidence = Evidence(self._path, keep_every=0)

    def run(self) -> Generator[Survived, None, None]:
        """Each fault as it is survived.

        Raises:
            Violation: with the fault.
            UserError: no disk can be mounted here.
        """
        with SmallDisk(self._path, ROOMY) as whole:
            self._evidence.directory.begin(self._setting.config(self._path, LAYOUT))
            with SmallDisk(self._evidence.directory.checkpoints, ROOMY) as disk:
                start = self._start()
                try:
                    self._until(start, lambda: self._evidence.newest >= 3)
                    yield from self._told("disk full while saving", self._full, start, disk)
                    yield from self._told("checkpoints read-only", self._read_only, start, disk)
                    yield from self._told("disk full at the end", self._full_at_end, start, disk)
                finally:
                    start.end()
                fault = "disk full, saving not asynchronous"
                yield from self._told(fault, self._starts_synchronous, disk)
                fault = "start with checkpoints read-only"
                yield from self._told(fault, self._starts_read_only, disk)
                for rank in (1, 0):
                    fault = f"rank {rank} killed while it writes"
                    yield from self._told(fault, self._rank_dies, rank)
                yield from self._told("whole run directory full", self._all_full, whole)
                fault = "start with the run directory full"
                yield from self._told(fault, self._starts_full, whole)
                yield from self._told("all causes removed", self._finishes, whole)

    def _told(
        self, fault: str, case: Callable[..., str], *args: object
    ) -> Generator[Survived, None, None]:
        began = time.monotonic()
        try:
            outcome = case(*args)
            if not any(isinstance(each, Start) and each.status is None for each in args):
                self._evidence.check()
        except Violation as violation:
            raise Violation(f"{violation}\nfault: {fault}, in {self._path}") from violation
        yield Survived(fault=fault, outcome=outcome, seconds=time.monotonic() - began)

    # -- disks ------------------------------------------------------------------------------

    def _full(self, start: Start, disk: SmallDisk) -> str:
        """Fill the disk within a rank's file, then add room by pages: every write fails once."""
        checkpoint, ranks = self._sizes()
        room = KEEP_LAST * checkpoint + ranks - self._rng.randrange(ranks)
        disk.resize(room)
        self._until_failed_save(start)
        failures, before = 1, self._evidence.newest
        room = KEEP_LAST * checkpoint + ranks
        while self._evidence.newest == before:
            if room > (KEEP_LAST + 1) * checkpoint + 2**18:
                raise Violation(f"with room again, no save succeeds:\n{start.output}")
            disk.resize(room)
            failures += self._until_save_ends(start, before)
            room += PAGE
        disk.resize(ROOMY)
        self._until_committed(start)
        return f"{failures} saves failed with a note, the next ones succeeded; the run went on"

    def _sizes(self) -> tuple[int, int]:
        """Bytes that a checkpoint takes on the disk, and those that its ranks' files take."""
        path = store.path_of(self._evidence.directory.checkpoints, self._evidence.newest)
        files = [-(-file.stat().st_size // PAGE) * PAGE for file in path.iterdir()]
        return sum(files), sum(size for size in files if size > 2**20)

    def _read_only(self, start: Start, disk: SmallDisk) -> str:
        disk.read_only(True)
        self._until_failed_save(start)
        disk.read_only(False)
        self._until_committed(start)
        return "saves failed with a note, later ones succeeded; the run went on"

    def _full_at_end(self, start: Start, disk: SmallDisk) -> str:
        # No more room than is in use while a save fails: every later one fails too.
        failures = start.output.count(FAILED_SAVE)

        def full() -> bool:
            disk.fill()
            return start.output.count(FAILED_SAVE) > failures

        self._until(start, full)
        start.ask_to_stop()
        return self._ends(start, FULL)

    def _starts_synchronous(self, disk: SmallDisk) -> str:
        """Its disk is still full."""
        words = ("checkpoint.asynchronous=false", f"stop_after={self._evidence.newest + 2}")
        return self._ends(self._start(*words), FULL)

    def _starts_read_only(self, disk: SmallDisk) -> str:
        disk.read_only(True)
        start = self._start(f"stop_after={self._evidence.newest + 3}")
        outcome = self._ends(start, "error: .*Read-only file system")
        disk.read_only(False)
        disk.resize(ROOMY)
        return outcome

    def _all_full(self, whole: SmallDisk) -> str:
        start = self._start()
        try:
            self._until(start, self._evidence.has_begun)
            self._until_committed(start)
            whole.fill()
            return self._ends(start, FULL)
        finally:
            start.end()

    def _starts_full(self, whole: SmallDisk) -> str:
        whole.fill()
        return self._ends(self._start(), FULL)

    # -- ranks ------------------------------------------------------------------------------

    def _rank_dies(self, rank: int) -> str:
        start = self._start()
        try:
            self._until_committed(start)
            name = f"rank-{rank:05d}.safetensors"
            staged = f".attempt-*/step-*/{name}"
            ranks = start.ranks()
            checkpoints = self._evidence.directory.checkpoints
            self._until(start, lambda: any(True for _ in checkpoints.glob(staged)))
            kill(ranks[rank])
            return self._ends(start, f"rank {rank} was killed by signal 9; the run has ended")
        finally:
            start.end()

    def _finishes(self, whole: SmallDisk) -> str:
        whole.resize(ROOMY)
        last = len(self._evidence.rows()) + 5
        self._start(f"stop_after={last}").finish(STUCK_S)
        path = self._path.with_name("faults-undisturbed")
        expected = self._setting.reference(path, LAYOUT, last)
        compare_bits(self._evidence.rows(), expected, "the curve")
        compare_states(self._path, path, last)
        return "the run went on; its curve is that of an undisturbed one, bit by bit"

    # -- what is waited for -----------------------------------------------------------------

    def _start(self, *words: str) -> Start:
        self._evidence.expect_start()
        return self._setting.start(self._path, LAYOUT, "checkpoint.every=1", *words)

    def _until(self, start: Start, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + STUCK_S
        while not condition():
            self._evidence.look()
            if start.status is not None or time.monotonic() > deadline:
                raise Violation(f"ended ({start.status}), or stands still:\n{start.output}")
            time.sleep(0.002)

    def _until_committed(self, start: Start) -> None:
        before = self._evidence.newest
        self._until(start, lambda: self._evidence.newest > before)

    def _until_failed_save(self, start: Start) -> None:
        before = start.output.count(FAILED_SAVE)
        self._until(start, lambda: start.output.count(FAILED_SAVE) > before)

    def _until_save_ends(self, start: Start, newest: int) -> int:
        """Until one more save has failed (1), or a newer one is committed (0)."""
        before = start.output.count(FAILED_SAVE)

        def ended() -> bool:
            return start.output.count(FAILED_SAVE) > before or self._evidence.newest > newest

        self._until(start, ended)
        return int(self._evidence.newest == newest)

    def _ends(self, start: Start, expected: str) -> str:
        """With status 1 and one clear error, which is returned.

        Args:
            expected: a pattern of that line.
        """
        try:
            status = start.wait(STUCK_S)
        finally:
            start.end()
        errors = [line for line in start.output.splitlines() if re.match(expected, line)]
        if status != 1 or len(errors) != 1 or "Traceback" in start.output:
            raise Violation(
                f"not one clear error ({expected}), but status {status}:\n{start.output}"
            )
        return f"it ended: {errors[0].replace(str(self._path), 'RUN')}"
