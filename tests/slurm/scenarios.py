"""What happens to runs on a real cluster, and what must come of it: the lanes.

Each lane has nodes of its own; what concerns every node comes after all of them.
"""

import os
import signal
import time

from lab import ENDLESS, LONG_S, STEPS, Lab, alive, command_of, same
from lanes import Scenario
from references import finish_on_one, reference, submit_and_finish
from when_nodes_change import (
    elastic,
    in_grace,
    node_crashes,
    node_falls_silent,
    slurmd_dies,
    time_limit,
)
from when_stopped import cancelled_at_preemption, stopped_by_signals
from when_used import (
    cancelled_by_its_user,
    chain,
    fails_at_once,
    hung,
    odd_names,
    printed_template,
    requeued_and_cancelled_by_command,
    sweep,
)

NODES = "node1,node2"


def controller_dies(lab: Lab) -> None:
    """The ranks go on; a stop that is asked for meanwhile is requeued once it is back."""
    run = lab.submit("headless", NODES, "nodes=2", words=(f"steps={ENDLESS}",))
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
            pid for pid in alive(str(run.records.submission(1))) if command_of(pid, "_submit")
        ]
        os.kill(supervisors[0], signal.SIGUSR2)
        lab.cluster.wait(lambda: run.state == "requeued", LONG_S, "stopped")
        time.sleep(3)
        lab.cluster.start_controller()
        run.wait_starts(2)
        run.wait_step(max(STEPS, run.step + 20))
    finally:
        lab.cluster.run("scancel", run.job, check=False)
    run.wait_gone()
    assert run.kinds()[0] == "stopped"
    same(run, reference(lab))


FIRST: list[Scenario] = [
    submit_and_finish,
    stopped_by_signals,
    cancelled_at_preemption,
]
SECOND: list[Scenario] = [
    node_crashes,
    node_falls_silent,
    slurmd_dies,
    in_grace,
    time_limit,
    elastic,
]
THIRD: list[Scenario] = [
    finish_on_one,
    cancelled_by_its_user,
    fails_at_once,
    hung,
    chain,
    sweep,
    odd_names,
    printed_template,
    requeued_and_cancelled_by_command,
]
ALONE: list[Scenario] = [controller_dies]
REFERENCES = [submit_and_finish, finish_on_one]
"""The uninterrupted runs with which the others are compared."""
