"""Submission records: settings, words, and copies of the code and the configuration.

A requeued job would import whatever code is on disk by then. So the packages are copied into
the run's directory, the configuration is stored resolved, and jobs import and read only these
copies.
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
    """One submission of a run; ``job.json`` holds it.

    Args:
        path: its directory. run: the run's directory. number: among the run's submissions.
        words: configuration files and settings of the run, as they were typed.
        layouts: for each number of nodes, as text, the ``parallel`` block to run with, or
            None where the run does not fit.
        steps: total steps of the run. chain: number of jobs that were submitted in a row.
        code: the folder of the copied packages. directory: where it was submitted from.
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
        """File with the resolved configuration of the run."""
        return self.path / "config.yaml"

    @property
    def script(self) -> Path:
        """The job script, with which the run can be started again."""
        return self.path / "job.sbatch"

    @property
    def logs(self) -> Path:
        """Folder of the supervisors' logs, one file for each job."""
        return self.path / "logs"

    def log(self, job: str) -> Path:
        """Log of a job's supervisor."""
        return self.logs / f"{job}.out"

    @property
    def imports(self) -> dict[str, str]:
        """Environment variables that make Python import the copy, and not the current directory."""
        return {"PYTHONPATH": str(self.code), "PYTHONSAFEPATH": "1"}

    @property
    def records(self) -> Records:
        """Records of its run."""
        return Records(self.run)

    def save(self) -> None:
        """Write ``job.json``."""
        facts = {**vars(self), "settings": to_plain(self.settings)}
        facts |= {name: str(facts[name]) for name in PATHS}
        write_json(self.path / "job.json", facts)


def load(path: Path) -> Submission:
    """Load a submission from its directory.

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
    """Create and save a submission of a run that has been checked.

    Args:
        dry_run: output of pretrain's dry run. chain: number of jobs. code: copied packages to
            share with another submission; by default they are copied.
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
    """A run's name: that of its directory, links not followed."""
    return Path(os.path.abspath(run_dir)).name


def layouts(dry_run: Mapping[str, Any], settings: Settings) -> dict[str, Mapping[str, Any] | None]:
    """The parallel layout for each number of nodes; None where the run does not fit."""
    by_ranks = dry_run["layouts"]
    found: dict[str, Mapping[str, Any] | None] = {}
    for nodes in settings.node_counts:
        entry = by_ranks[str(nodes * settings.per_node)]
        found[str(nodes)] = entry["layout"] if settings.elastic or not entry["problem"] else None
    return found


def copy_code(target: Path) -> Path:
    """Copy our packages, with the commit in a file beside them."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, target / package, ignore=_LEFT_OUT)
    (target / COMMIT_FILE).write_text(git_commit() or "", encoding="utf-8")
    return target
