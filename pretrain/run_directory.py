"""A run directory: where it is, whose it is, how it stands, and the facts of its start.

config.yaml     the resolved configuration      run.json      code, packages, hardware
status.json     state, step, attempt, reason    metrics.jsonl one row per logged step
checkpoints/    samples/    plots/              attempts/     one file for each start
slurm/          what a launcher keeps here, if one started the run
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from configs.errors import UserError
from configs.load import read_yaml, to_yaml
from pretrain.config import RunConfig, differences
from pretrain.stored import stored_config

State = Literal["running", "stopped", "done", "failed"]

LAUNCHER = "slurm"
"""A folder that may be there before the run is: its launcher's own records."""

PACKAGES = ("torch", "deepspeed", "megatron-core", "datasets", "sentencepiece", "numpy")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` whole or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    aside.replace(path)


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON row per logged step."""
        return self.path / "metrics.jsonl"

    @property
    def status(self) -> Path:
        """How the run stands."""
        return self.path / "status.json"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints, one directory each."""
        return self.path / "checkpoints"

    def check(self, config: RunConfig) -> None:
        """UserError if the directory belongs to another run, or cannot be a run directory."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"run_dir {self.path} is a file; choose another run_dir")
        if not self.config.exists():
            if self.path.exists() and any(p.name != LAUNCHER for p in self.path.iterdir()):
                raise UserError(
                    f"{self.path} is not empty and holds no run; choose another run_dir=PATH"
                )
            return
        found = differences(stored_config(read_yaml(self.config), str(self.config)), config)
        if found:
            raise UserError(
                f"{self.path} belongs to another run:\n  "
                + "\n  ".join(found)
                + "\nchoose another run_dir=PATH, or the configuration the run began with"
            )

    def begin(self, config: RunConfig) -> int:
        """Make the directory if it is new and record this start; return the attempt's number."""
        for name in ("checkpoints", "samples", "plots"):
            (self.path / name).mkdir(parents=True, exist_ok=True)
        aside = self.config.with_name(".config.yaml")
        aside.write_text(to_yaml(config), encoding="utf-8")
        aside.replace(self.config)
        attempt = self._next_attempt()
        write_json(self.path / "run.json", facts())
        return attempt

    def _next_attempt(self) -> int:
        """The number of this start, which no other start can have: it makes a file of that name."""
        attempts = self.path / "attempts"
        attempts.mkdir(exist_ok=True)
        number = 1 + max((int(file.name) for file in attempts.iterdir()), default=0)
        while True:
            try:
                (attempts / str(number)).touch(exist_ok=False)
            except FileExistsError:
                number += 1
            else:
                return number

    def superseded(self, attempt: int) -> bool:
        """Whether a newer attempt has begun: this one may publish nothing any more."""
        return (self.path / "attempts" / str(attempt + 1)).exists()

    def read_status(self) -> dict[str, Any]:
        """The contents of status.json; empty if there is none."""
        try:
            status = json.loads(self.status.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return status if isinstance(status, dict) else {}

    def write_status(self, state: State, step: int, attempt: int, reason: str) -> None:
        """Say how the run stands; an attempt that is not the newest has no say."""
        if self.superseded(attempt):
            return
        row = {"state": state, "step": step, "attempt": attempt, "reason": reason}
        write_json(self.status, {**row, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")})


def run_path(config: RunConfig, files: Sequence[Path]) -> Path:
    """``run_dir``, or runs/<name of the last configuration file>."""
    return Path(config.run_dir) if config.run_dir else Path("runs") / files[-1].stem


def facts() -> dict[str, Any]:
    """What a result depends on besides its configuration: code, packages, hardware."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "gpus": gpus,
    }


COMMIT = "commit.txt"
"""Beside copied packages: the commit they were copied from, as :func:`git_commit` says it."""


def git_commit() -> str | None:
    """The commit of this code, and whether it was changed; None where that is not known."""
    here = Path(__file__).resolve().parent
    with contextlib.suppress(OSError):
        return (here.parent / COMMIT).read_text(encoding="utf-8").strip() or None
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
