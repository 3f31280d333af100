"""What happens to runs on a real cluster, and what must come of it.

``FIRST``: nodes 1 and 2; ``SECOND``: 3 and 4; ``THIRD``: 5. ``ALONE`` comes after all of them,
since it concerns every node.
"""

import math
import os
import signal
import sys
import time

from lab import ENDLESS, LONG_S, ROOT, STEPS, Lab, Run, alive, continuous, same
from lanes import Scenario

A, B, C = "node1,node2", "node3,node4", "node5"


def reference(lab: Lab) -> Run:
    """The uninterrupted run on two nodes; the first scenario makes it."""
    run = Run(lab, lab.directory / "whole")
    run.wait_state("done")
    return run


def reference_of_one(lab: Lab) -> Run:
    """The same on one rank."""
    run = Run(lab, lab.directory / "single")
    run.wait_state("done")
    return run


# -- nodes 1 and 2 --------------------------------------------------------------------------


def submit_and_finish(lab: Lab) -> None:
    run = lab.submit("whole", A, "nodes=2")
    run.wait_state("done")
    run.wait_gone()
    assert run.kinds() == ["done"]
    assert run.steps() == list(range(1, STEPS + 1))
    (start,) = run.starts
    meeting = start.meeting.read_text()
    assert '"address": "node1"' in meeting
    assert "localhost" not in meeting
    assert {account["host"] for account in start.exits().values()} == {"node1", "node2"}
    assert start.facts["ranks"] == 2


