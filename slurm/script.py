"""Job scripts: the options of sbatch, and the few lines that become the supervisor.

The supervisor takes the place of the shell (``exec``), so that the signals for the batch
process reach it. Until it listens, user signals are ignored: their default would end it.
Two scripts come of the same options: the one that a submission keeps, with its paths, and
a template without any, for people who call sbatch themselves.
"""

import shlex
from collections.abc import Mapping, Sequence

from slurm.settings import Settings
from slurm.submission import Submission

STOP_SIGNAL = "USR2"
"""NCCL may use USR1 for itself."""

Options = dict[str, str | int | bool]


def options(settings: Settings, name: str) -> Options:
    """The options of sbatch, by their long names."""
    asked: Mapping[str, str | int | bool | None] = {
        "job-name": name,
        **_shape(settings),
        "gpus-per-node": settings.gpus_per_node or None,
        "mem": settings.memory,
        "time": settings.time,
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "exclude": settings.exclude,
        "reservation": settings.reservation,
        "signal": f"B:{STOP_SIGNAL}@{settings.stop_ahead_s}",
        "open-mode": "append",
        "requeue" if settings.requeue else "no-requeue": True,
        **settings.options,
    }
    return {key: value for key, value in asked.items() if value is not None and value is not False}


def _shape(settings: Settings) -> Options:
    """Nodes, and what is asked of each; srun is told the shape of the ranks once more.

    Of a range of nodes SLURM gives a job as many as it can, but the fewest where tasks per
    node are named: there the cores of a node's ranks are asked for as those of one task.
    """
    if not settings.elastic or settings.min_nodes == settings.nodes:
        return {
            "nodes": settings.nodes,
            "ntasks-per-node": settings.per_node,
            "cpus-per-task": settings.cpus_per_rank,
        }
    return {
        "nodes": f"{settings.min_nodes}-{settings.nodes}",
        "cpus-per-task": settings.per_node * settings.cpus_per_rank,
    }


def flag(key: str, value: str | int | bool) -> str:
    """One option as a word."""
    return f"--{key}" if value is True else f"--{key}={value}"


def setup(settings: Settings) -> list[str]:
    """Shell lines before the supervisor."""
    return ["trap '' USR1 USR2", *settings.environment]


def imports(submission: Submission) -> str:
    """The line that makes a job import the copied code."""
    return "export " + " ".join(f"{k}={shlex.quote(v)}" for k, v in submission.imports.items())


def script(submission: Submission, python: str) -> str:
    """The script that a submission keeps."""
    chosen = options(submission.settings, submission.name)
    chosen["output"] = f"{submission.logs}/%j.out"
    # Paths of the configuration may be relative to where it was submitted from.
    chosen["chdir"] = str(submission.directory)
    command = [python, "-u", "-m", "slurm.supervisor", "--job", str(submission.path)]
    lines = [*setup(submission.settings), imports(submission), f"exec {shlex.join(command)}"]
    return _text([], chosen, lines)


def template(
    settings: Settings, name: str, run: str, before: Sequence[str], words: Sequence[str]
) -> str:
    """A script without a path of this machine; ``sbatch`` it from a checkout.

    Args:
        run: the run's directory, as pretrain names it.
        before, words: what stood before and after ``--`` on the command line.
    """
    chosen = options(settings, name)
    chosen["output"] = "%x-%j.out"
    remark = shlex.join(["python", "-m", "slurm", "submit", *before, "--print", "--", *words])
    start = ["-u", "-m", "slurm.supervisor", f"--run={run}", *before, "--", *words]
    lines = [*setup(settings), f"exec {settings.python or 'python'} {shlex.join(start)}"]
    notes = [f"# {remark}", "# From the top of a checkout: sbatch THIS-FILE"]
    return _text(notes, chosen, lines)


def _text(notes: Sequence[str], chosen: Options, lines: Sequence[str]) -> str:
    orders = [f"#SBATCH {flag(key, value)}" for key, value in chosen.items()]
    return "\n".join(["#!/bin/bash", *notes, *orders, "", *lines, ""])
