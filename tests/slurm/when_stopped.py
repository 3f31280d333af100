"""Runs that are asked to leave, on nodes 1 and 2: by signals, and by those who want the nodes."""

import time

from lab import STEPS, Lab, same
from references import reference, reference_of_one

NODES = "node1,node2"
NODE = "node1"


def stopped_by_signals(lab: Lab) -> None:
    """To the supervisor, to the ranks, to all; during the imports; at random steps.

    The fifth time it is preempted, by a partition of higher rank, which requeues: SLURM's doing.
    """
    run = lab.submit("signalled", NODES, "nodes=2", "partition=low")
    try:
        run.wait_starts(1)
        time.sleep(lab.random.uniform(0, 4))
        lab.cluster.run("scancel", "--signal=USR2", "--batch", run.job)
        run.wait_starts(2)
        ways = [["--signal=USR2", "--batch"], ["--signal=USR1"], ["--signal=USR2", "--full"]]
        for count, way in enumerate(ways, start=2):
            run.wait_step((count - 2) * STEPS // 4 + lab.random.randrange(5, 25))
            for _ in range(2):
                lab.cluster.run("scancel", *way, run.job)
            run.wait_starts(count + 1)
        run.wait_step(run.records.saved_step() + lab.random.randrange(5, 15))
        reached = run.step
        lab.preempt(NODES)
        run.wait_starts(6)
        run.wait_state("done")
        run.wait_gone()
    finally:
        lab.cluster.run("scancel", run.job, check=False)
    assert run.kinds() == ["stopped"] * 4 + ["terminated", "done"]
    assert run.outcome(4)["step"] >= reached
    assert "saved on request" in run.outcome(4)["reason"]
    assert len(run.records.jobs()) == 1
    same(run, reference(lab))


def cancelled_at_preemption(lab: Lab) -> None:
    """Where the site cancels what it preempts, another job goes on."""
    run = lab.submit("replaced", NODE, "partition=cancel")
    try:
        run.wait_step(lab.some_step())
        reached = run.step
        lab.preempt(NODE)
        run.wait_starts(2)
        run.wait_state("done")
    finally:
        lab.cluster.run("scancel", run.job, check=False)
    assert run.outcome(0)["step"] >= reached
    assert [row["kind"] for row in run.records.jobs()] == ["first", "successor"]
    same(run, reference_of_one(lab))
