"""A request to stop is for the run, whichever of its processes it reaches, and when.

Only ranks that agree on a step act on it: nothing that was trained is lost, the status says
how it went, and the same command goes on.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from configs.run_files import read_status
from pretrain.checkpoint import store
from pretrain.run.metrics import read_rows

LONG = ("steps=100000", "eval.every=0", "checkpoint.every=100000", "log.every=1")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


class Run:
    """A run that was started as a user starts it, at the head of a process group."""

    def __init__(self, path: Path, words: list[str], *launcher: str) -> None:
        self.path = path
        command = [sys.executable, *launcher, "-m", "pretrain", *words]
        environ = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environ
        )

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 240
        while not condition():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def until_step(self, step: int) -> None:
        self.until(lambda: self.step >= step)

    @property
    def step(self) -> int:
        return max((row["step"] for row in read_rows(self.path / "metrics.jsonl")), default=0)

    @property
    def status(self) -> dict:
        return json.loads((self.path / "status.json").read_text())

    def processes(self, *words: str) -> list[int]:
        """Below the launcher, oldest first, those whose command line holds all the words."""
        found = []
        for pid in sorted(below(self.process.pid)):
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if all(word in line for word in words):
                found.append(pid)
        return found

    @property
    def server(self) -> int:
        return self.processes("multiprocessing.forkserver")[0]

    @property
    def ranks(self) -> list[int]:
        return self.processes("multiprocessing.forkserver")[1:]

    def ended(self) -> str:
        """After a stop in good order: what was printed. Everything of the run is gone."""
        below_it = below(self.process.pid)
        _, error = self.process.communicate(timeout=120)
        assert self.process.returncode == 75, error
        assert "Traceback" not in error
        self.gone(below_it)
        return error

    def gone(self, below_it: list[int]) -> None:
        """Of all processes that were below the launcher none is left."""
        assert not any(Path(f"/proc/{pid}/exe").exists() for pid in below_it)

    def has_saved(self, reason: str | None) -> None:
        error, status = self.ended(), self.status
        assert f"saved at step {status['step']} in {self.path}" in error
        assert "the same command goes on" in error
        assert status["state"] == "stopped"
        assert reason in (None, status["reason"])
        newest, problems = store.newest(self.path / "checkpoints")
        assert newest == store.path_of(self.path / "checkpoints", status["step"])
        assert not problems
        assert [row["step"] for row in read_rows(self.path / "metrics.jsonl")] == list(
            range(1, status["step"] + 1)
        )


def below(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(child) for child in children] + [g for c in children for g in below(int(c))]


@contextmanager
def disposed(number: signal.Signals, how: signal.Handlers) -> Iterator[None]:
    """What is started meanwhile begins with this disposition of a signal."""
    before = signal.signal(number, how)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.fixture
def start(tiny, tmp_path: Path) -> Iterator[Callable[..., Run]]:
    started: list[Run] = []

    def start_run(*words: str, launcher: tuple[str, ...] = ()) -> Run:
        started.append(Run(tmp_path / "run", tiny(*LONG, *words), *launcher))
        return started[-1]

    # Under nohup this process ignores it, and so would all that it starts.
    with disposed(signal.SIGHUP, signal.SIG_DFL):
        yield start_run
    for run in started:
        for pid in [run.process.pid, *below(run.process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        run.process.communicate()


def test_a_signal_to_the_group_saves(start) -> None:
    """``timeout 1h python -m pretrain ...``: the launcher has it twice, its server too."""
    run = start("parallel.data=2")
    run.until_step(2)
    run.process.send_signal(signal.SIGTERM)
    os.killpg(run.process.pid, signal.SIGTERM)
    run.has_saved("SIGTERM")


@pytest.mark.alone
def test_one_process_does_not_act_alone(start) -> None:
    run = start("parallel.data=2")
    run.until_step(2)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT):
        os.kill(run.server, number)
    step = run.step
    run.until_step(step + 2)
    os.kill(run.ranks[1], signal.SIGHUP)
    run.has_saved(None)


SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]


@pytest.mark.alone
@pytest.mark.parametrize(
    ("target", "number"),
    [
        pytest.param(target, number, id=f"{target}-{number.name}")
        for target, numbers in (
            ("launcher", SIGNALS),
            ("group", SIGNALS[1:3]),
            ("rank", SIGNALS[3:4]),
            ("all", SIGNALS[:1]),
        )
        for number in numbers
    ],
)
def test_every_signal_to_every_process(start, target: str, number: signal.Signals) -> None:
    run = start("parallel.data=2")
    run.until_step(2)
    pids = [run.process.pid]
    if target == "group":
        os.killpg(run.process.pid, number)
    else:
        pids = {"rank": run.ranks[:1], "all": [*pids, *below(run.process.pid)]}.get(target, pids)
        for pid in pids:
            os.kill(pid, number)
    run.has_saved(number.name)


@pytest.mark.alone
@pytest.mark.parametrize("after_s", [0.3, 1, 3, 6])
def test_while_it_starts(start, after_s: float) -> None:
    run = start("parallel.data=2")
    time.sleep(after_s)
    os.killpg(run.process.pid, signal.SIGTERM)
    error = run.ended()
    saved = (run.path / "status.json").exists()
    assert ("saved at step" if saved else "stopped before its first step") in error


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_under_torchrun(start, number: signal.Signals) -> None:
    """To the ranks, as SLURM and torchrun itself pass it on; torchrun's own status is its own."""
    run = start(launcher=TORCHRUN)
    run.until_step(2)
    for pid in run.processes("-m pretrain")[:1]:
        os.kill(pid, number)
    _, error = run.process.communicate(timeout=120)
    assert f"saved at step {run.status['step']} in" in error
    assert run.status["state"] == "stopped"


