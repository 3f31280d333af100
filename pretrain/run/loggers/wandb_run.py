"""Weights & Biases: one wandb run for one run directory, however often it is started again.

Its id is drawn once and kept in RUN/wandb.json, since names of directories are not unique and may
contain characters that ids may not. The file also holds the last step that was logged: rows up to
it, which a start from an earlier checkpoint produces again, are not logged twice, unless the
server reports that it lacks them. Offline, every start leaves a directory of its own below
RUN/wandb, all with the same id. The last rows of a start that was killed never reach its
directory: the next start renames that one and logs its rows again, from metrics.jsonl.
"""

import json
import threading
import uuid
from pathlib import Path
from typing import Any

from configs.json_files import write_json
from pretrain.run.loggers.logger import Opening
from pretrain.run.metrics import Row

CLOSE_S = 60.0
"""Seconds that sending the last rows may take."""
MOST_NAME = 128
"""Characters of a name at most."""
NONE_ENDED: dict[str, Any] = {"whole": 0, "ended": []}
"""Last step logged by starts that ended normally (``whole``), and their directories."""


class WandbRun:
    """The wandb run of a run directory."""

    def __init__(self, opening: Opening) -> None:
        import wandb

        mode = opening.config["wandb"]["mode"]
        self._kept = opening.directory / "wandb.json"
        self._facts = self._read() or {"id": uuid.uuid4().hex[:16], "step": 0, **NONE_ENDED}
        repeats = self._set_aside()
        self._before = int(self._facts["whole" if repeats else "step"])
        self._keep(self._before)
        self._run: Any = wandb.init(
            project=opening.config["wandb"]["project"],
            name=name(opening.directory),
            id=self._facts["id"],
            dir=str(opening.directory),
            mode=mode,
            config=dict(opening.config),
            resume="allow" if mode == "online" else None,
            settings=wandb.Settings(silent=True, init_timeout=30, console="off"),
        )
        # The server lacks rows that a machine had not sent when it died.
        begins = getattr(self._run, "starting_step", None)
        if mode == "online" and begins is not None:
            self._before = min(self._before, begins - 1)
        for row in opening.rows() if repeats else ():
            self.write(row)

    def write(self, row: Row) -> None:
        """Log one row at its step."""
        step = row["step"]
        if step <= self._before:
            return
        self._run.log({key: value for key, value in row.items() if key != "step"}, step)
        if step != self._facts["step"]:
            self._keep(step)

    def close(self) -> None:
        """Finish the wandb run.

        Raises:
            TimeoutError: rows could not be sent in time; they stay on the disk.
        """
        finishing = threading.Thread(target=self._run.finish, daemon=True)
        finishing.start()
        finishing.join(CLOSE_S)
        if finishing.is_alive():
            raise TimeoutError(f"its last rows are not sent after {CLOSE_S:.0f} s; wandb sync them")
        self._facts["whole"] = self._facts["step"]
        self._facts["ended"] = [place.name for place in self._places()]
        self._keep(self._facts["step"])

    def _places(self) -> list[Path]:
        """Directories of offline starts."""
        return sorted((self._kept.parent / "wandb").glob(f"offline-run-*-{self._facts['id']}"))

    def _set_aside(self) -> bool:
        """Rename the directories of starts that were killed; returns whether there were any.

        Directories that have been synced already stay.
        """
        cut = [place for place in self._places() if place.name not in self._facts["ended"]]
        cut = [place for place in cut if not list(place.glob("*.synced"))]
        for place in cut:
            place.rename(place.with_name(f"cut-{place.name}"))
        return bool(cut)

    def _read(self) -> dict[str, Any]:
        """Id and step of earlier starts; empty at the first start.

        Raises:
            ValueError: they cannot be read; another id would begin a second wandb run.
        """
        try:
            found = json.loads(self._kept.read_text(encoding="utf-8"))
            facts = {"id": str(found["id"]), "step": int(found["step"])}
            return {**NONE_ENDED, **found, **facts}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError) as error:
            text = (
                f'{self._kept} is damaged: write {{"id": ID, "step": STEP}} into it, or remove it'
            )
            raise ValueError(f"{text} for a new wandb run") from error

    def _keep(self, step: int) -> None:
        self._facts["step"] = step
        write_json(self._kept, self._facts)


def name(directory: Path) -> str:
    """Display name: the run directory and its parent, unless that is just ``runs``."""
    parts = [part for part in directory.absolute().parts[-2:] if part != "runs"]
    return "/".join(parts)[-MOST_NAME:]
