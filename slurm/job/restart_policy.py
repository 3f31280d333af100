"""Restart policy: a run starts again while it gains steps.

The number of restarts has no bound, the number of consecutive starts that saved nothing new
has: a run may be preempted for months, and one that fails at once is not requeued for ever.
Two failures of the run itself at the same step end it too.
"""

from configs.json_files import read_json
from slurm.records import Records, Start
from slurm.submission import Submission


class RestartPolicy:
    """Decides by the earlier starts of a submission whether there is another one."""

    def __init__(self, records: Records, submission: Submission) -> None:
        self._records, self._submission = records, submission

    def refusal(self) -> str | None:
        """Why there should be no further start; None if there should be one."""
        starts = self._starts()
        ends = [read_json(start.outcome) for start in starts]
        failures = [end for end in ends[-2:] if end.get("kind") in ("failed", "wrong")]
        if len(failures) == 2 and failures[0]["reached"] == failures[1]["reached"]:
            return f"failed twice at step {failures[1]['reached']}: {failures[1]['reason']}"
        step, useless = self._records.saved_step(), 0
        for start in reversed(starts):
            if start.facts.get("step") != step:
                break
            useless += 1
        if useless >= self._submission.settings.max_restarts:
            last = ends[-1].get("reason", "")
            return f"{useless} starts in a row did not get beyond step {step}; the last: {last}"
        return None

    @property
    def has_saved(self) -> bool:
        """Whether these starts have saved a step, so that the run's input was right once."""
        starts = self._starts()
        return bool(starts) and self._records.saved_step() > int(starts[0].facts.get("step", 0))

    def _starts(self) -> list[Start]:
        """Starts of this submission since the last submit or requeue by hand."""
        since = int(self._records.state.get("count_from", 0))
        return [
            start
            for start in self._records.starts()
            if start.number > since and start.facts.get("submission") == self._submission.number
        ]
