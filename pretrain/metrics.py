"""Metrics: one JSON row per logged step, and Weights & Biases beside it if it is wanted.

Names are ``group/name_unit``. Rows are written whole, in the order of the steps; when a
run resumes, the rows after the checkpoint's step are dropped first, so that no step is
repeated or missing. Nothing that wandb does can stop a run.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pretrain.config import RunConfig

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """The rows of a metrics file; a last line cut short by a crash is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


class Metrics:
    """The metrics file of a run, opened at the step that it resumes from."""

    def __init__(self, path: Path, resumed_step: int) -> None:
        kept = [row for row in read_rows(path) if row["step"] <= resumed_step]
        aside = path.with_name(f".{path.name}")
        aside.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        aside.replace(path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, row: Row) -> None:
        """Append one row; it is in the file when this returns."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Wandb:
    """A wandb run, or nothing where it is disabled, missing or failing."""

    def __init__(self, config: RunConfig, directory: Path, plain_config: Mapping[str, Any]) -> None:
        self._run: Any = None
        self.note = ""
        if config.wandb.mode == "disabled":
            return
        try:
            import wandb

            self._run = wandb.init(
                project=config.wandb.project,
                name=directory.name,
                id=directory.name,
                dir=str(directory),
                mode=config.wandb.mode,
                config=dict(plain_config),
                resume="allow" if config.wandb.mode == "online" else None,
                settings=wandb.Settings(silent=True, init_timeout=30, console="off"),
            )
        except Exception as error:
            self.note = f"wandb is off: {type(error).__name__}: {error}"

    def write(self, row: Row) -> None:
        """Log one row at its step."""
        self._safely(
            lambda: self._run.log({k: v for k, v in row.items() if k != "step"}, row["step"])
        )

    def close(self) -> None:
        """Finish the wandb run."""
        self._safely(lambda: self._run.finish())

    def _safely(self, action: Any) -> None:
        if self._run is None:
            return
        try:
            action()
        except Exception as error:
            self._run = None
            self.note = f"wandb is off: {type(error).__name__}: {error}"
