"""Jobs whose script people submitted themselves: their first start takes the run down.

On a requeue the submission is found by the job's name, so that what runs is what ran
first, whatever has become of the checkout meanwhile.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from configs.errors import UserError
from slurm import settings as cluster
from slurm import submission as submissions
from slurm.commands import preflight
from slurm.job.task import job_name
from slurm.records import Records
from slurm.submission import Submission
from slurm.submit import write_script


def adopt(
    records: Records, before: Sequence[str], words: Sequence[str], environ: Mapping[str, str]
) -> Submission:
    """The submission of this job, made now if this is its first start."""
    job = job_name(environ)
    for row in records.jobs():
        if row["job"] == job:
            return submissions.load(records.submission(row["submission"]))
    settings = cluster.load(Path(before[0]), before[1:])
    found = preflight.dry_run(settings, words)
    if Path(found["run_dir"]).resolve() != records.run:
        raise UserError(
            f"the script says --run={records.run}, and its words {found['run_dir']}: a requeue "
            "finds the run by --run; change both, or print the script anew"
        )
    made = submissions.prepare(found, settings, words)
    write_script(made)
    made.records.note(state="submitted", reason="", submission=made.number, count_from=0)
    made.records.add_job(job, made.number, "first")
    return made
