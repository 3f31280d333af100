"""What was submitted: the settings, the words, and copies of code and configuration.

A requeued job imports what lies on disk then. So that it runs what was submitted, the
packages are copied into the run's directory, the configuration is stored resolved, and
jobs import and read these copies only.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.git_commit import COMMIT_FILE, ROOT, git_commit
from configs.json_files import read_json, write_json
from configs.load import to_plain, to_yaml
from slurm.records import Records
from slurm.settings import Settings, checked

PACKAGES = ("configs", "data_pipeline", "model", "pretrain", "slurm", "tools")
PATHS = ("path", "run", "code", "directory")
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", "pictures")


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One submission of one run.

    Args:
        path: where it is kept. run: the run's directory. number: of the run's submissions.
        words: what pretrain was asked for, as it was typed.
        layouts: for each number of nodes, as text, the ``parallel`` block to run there, or
            None where the run does not fit.
        steps: of the whole run. chain: jobs that were submitted in a row.
        code: the copied packages. directory: where it was submitted from.
    """

    path: Path
    run: Path
    number: int
    name: str
    settings: Settings
    words: tuple[str, ...]
    layouts: Mapping[str, Mapping[str, Any] | None]
    steps: int
    chain: int
    code: Path
    directory: Path

    @property
    def config(self) -> Path:
        """The resolved configuration of the run."""
        return self.path / "config.yaml"

    @property
    def script(self) -> Path:
        """A script that starts the run again: for successors, and by hand."""
        return self.path / "job.sbatch"

    @property
    def logs(self) -> Path:
        """What supervisors print, a file for each job."""
        return self.path / "logs"

    def log(self, job: str) -> Path:
        """The one of a job."""
        return self.logs / f"{job}.out"

    @property
    def imports(self) -> dict[str, str]:
        """Variables under which Python imports the copy, and nothing from where it stands."""
        return {"PYTHONPATH": str(self.code), "PYTHONSAFEPATH": "1"}

    @property
    def records(self) -> Records:
        """Of its run."""
        return Records(self.run)

    def save(self) -> None:
        """Write it down for the job."""
        facts = {**vars(self), "settings": to_plain(self.settings)}
        facts |= {name: str(facts[name]) for name in PATHS}
        write_json(self.path / "job.json", facts)


def load(path: Path) -> Submission:
    """The submission that was saved in a directory.

    Raises:
        UserError: there is none.
    """
    facts = read_json(path / "job.json")
    if not facts:
        raise UserError(f"{path} holds no submission; submit the run again")
    paths = {name: Path(facts[name]) for name in PATHS}
    settings = checked(facts["settings"], where=str(path / "job.json"))
    return Submission(**{**facts, **paths, "settings": settings, "words": tuple(facts["words"])})


def prepare(
    dry_run: Mapping[str, Any],
    settings: Settings,
    words: Sequence[str],
    *,
    chain: int = 1,
    code: Path | None = None,
) -> Submission:
    """Take down a run that has been checked.

    Args:
        dry_run: what pretrain's dry run says. code: a copy to share; by default one is made.
    """
    run = Path(dry_run["run_dir"]).resolve()
    records = Records(run)
    number = records.new_submission()
    path = records.submission(number)
    made = Submission(
        path=path,
        run=run,
        number=number,
        name=name_of(dry_run["run_dir"]),
        settings=settings,
        words=tuple(words),
        layouts=layouts(dry_run, settings),
        steps=int(dry_run["config"]["steps"]),
        chain=chain,
        code=code or copy_code(path / "code"),
        directory=Path.cwd(),
    )
    made.logs.mkdir()
    config = {**dry_run["config"], "run_dir": str(run)}
    made.config.write_text(to_yaml(config), encoding="utf-8")
    made.save()
    return made


def name_of(run_dir: str) -> str:
    """A run's name: what its directory is called, not what it may be a link to."""
    return Path(os.path.abspath(run_dir)).name


def layouts(dry_run: Mapping[str, Any], settings: Settings) -> dict[str, Mapping[str, Any] | None]:
    """By number of nodes: the layout to run there."""
    by_ranks = dry_run["layouts"]
    found: dict[str, Mapping[str, Any] | None] = {}
    for nodes in settings.node_counts:
        entry = by_ranks[str(nodes * settings.per_node)]
        found[str(nodes)] = entry["layout"] if settings.elastic or not entry["problem"] else None
    return found


def copy_code(target: Path) -> Path:
    """Our packages, copied."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, target / package, ignore=_LEFT_OUT)
    (target / COMMIT_FILE).write_text(git_commit() or "", encoding="utf-8")
    return target
