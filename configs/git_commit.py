"""Which commit the running code is of."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds our packages."""

COMMIT_FILE = "commit.txt"
"""Beside copied packages: the commit they were copied from."""


def git_commit(root: Path = ROOT) -> str | None:
    """The commit of the packages in ``root``, ``-dirty`` if they were changed; None if unknown.

    A copy names its commit in a file: it lies in no repository, or in one that moves on.
    """
    try:
        return (root / COMMIT_FILE).read_text(encoding="utf-8").strip() or None
    except OSError:
        pass
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
