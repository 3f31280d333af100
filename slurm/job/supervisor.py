"""The batch process of a job: it starts the ranks, watches them, and decides what is next.

On SIGUSR1 or SIGUSR2 (ahead of the time limit, from a preemption's grace, by hand) the
ranks save and leave, and the job is requeued here, or a successor submitted. On SIGTERM
they save and leave, and what follows is SLURM's: it requeues what it preempted or lost, a
cancelled job stays so; only where a site cancels at preemption a successor is submitted.
A rank that fails or hangs, and a node that falls silent, end the start and requeue the job,
a bounded number of times without progress. A supervisor of a start that is not the newest
any more leaves and touches nothing.
"""

from slurm.job import signals

if __name__ == "__main__":
    signals.note()

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
from slurm.job.first import BEGAN
from slurm.job.next_start import After, log
from slurm.job.ranks import Ranks
from slurm.job.signs_of_life import Watch
from slurm.job.site import InJob, Rehearsal, Site
from slurm.job.verdict import Verdict, judge
from slurm.records import Records, Start, tail
from slurm.submission import Submission

POLL_S = 0.5
OVER = ("done", "failed", "cancelled")
"""States in which a run's later jobs have nothing to do."""


class Supervisor:
    """One job's supervisor."""

    def __init__(self, submission: Submission, site: Site) -> None:
        self._submission, self._site = submission, site
        self._records = submission.records
        self._after = After(submission, site)

    def run(self) -> int:
        """Start the ranks until something is decided; the job's exit status."""
        while True:
            state = self._records.state
            if state.get("state") in OVER and state.get("submission") == self._submission.number:
                log(f"nothing to do: {state['state']} {state.get('reason', '')}")
                return 0 if state["state"] == "done" else 1
            refusal = self._after.refusal()
            if refusal:
                return self._after.end("failed", refusal, 1)
            start = self._begin()
            verdict = self._asked_already() or self._watched(start)
            self._close(start, verdict)
            if start.superseded:
                log("a newer start of the run has begun; leaving it alone")
                return 1
            if not self._after.goes_on_here(verdict):
                return self._after.act(verdict)

    # -- one start ------------------------------------------------------------------------

    def _begin(self) -> Start:
        settings, step = self._submission.settings, self._records.saved_step()
        self._nodes = self._largest()
        start = self._records.new_start(
            {
                "job": self._site.job,
                "restart": self._site.restart,
                "submission": self._submission.number,
                "nodes": self._site.nodes[: self._nodes],
                "ranks": self._nodes * settings.per_node,
                "step": step,
            }
        )
        self._records.note(
            state="running",
            reason="",
            submission=self._submission.number,
            job=self._site.job,
            pid=os.getpid(),
        )
        log(
            f"start {start.number} of {self._records.run}: job {self._site.job}, restart "
            f"{self._site.restart}, {self._nodes} x {settings.per_node} ranks on "
            f"{','.join(self._site.nodes[: self._nodes])}, from step {step}"
        )
        return start

    def _largest(self) -> int:
        """On how many of the nodes the run fits."""
        layouts = self._submission.layouts
        for nodes in range(len(self._site.nodes), 0, -1):
            if layouts.get(str(nodes)):
                return nodes
        raise UserError(f"no layout fits {len(self._site.nodes)} nodes; submit the run again")

    def _watched(self, start: Start) -> Verdict:
        layout = self._submission.layouts[str(self._nodes)] or {}
        words = [f"parallel.{key}={json.dumps(value)}" for key, value in layout.items()]
        ranks = self._site.start(start, [str(self._submission.config), *words], self._nodes)
        watch = Watch(start, self._site.nodes[: self._nodes], self._submission.settings.heartbeat_s)
        passed = 0
        while ranks.poll() is None:
            time.sleep(POLL_S)
            for number in signals.distinct()[passed:]:
                passed += 1
                self._ask(start, ranks, number)
            if start.superseded or watch.look(ranks_left=bool(start.exits())):
                ranks.kill()
                break
        return judge(
            start.exits(),
            self._nodes * self._submission.settings.per_node,
            status=ranks.poll(),
            said="\n".join(tail(start.path / "srun.log")),
            asked=signals.names(),
            lost=watch.lost,
            complaint=self._complaint(start),
        )

    def _ask(self, start: Start, ranks: Ranks, number: int) -> None:
        """Tell the ranks, by a file (their tasks may not be there yet) and by srun."""
        name = signal.Signals(number).name
        log(f"{name}: the ranks save and leave")
        start.stop.write_text(name, encoding="utf-8")
        ranks.ask(number)
        if signals.ending():
            self._after.foresee(start)

    def _complaint(self, start: Start) -> str:
        """What the run says of its failure: one line of its own, or its account of this start."""
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
        """The verdict where a request came before any rank was started."""
        if not signals.received:
            return None
        reason = f"asked to stop before the ranks were started ({', '.join(signals.names())})"
        return Verdict(kind="terminated" if signals.ending() else "stopped", reason=reason)


class Supervise:
    """What submitit runs: the supervisor of one submission, or of a member of a sweep."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> None:
        """The whole life of a job; ends this process."""
        code = exit_code(self._supervise, user_errors=(UserError,))
        signals.ignore()
        if code:
            sys.exit(code)

    def _supervise(self) -> int:
        submission = submissions.load(self._path)
        with contextlib.chdir(os.environ.pop(BEGAN, submission.directory)):
            return supervise(submission, os.environ)


def supervise(submission: Submission, environ: Mapping[str, str]) -> int:
    """Supervise the job that ``environ`` describes."""
    signals.note()
    environ = {**environ, **submission.imports}
    if "SUBMITIT_LOCAL_JOB_ID" in environ and "SLURM_JOB_ID" not in environ:
        site: Site = Rehearsal(submission, environ, leave=sys.exit)
    else:
        site = InJob(submission, environ)
    return Supervisor(submission, site).run()


def _become(submission: Submission, environ: Mapping[str, str]) -> NoReturn:
    """Start anew from the copied code: that from which this process came may change."""
    command = [sys.executable, "-u", "-m", "slurm.job.supervisor", "--job", str(submission.path)]
    signals.hand_on()
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
    from slurm.job.template import adopt

    found = adopt(Records(arguments.run.resolve()), arguments.cluster, words, environ)
    return _become(found, environ)


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(sys.argv[1:], os.environ), user_errors=(UserError,)))
