"""What is printed for people to read, which may fail and must not end a run.

A terminal is closed, ``| head`` has seen enough, the disk of a log file is full, a launcher
closes standard error: training goes on without a word. Every process of a run calls
:func:`survive` in its first lines; from then on no write to standard output or standard
error raises, whoever makes it.
"""

import atexit
import contextlib
import errno
import io
import os
import sys
from typing import Any, TextIO, cast

_GONE = (errno.EPIPE, errno.EIO, errno.EBADF)
"""What the system says once nobody can read any more."""


class Undying(io.TextIOBase):
    """A text stream whose failures are nobody's business."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, if it can be."""
        self._try(lambda: self._stream.write(self._spelt(text)))
        return len(text)

    def flush(self) -> None:
        """Flush, if it can be."""
        self._try(self._stream.flush)

    def isatty(self) -> bool:
        """Whether somebody looks at it."""
        with contextlib.suppress(OSError, ValueError):
            return self._stream.isatty()
        return False

    def fileno(self) -> int:
        """The descriptor of the stream; OSError where it has none."""
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream."""
        return self._stream.encoding

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _spelt(self, text: str) -> str:
        """The text in the letters that the stream has."""
        name = getattr(self._stream, "encoding", None) or "utf-8"
        return text.encode(name, "backslashreplace").decode(name)

    def leave(self) -> None:
        """Before the process ends, when what cannot be flushed would make its status 120."""
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
        """What is still buffered, and all that comes, goes nowhere."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def stderr() -> TextIO:
    """Standard error as it is now, such that no write to it raises."""
    return _undying(sys.stderr)


def log(text: str) -> None:
    """A line for the user, on standard error."""
    print(text, file=stderr(), flush=True)


def say_once(text: str) -> None:
    """The same, by the one of all processes that a launcher started."""
    if os.environ.get("RANK", "0") == "0":
        log(text)


def survive() -> None:
    """Make this process's standard streams such that no write to them raises.

    A descriptor that is closed is opened on /dev/null: the next file to be opened would
    otherwise be what libraries take for standard error.
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
