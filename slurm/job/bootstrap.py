"""``python -m slurm.job.bootstrap DIRECTORY -m MODULE ...``: note signals, then run MODULE.

submitit's own entry point takes a while to import on a cold file system. Without this, user
signals would be ignored and a SIGTERM would end the job unseen until it has handed over. MODULE
runs in DIRECTORY, where submitit finds its files.
"""

from slurm.job import signals

if __name__ == "__main__":
    signals.install()

import os
import runpy
import sys
from collections.abc import Sequence

BEGAN = "PALIMPSEST_DIRECTORY"
"""Environment variable: the directory in which the job began."""


def main(argv: Sequence[str]) -> None:
    """Run what comes after ``-m`` as Python would; switches before it are passed over."""
    os.environ[BEGAN] = os.getcwd()
    os.chdir(argv[0])
    module, *arguments = argv[argv.index("-m") + 1 :]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
