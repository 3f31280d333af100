"""Runs that are killed again and again, and go on each time.

A chain is one run, killed several times and then finished. On one layout, its full curve
is that of a run which nothing interrupted, bit by bit, and so are its last weights, moments
and averages. On a layout drawn anew for every
start, each segment is, bit by bit, that of a reference restarted from the same checkpoint
on the same layout, and up to rounding that of one rank which nothing interrupted.
"""

import random
import shutil
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pretrain.checkpoint import store
from tools.crash.evidence import Evidence, Row, compare_bits, compare_near, compare_states
from tools.crash.setting import LAYOUTS, Setting, copy_of
from tools.crash.start import Start, Violation, kill

KEEP_EVERY = 10
START_S = 8.0
"""About what a start takes; kills during start-up are aimed at a moment of it."""

STUCK_S = 600.0
"""After which a start that has not come to the moment of its kill never will."""

POLL_S = 0.004

Victim = Literal["all", "rank", "launcher"]
Aim = Literal["start-up", "training", "writing"]


@dataclass(frozen=True, kw_only=True)
class Kill:
    """Which process to kill, and when.

    Args:
        aim: during start-up, between two steps or in one, or while a checkpoint is written.
        rows: steps to wait for; delay_s: from then on.
        every: steps between saves.
    """

    victim: Victim
    aim: Aim
    rows: int
    delay_s: float
    every: int
    layout: str


@dataclass(frozen=True, kw_only=True)
class Killed:
    """A kill that was survived.

    Args:
        kill, victim: what was wanted, and what there was to be killed at that moment.
        moment: what the run was doing.
        resumed, reached: the steps between which this start ran.
    """

    chain: str
    kill: Kill
    victim: Victim
    moment: str
    resumed: int
    reached: int
    seconds: float


def draw(rng: random.Random, layout: str) -> Kill:
    """A kill at random."""
    victims: dict[Victim, int] = {"all": 5, "rank": 4, "launcher": 1}
    aims: dict[Aim, int] = {"start-up": 2, "training": 4, "writing": 4}
    aim = rng.choices(list(aims), weights=list(aims.values()))[0]
    return Kill(
        victim=rng.choices(list(victims), weights=list(victims.values()))[0],
        aim=aim,
        rows=rng.randint(1, 10),
        delay_s=rng.random() * {"start-up": START_S, "training": 0.1, "writing": 0.03}[aim],
        every=rng.choice((1, 1, 2)),
        layout=layout,
    )


