"""Messages on standard error, none of which can end a run.

A terminal is closed, ``| head`` has read enough, the disk of a log file is full, a launcher
closes standard error: training goes on silently. Every process of a run calls
:func:`survive` in its first lines; from then on no write to standard output or standard
error raises, whichever code makes it. All messages of a run go through :func:`log`.
"""

import atexit
import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO, cast

_GONE = (errno.EPIPE, errno.EIO, errno.EBADF)
"""Errors of a stream that has no reader any more."""


class Undying(io.TextIOBase):
    """A text stream that ignores errors of writing to it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text; errors are ignored."""
        self._try(lambda: self._stream.write(self._encodable(text)))
        return len(text)

    def flush(self) -> None:
        """Flush the stream; errors are ignored."""
        self._try(self._stream.flush)

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        with contextlib.suppress(OSError, ValueError):
            return self._stream.isatty()
        return False

    def fileno(self) -> int:
        """The descriptor of the stream; OSError where it has none."""
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream."""
        return self._stream.encoding

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _encodable(self, text: str) -> str:
        """The text, with escapes for characters that the stream cannot encode."""
        name = getattr(self._stream, "encoding", None) or "utf-8"
        return text.encode(name, "backslashreplace").decode(name)

    def leave(self) -> None:
        """Flush at exit; Python would end with status 120 where its own flush failed."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._let_go()

    def _try(self, action: Any) -> None:
        try:
            action()
        except OSError as error:
            if error.errno in _GONE:
                self._let_go()
        except ValueError:  # it is closed
            pass

    def _let_go(self) -> None:
        """Send what is buffered, and all later output, to /dev/null."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def stderr() -> TextIO:
    """The present standard error, such that no write to it raises."""
    return _undying(sys.stderr)


_write_above: Callable[[str], None] | None = None


def log(text: str) -> None:
    """Print a line on standard error, above the live progress line where there is one."""
    if _write_above is not None:
        _write_above(text)
    else:
        print(text, file=stderr(), flush=True)


def log_rank_zero(text: str) -> None:
    """:func:`log` on rank 0 of the processes that a launcher started, and without a launcher."""
    if os.environ.get("RANK", "0") == "0":
        log(text)


def live_line(write_above: Callable[[str], None] | None) -> None:
    """Let :func:`log` print by ``write_above`` while a progress line is live; None ends that."""
    global _write_above
    _write_above = write_above


def survive() -> None:
    """Replace this process's standard streams by ones to which no write raises.

    A descriptor that is closed is opened on /dev/null: otherwise libraries would take the next
    file that is opened for standard error.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != descriptor:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
            os.set_inheritable(descriptor, True)
    sys.stdout, sys.stderr = _undying(sys.stdout), _undying(sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        atexit.register(cast(Undying, stream).leave)


def _undying(stream: TextIO | None) -> TextIO:
    """Python has no stream where the descriptor was closed at its start."""
    if isinstance(stream, Undying):
        return cast(TextIO, stream)
    return cast(TextIO, Undying(stream or open(os.devnull, "w", encoding="utf-8")))
