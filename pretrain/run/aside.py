"""Renames a run directory, so that another run can begin there; nothing is ever deleted."""

from itertools import count
from pathlib import Path

from configs.errors import UserError
from pretrain.checkpoint import store
from pretrain.run.directory import RunDirectory
from pretrain.run.ownership import LAUNCHER, is_left_over


def move_aside(path: Path) -> Path | None:
    """Rename a run directory to the first free of PATH.1, PATH.2, ...; None if no run is there.

    Raises:
        UserError: where the run is live, where something else than a run is there, or where it
            cannot be renamed.
    """
    if path.is_symlink() and not path.exists():
        raise UserError(f"{path} is a link to nothing; remove it, or choose another run_dir")
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return None
    directory = RunDirectory(path)
    if not directory.config.is_file() and not store.committed(directory.checkpoints):
        # Remains of a start that was killed in its first moment need not be kept.
        if path.is_dir() and all(is_left_over(one) for one in path.iterdir()):
            return None
        raise UserError(f"--fresh moves runs only, and {path} holds none; choose another run_dir")
    if is_live(path):
        raise UserError(f"{path} is running; stop it first, or choose another run_dir")
    if (path / LAUNCHER).exists():
        raise UserError(
            f"{path} belongs to a job (see `python -m slurm status {path}`); cancel what waits, "
            f"and move it by hand: mv {path} {_free(path)}"
        )
    aside = _free(path)
    try:
        path.rename(aside)
    except OSError as error:
        raise UserError(f"cannot move {path} to {aside}: {error.strerror}") from error
    return aside


def is_live(path: Path) -> bool:
    """Whether a run may still be training."""
    return RunDirectory(path).read_status().get("state") == "running"


def _free(path: Path) -> Path:
    """The first free name of PATH.1, PATH.2, ..."""
    named = path.resolve() if path.name in ("", "..") else path
    names = (path.parent / f"{named.name}.{number}" for number in count(1))
    return next(name for name in names if not name.exists() and not name.is_symlink())
