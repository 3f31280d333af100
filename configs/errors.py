"""The one exception that means: the user can mend this.

Programs print its message without a traceback and end with status 2. The message
says what is wrong and what to do about it.
"""


class UserError(ValueError):
    """Input, configuration or environment that the user has to change."""


class RunError(RuntimeError):
    """A run that cannot go on, for a reason that says it all: one line, exit status 1."""
