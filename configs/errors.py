"""The one exception that means: the user can mend this.

Programs print its message without a traceback and end with status 2. The message
says what is wrong and what to do about it.
"""


class UserError(ValueError):
    """Input, configuration or environment that the user has to change."""


def in_words(error: Exception) -> str:
    """What an error says to a user; of the system's own, which file and what was wrong with it."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


class RunError(RuntimeError):
    """A run that cannot go on, for a reason that says it all: one line, exit status 1."""
