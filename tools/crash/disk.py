"""A small disk of its own, which can fill up and turn read-only while it is used."""

import os
import subprocess
import time
from pathlib import Path
from typing import Self

from configs.errors import UserError

PAGE = 4096
"""Bytes that a tmpfs allocates at a time."""


class SmallDisk:
    """A tmpfs at a directory, for as long as the context lasts; mounting takes root."""

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size = path, size

    def __enter__(self) -> Self:
        self._path.mkdir(parents=True, exist_ok=True)
        error = self._mount("-t", "tmpfs", "-o", f"size={self._size}", "palimpsest")
        if error:
            raise UserError(
                f"no small disk can be mounted ({error}): run as root, or leave the disks that "
                "fail out with --no-faults"
            )
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        subprocess.run(["umount", "--lazy", str(self._path)], check=False)

    def resize(self, size: int) -> None:
        """Change its size to ``size`` bytes, as soon as no more are in use."""
        self._remount(f"size={-(-size // PAGE) * PAGE}")

    def fill(self) -> None:
        """No room for anything more."""
        deadline = time.monotonic() + 30
        while self._mount("-o", f"remount,size={self.used}"):
            assert time.monotonic() < deadline, "the disk is never as full as it just was"

    def read_only(self, on: bool) -> None:
        """Read-only, as soon as no file is open for writing; or writable again."""
        self._remount("ro" if on else "rw")

    @property
    def used(self) -> int:
        """Bytes in use."""
        found = os.statvfs(self._path)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def _remount(self, option: str) -> None:
        deadline = time.monotonic() + 60
        while error := self._mount("-o", f"remount,{option}"):
            assert time.monotonic() < deadline, error

    def _mount(self, *options: str) -> str:
        """The error of ``mount``, empty if there is none."""
        command = ["mount", *options, str(self._path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            return str(error)
        return done.stderr.strip() or "mount failed" if done.returncode else ""
