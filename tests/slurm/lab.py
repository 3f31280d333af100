"""What the scenarios share: a cluster, a corpus, and runs that are submitted as users do."""

import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cluster import Cluster

from pretrain.run.metrics import read_rows
from slurm.records import Records, Start

ROOT = Path(__file__).resolve().parents[2]
STEPS = 160
"""Of a whole run: some 10 s, beside the imports."""
ENDLESS = 1_000_000
"""Steps of a run that is stopped: at a constant rate its curve begins as any other's."""
LONG_S = 240.0
"""For what takes a start or two: 10 s each, or 40 where the cores are busy."""


class Run:
    """A submitted run."""

    def __init__(self, lab: "Lab", path: Path) -> None:
        self.lab, self.path, self.records = lab, path, Records(path)

    @property
    def job(self) -> str:
        """The newest job's name."""
        return str(self.records.jobs()[-1]["job"])

    @property
    def state(self) -> str:
        """How the run stands, as its supervisor noted it."""
        return str(self.records.state.get("state", ""))

    @property
    def starts(self) -> list[Start]:
        return self.records.starts()

    @property
    def step(self) -> int:
        """The last logged step."""
        return int(self.records.last_row().get("step", 0))

    def kinds(self) -> list[str]:
        """How its starts ended."""
        return [str(self.outcome(n).get("kind", "")) for n in range(len(self.starts))]

    def outcome(self, index: int) -> dict[str, Any]:
        file = self.starts[index].outcome
        return dict(json.loads(file.read_text())) if file.exists() else {}

    # -- waiting ------------------------------------------------------------------------

    def wait_step(self, step: int, seconds: float = LONG_S) -> None:
        self.lab.cluster.wait(lambda: self.step >= step, seconds, f"{self.path.name}: step {step}")

    def wait_starts(self, count: int, seconds: float = LONG_S) -> None:
        self.lab.cluster.wait(
            lambda: len(self.starts) >= count, seconds, f"{self.path.name}: start {count}"
        )

    def wait_state(self, state: str, seconds: float = LONG_S) -> None:
        what = f"{self.path.name}: {state}"
        self.lab.cluster.wait(lambda: self.state == state, seconds, what)
        assert self.state == state

    def wait_gone(self, seconds: float = LONG_S) -> None:
        """Until none of its jobs is in the queue."""
        what = f"{self.path.name}: out of the queue"
        self.lab.cluster.wait(lambda: not self.queued(), seconds, what)

    def queued(self) -> list[str]:
        """Its jobs that wait or run."""
        ids = {row["job"] for row in self.records.jobs()}
        return [name for name in self.lab.queue() if name in ids]

    # -- what came of it ----------------------------------------------------------------

    def curve(self) -> list[dict[str, Any]]:
        """Its rows without times and throughputs."""
        rows = read_rows(self.path / "metrics.jsonl")
        return [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in rows]

    def steps(self) -> list[int]:
        return [row["step"] for row in self.curve()]

    def said(self) -> str:
        """What its supervisors printed."""
        files = sorted(self.records.root.glob("submissions/*/*/**/*.out"))
        return "\n".join(file.read_text(errors="replace") for file in files)


class Lab:
    """The cluster, and the place of the runs."""

    def __init__(self, cluster: Cluster, directory: Path, demo_dir: Path) -> None:
        self.cluster, self.directory, self._demo_dir = cluster, directory, demo_dir
        self.settings = directory / "cluster.yaml"
        self.settings.write_text(
            'nodes: 1\nranks_per_node: 1\ntime: "0:50:00"\nstop_ahead_s: 60\nheartbeat_s: 30\n'
        )
        self.random = random.Random(time.time_ns())

    def words(self, name: str, *words: str) -> list[str]:
        """Of a run's own."""
        return [
            str(ROOT / "configs" / "tiny.yaml"),
            f"run_dir={json.dumps(str(self.directory / name), ensure_ascii=False)}",
            f"data.demo_dir={self._demo_dir}",
            "eval.every=0",
            "checkpoint.every=20",
            f"steps={STEPS}",
            *words,
        ]

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """``python -m slurm WORDS``."""
        return subprocess.run(
            [sys.executable, "-m", "slurm", *words],
            cwd=ROOT,
            env=self.cluster.environ,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def submit(self, name: str, nodes: str, *before: str, words: tuple[str, ...] = ()) -> Run:
        """Submit a run to named nodes."""
        place = [f"options={{nodelist: '{nodes}'}}"] if nodes else []
        order = ["submit", str(self.settings), *place, *before]
        done = self.command(*order, "--", *self.words(name, *words))
        assert done.returncode == 0, done.stderr
        assert re.search(r"^submitted .*: job \d+", done.stdout, re.M), done.stdout
        return Run(self, self.directory / name)

    def queue(self) -> list[str]:
        """The names of all jobs that wait or run."""
        return self.cluster.run("squeue", "-h", "-r", "-o", "%i").split()

    def preempt(self, nodes: str, seconds: float = 1.0) -> str:
        """A job of high priority that wants these nodes for itself."""
        count = str(len(nodes.split(",")))
        order = ["sbatch", "--parsable", "-p", "high", "--exclusive", "-N", count, "-w", nodes]
        order += ["-o", "/dev/null", "--wrap", f"sleep {seconds}"]
        return self.cluster.run(*order).strip()

    def some_step(self) -> int:
        """A step at which something may happen to a run."""
        return self.random.randrange(10, STEPS // 2)

    def clean(self) -> None:
        """End every job."""
        self.cluster.run("scancel", "--state=PENDING", "-u", "root", check=False)
        self.cluster.run("scancel", "-u", "root", check=False)


def continuous(run: Run) -> None:
    """AssertionError if a step is missing or repeated."""
    steps = run.steps()
    assert steps == list(range(1, len(steps) + 1)), steps


def same(run: Run, reference: Run) -> None:
    """AssertionError unless one curve is the other's, or its beginning, bit by bit."""
    continuous(run)
    ours, theirs = run.curve(), reference.curve()
    common = min(len(ours), len(theirs))
    assert common >= STEPS // 2
    assert ours[:common] == theirs[:common]


def alive(mark: str) -> list[int]:
    """Processes whose environment or command holds a text, wherever they live."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            text = (directory / "cmdline").read_bytes()
        except OSError:
            continue
        if mark.encode() in text and int(directory.name) != os.getpid():
            found.append(int(directory.name))
    return found


def command_of(pid: int, words: str) -> bool:
    """Whether a process was started with these words, a zero byte between them."""
    return words.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
