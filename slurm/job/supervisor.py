"""Supervisor: a job's batch process, which starts the ranks, watches them and restarts them.

On SIGUSR1 or SIGUSR2 (ahead of the time limit, in a preemption's grace, by hand) the ranks
save and leave, and the supervisor requeues the job or submits a successor. On SIGTERM they
save and leave, and SLURM decides what follows: it requeues a job that it preempted or whose node
it lost, and a cancelled job stays cancelled; only where a site cancels jobs at preemption, the
supervisor submits a successor. A rank that fails or hangs, or a node without heartbeat, ends the
start and requeues the job, a bounded number of times without progress. A supervisor leaves and
changes nothing once a newer start has begun.
"""

from slurm.job import signals

if __name__ == "__main__":
    signals.install()

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from configs.errors import UserError, exit_code
from configs.json_files import write_json
from slurm import submission as submissions
from slurm.job.allocation import Allocation, LocalAllocation, SlurmAllocation
from slurm.job.bootstrap import BEGAN
from slurm.job.heartbeats import HeartbeatMonitor
from slurm.job.next_start import NextStart, log
from slurm.job.ranks import Ranks
from slurm.job.verdict import Verdict, judge
from slurm.records import Records, Start, tail
from slurm.submission import Submission

POLL_S = 0.5
OVER = ("done", "failed", "cancelled")
"""States of a run in which its later jobs have nothing to do."""


class Supervisor:
    """Supervises the starts of one job."""

    def __init__(self, submission: Submission, allocation: Allocation) -> None:
        self._submission, self._allocation = submission, allocation
        self._records = submission.records
        self._next_start = NextStart(submission, allocation)

    def run(self) -> int:
        """Start the ranks, until the job ends; returns its exit status."""
        while True:
            state = self._records.state
            if state.get("state") in OVER and state.get("submission") == self._submission.number:
                log(f"nothing to do: {state['state']} {state.get('reason', '')}")
                return 0 if state["state"] == "done" else 1
            refusal = self._next_start.refusal()
            if refusal:
                return self._next_start.end("failed", refusal, 1)
            start = self._begin()
            verdict = self._asked_already() or self._run_ranks(start)
            self._close(start, verdict)
            if start.superseded:
                log("a newer start of the run has begun; leaving it alone")
                return 1
            if not self._next_start.goes_on_here(verdict):
                return self._next_start.act(verdict)

    # -- one start ------------------------------------------------------------------------

    def _begin(self) -> Start:
        settings, step = self._submission.settings, self._records.saved_step()
        self._nodes = self._largest()
        start = self._records.new_start(
            {
                "job": self._allocation.job,
                "restart": self._allocation.restart,
                "submission": self._submission.number,
                "nodes": self._allocation.nodes[: self._nodes],
                "ranks": self._nodes * settings.per_node,
                "step": step,
            }
        )
        self._records.update_state(
            state="running",
            reason="",
            submission=self._submission.number,
            job=self._allocation.job,
            pid=os.getpid(),
        )
        log(
            f"start {start.number} of {self._records.run}: job {self._allocation.job}, restart "
            f"{self._allocation.restart}, {self._nodes} x {settings.per_node} ranks on "
            f"{','.join(self._allocation.nodes[: self._nodes])}, from step {step}"
        )
        return start

    def _largest(self) -> int:
        """The largest number of this job's nodes that the run fits on."""
        layouts = self._submission.layouts
        for nodes in range(len(self._allocation.nodes), 0, -1):
            if layouts.get(str(nodes)):
                return nodes
        raise UserError(f"no layout fits {len(self._allocation.nodes)} nodes; submit the run again")

    def _run_ranks(self, start: Start) -> Verdict:
        layout = self._submission.layouts[str(self._nodes)] or {}
        words = [f"parallel.{key}={json.dumps(value)}" for key, value in layout.items()]
        ranks = self._allocation.start(start, [str(self._submission.config), *words], self._nodes)
        heartbeats = HeartbeatMonitor(
            start, self._allocation.nodes[: self._nodes], self._submission.settings.heartbeat_s
        )
        passed = 0
        while ranks.poll() is None:
            time.sleep(POLL_S)
            for number in signals.distinct()[passed:]:
                passed += 1
                self._request_stop(start, ranks, number)
            if start.superseded or heartbeats.must_end(ranks_left=bool(start.exits())):
                ranks.kill()
                break
        return judge(
            start.exits(),
            self._nodes * self._submission.settings.per_node,
            status=ranks.poll(),
            srun_output="\n".join(tail(start.srun_log)),
            asked=signals.names(),
            lost=heartbeats.lost,
            complaint=self._complaint(start),
        )

    def _request_stop(self, start: Start, ranks: Ranks, number: int) -> None:
        """Pass a stop request to the ranks, by a file (tasks may not run yet) and by srun."""
        name = signal.Signals(number).name
        log(f"{name}: the ranks save and leave")
        start.stop.write_text(name, encoding="utf-8")
        ranks.signal(number)
        if signals.ending():
            self._next_start.settle_early(start)

    def _complaint(self, start: Start) -> str:
        """The run's own message about its failure: its last error line, or its status.json."""
        errors = [line for line in tail(start.log(0)) if line.startswith("error: ")]
        if errors:
            return errors[-1].removeprefix("error: ")
        status = self._records.status
        try:
            recent = self._records.run.joinpath("status.json").stat().st_mtime
        except OSError:
            return ""
        if status.get("state") != "failed" or recent < start.facts["time"] - 5:
            return ""
        return f"{status.get('reason', '')} (step {status.get('step')})"

    def _close(self, start: Start, verdict: Verdict) -> None:
        step = self._records.saved_step()
        end = {"kind": verdict.kind, "reason": verdict.reason, "step": step}
        end["reached"] = self._records.status.get("step", step)
        write_json(start.outcome, {**end, "nodes": verdict.nodes, "time": time.time()})
        log(f"{verdict.kind} at step {step}: {verdict.reason}")

    def _asked_already(self) -> Verdict | None:
        """The verdict where a stop request arrived before any rank was started."""
        if not signals.received:
            return None
        reason = f"asked to stop before the ranks were started ({', '.join(signals.names())})"
        return Verdict(kind="terminated" if signals.ending() else "stopped", reason=reason)


