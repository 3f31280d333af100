"""Errors that end a program with one line, and the exit status that they become.

:class:`UserError` is for what the user can change, :class:`RunError` for a run that cannot go
on. :func:`exit_code` turns both into a message without a traceback and a status of
:mod:`configs.exit_codes`; every entry point of the project calls it.
"""

import io
import os
import sys
from collections.abc import Callable

from configs.exit_codes import FAILED, INTERRUPTED, WRONG_INPUT


class UserError(ValueError):
    """Input, configuration or environment that the user has to change: exit status 2.

    The message says what is wrong and what to do about it.
    """


class RunError(RuntimeError):
    """A run that cannot go on, for a reason that its one line explains: exit status 1."""


def in_words(error: Exception) -> str:
    """An exception's message; for the system's own errors, the file and what is wrong with it."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def log_to_stderr(line: str) -> None:
    """Print a line to standard error at once."""
    print(line, file=sys.stderr, flush=True)


def exit_code(
    command: Callable[[], int],
    *,
    log: Callable[[str], None] = log_to_stderr,
    log_user_error: Callable[[str], None] | None = None,
    interrupted: str | None = None,
    user_errors: tuple[type[Exception], ...] = (UserError, OSError),
) -> int:
    """Run a command; log UserError or RunError as one line; return the exit status.

    Args:
        log: receives the line ``error: MESSAGE``. log_user_error: the same for errors of the
            user, which all ranks of a launcher may share; ``log`` by default.
        interrupted: the message after Ctrl-C, if there is one.
        user_errors: exceptions with status 2. A job leaves OSError out: a file system may
            recover, and status 2 ends a run for good.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A path need not be valid text, and a terminal may lack letters of a valid one.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return command()
    except user_errors as error:
        if isinstance(error, BrokenPipeError):
            # The reader has left, as `head` does; the rest cannot be flushed to it either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        (log_user_error or log)(f"error: {in_words(error)}")
        return WRONG_INPUT
    except RunError as error:
        log(f"error: {error}")
        return FAILED
    except KeyboardInterrupt:
        if interrupted:
            log(interrupted)
        return INTERRUPTED
