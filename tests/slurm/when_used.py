"""What users do with runs, on node 5: cancel, requeue, chain, sweep, and get something wrong."""

import os
import signal
import time
from pathlib import Path

from lab import ENDLESS, ROOT, Lab, Run, alive, command_of, continuous, same
from references import reference_of_one

NODE = "node5"
ODD = "odd 'a' \"b=c,d\" #1 $(touch pwned) `touch pwned` %j 100% ü;&"


def cancelled_by_its_user(lab: Lab) -> None:
    run = lab.submit("cancelled", NODE, words=(f"steps={ENDLESS}",))
    run.wait_step(30)
    reached = run.step
    lab.cluster.run("scancel", run.job)
    run.wait_gone()
    run.wait_state("cancelled", 20)
    assert run.records.saved_step() >= reached
    time.sleep(8)
    assert not run.queued()
    assert len(run.records.jobs()) == len(run.starts) == 1
    status = lab.command("status", str(run.path)).stdout
    assert "cancelled" in status


def hung(lab: Lab) -> None:
    """A rank that stands still is ended by the watchdogs, and the run goes on."""
    words = ("watchdog_s=8", f"steps={ENDLESS}")
    run = lab.submit("hung", NODE, "ranks_per_node=2", words=words)
    try:
        run.wait_step(30)
        mark = f"{run.records.submission(1)}/config.yaml"
        ranks = [pid for pid in alive(mark) if command_of(pid, "-m\0pretrain")]
        assert len(ranks) == 2
        os.kill(max(ranks), signal.SIGSTOP)
        run.wait_starts(2)
        run.wait_step(run.step + 30)
    finally:
        lab.cluster.run("scancel", run.job, check=False)
    assert run.kinds()[0] == "hung"
    assert "no progress for 8 s; its stacks" in "".join(
        run.starts[0].log(rank).read_text() for rank in range(2)
    )
    run.wait_gone()
    continuous(run)


def fails_at_once(lab: Lab) -> None:
    """By wrong input: never again. By an error of its own: once more, and then it says why."""
    wrong = lab.submit("wrong", NODE, words=("data.corpus=nowhere",))
    failing = lab.submit("failing", NODE, words=("optim.lr=1e30", "max_skipped_steps=3"))
    wrong.wait_state("failed")
    failing.wait_state("failed")
    wrong.wait_gone()
    failing.wait_gone()
    assert wrong.kinds() == ["wrong"]
    assert failing.kinds() == ["failed", "failed"]
    assert "failed twice at step" in failing.records.state["reason"]


def sweep(lab: Lab) -> None:
    """An array: a run for each combination, and one table."""
    root = lab.directory / "sweep"
    axes = ["--sweep", "optim.betas=[0.9,0.99],[0.9,0.9]", "seed=1"]
    order = ["submit", str(lab.settings), f"options={{nodelist: {NODE}}}", *axes, "--"]
    done = lab.command(*order, *lab.words("sweep", "steps=60"))
    assert done.returncode == 0, done.stderr
    runs = [Run(lab, root / f"optim.betas={betas},seed=1") for betas in ("0.9,0.99", "0.9,0.9")]
    jobs = {run.job for run in runs}
    assert len(jobs) == 2
    assert len({job.split("_")[0] for job in jobs}) == 1
    for run in runs:
        run.wait_state("done")
        assert run.steps() == list(range(1, 61))
    table = lab.command("status", str(root)).stdout
    assert table.count("60/60") == 2
    assert "optim.betas" in table
    assert len({run.curve()[-1]["loss"] for run in runs}) == 2


def chain(lab: Lab) -> None:
    """The next job of a chain goes on where one was stopped."""
    run = lab.submit("chained", NODE, "--chain=2")
    first, second = (row["job"] for row in run.records.jobs())
    try:
        run.wait_step(lab.some_step())
        lab.cluster.run("scancel", "--signal=USR2", "--batch", first)
        run.wait_starts(2)
        run.wait_state("done")
    finally:
        lab.cluster.run("scancel", first, second, check=False)
    assert [start.facts["job"] for start in run.starts] == [first, second]
    same(run, reference_of_one(lab))


def printed_template(lab: Lab) -> None:
    """The script of --print does the same without submitit, as its first lines say."""
    name = f"printed {ODD}"
    words = lab.words(name)
    place = f"options={{nodelist: {NODE}}}"
    done = lab.command("submit", str(lab.settings), place, "--print", "--", *words)
    script = lab.directory / "template.sbatch"
    assert "# From the top of a checkout: sbatch THIS-FILE" in done.stdout
    script.write_text(done.stdout)
    output = lab.directory / "template.out"
    order = ["sbatch", "--parsable", f"--output={output}", f"--chdir={ROOT}", str(script)]
    job = lab.cluster.run(*order).strip()
    run = Run(lab, lab.directory / name)
    try:
        run.wait_step(lab.some_step())
        lab.cluster.run("scancel", "--signal=USR2", "--batch", job)
        run.wait_starts(2)
        run.wait_state("done")
    finally:
        lab.cluster.run("scancel", job, check=False)
    assert run.kinds() == ["stopped", "done"]
    same(run, reference_of_one(lab))


def odd_names(lab: Lab) -> None:
    """A run whose name means something to every reader on its way: requeued, then succeeded.

    A job that may not be requeued is succeeded by another.
    """
    run = lab.submit(ODD, NODE, "options={comment: 'a b\\c'}")
    try:
        run.wait_step(10)
        lab.cluster.run("scancel", "--signal=USR2", "--batch", run.job)
        run.wait_starts(2)
        run.wait_step(run.records.saved_step() + 10)
        lab.cluster.run("scontrol", "update", f"JobId={run.job}", "Requeue=0")
        lab.cluster.run("scancel", "--signal=USR2", "--batch", run.job)
        run.wait_starts(3)
        run.wait_state("done")
    finally:
        lab.cluster.run("scancel", run.job, check=False)
    assert run.kinds() == ["stopped", "stopped", "done"]
    assert [row["kind"] for row in run.records.jobs()] == ["first", "successor"]
    assert all(Path(row["log"]).read_text() for row in run.records.jobs())
    assert "done" in lab.command("status", str(run.path)).stdout
    assert not list(ROOT.glob("pwned"))
    assert [path.name for path in run.path.parent.glob("odd*")] == [ODD]
    same(run, reference_of_one(lab))


def requeued_and_cancelled_by_command(lab: Lab) -> None:
    """``requeue`` saves and starts again, also after an end; ``cancel`` is for good."""
    run = lab.submit("commanded", NODE, words=(f"steps={ENDLESS}",))
    run.wait_step(20)
    status = lab.command("status", str(run.path)).stdout
    assert "running" in status
    assert lab.command("requeue", str(run.path)).returncode == 0
    run.wait_starts(2)
    again = lab.command("submit", str(lab.settings), "--", *lab.words("commanded"))
    assert again.returncode == 2
    assert "already" in again.stderr
    run.wait_step(run.step + 10)
    assert lab.command("cancel", str(run.path)).returncode == 0
    run.wait_gone()
    reached = run.records.saved_step()
    assert lab.command("requeue", str(run.path)).returncode == 0
    run.wait_step(reached + 10)
    assert lab.command("cancel", str(run.path)).returncode == 0
    run.wait_gone()
    assert [row["kind"] for row in run.records.jobs()] == ["first", "requeue"]
    assert "resuming from" in lab.command("logs", str(run.path), "--lines", "10000").stdout
    continuous(run)
