"""Exit statuses: how a process reports to a shell, to its launcher and to SLURM's supervisor.

``slurm.job`` decides by them whether a job starts again: never after WRONG_INPUT, always after
STOPPED, and a bounded number of times without progress after FAILED and HUNG.
"""

FAILED = 1
"""An error that is not the user's; Python's own status after an uncaught exception."""

WRONG_INPUT = 2
"""A :class:`configs.errors.UserError`; argparse's own status too."""

HUNG = 70
"""A rank that its watchdog ended (EX_SOFTWARE)."""

STOPPED = 75
"""A run that saved and left on request, and can be resumed (EX_TEMPFAIL)."""

SUPERSEDED = 76
"""A SLURM task that left because a newer start of its run has begun."""

INTERRUPTED = 130
"""Ended by SIGINT, as a shell reports it."""
