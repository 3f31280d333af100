"""``python -m slurm submit``: check the run, print its script, submit it, show how to follow it."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.errors import UserError
from configs.load import is_override
from slurm import executor, quoting, submission
from slurm import settings as cluster
from slurm.commands import preflight, sweep
from slurm.script import script, template
from slurm.settings import Settings
from slurm.submission import Submission


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    words = arguments.words
    for word in (*arguments.settings, *arguments.sweep):
        if not is_override(word):
            raise UserError(
                f"{word} stands before --, where only settings of the cluster stand; the run comes "
                f"after it: python -m slurm submit {arguments.cluster} [key=value ...] -- {word}"
            )
    for axis in arguments.sweep:
        if axis.partition("=")[0] in cluster.NAMES:
            raise UserError(f"{axis} is a setting of the cluster: it stands before --sweep")
    settings = cluster.load(arguments.cluster, arguments.settings)
    if not words:
        raise UserError(
            "name the run after --, such as: python -m slurm submit configs/slurm/cpu.yaml -- "
            "configs/tiny.yaml"
        )
    if arguments.chain < 1:
        raise UserError(f"--chain must be at least 1, not {arguments.chain}")
    executor.forget_surrounding_job()
    points = sweep.points(arguments.sweep)
    if arguments.sweep and (arguments.chain > 1 or arguments.local or arguments.print):
        raise UserError("a sweep is one array of runs; leave out --chain, --local and --print")
    if not (arguments.local or arguments.print):
        preflight.present()
    if arguments.print:
        return _print(settings, arguments, words)
    if arguments.sweep:
        return _sweep(settings, words, points)
    return _one(settings, arguments, words)


def _print(settings: Settings, arguments: argparse.Namespace, words: Sequence[str]) -> int:
    found = preflight.dry_run(settings, words)
    before = [str(arguments.cluster), *arguments.settings]
    name = submission.name_of(found["run_dir"])
    print(template(settings, name, found["run_dir"], before, words), end="")
    if not (settings.python or _is_found(Path(sys.executable))):
        own = quoting.word(f"python={sys.executable}")
        print(
            "note: the script takes .venv/bin/python or the environment's python, and this is "
            f"neither; for this one add {own} before --",
            file=sys.stderr,
        )
    return 0


def _is_found(interpreter: Path) -> bool:
    """Whether a printed script would find an interpreter with the packages of this one."""
    found = Path(".venv/bin/python")
    if not found.exists():
        found = Path(shutil.which("python") or "")
    return found.absolute().parent == interpreter.parent


def _one(settings: Settings, arguments: argparse.Namespace, words: Sequence[str]) -> int:
    found = preflight.dry_run(settings, words)
    run_dir = Path(found["run_dir"])
    if not arguments.local:
        preflight.time_limit(settings)
        name = submission.name_of(found["run_dir"])
        preflight.accepted(template(settings, name, str(run_dir), [], words))
    preflight.alone(run_dir.resolve(), local=arguments.local)
    made = submission.prepare(found, settings, words, chain=arguments.chain)
    if arguments.local:
        return _local(made)
    _show(made)
    ids = executor.submit(made)
    print(f"submitted  {run_dir}: job {' then '.join(ids)}")
    _print_how_to_follow(made)
    return 0


def _local(made: Submission) -> int:
    job = executor.rehearse(made)
    print(f"running    {made.run} here, as process {job.job_id}")
    _print_how_to_follow(made)
    job.wait()
    state = made.records.state
    if state["state"] in ("submitted", "running"):
        state = {"state": "died", "reason": "without a word; see its log"}
    print(f"{state['state']}  {state.get('reason', '')}".rstrip())
    return 0 if state["state"] in ("done", "stopped") else 1


def _sweep(settings: Settings, words: Sequence[str], points: Sequence[sweep.Point]) -> int:
    dry_runs = sweep.dry_runs(settings, words, points)
    preflight.time_limit(settings)
    preflight.accepted(template(settings, "sweep", "", [], words))
    for found in dry_runs:
        preflight.alone(Path(found["run_dir"]).resolve())
    members = sweep.prepare(dry_runs, settings, words, points)
    _show(members[0])
    ids = executor.submit_array(members)
    root = members[0].run.parent
    sweep.record_members(root, points, members)
    for number, member in zip(ids, members, strict=True):
        print(f"submitted  {member.run}: job {number}")
    print(f"table      python -m slurm status {quoting.word(str(root))}")
    return 0


def _show(made: Submission) -> None:
    print(script(made))


def _print_how_to_follow(made: Submission) -> None:
    """Print paths of logs and commands to copy; each job of a chain has its own log."""
    run = quoting.word(str(made.run))
    for row in made.records.jobs():
        if row["submission"] == made.number:
            print(f"log        {quoting.word(row['log'])}")
    print(f"ranks      {quoting.word(str(made.records.root))}/starts/*/rank-*.log")
    print(f"follow     python -m slurm logs {run} --follow")
    print(f"state      python -m slurm status {run}")
