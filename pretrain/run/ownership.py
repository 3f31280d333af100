"""Checks that a run directory is free, or belongs to the run that is about to start.

A start that was killed, or found the disk full, in its first moment leaves a directory that
is still free. A run is identified by its config.yaml, and where that is damaged or missing, by
the configuration in its newest checkpoint: the next start writes config.yaml anew. That
checkpoint also decides where a value in config.yaml was changed by hand.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import UserError
from configs.load import read_yaml
from pretrain.checkpoint import store
from pretrain.run import console

if TYPE_CHECKING:
    from pretrain.config import RunConfig

CONFIG = "config.yaml"

LAUNCHER = "slurm"
"""Records of the launcher, a folder that may exist before the run does."""

FILES = (CONFIG, ".config.yaml", "run.json", "status.json", "metrics.jsonl")
FOLDERS = ("checkpoints", "samples", "plots", "attempts")
BYSTANDERS = (".DS_Store", "lost+found")
"""Files that operating systems create; ``.nfs*``, files that are still open, are ignored too."""


def require(path: Path, config: "RunConfig") -> None:
    """UserError if the directory belongs to another run, or cannot be a run directory."""
    if not path.exists():
        return
    if not path.is_dir():
        raise UserError(f"run_dir {path} is a file; choose another run_dir")
    _require_kinds(path)
    recorded = _recorded(path)
    if recorded is None:
        strange = sorted(one.name for one in path.iterdir() if not is_left_over(one))
        if strange:
            raise UserError(
                f"{path} is not empty and holds no run ({strange[0]} is in it); "
                "choose another run_dir=PATH"
            )
        return
    from pretrain.config import differences

    found = differences(recorded, config)
    if not found:
        return
    saved, _ = _saved(path)
    if saved and not differences(saved[1], config):
        console.log_rank_zero(
            f"{path / CONFIG} was changed: {'; '.join(found)}; taking {saved[0]}'s"
        )
        return
    raise UserError(
        f"{path} belongs to another run:\n  "
        + "\n  ".join(found)
        + "\nchoose another run_dir=PATH, or the configuration the run began with"
    )


def _require_kinds(path: Path) -> None:
    """UserError where a directory is in the place of a file, or the other way round."""
    for name in FILES:
        if (path / name).exists() and not (path / name).is_file():
            raise UserError(f"{path / name} is no file, as a run keeps it there; move it away")
    for name in FOLDERS:
        if (path / name).exists() and not (path / name).is_dir():
            raise UserError(f"{path / name} is no directory, as a run keeps it; move it away")


def is_left_over(path: Path) -> bool:
    """Whether a file or folder may lie in a directory that is still free."""
    if path.name in (LAUNCHER, ".config.yaml", *BYSTANDERS) or path.name.startswith(".nfs"):
        return True
    return path.name in FOLDERS and not any(path.iterdir())


def _recorded(path: Path) -> "RunConfig | None":
    """The configuration of the run in a directory; None if there is none."""
    if not (path / CONFIG).exists():
        problem = "is missing"
    else:
        try:
            return _read_complete(path / CONFIG)
        except (ValueError, RecursionError) as error:
            problem = f"is empty, cut or damaged ({error})"
    saved, problems = _saved(path)
    if saved:
        console.log_rank_zero(
            f"{path / CONFIG} {problem}; taking the configuration of {saved[0]} for it"
        )
        return saved[1]
    if not (path / CONFIG).exists() and not problems:
        return None
    raise UserError(
        f"{path / CONFIG} {problem}, and no checkpoint identifies the run: write the run's "
        f"configuration there again, or move {path} away to begin anew"
    )


def _saved(path: Path) -> "tuple[tuple[Path, RunConfig] | None, list[str]]":
    """The newest sound checkpoint with its configuration, and what is wrong with newer ones."""
    newest, problems = store.open_newest(path / "checkpoints")
    if newest is None:
        return None, problems
    from pretrain.run.stored_config import stored_config

    config = stored_config(newest.state["config"], where=f"{newest.path}/state.json")
    return (newest.path, config), problems


def _read_complete(file: Path) -> "RunConfig":
    """The configuration in a file that a run wrote; ValueError if it ends too early."""
    from pretrain.run.stored_config import LAST_KEY, stored_config

    plain = read_yaml(file)
    if not file.read_bytes().endswith(b"\n") or LAST_KEY not in plain:
        raise ValueError("it ends too early")
    return stored_config(plain, where=str(file))
