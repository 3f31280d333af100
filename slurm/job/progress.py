"""Whether starting a run again makes sense: it does while it gains steps.

Not the number of restarts is bounded but that of starts in a row that saved nothing new, so
that a run may be preempted for months, and one that fails at once is not requeued for ever.
A failure of the run's own at the same step twice will not go away by itself either.
"""

from configs.json_files import read_json
from slurm.records import Records, Start
from slurm.submission import Submission


class Progress:
    """What the former starts of a submission came to."""

    def __init__(self, records: Records, submission: Submission) -> None:
        self._records, self._submission = records, submission

    def refusal(self) -> str | None:
        """Why there should be no further start; None if there should."""
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
    def gained(self) -> bool:
        """Whether these starts have saved anything: then input was right once."""
        starts = self._starts()
        return bool(starts) and self._records.saved_step() > int(starts[0].facts.get("step", 0))

    def _starts(self) -> list[Start]:
        """Those of this submission since somebody last asked for one by hand."""
        since = int(self._records.state.get("count_from", 0))
        return [
            start
            for start in self._records.starts()
            if start.number > since and start.facts.get("submission") == self._submission.number
        ]