class Chain:
    """One run, its kills, and what is compared.

    Args:
        layouts: one for each kill, and one for the start that finishes the run.

    Attributes:
        is_mixed: whether the layout changes; worst: then, once it has run, the largest
            relative difference of a loss from that of one rank.
    """

    def __init__(
        self, setting: Setting, name: str, layouts: Sequence[str], rng: random.Random
    ) -> None:
        self.name, self.worst = name, 0.0
        self.is_mixed = len(set(layouts)) > 1
        self._setting, self._layouts, self._rng = setting, layouts, rng
        self._path = setting.scratch / name.replace(" ", "-").replace(",", "")
        self._evidence = Evidence(self._path, KEEP_EVERY)
        self._segments: list[Row] = []

    def run(self) -> Generator[Killed, None, None]:
        """Each kill as it is survived; then the finished run is compared.

        Raises:
            Violation: with the kill before it.
        """
        *layouts, last = self._layouts
        for layout in layouts:
            kill = draw(self._rng, layout)
            try:
                yield self._survive(kill)
            except Violation as violation:
                raise Violation(f"{violation}\nchain {self.name}, {kill}") from violation
        try:
            self._finish(last)
        except Violation as violation:
            raise Violation(f"{violation}\nchain {self.name}, finishing on {last}") from violation

    # -- one kill ---------------------------------------------------------------------------

    def _survive(self, wanted: Kill) -> Killed:
        began, evidence = time.monotonic(), self._evidence
        resumed = evidence.newest
        with _Twin(self._path if self.is_mixed and resumed else None) as twin:
            evidence.expect_start()
            words = (f"checkpoint.every={wanted.every}", f"checkpoint.keep_every={KEEP_EVERY}")
            start = self._setting.start(self._path, wanted.layout, *words)
            try:
                self._wait_for(start, wanted, resumed)
                victim, moment = self._strike(start, wanted)
            finally:
                start.end()
            evidence.check()
            rows = evidence.rows() if evidence.has_begun() else []
            self._compare(start, wanted.layout, resumed, rows, twin)
        return Killed(
            chain=self.name,
            kill=wanted,
            victim=victim,
            moment=moment,
            resumed=resumed,
            reached=len(rows) or resumed,
            seconds=time.monotonic() - began,
        )

    def _wait_for(self, start: Start, wanted: Kill, resumed: int) -> None:
        """Until the moment of the kill."""
        if wanted.aim == "start-up":
            if wanted.victim == "rank":
                self._until(start, lambda: bool(start.ranks()))
            deadline = time.monotonic() + wanted.delay_s
            self._until(start, lambda: time.monotonic() > deadline or self._evidence.has_begun())
            return
        self._until(start, self._evidence.has_begun)
        self._until(start, lambda: self._evidence.num_rows() >= resumed + wanted.rows)
        if wanted.aim == "writing":
            self._until(start, lambda: bool(self._evidence.being_written()))
        deadline = time.monotonic() + wanted.delay_s
        self._until(start, lambda: time.monotonic() > deadline)

    def _until(self, start: Start, condition: Callable[[], bool]) -> None:
        while not condition():
            self._evidence.look()
            if start.status is not None:
                raise Violation(f"the run ended by itself ({start.status}):\n{start.output}")
            if time.monotonic() - start.began > STUCK_S:
                raise Violation(f"the run stands still:\n{start.output}")
            time.sleep(POLL_S)

    def _strike(self, start: Start, wanted: Kill) -> tuple[Victim, str]:
        """Kill, and wait for the end; returns what was killed, and what the run was doing."""
        ranks = start.ranks()
        if wanted.victim == "rank" and ranks:
            kill(self._rng.choice(ranks))
            moment = self._evidence.moment()
            status = start.wait()
            if status != 1 or "was killed by signal 9; the run has ended" not in start.output:
                raise Violation(f"a rank was killed, the run ended with {status}:\n{start.output}")
            return "rank", moment
        victim: Victim = "launcher" if wanted.victim == "launcher" else "all"
        if victim == "launcher":
            start.kill_launcher()
        else:
            start.kill_all()
        moment = self._evidence.moment()
        start.wait()
        return victim, moment

    # -- comparisons ------------------------------------------------------------------------

    def _compare(
        self, start: Start, layout: str, resumed: int, rows: Sequence[Row], twin: Path | None
    ) -> None:
        """Compare the rows of one start with a reference run from ``twin``, an earlier copy."""
        if not rows:
            return
        path = store.path_of(self._evidence.directory.checkpoints, resumed)
        if resumed and f"resuming from {path}" not in start.output:
            raise Violation(f"it did not resume from {path}, the newest:\n{start.output}")
        self._segments += rows[resumed:]
        if twin is not None and len(rows) > resumed:
            expected = self._setting.reference(twin, layout, len(rows))
            compare_bits(rows, expected, f"the segment from step {resumed}")

    def _finish(self, layout: str) -> None:
        resumed = self._evidence.newest
        last = len(self._evidence.rows()) + 5
        with _Twin(self._path if self.is_mixed and resumed else None) as twin:
            start = self._setting.start(self._path, layout, f"stop_after={last}")
            start.finish(STUCK_S)
            rows = self._evidence.rows()
            self._compare(start, layout, resumed, rows, twin)
            if twin is not None:
                compare_states(self._path, twin, last)
        whole = self._path.with_name(f"{self._path.name}-uninterrupted")
        if self.is_mixed:
            expected = self._setting.reference(whole, "one rank", last)
            self.worst = compare_near(self._segments, expected, "a segment, beside one rank")
        else:
            expected = self._setting.reference(whole, layout, last)
            compare_bits(rows, expected, "the curve")
            compare_states(self._path, whole, last)


class _Twin:
    """A copy of a run for as long as it is needed, or nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = copy_of(path, f"{path.name}-twin") if path else None

    def __enter__(self) -> Path | None:
        return self._path

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._path is not None and error is None:
            shutil.rmtree(self._path)


def chains(setting: Setting, num: int, rng: random.Random) -> list[Chain]:
    """``num`` kills: half of them in runs that keep their layout, half in runs that do not."""
    same, mixed = num - num // 2, num // 2
    found = []
    constant = ["data 2", "tensor 2 x pipeline 2", "data 2, ZeRO 3", "tensor 2"]
    for layout, share in zip(constant, _shares(same, len(constant), 4), strict=True):
        if share:
            found.append(Chain(setting, f"always {layout}", [layout] * (share + 1), rng))
    for number, share in enumerate(_shares(mixed, 2, 8)):
        if share:
            found.append(Chain(setting, f"mixed {number + 1}", _changing(share + 1, rng), rng))
    return found


def _shares(total: int, most: int, least: int) -> list[int]:
    """``total`` in up to ``most`` even parts of at least ``least``, if it is enough for one."""
    parts = max(1, min(most, total // least))
    shares = [total // parts + (part < total % parts) for part in range(parts)]
    return shares + [0] * (most - parts)


def _changing(num: int, rng: random.Random) -> list[str]:
    """``num`` random layouts, no two neighbours equal."""
    found: list[str] = []
    while len(found) < num:
        layout = rng.choice(list(LAYOUTS))
        if not found or layout != found[-1]:
            found.append(layout)
    return found
