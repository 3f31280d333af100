"""``python -m slurm.job.first DIRECTORY -m MODULE ...``: no signal is lost while MODULE imports.

submitit's own entry takes a while to import on a cold file system, and until it has handed
over, user signals would be ignored and a SIGTERM would end the job without a word. It finds its
files in the directory; where the job began stands in a variable.
"""

from slurm.job import signals

if __name__ == "__main__":
    signals.note()

import os
import runpy
import sys
from collections.abc import Sequence

BEGAN = "PALIMPSEST_DIRECTORY"
"""Variable: the directory in which a job began."""


def main(argv: Sequence[str]) -> None:
    """Run what comes after ``-m`` as Python would; switches before it are passed over."""
    os.environ[BEGAN] = os.getcwd()
    os.chdir(argv[0])
    module, *arguments = argv[argv.index("-m") + 1 :]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
