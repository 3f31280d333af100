"""MAUVE (Pillutla et al. 2021, equation 3): how near the distribution of samples is to real text.

Features of both sets of texts are put into buckets together, and MAUVE is the area under the curve
of the two histograms' divergences from their mixtures: 1 where they are alike, near 0 where they
share nothing. mauve-text computes it. That is under the GPL, and so it is a program here and no
library: the Python of an environment that has it is started with files of features, and answers
with a file.
"""

import json
import math
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from configs.errors import UserError

FEW = 1000
"""Fewer texts than this give a number that depends on how many they are."""

INSTALL = (
    "give it an environment of its own: `python -m venv mauve-env && mauve-env/bin/pip install "
    "mauve-text`, then `--mauve mauve-env/bin/python`"
)

PROGRAM = """
import json, sys
import numpy
from mauve import compute_mauve

out, seed, reference, *others = sys.argv[1:]
q = numpy.load(reference)
seed = int(seed) % 2**30  # faiss counts in 32 bits
found = [compute_mauve(p_features=numpy.load(p), q_features=q, seed=seed) for p in others]
with open(out, "w") as file:
    json.dump([float(one.mauve) for one in found], file)
"""
"""What the other Python runs: the arguments are a file for the answer, a seed, and features."""


def check_mauve(python: str) -> None:
    """UserError unless this Python has mauve-text."""
    _run(python, "import mauve")


def mauve(
    python: str, reference_ND: np.ndarray, others: Sequence[np.ndarray], *, seed: int
) -> list[float | None]:
    """MAUVE of each of several sets of texts against one.

    Args:
        python: of an environment with mauve-text.
        reference_ND: a row of features for each text; ``others`` likewise.
        seed: of the clustering.

    Returns:
        A number in [0, 1] for each; None where there is none, as of texts that are all alike.

    Raises:
        UserError: the program is missing, or fails.
    """
    with TemporaryDirectory(prefix="mauve-") as name:
        folder = Path(name)
        files = [folder / f"{number}.npy" for number in range(1 + len(others))]
        for file, features_ND in zip(files, (reference_ND, *others), strict=True):
            np.save(file, features_ND)
        answer = folder / "answer.json"
        _run(python, PROGRAM, answer, seed, *files)
        found = json.loads(answer.read_text(encoding="utf-8"))
    return [value if math.isfinite(value) else None for value in found]


def _run(python: str, program: str, *words: object) -> None:
    """Run a program by another Python, away from this one's packages."""
    try:
        done = subprocess.run(
            [python, "-I", "-c", program, *map(str, words)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise UserError(f"--mauve {python}: {error.strerror}; {INSTALL}") from error
    if done.returncode:
        told = done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"]
        hint = f"; {INSTALL}" if "No module named 'mauve'" in told[-1] else ""
        raise UserError(f"--mauve {python}: {told[-1]}{hint}")
