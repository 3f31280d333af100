"""Job scripts: the options of sbatch, and the shell lines that start the supervisor.

The supervisor replaces the shell (``exec``), so that signals for the batch process reach it.
Until it has installed its handlers, user signals are ignored: their default would end it.
Two scripts are made of the same options: the one that a submission keeps, with its paths, and
a template without any, for users who call sbatch themselves. Every value is quoted
(:mod:`slurm.quoting`) but for the lines of ``environment``, which are shell commands.
"""

import sys
from collections.abc import Mapping, Sequence

from slurm import quoting
from slurm.settings import Settings
from slurm.submission import Submission

STOP_SIGNAL = "USR2"
"""Signal that SLURM sends ahead of the time limit; NCCL may use USR1 for itself."""
MOST_NAME_BYTES = 200
"""Length limit of a job's name, which becomes part of a file's name of at most 255 bytes."""

Options = dict[str, str | int | bool]


def options(settings: Settings, name: str) -> Options:
    """Options of sbatch by their long names."""
    asked: Mapping[str, str | int | bool | None] = {
        "job-name": name.encode()[:MOST_NAME_BYTES].decode(errors="ignore"),
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
    """Options for nodes, tasks and cores; srun receives the shape of the ranks once more.

    SLURM gives a job as many nodes of a range as it can, but only the minimum where tasks per
    node are named: with a range, the cores of a node are requested as those of one task.
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
    """Format one option for an ``#SBATCH`` line."""
    return f"--{key}" if value is True else f"--{key}={quoting.directive(str(value))}"


def setup(settings: Settings) -> list[str]:
    """Shell lines that run before the supervisor."""
    return ["trap '' USR1 USR2", *settings.environment]


def imports(submission: Submission) -> str:
    """Shell line that makes a job import the copied code."""
    return "export " + " ".join(f"{k}={quoting.word(v)}" for k, v in submission.imports.items())


def places(submission: Submission, name: str) -> Options:
    """Options for a job's working directory and the log of its supervisor."""
    # Paths of the configuration may be relative to where it was submitted from.
    return {
        "chdir": str(submission.directory),
        "output": f"{quoting.pattern(str(submission.logs))}/{name}.out",
    }


def interpreter(settings: Settings) -> str:
    """The job's Python: the settings', or the one that submits."""
    return settings.python or sys.executable


def script(submission: Submission) -> str:
    """The script that a submission keeps, which starts its run again."""
    chosen = options(submission.settings, submission.name) | places(submission, "%j")
    python = interpreter(submission.settings)
    command = [python, "-u", "-m", "slurm.job.supervisor", "--job", str(submission.path)]
    lines = [*setup(submission.settings), imports(submission), f"exec {quoting.line(command)}"]
    return _text([], chosen, lines)


def write_script(submission: Submission) -> None:
    """Write the script that a submission keeps."""
    submission.script.write_text(script(submission), encoding="utf-8")


def template(
    settings: Settings, name: str, run: str, before: Sequence[str], words: Sequence[str]
) -> str:
    """A script without absolute paths, to be submitted with ``sbatch`` from a checkout.

    Args:
        run: the run's directory, as pretrain names it.
        before, words: the words before and after ``--`` on the command line.
    """
    chosen: Options = options(settings, name) | {"output": "%x-%j.out"}
    remark = ["python", "-m", "slurm", "submit", *before, "--print", "--", *words]
    start = ["-u", "-m", "slurm.job.supervisor", f"--run={run}", *before, "--", *words]
    find = [f"python={quoting.word(settings.python)}"] if settings.python else OWN_PYTHON
    lines = [*setup(settings), *find, f'exec "$python" {quoting.line(start)}']
    notes = [f"# {quoting.line(remark)}", "# From the top of a checkout: sbatch THIS-FILE"]
    return _text(notes, chosen, lines)


OWN_PYTHON = ["python=.venv/bin/python", 'command -v "$python" >/dev/null || python=python']
"""Shell lines that choose the checkout's interpreter, or else that of the environment."""


def _text(notes: Sequence[str], chosen: Options, lines: Sequence[str]) -> str:
    orders = [f"#SBATCH {flag(key, value)}" for key, value in chosen.items()]
    return "\n".join(["#!/bin/bash", *notes, *orders, "", *lines, ""])
