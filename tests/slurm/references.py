"""The uninterrupted runs with which the others are compared: two scenarios make them."""

import json

from lab import STEPS, Lab, Run


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


def submit_and_finish(lab: Lab) -> None:
    run = lab.submit("whole", "node1,node2", "nodes=2")
    run.wait_state("done")
    run.wait_gone()
    assert run.kinds() == ["done"]
    assert run.steps() == list(range(1, STEPS + 1))
    (start,) = run.starts
    rendezvous = start.rendezvous.read_text()
    assert '"address": "node1"' in rendezvous
    assert "localhost" not in rendezvous
    assert {account["host"] for account in start.exits().values()} == {"node1", "node2"}
    assert start.facts["ranks"] == 2


def finish_on_one(lab: Lab) -> None:
    run = lab.submit("single", "node5")
    run.wait_state("done")
    assert run.kinds() == ["done"]
    # What ran was the copy, of which the commit is known.
    copied = (run.records.submission(1) / "code" / "commit.txt").read_text().strip()
    assert json.loads((run.path / "run.json").read_text())["git_commit"] == copied
