"""Runs whose nodes go away, come back, or are wanted for a while, on nodes 3 and 4."""

import math

from lab import ENDLESS, STEPS, Lab, alive, continuous, same
from references import reference, reference_of_one

from slurm.node_list import expand

NODES = "node3,node4"


def node_crashes(lab: Lab) -> None:
    """A power cut, and the node back a while after SLURM has noticed."""
    # SLURM is to notice it, not the supervisor: the job must have just these nodes.
    run = lab.submit("crashed", NODES, "nodes=2", "heartbeat_s=120", words=(f"steps={ENDLESS}",))
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


def node_falls_silent(lab: Lab) -> None:
    """The supervisor does not wait until SLURM declares a node down; it goes on without it."""
    without = ("elastic=true", "nodes=2", "exclude=node[1-2,5]", "heartbeat_s=12")
    run = lab.submit("silent", "", *without, words=(f"steps={ENDLESS}",))
    try:
        run.wait_step(40)
        lab.cluster.crash("node4")
        run.wait_starts(2)
        run.wait_step(STEPS)
        shown = lab.cluster.run("scontrol", "show", "job", run.job)
    finally:
        lab.cluster.run("scancel", run.job, check=False)
        lab.cluster.boot("node4")
    run.wait_gone()
    assert run.outcome(0)["kind"] == "lost"
    assert run.outcome(0)["nodes"] == ["node4"]
    excluded = expand(shown.partition("ExcNodeList=")[2].split()[0])
    assert set(excluded) == {"node1", "node2", "node4", "node5"}
    assert [start.facts["nodes"] for start in run.starts] == [["node3", "node4"], ["node3"]]
    continuous(run)
    lab.cluster.wait(lambda: lab.cluster.state("node4") == "idle", 60, "node4 idle")


def slurmd_dies(lab: Lab) -> None:
    """The ranks of the lost node live on, beside those of the new start: they must leave."""
    run = lab.submit("orphaned", "", "exclude=node[1-2,5]", words=(f"steps={ENDLESS}",))
    try:
        run.wait_step(40)
        node = str(run.starts[0].facts["nodes"][0])
        orphans = alive(str(run.starts[0].path))
        assert orphans
        lab.cluster.kill_slurmd(node)
        run.wait_starts(2)
        assert run.starts[1].facts["nodes"] != [node]
        assert node in NODES
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
        reached = run.step
        lab.preempt("node3")
        run.wait_starts(2)
        run.wait_step(STEPS)
    finally:
        lab.cluster.run("scancel", run.job, check=False)
    assert run.kinds()[0] == "terminated"
    assert run.outcome(0)["step"] >= reached
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
