"""A rehearsal: the very same job, here, without SLURM."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pretrain.run.metrics import read_rows
from slurm.records import Records

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_rehearsal_stops_goes_on_and_ends(demo_dir: Path, tmp_path: Path) -> None:
    """On SIGUSR2 it saves, and submitit's own executor starts it again, as SLURM would."""
    run = tmp_path / "my %j `run`"
    words = [f"run_dir={run}", f"data.demo_dir={demo_dir}", "steps=200", "eval.every=0"]
    cluster = [str(ROOT / "configs" / "slurm" / "cpu.yaml"), "nodes=1"]
    command = [sys.executable, "-m", "slurm", "submit", *cluster, "--local", "--"]
    with subprocess.Popen(
        [*command, str(ROOT / "configs" / "tiny.yaml"), *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        end = time.monotonic() + 200
        while len(read_rows(run / "metrics.jsonl")) < 5 and time.monotonic() < end:
            time.sleep(0.1)
        supervisor = Records(run).state["pid"]
        os.kill(supervisor, signal.SIGUSR2)
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert output.splitlines()[-1] == "done"
    assert [row["step"] for row in read_rows(run / "metrics.jsonl")] == list(range(1, 201))
    starts = Records(run).starts()
    assert len(starts) == 2
    assert starts[1].facts["step"] > 0
    assert [start.facts["ranks"] for start in starts] == [2, 2]
