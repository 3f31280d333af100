"""The batch process of a job: it starts the ranks, watches them, and decides what is next.

On SIGUSR1 or SIGUSR2 (ahead of the time limit, from a preemption's grace, by hand) the
ranks save and leave, and the job is requeued here, or a successor submitted. On SIGTERM
they save and leave, and what follows is SLURM's: it requeues what it preempted or lost, a
cancelled job stays so; only where a site cancels at preemption a successor is submitted.
A rank that fails or hangs, and a node that falls silent, end the start and requeue the job,
a bounded number of times without progress. A supervisor of a start that is not the newest
any more leaves and touches nothing.
"""

from slurm import signals

if __name__ == "__main__":
    signals.note()

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from configs.errors import RunError, UserError
from slurm import submission as submissions
from slurm.progress import Progress
from slurm.ranks import Ranks
from slurm.records import Records, Start, write_json
from slurm.site import InJob, Rehearsal, Site
from slurm.submission import Submission
from slurm.verdict import Verdict, judge
from slurm.watch import Watch

POLL_S = 0.5
LATE_S = 180.0
"""How long after a job's start a signal that was meant for its former one may still come."""
GRACE_S = 3600.0
OVER = ("done", "failed", "cancelled")
"""States in which a run's later jobs have nothing to do."""


