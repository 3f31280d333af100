"""Jobs whose printed script a user submitted with sbatch: the first start records the submission.

On a requeue the submission is found by the job's name, so that the job runs the copy made at
its first start, whatever has become of the checkout meanwhile.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from configs.errors import UserError
from slurm import settings as cluster
from slurm import submission as submissions
from slurm.commands import preflight
from slurm.job.rank_info import job_name
from slurm.records import Records
from slurm.script import write_script
from slurm.submission import Submission


def record_submission(
    records: Records, before: Sequence[str], words: Sequence[str], environ: Mapping[str, str]
) -> Submission:
    """The submission of this job, created at the job's first start.

    Args:
        before: the cluster file and its settings, before ``--`` on the command line. words: the
            run's configuration files and settings, after it.

    Raises:
        UserError: the words name another run directory than ``records``.
    """
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
    made.records.update_state(state="submitted", reason="", submission=made.number, count_from=0)
    made.records.add_job(job, made.number, "first")
    return made