def stopped_by_signals(lab: Lab) -> None:
    """To the supervisor, to the ranks, to all; during the imports; at random steps."""
    run = lab.submit("signalled", A, "nodes=2")
    try:
        run.wait_starts(1)
        time.sleep(lab.random.uniform(0, 4))
        lab.cluster.run("scancel", "--signal=USR2", "--batch", run.job)
        run.wait_starts(2)
        ways = [["--signal=USR2", "--batch"], ["--signal=USR1"], ["--signal=USR2", "--full"]]
        for count, way in enumerate(ways, start=2):
            run.wait_step((count - 2) * STEPS // 3 + lab.random.randrange(5, 30))
            for _ in range(2):
                lab.cluster.run("scancel", *way, run.job)
            run.wait_starts(count + 1)
        run.wait_state("done")
        run.wait_gone()
    finally:
        lab.cluster.run("scancel", run.job, check=False)
    assert run.kinds() == ["stopped"] * 4 + ["done"]
    assert len(run.records.jobs()) == 1
    same(run, reference(lab))


def preempted(lab: Lab) -> None:
    """By a partition of higher rank, which requeues: SLURM's doing, not ours."""
    run = lab.submit("preempted", A, "nodes=2", "partition=low")
    try:
        run.wait_step(lab.some_step())
        lab.preempt(A)
        run.wait_starts(2)
        run.wait_state("done")
    finally:
        lab.cluster.run("scancel", run.job, check=False)
    assert run.kinds() == ["terminated", "done"]
    assert run.outcome(0)["step"] > 0
    assert len(run.records.jobs()) == 1
    same(run, reference(lab))


def cancelled_at_preemption(lab: Lab) -> None:
    """Where the site cancels what it preempts, another job goes on."""
    run = lab.submit("replaced", A, "nodes=2", "partition=cancel")
    try:
        run.wait_step(lab.some_step())
        lab.preempt(A)
        run.wait_starts(2)
        run.wait_state("done")
    finally:
        lab.cluster.run("scancel", run.job, check=False)
    assert [row["kind"] for row in run.records.jobs()] == ["first", "successor"]
    same(run, reference(lab))


def requeue_refused(lab: Lab) -> None:
    """A job that may not be requeued is succeeded by another."""
    run = lab.submit("succeeded", A, "nodes=2", "requeue=false")
    try:
        run.wait_step(lab.some_step())
        lab.cluster.run("scancel", "--signal=USR2", "--batch", run.job)
        run.wait_starts(2)
        run.wait_state("done")
    finally:
        lab.cluster.run("scancel", run.job, check=False)
    assert [row["kind"] for row in run.records.jobs()] == ["first", "successor"]
    assert run.kinds() == ["stopped", "done"]
    same(run, reference(lab))


# -- nodes 3 and 4 --------------------------------------------------------------------------


def node_crashes(lab: Lab) -> None:
    """A power cut, and the node back a while after SLURM has noticed."""
    run = lab.submit("crashed", B, "nodes=2", words=(f"steps={ENDLESS}",))
    try:
        run.wait_step(60)
        saved = run.records.saved_step()
        lab.cluster.crash("node4")
        lab.cluster.wait(lambda: "down" in lab.cluster.state("node4"), 60, "node4 down")
        lab.cluster.boot("node4")
        run.wait_starts(2)
        run.wait_step(STEPS)
    finally:
        lab.cluster.run("scancel", run.job, check=False)
    run.wait_gone()
    assert saved > 0
    assert run.starts[1].facts["step"] >= saved
    same(run, reference(lab))


def slurmd_dies(lab: Lab) -> None:
    """The ranks of the lost node live on, beside those of the new start: they must leave."""
    one = "node3,node4"
    run = lab.submit("orphaned", "", "exclude=node[1-2,5]", words=(f"steps={ENDLESS}",))
    try:
        run.wait_step(40)
        node = str(run.starts[0].facts["nodes"][0])
        orphans = alive(str(run.starts[0].path))
        assert orphans
        lab.cluster.kill_slurmd(node)
        run.wait_starts(2)
        assert run.starts[1].facts["nodes"] != [node]
        assert node in one
        lab.cluster.wait(lambda: not alive(str(run.starts[0].path)), 10, "orphans leave")
        run.wait_step(STEPS)
        lab.cluster.restart_slurmd(node)
        run.wait_step(run.step + 50)
    finally:
        lab.cluster.run("scancel", run.job, check=False)
        lab.cluster.wait(lambda: lab.cluster.state("node3") == "idle", 60, "node3 idle")
    run.wait_gone()
    same(run, reference_of_one(lab))


def in_grace(lab: Lab) -> None:
    """At its beginning only the ranks are told; whoever ended the job then would lose it."""
    run = lab.submit("graceful", "node3", "partition=grace", words=(f"steps={ENDLESS}",))
    try:
        run.wait_step(lab.some_step())
        lab.preempt("node3")
        run.wait_starts(2)
        run.wait_step(STEPS)
    finally:
        lab.cluster.run("scancel", run.job, check=False)
    assert run.kinds()[0] == "terminated"
    assert len(run.records.jobs()) == 1
    run.wait_gone()
    same(run, reference_of_one(lab))


def time_limit(lab: Lab) -> None:
    """The signal ahead of the limit: saved, and requeued by us, since SLURM would not."""
    run = lab.submit("limited", "node3", words=(f"steps={ENDLESS}",))
    try:
        run.wait_step(lab.some_step())
        lab.cluster.run("scontrol", "update", f"JobId={run.job}", "EndTime=now+75")
        run.wait_starts(2)
        run.wait_step(STEPS)
    finally:
        lab.cluster.run("scancel", run.job, check=False)
    assert run.kinds()[0] == "stopped"
    assert len(run.records.jobs()) == 1
    run.wait_gone()
    same(run, reference_of_one(lab))


def elastic(lab: Lab) -> None:
    """Two nodes, one, two again: the layout follows, the curve goes on."""
    both = ("elastic=true", "nodes=2", "exclude=node[1-2,5]")
    run = lab.submit("elastic", "", *both, words=(f"steps={ENDLESS}",))
    try:
        run.wait_step(30)
        lab.cluster.run("scontrol", "update", "NodeName=node4", "State=DRAIN", "Reason=test")
        lab.cluster.run("scancel", "--signal=USR2", "--batch", run.job)
        run.wait_starts(2)
        run.wait_step(run.step + 30)
        lab.cluster.run("scontrol", "update", "NodeName=node4", "State=RESUME")
        lab.cluster.run("scancel", "--signal=USR2", "--batch", run.job)
        run.wait_starts(3)
        run.wait_step(max(STEPS, run.step + 30))
    finally:
        lab.cluster.run("scontrol", "update", "NodeName=node4", "State=RESUME", check=False)
        lab.cluster.run("scancel", run.job, check=False)
    run.wait_gone()
    assert [len(start.facts["nodes"]) for start in run.starts] == [2, 1, 2]
    continuous(run)
    ours, theirs = run.curve(), reference(lab).curve()
    alike = int(run.starts[1].facts["step"])
    assert ours[:alike] == theirs[:alike]
    for one, other in zip(ours, theirs, strict=False):
        assert math.isclose(one["loss"], other["loss"], rel_tol=1e-3), (one, other)


# -- node 5 ---------------------------------------------------------------------------------


def finish_on_one(lab: Lab) -> None:
    run = lab.submit("single", C)
    run.wait_state("done")
    assert run.kinds() == ["done"]


def cancelled_by_its_user(lab: Lab) -> None:
    run = lab.submit("cancelled", C, words=(f"steps={ENDLESS}",))
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
    run = lab.submit("hung", C, "ranks_per_node=2", words=words)
    try:
        run.wait_step(30)
        mark = f"{run.records.submission(1)}/config.yaml"
        ranks = [pid for pid in alive(mark) if _is(pid, "-m\0pretrain")]
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


def _is(pid: int, words: str) -> bool:
    with open(f"/proc/{pid}/cmdline") as stream:
        return words in stream.read()


def fails_at_once(lab: Lab) -> None:
    """By wrong input: never again. By an error of its own: once more, and then it says why."""
    wrong = lab.submit("wrong", C, words=("data.corpus=nowhere",))
    failing = lab.submit("failing", C, words=("optim.lr=1e30", "max_skipped_steps=3"))
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
    axes = ["--sweep", "optim.lr=1e-3,3e-3", "seed=1,2"]
    order = ["submit", str(lab.settings), f"options={{nodelist: {C}}}", *axes, "--"]
    done = lab.command(*order, *lab.words("sweep", "steps=60"))
    assert done.returncode == 0, done.stderr
    runs = [
        Run(lab, root / f"optim.lr={rate},seed={seed}")
        for rate in ("1e-3", "3e-3")
        for seed in (1, 2)
    ]
    jobs = {run.job for run in runs}
    assert len(jobs) == 4
    assert len({job.split("_")[0] for job in jobs}) == 1
    for run in runs:
        run.wait_state("done")
        assert run.steps() == list(range(1, 61))
    table = lab.command("status", str(root)).stdout
    assert table.count("60/60") == 4
    assert "optim.lr" in table
    assert len({run.curve()[-1]["loss"] for run in runs}) == 4


def chain(lab: Lab) -> None:
    """The next job of a chain goes on where one was stopped."""
    run = lab.submit("chained", C, "--chain=2")
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
    """The script of --print does the same without submitit."""
    words = lab.words("templated")
    place = f"options={{nodelist: {C}}}"
    done = lab.command("submit", str(lab.settings), place, "--print", "--", *words)
    script = lab.directory / "template.sbatch"
    script.write_text(done.stdout.replace("exec python", f"exec {sys.executable}"))
    output = lab.directory / "template.out"
    order = ["sbatch", "--parsable", f"--output={output}", f"--chdir={ROOT}", str(script)]
    job = lab.cluster.run(*order).strip()
    run = Run(lab, lab.directory / "templated")
    try:
        run.wait_step(lab.some_step())
        lab.cluster.run("scancel", "--signal=USR2", "--batch", job)
        run.wait_starts(2)
        run.wait_state("done")
    finally:
        lab.cluster.run("scancel", job, check=False)
    assert run.kinds() == ["stopped", "done"]
    same(run, reference_of_one(lab))


def requeued_and_cancelled_by_command(lab: Lab) -> None:
    """``requeue`` saves and starts again, also after an end; ``cancel`` is for good."""
    run = lab.submit("commanded", C, words=(f"steps={ENDLESS}",))
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


# -- every node -----------------------------------------------------------------------------


def controller_dies(lab: Lab) -> None:
    """The ranks go on; a stop that is asked for meanwhile is requeued once it is back."""
    run = lab.submit("headless", A, "nodes=2", words=(f"steps={ENDLESS}",))
    try:
        run.wait_step(20)
        time.sleep(5)  # What is younger is forgotten.
        reached = run.step
        lab.cluster.stop_controller()
        run.wait_step(reached + 20)
        status = lab.command("status", str(run.path))
        assert status.returncode == 0
        assert f"{run.path}" in status.stdout
        supervisors = [
            pid for pid in alive(f"{run.records.submission(1)}/submitit") if _is(pid, "_submit")
        ]
        os.kill(supervisors[0], signal.SIGUSR2)
        lab.cluster.wait(lambda: run.state == "requeued", LONG_S, "stopped")
        time.sleep(3)
        lab.cluster.start_controller()
        run.wait_starts(2)
        run.wait_step(STEPS)
    finally:
        lab.cluster.run("scancel", run.job, check=False)
    run.wait_gone()
    assert run.kinds()[0] == "stopped"
    same(run, reference(lab))


FIRST: list[Scenario] = [
    submit_and_finish,
    stopped_by_signals,
    preempted,
    cancelled_at_preemption,
    requeue_refused,
]
SECOND: list[Scenario] = [node_crashes, slurmd_dies, in_grace, time_limit, elastic]
THIRD: list[Scenario] = [
    finish_on_one,
    cancelled_by_its_user,
    fails_at_once,
    hung,
    chain,
    sweep,
    printed_template,
    requeued_and_cancelled_by_command,
]
ALONE: list[Scenario] = [controller_dies]
REFERENCES = [submit_and_finish, finish_on_one]
"""The uninterrupted runs with which the others are compared."""