class Supervisor:
    """One job's supervisor."""

    def __init__(self, submission: Submission, site: Site) -> None:
        self._submission, self._site = submission, site
        self._records = submission.records
        self._progress = Progress(self._records, submission)

    def run(self) -> int:
        """Start the ranks until something is decided; the job's exit status."""
        while True:
            state = self._records.state
            if state.get("state") in OVER and state.get("submission") == self._submission.number:
                self._say(f"nothing to do: {state['state']} {state.get('reason', '')}")
                return 0 if state["state"] == "done" else 1
            refusal = self._progress.refusal()
            if refusal:
                return self._end("failed", refusal, 1)
            start = self._begin()
            verdict = self._asked_already() or self._watched(start)
            self._close(start, verdict)
            if start.superseded:
                self._say("a newer start of the run has begun; leaving it alone")
                return 1
            if not self._goes_on_here(verdict):
                return self._act(verdict)

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
            state="running", reason="", submission=self._submission.number, job=self._site.job
        )
        self._say(
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
        said = start.path / "srun.log"
        return judge(
            start.exits(),
            self._nodes * self._submission.settings.per_node,
            status=ranks.poll(),
            said=said.read_text(encoding="utf-8", errors="replace") if said.exists() else "",
            asked=signals.names(),
            lost=watch.lost,
            complaint=self._complaint(start),
        )

    def _ask(self, start: Start, ranks: Ranks, number: int) -> None:
        """Tell the ranks, by a file (their tasks may not be there yet) and by srun."""
        name = signal.Signals(number).name
        self._say(f"{name}: the ranks save and leave")
        start.stop.write_text(name, encoding="utf-8")
        ranks.ask(number)

    def _complaint(self, start: Start) -> str:
        """What the run says of its failure, if that is of this start."""
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
        self._say(f"{verdict.kind} at step {step}: {verdict.reason}")

    # -- what follows ---------------------------------------------------------------------

    def _asked_already(self) -> Verdict | None:
        """The verdict where a request came before any rank was started."""
        if not signals.received:
            return None
        reason = f"asked to stop before the ranks were started ({', '.join(signals.names())})"
        return Verdict(kind="terminated" if _terminated() else "stopped", reason=reason)

    def _goes_on_here(self, verdict: Verdict) -> bool:
        """Whether the ranks were ended by a request that was meant for a former start.

        A node that was down when its step was ended is told so when it is back, whatever
        runs there by then.
        """
        if verdict.kind != "terminated" or self._site.restart == 0:
            return False
        time.sleep(2)  # SLURM tells tasks and batch process one after the other.
        if signals.received or self._site.fate() != "running":
            return False
        facts = self._records.starts()[-1].facts
        late = time.time() - facts["time"] < LATE_S
        if late:
            self._say("that was meant for the job's former start; the ranks start again here")
        return late

    def _act(self, verdict: Verdict) -> int:
        """Do what a verdict asks for; the job's exit status."""
        if verdict.kind == "done":
            return self._end("done" if self._finished() else "stopped", "", 0)
        if verdict.kind == "superseded":
            return 1
        if verdict.kind == "wrong":
            return self._end("failed", verdict.reason, 2)
        if verdict.kind == "terminated" or _terminated():
            return self._await_end(verdict)
        return self._again(verdict)

    def _finished(self) -> bool:
        return self._records.status.get("state") == "done"

    def _again(self, verdict: Verdict) -> int:
        """Requeue, or submit a successor where that is refused."""
        refusal = self._progress.refusal()
        if refusal:
            return self._end("failed", f"{refusal}; the last one: {verdict.reason}", 1)
        if self._next_in_chain():
            return self._end("stopped", f"{verdict.reason}; the next job of the chain goes on", 0)
        excluded = self._exclude(verdict)
        self._records.note(state="requeued", reason=verdict.reason)
        refused = self._site.requeue(excluded)
        if refused is None:
            self._say("requeued")
            return 0
        return self._succeed(f"{verdict.reason}; no requeue ({refused})", excluded)

    def _succeed(self, reason: str, excluded: Sequence[str]) -> int:
        job = self._site.succeed(excluded)
        self._records.add_job(job, self._submission.number, "successor")
        self._records.note(state="requeued", reason=reason)
        self._say(f"job {job} goes on after this one: {reason}")
        return 0

    def _exclude(self, verdict: Verdict) -> list[str]:
        excluded = list(self._records.state.get("excluded", []))
        if self._submission.settings.exclude_lost_nodes:
            excluded += [node for node in verdict.nodes if node not in excluded]
            self._records.note(excluded=excluded)
        return excluded

    def _next_in_chain(self) -> bool:
        """Whether another job of this submission waits for this one's end."""
        own = [row["job"] for row in self._records.jobs() if row["kind"] in ("first", "chain")]
        return self._site.job in own[:-1] and self._submission.chain > 1

    def _await_end(self, verdict: Verdict) -> int:
        """Leave the job to SLURM, which is ending it; go on elsewhere if it cancels for others.

        In a preemption's grace only the ranks are told: whoever left then would end the job,
        and SLURM requeues none that has ended.
        """
        end = time.monotonic() + GRACE_S
        fate = self._site.fate()
        while fate == "grace" and not _terminated() and time.monotonic() < end:
            self._records.note(state="preempted", reason="in its grace; SLURM ends the job")
            time.sleep(1)
            fate = self._site.fate()
        time.sleep(0.5)
        fate = self._site.fate() if fate in ("grace", "running") else fate
        self._say(f"the job's fate: {fate}")
        if fate == "requeued":
            self._records.note(state="requeued", reason="by SLURM")
            return 143
        if fate == "preempted":
            if self._next_in_chain():
                return self._end("stopped", "preempted; the next job of the chain goes on", 143)
            return self._succeed("cancelled at preemption", self._exclude(verdict))
        if fate == "time limit":
            return self._end("stopped", "time limit", 143)
        if fate == "unknown":
            return self._end("stopped", verdict.reason, 143)
        return self._end("cancelled", verdict.reason, 143)

    def _end(self, state: str, reason: str, code: int) -> int:
        self._records.note(state=state, reason=reason)
        self._say(f"{state}{': ' if reason else ''}{reason}")
        return code

    def _say(self, text: str) -> None:
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", flush=True)


def _terminated() -> bool:
    """Whether SLURM, or somebody, is ending this job."""
    return signal.SIGTERM in signals.received or signal.SIGINT in signals.received


class Supervise:
    """What submitit runs: the supervisor of one submission, or of a member of a sweep."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> None:
        """The whole life of a job; ends this process."""
        code = said(lambda: supervise(submissions.load(self._path), os.environ))
        signals.ignore()
        if code:
            sys.exit(code)


def said(command: Callable[[], int]) -> int:
    """The command's status; one line for what a user can mend, or what cannot go on."""
    try:
        return command()
    except (UserError, RunError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2 if isinstance(error, UserError) else 1
    except KeyboardInterrupt:
        return 130


def supervise(submission: Submission, environ: Mapping[str, str]) -> int:
    """Supervise the job that ``environ`` describes."""
    signals.note()
    if "SUBMITIT_LOCAL_JOB_ID" in environ and "SLURM_JOB_ID" not in environ:
        site: Site = Rehearsal(submission, environ, leave=sys.exit)
    else:
        site = InJob(submission, environ)
    return Supervisor(submission, site).run()


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """``--job SUBMISSION``, or ``--run RUN CLUSTER.yaml [key=value ...] -- WORDS``."""
    before, words = list(argv), []
    if "--" in argv:
        at = before.index("--")
        before, words = before[:at], before[at + 1 :]
    parser = argparse.ArgumentParser(prog="python -m slurm.supervisor")
    parser.add_argument("--job", type=Path, help="a submission's directory")
    parser.add_argument("--run", type=Path, help="the run's directory")
    parser.add_argument("cluster", nargs="*")
    arguments = parser.parse_args(before)
    if arguments.job:
        return supervise(submissions.load(arguments.job), environ)
    from slurm.template import adopt

    return supervise(adopt(Records(arguments.run), arguments.cluster, words, environ), environ)


if __name__ == "__main__":
    sys.exit(said(lambda: main(sys.argv[1:], os.environ)))
