"""What the commands ask of SLURM, by a pretended SLURM."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs.errors import UserError
from slurm import controller
from slurm.__main__ import main
from slurm.commands import cancel as stop
from slurm.commands import preflight
from slurm.commands import submit as submitting
from slurm.controller import Job, RefusedError
from slurm.executor import visible_gpus
from slurm.records import Records

PARTITIONS = (
    "PartitionName=short Default=YES MaxTime=01:00:00\n"
    "PartitionName=long Default=NO MaxTime=1-00:00:00\n"
)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What was asked; nodes are n1 and n2."""
    asked: list[tuple[str, ...]] = []

    def call(*command: str, **_: Any) -> str:
        asked.append(command)
        if command[1:3] == ("show", "node") and command[3] not in ("n1", "n2"):
            raise RefusedError("no such node")
        return PARTITIONS if "partition" in command else ""

    monkeypatch.setattr(controller, "call", call)
    return asked


def test_a_job_may_name_several_partitions(called: list[tuple[str, ...]]) -> None:
    def check(partition: str | None, limit: str) -> None:
        settings: Any = SimpleNamespace(partition=partition, time=limit)
        preflight.time_limit(settings)

    check("short,long", "12:00:00")
    check(None, "00:30:00")
    with pytest.raises(UserError, match="more than partition long allows"):
        check("short,long", "2-00:00:00")
    with pytest.raises(UserError, match="more than partition short allows"):
        check(None, "12:00:00")
    with pytest.raises(UserError, match="there is no partition 'wide'; choose one of short, long"):
        check("short,wide", "00:30:00")


@pytest.mark.parametrize("axes", [["optim.lr=1e-3"], ["optim.lr=1e-3", "seed=7"]])
def test_a_sweep_of_one_point_is_a_sweep(monkeypatch: pytest.MonkeyPatch, axes: list[str]) -> None:
    found = []
    monkeypatch.setattr(preflight, "present", lambda: None)
    monkeypatch.setattr(submitting, "_sweep", lambda _, words, points: found.append(points) or 0)
    command = ["submit", "configs/slurm/cpu.yaml", "--sweep", *axes, "--", "configs/tiny.yaml"]
    assert main(command) == 0
    assert found == [[tuple(axes)]]
    assert main([*command[:2], "--chain", "2", *command[2:]]) == 2


@pytest.fixture
def requeue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, called: list[tuple[str, ...]]
) -> Callable[..., Records]:
    """``slurm requeue`` of a run whose job is in this state."""

    def ask(state: str, exclude: str = "") -> Records:
        records = Records(tmp_path)
        records.add_job("7", 1, "first")
        jobs = {"7": Job(id="7", state=state)}
        monkeypatch.setattr(controller, "jobs", lambda ids: jobs)
        submission = SimpleNamespace(settings=SimpleNamespace(exclude=None))
        monkeypatch.setattr(stop.submissions, "load", lambda path: submission)
        arguments: Any = SimpleNamespace(run=tmp_path, exclude=exclude)
        assert stop.requeue(arguments) == 0
        return records

    return ask


def test_excluded_nodes_are_there_and_can_be_forgotten(requeue: Callable[..., Records]) -> None:
    assert requeue("RUNNING", "n[1-2]").state["excluded"] == ["n1", "n2"]
    with pytest.raises(UserError, match="there is no node n3"):
        requeue("RUNNING", "n3")
    assert requeue("RUNNING").state["excluded"] == ["n1", "n2"]
    assert requeue("RUNNING", "none").state["excluded"] == []


def test_a_job_that_is_ending_is_not_called_waiting(requeue: Callable[..., Records]) -> None:
    with pytest.raises(UserError, match="job 7 is ending still; try again in a moment"):
        requeue("COMPLETING")


@pytest.mark.parametrize(
    ("asked", "given", "found"),
    [(2, "4,5,6", (4, 5)), (2, "4", ()), (0, "4,5", ()), (None, "4", ()), (1, "", ())],
)
def test_a_rehearsal_uses_the_gpus_that_are_there(
    monkeypatch: pytest.MonkeyPatch, asked: int | None, given: str, found: tuple[int, ...]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    settings: Any = SimpleNamespace(gpus_per_node=asked)
    assert visible_gpus(settings) == found


SLOW = """
import time
time.sleep(2)
from slurm.job import signals
import sys
print(sys.argv[1:], [int(number) for number in signals.received], flush=True)
"""


def test_signals_before_a_module_is_imported_are_noted(tmp_path: Path, root: Path) -> None:
    """As in a job: user signals are ignored when Python begins."""
    (tmp_path / "imports_long.py").write_text(SLOW)
    start = f"{sys.executable} -u -m slurm.job.bootstrap {tmp_path} -u -m imports_long a b"
    command = f"trap '' USR1 USR2; exec {start}"
    path = f"{root}{os.pathsep}{tmp_path}"
    with subprocess.Popen(
        ["bash", "-c", command], env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE
    ) as process:
        time.sleep(1)
        process.send_signal(signal.SIGUSR2)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    assert output.decode().strip() == f"['a', 'b'] [{int(signal.SIGUSR2)}, {int(signal.SIGTERM)}]"
