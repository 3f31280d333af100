"""What follows the end of a start: nothing, a restart here, a requeue, or a successor job."""

import time
from collections.abc import Sequence

from slurm import quoting
from slurm.controller import RefusedError, UnreachableError
from slurm.job import signals
from slurm.job.allocation import Allocation, Fate
from slurm.job.restart_policy import RestartPolicy
from slurm.job.verdict import Verdict
from slurm.records import Records, Start
from slurm.submission import Submission

LATE_S = 180.0
"""Seconds after a job's start in which a signal meant for its former start may arrive."""
PATIENCE_S: dict[Fate, float] = {"grace": 3600.0, "unknown": 300.0}
"""Seconds to wait for the end of a preemption's grace, or for the controller's answer."""


def log(text: str) -> None:
    """Print a line with the time to the supervisor's log."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", flush=True)


class NextStart:
    """Decides what follows the starts of one job, and does it."""

    def __init__(self, submission: Submission, allocation: Allocation) -> None:
        self._submission, self._allocation = submission, allocation
        self._records: Records = submission.records
        self._restart_policy = RestartPolicy(self._records, submission)
        self._settled: int | None = None

    def refusal(self) -> str | None:
        """Why there should be no further start."""
        return self._restart_policy.refusal()

    def goes_on_here(self, verdict: Verdict) -> bool:
        """Whether the ranks start again in this job: a signal for a former start ended them.

        SLURM signals a node that was down when its step ended once the node is back, whatever
        runs there by then.
        """
        if verdict.kind != "terminated" or self._allocation.restart == 0:
            return False
        time.sleep(2)  # SLURM signals tasks and batch process one after the other.
        if signals.received or self._allocation.fate() != "running":
            return False
        facts = self._records.starts()[-1].facts
        late = time.time() - facts["time"] < LATE_S
        if late:
            log("that signal was meant for the job's former start; the ranks start again here")
        return late

    def act(self, verdict: Verdict) -> int:
        """Do what follows from a verdict; returns the job's exit status."""
        if verdict.kind == "done":
            return self.end("done" if self._finished() else "stopped", "", 0)
        if verdict.kind == "superseded":
            return 1
        if verdict.kind == "wrong" and not self._restart_policy.has_saved:
            return self.end("failed", verdict.reason, 2)
        if verdict.kind == "terminated" or signals.ending():
            return self._await_end(verdict)
        return self._again(verdict)

    def _finished(self) -> bool:
        return self._records.status.get("state") == "done"

    def _again(self, verdict: Verdict) -> int:
        """Requeue, or submit a successor where that is refused."""
        if self._allocation.fate() == "requeued":
            # This process may be on a node that SLURM has declared down.
            log("SLURM has requeued the job already")
            return 1
        refusal = self._restart_policy.refusal()
        if refusal:
            return self.end("failed", refusal, 1)
        excluded = self._exclude(verdict)
        following = self._next_in_chain()
        if following:
            if excluded:
                self._allocation.exclude(following, excluded)
            return self.end("stopped", f"{verdict.reason}; the next job of the chain goes on", 0)
        if self._records.state.get("state") == "cancelled":
            return self.end("cancelled", verdict.reason, 143)
        self._records.update_state(state="requeued", reason=verdict.reason)
        refused = self._allocation.requeue(excluded)
        if refused is None or self._allocation.fate() == "requeued":
            log("requeued")
            return 0
        return self._succeed(f"{verdict.reason}; no requeue ({refused})", excluded)

    def _succeed(self, reason: str, excluded: Sequence[str]) -> int:
        try:
            job = self._allocation.submit_successor(excluded)
        except (RefusedError, UnreachableError) as error:
            advice = f"go on with: python -m slurm requeue {quoting.word(str(self._records.run))}"
            return self.end("stopped", f"{reason}; no other job ({error}); {advice}", 1)
        log_file = str(self._submission.log(job))
        self._records.add_job(job, self._submission.number, "successor", log=log_file)
        self._records.update_state(state="requeued", reason=reason)
        log(f"job {job} goes on after this one: {reason}")
        return 0

    def _exclude(self, verdict: Verdict) -> list[str]:
        excluded = list(self._records.state.get("excluded", []))
        if self._submission.settings.exclude_lost_nodes:
            excluded += [node for node in verdict.nodes if node not in excluded]
            self._records.update_state(excluded=excluded)
        return excluded

    def _next_in_chain(self) -> str | None:
        """The job of this submission's chain that waits for this one's end, if there is one."""
        own = [row["job"] for row in self._records.jobs() if row["kind"] in ("first", "chain")]
        if self._submission.chain == 1 or self._allocation.job not in own[:-1]:
            return None
        return str(own[own.index(self._allocation.job) + 1])

    def _await_end(self, verdict: Verdict) -> int:
        """Leave the job to SLURM, which ends it; submit a successor if a preemption cancels it.

        In a preemption's grace the supervisor stays: a job whose batch process has left is over,
        and SLURM requeues none that is over.
        """
        if self._settled is not None:
            return self._settled
        began = time.monotonic()
        fate = self._allocation.fate()
        while fate in PATIENCE_S and not signals.ending():
            if time.monotonic() - began > PATIENCE_S[fate]:
                break
            if fate == "grace":
                self._records.update_state(
                    state="preempted", reason="in its grace; SLURM ends the job"
                )
            time.sleep(1)
            fate = self._allocation.fate()
        time.sleep(0.5)
        fate = self._allocation.fate() if fate in ("grace", "running") else fate
        return self._settle(fate, verdict.reason, self._exclude(verdict))

    def settle_early(self, start: Start) -> None:
        """At SIGTERM, while the ranks save: settle what follows, as SLURM may kill this process."""
        fate = self._allocation.fate()
        if fate not in ("grace", "running", "unknown") and not start.superseded:
            self._settled = self._settle(fate, "SIGTERM", self._records.state.get("excluded", []))

    def _settle(self, fate: Fate, reason: str, excluded: Sequence[str]) -> int:
        log(f"the job's fate: {fate}")
        if fate == "requeued":
            self._records.update_state(state="requeued", reason="by SLURM")
            return 143
        if fate == "preempted":
            if self._next_in_chain():
                return self.end("stopped", "preempted; the next job of the chain goes on", 143)
            self._succeed("cancelled at preemption", excluded)
            return 143
        if fate == "lost":
            if self._submission.settings.requeue:
                self._records.update_state(state="requeued", reason="by SLURM, which lost a node")
                return 143
            return self._succeed("a node was lost", excluded)
        if fate == "time limit":
            return self.end("stopped", "time limit", 143)
        if fate == "unknown":
            return self.end("stopped", reason, 143)
        return self.end("cancelled", reason, 143)

    def end(self, state: str, reason: str, code: int) -> int:
        """Record the run's state at the end of this job; returns the exit status."""
        self._records.update_state(state=state, reason=reason)
        log(f"{state}{': ' if reason else ''}{reason}")
        return code
