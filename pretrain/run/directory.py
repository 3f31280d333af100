"""Layout of a run directory: resolved config, status, metrics, checkpoints, provenance.

config.yaml     the resolved configuration      run.json      code, packages, hardware
status.json     state, step, attempt, reason    metrics.jsonl one row per logged step
checkpoints/    samples/    plots/              attempts/     one file for each start
slurm/          what a launcher keeps here, if one started the run
"""

import contextlib
import importlib.metadata
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from configs.disk import flush
from configs.git_commit import git_commit
from configs.json_files import write_json
from configs.load import to_yaml
from configs.numbered_files import claim
from configs.run_files import DIED, RUNNING, read_status, this_process
from pretrain.checkpoint import store
from pretrain.run import ownership

if TYPE_CHECKING:
    from pretrain.config import RunConfig

State = Literal["running", "stopped", "done", "failed"]

PACKAGES = ("torch", "deepspeed", "megatron-core", "datasets", "sentencepiece", "numpy")


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / ownership.CONFIG

    @property
    def metrics(self) -> Path:
        """One JSON row per logged step."""
        return self.path / "metrics.jsonl"

    @property
    def status(self) -> Path:
        """State, step, attempt and reason of the run."""
        return self.path / "status.json"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints, one directory each."""
        return self.path / "checkpoints"

    def check(self, config: "RunConfig") -> None:
        """UserError if the directory belongs to another run, or cannot be a run directory."""
        ownership.require(self.path, config)

    def begin(self, config: "RunConfig") -> int:
        """Make the directory if it is new and record this start; return the attempt's number.

        config.yaml comes first, and whole: from then on the directory is the run's.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        aside = self.config.with_name(".config.yaml")
        store.write(aside, to_yaml(config))
        aside.replace(self.config)
        flush(self.path)
        for name in ownership.FOLDERS:
            (self.path / name).mkdir(exist_ok=True)
        attempt = self._next_attempt()
        write_json(self.path / "run.json", provenance())
        return attempt

    def _next_attempt(self) -> int:
        """Create this start's file in ``attempts/``; its number belongs to no other start."""
        return claim(
            self.path / "attempts",
            lambda file: file.touch(exist_ok=False),
            above=store.newest_attempt(self.checkpoints),
        )

    def superseded(self, attempt: int) -> bool:
        """Whether a newer attempt has begun, so that this one may not write any more."""
        return (self.path / "attempts" / str(attempt + 1)).exists()

    def read_status(self) -> dict[str, Any]:
        """See :func:`configs.run_files.read_status`."""
        return read_status(self.path)

    def last_start(self) -> str | None:
        """A line about the previous start where it did not end normally; else None."""
        status = self.read_status()
        if status.get("state") == DIED:
            return f"the last start ended at step {status.get('step')} or later: {status['reason']}"
        if status.get("state") == RUNNING:
            process = status.get("process") or {}
            who = f"process {process.get('pid')} on {process.get('host')}"
            return f"another start of this run lives ({who}); it leaves now, this one goes on"
        return None

    def bury(self, reason: str) -> None:
        """Write status ``failed`` where the processes are gone without having written any."""
        status = self.read_status()
        if status.get("state") == DIED:
            with contextlib.suppress(OSError):
                step, attempt = status.get("step"), status.get("attempt")
                self.write_status("failed", step or 0, attempt or 0, reason)

    def write_status(self, state: State, step: int, attempt: int, reason: str) -> None:
        """Write status.json, unless a newer attempt has begun."""
        if self.superseded(attempt):
            return
        row = {"state": state, "step": step, "attempt": attempt, "reason": reason}
        when = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "process": this_process()}
        write_json(self.status, {**row, **when})


def run_path(config: "RunConfig", files: Sequence[Path]) -> Path:
    """``run_dir``, or runs/<name of the last configuration file>."""
    return Path(config.run_dir) if config.run_dir else Path("runs") / files[-1].stem


def provenance() -> dict[str, Any]:
    """Code, packages and hardware, on which results depend besides the configuration."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "gpus": gpus,
    }
