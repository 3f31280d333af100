"""What follows a start: nothing, another one here, a requeue, a successor, or SLURM's will."""

import time
from collections.abc import Sequence

from slurm import quoting
from slurm.controller import RefusedError, UnreachableError
from slurm.job import signals
from slurm.job.progress import Progress
from slurm.job.site import Fate, Site
from slurm.job.verdict import Verdict
from slurm.records import Records, Start
from slurm.submission import Submission

LATE_S = 180.0
"""How long after a job's start a signal that was meant for its former one may still come."""
PATIENCE_S: dict[Fate, float] = {"grace": 3600.0, "unknown": 300.0}
"""How long the end of a preemption's grace, and a controller's answer, is waited for."""


def log(text: str) -> None:
    """A line of the supervisor's log."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", flush=True)


class After:
    """Decides and does what follows, for one job."""

    def __init__(self, submission: Submission, site: Site) -> None:
        self._submission, self._site = submission, site
        self._records: Records = submission.records
        self._progress = Progress(self._records, submission)
        self._settled: int | None = None

    def refusal(self) -> str | None:
        """Why there should be no further start."""
        return self._progress.refusal()

    def goes_on_here(self, verdict: Verdict) -> bool:
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
            log("that was meant for the job's former start; the ranks start again here")
        return late

    def act(self, verdict: Verdict) -> int:
        """Do what a verdict asks for; the job's exit status."""
        if verdict.kind == "done":
            return self.end("done" if self._finished() else "stopped", "", 0)
        if verdict.kind == "superseded":
            return 1
        if verdict.kind == "wrong" and not self._progress.gained:
            return self.end("failed", verdict.reason, 2)
        if verdict.kind == "terminated" or signals.ending():
            return self._await_end(verdict)
        return self._again(verdict)

    def _finished(self) -> bool:
        return self._records.status.get("state") == "done"

    def _again(self, verdict: Verdict) -> int:
        """Requeue, or submit a successor where that is refused."""
        if self._site.fate() == "requeued":
            # This may even be the process of a node that SLURM has given up.
            log("SLURM has requeued the job already")
            return 1
        refusal = self._progress.refusal()
        if refusal:
            return self.end("failed", refusal, 1)
        excluded = self._exclude(verdict)
        following = self._next_in_chain()
        if following:
            if excluded:
                self._site.exclude(following, excluded)
            return self.end("stopped", f"{verdict.reason}; the next job of the chain goes on", 0)
        if self._records.state.get("state") == "cancelled":
            return self.end("cancelled", verdict.reason, 143)
        self._records.note(state="requeued", reason=verdict.reason)
        refused = self._site.requeue(excluded)
        if refused is None or self._site.fate() == "requeued":
            log("requeued")
            return 0
        return self._succeed(f"{verdict.reason}; no requeue ({refused})", excluded)

    def _succeed(self, reason: str, excluded: Sequence[str]) -> int:
        try:
            job = self._site.succeed(excluded)
        except (RefusedError, UnreachableError) as error:
            advice = f"go on with: python -m slurm requeue {quoting.word(str(self._records.run))}"
            return self.end("stopped", f"{reason}; no other job ({error}); {advice}", 1)
        log_file = str(self._submission.log(job))
        self._records.add_job(job, self._submission.number, "successor", log=log_file)
        self._records.note(state="requeued", reason=reason)
        log(f"job {job} goes on after this one: {reason}")
        return 0

    def _exclude(self, verdict: Verdict) -> list[str]:
        excluded = list(self._records.state.get("excluded", []))
        if self._submission.settings.exclude_lost_nodes:
            excluded += [node for node in verdict.nodes if node not in excluded]
            self._records.note(excluded=excluded)
        return excluded

    def _next_in_chain(self) -> str | None:
        """The job of this submission that waits for this one's end, if there is one."""
        own = [row["job"] for row in self._records.jobs() if row["kind"] in ("first", "chain")]
        if self._submission.chain == 1 or self._site.job not in own[:-1]:
            return None
        return str(own[own.index(self._site.job) + 1])

    def _await_end(self, verdict: Verdict) -> int:
        """Leave the job to SLURM, which is ending it; go on elsewhere if it cancels for others.

        In a preemption's grace only the ranks are told: whoever left then would end the job,
        and SLURM requeues none that has ended.
        """
        if self._settled is not None:
            return self._settled
        began = time.monotonic()
        fate = self._site.fate()
        while fate in PATIENCE_S and not signals.ending():
            if time.monotonic() - began > PATIENCE_S[fate]:
                break
            if fate == "grace":
                self._records.note(state="preempted", reason="in its grace; SLURM ends the job")
            time.sleep(1)
            fate = self._site.fate()
        time.sleep(0.5)
        fate = self._site.fate() if fate in ("grace", "running") else fate
        return self._settle(fate, verdict.reason, self._exclude(verdict))

    def foresee(self, start: Start) -> None:
        """At SIGTERM, while the ranks save: who is killed before they have saved has said all."""
        fate = self._site.fate()
        if fate not in ("grace", "running", "unknown") and not start.superseded:
            self._settled = self._settle(fate, "SIGTERM", self._records.state.get("excluded", []))

    def _settle(self, fate: Fate, reason: str, excluded: Sequence[str]) -> int:
        log(f"the job's fate: {fate}")
        if fate == "requeued":
            self._records.note(state="requeued", reason="by SLURM")
            return 143
        if fate == "preempted":
            if self._next_in_chain():
                return self.end("stopped", "preempted; the next job of the chain goes on", 143)
            self._succeed("cancelled at preemption", excluded)
            return 143
        if fate == "lost":
            if self._submission.settings.requeue:
                self._records.note(state="requeued", reason="by SLURM, which lost a node")
                return 143
            return self._succeed("a node was lost", excluded)
        if fate == "time limit":
            return self.end("stopped", "time limit", 143)
        if fate == "unknown":
            return self.end("stopped", reason, 143)
        return self.end("cancelled", reason, 143)

    def end(self, state: str, reason: str, code: int) -> int:
        """Note how the run stands, now that this job does nothing more for it."""
        self._records.note(state=state, reason=reason)
        log(f"{state}{': ' if reason else ''}{reason}")
        return code