class Supervise:
    """The callable that submitit runs: supervises a submission, or one member of a sweep."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> None:
        """Supervise the job to its end, and exit with its status."""
        code = exit_code(self._supervise, user_errors=(UserError,))
        signals.ignore()
        if code:
            sys.exit(code)

    def _supervise(self) -> int:
        submission = submissions.load(self._path)
        with contextlib.chdir(os.environ.pop(BEGAN, submission.directory)):
            return supervise(submission, os.environ)


def supervise(submission: Submission, environ: Mapping[str, str]) -> int:
    """Supervise the job that ``environ`` describes; returns its exit status."""
    signals.install()
    environ = {**environ, **submission.imports}
    if "SUBMITIT_LOCAL_JOB_ID" in environ and "SLURM_JOB_ID" not in environ:
        allocation: Allocation = LocalAllocation(submission, environ, leave=sys.exit)
    else:
        allocation = SlurmAllocation(submission, environ)
    return Supervisor(submission, allocation).run()


def _exec_copy(submission: Submission, environ: Mapping[str, str]) -> NoReturn:
    """Exec the supervisor from the copied code, since the checkout may change."""
    command = [sys.executable, "-u", "-m", "slurm.job.supervisor", "--job", str(submission.path)]
    signals.send_on()
    os.execve(command[0], command, {**environ, **submission.imports})


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """``--job SUBMISSION``, or ``--run RUN CLUSTER.yaml [key=value ...] -- WORDS``."""
    before, words = list(argv), []
    if "--" in argv:
        at = before.index("--")
        before, words = before[:at], before[at + 1 :]
    parser = argparse.ArgumentParser(prog="python -m slurm.job.supervisor")
    parser.add_argument("--job", type=Path, help="a submission's directory")
    parser.add_argument("--run", type=Path, help="the run's directory")
    parser.add_argument("cluster", nargs="*")
    arguments = parser.parse_args(before)
    if arguments.job:
        return supervise(submissions.load(arguments.job), environ)
    from slurm.job.hand_submitted import record_submission

    found = record_submission(Records(arguments.run.resolve()), arguments.cluster, words, environ)
    return _exec_copy(found, environ)


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(sys.argv[1:], os.environ), user_errors=(UserError,)))
