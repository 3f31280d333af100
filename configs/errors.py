"""The one exception that means: the user can mend this.

Programs print its message without a traceback and end with status 2. The message
says what is wrong and what to do about it.
"""


class UserError(ValueError):
    """Input, configuration or environment that the user has to change."""