@pytest.mark.alone
def test_on_four_ranks(start) -> None:
    run = start("parallel.tensor=2", "parallel.pipeline=2")
    run.until_step(2)
    os.killpg(run.process.pid, signal.SIGTERM)
    run.has_saved("SIGTERM")


@pytest.mark.alone
def test_nohup_is_respected(start) -> None:
    with disposed(signal.SIGHUP, signal.SIG_IGN):
        run = start()
    run.until_step(1)
    for pid in (run.process.pid, run.ranks[0]):
        os.kill(pid, signal.SIGHUP)
    run.until_step(run.step + 2)
    run.process.send_signal(signal.SIGTERM)
    run.has_saved("SIGTERM")


def held_out(run: Path) -> dict[int, float]:
    rows = read_rows(run / "metrics.jsonl")
    return {row["step"]: row["val/nelbo"] for row in rows if "val/nelbo" in row}


LENGTHY = ("eval.every=2", "eval.samples=1000", "eval.batch=1")


@pytest.mark.alone
@pytest.mark.parametrize("last", [4, 2])
def test_a_validation_gives_way_and_is_made_up_for(start, train, tmp_path: Path, last: int) -> None:
    """A grace of a minute is no time to validate for an hour; be it that of the last step."""
    train("eval.every=2", f"steps={last}", run="uninterrupted")
    run = start("parallel.data=2", *LENGTHY, f"steps={last}")
    run.until_step(2)
    run.process.send_signal(signal.SIGTERM)
    error = run.ended()
    assert "saved at step 2" in error
    assert run.status["state"] == "stopped"
    assert held_out(run.path) == {}
    again = start("eval.every=2", f"steps={last}", "parallel.data=2")
    assert again.process.wait(timeout=240) == 0
    assert again.status["state"] == "done"
    assert held_out(run.path) == pytest.approx(held_out(tmp_path / "uninterrupted"), rel=1e-5)


@pytest.mark.alone
def test_a_killed_run_is_known_to_be_dead_and_goes_on(start, tmp_path: Path) -> None:
    run = start("checkpoint.every=1")
    run.until_step(3)
    status = read_status(run.path)
    assert status["state"] == "running"
    for pid in [run.process.pid, run.server, *run.ranks]:
        os.kill(pid, signal.SIGKILL)
    run.process.wait()
    deadline = time.monotonic() + 20
    while (status := read_status(run.path))["state"] == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert status["state"] == "died"
    assert "has ended without a word" in status["reason"]
    assert run.status["state"] == "running"

    again = start("checkpoint.every=1")
    again.until(lambda: read_status(run.path)["state"] == "running")
    os.killpg(again.process.pid, signal.SIGTERM)
    error = again.ended()
    assert "the last start ended at step" in error


@pytest.mark.alone
def test_a_killed_rank_ends_the_run_and_leaves_what_was_saved(start) -> None:
    run = start("parallel.data=2", "checkpoint.every=2")
    run.until_step(4)
    below_it = below(run.process.pid)
    os.kill(run.ranks[-1], signal.SIGKILL)
    _, error = run.process.communicate(timeout=30)
    assert run.process.returncode == 1
    assert "rank 1 was killed by signal 9" in error
    assert run.status["state"] == "failed"
    assert run.status["reason"]
    newest, problems = store.newest(run.path / "checkpoints")
    assert newest is not None
    assert not problems
    run.gone(below_it)
