"""Whatever lies in a run directory, ``tools.runs`` and ``tools.report`` answer in words.

Rows, status, a launcher's state and the configuration are each of some other shape than we
write. Pictures are built and not drawn: that takes a second each, and no other code.
"""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from test_configurations import survive

from tools import runs
from tools.report import __main__ as report

ODD = [
    "null", "true", '"x"', "[1]", "{}", "-1", "0.5", "1e999", "NaN", "-Infinity", "1e308", "0",
    "1" + "0" * 400, "9" * 5000, '"9"', "[]", '{"a": 1}', "9223372036854775808", "-0.0",
    '"a\\nb"', '"\\ud800"', "[" * 3000,
]  # fmt: skip
"""JSON values, some of which nothing reads."""

ROW = {
    "step": 1, "tokens_seen": 512, "loss": 7.0, "train/loss": 7.0, "train/grad_norm": 1.0,
    "train/lr": 1e-3, "perf/tokens_per_second": 100.0, "train/loss_level_0.1": 3.0,
    "train/loss_level_0.9": 5.0, "val/nelbo": 7.0,
}  # fmt: skip
STATUS = {
    "state": "running", "step": 5, "attempt": 1, "reason": "", "time": "2026",
    "process": {"host": "x", "pid": 1, "started": "1", "processes": "b"},
}  # fmt: skip
MORE = ["val/loss", "train/loss_level_x", "train/loss_level_", "train/loss_level_nan", "config"]
CONFIGURATIONS = [
    "steps: 20\nema: {decay: 0.9}\n", "steps: x\n", "[1]\n", "steps: [1]\nema: 3\n", "a: *b\n",
    "ema: {decay: [1]}\nsteps: true\n", "", "steps: 1e400\n", "\0",
]  # fmt: skip
LINES = ["", "[1]", "5", "null", '{"step": 3', "[" * 3000, "\0", '{"step": true}', '{"step": 1}']

slow = pytest.mark.slow


def altered(good: dict[str, Any], rng: random.Random, more: list[str]) -> str:
    """JSON text of an object, some of whose values are others, or gone."""
    if rng.random() < 0.1:
        return rng.choice([*ODD, "", "[", '{"step": '])
    parts = {key: json.dumps(value) for key, value in good.items()}
    for _ in range(rng.choice([0, 0, 1, 2, 3])):
        key = rng.choice([*good, *more])
        parts[key] = rng.choice(ODD)
        if rng.random() < 0.2:
            del parts[key]
    return "{" + ", ".join(f"{json.dumps(key)}: {value}" for key, value in parts.items()) + "}"


def a_run(rng: random.Random, path: Path) -> Path:
    run = path / "run"
    shutil.rmtree(run, ignore_errors=True)
    for name in ("attempts", "slurm"):
        (run / name).mkdir(parents=True)
    rows = [altered(ROW | {"step": step}, rng, MORE) for step in range(1, rng.choice([2, 3, 12]))]
    if rng.random() < 0.3:
        rows.insert(rng.randrange(len(rows) + 1), rng.choice(LINES))
    content = bytearray("\n".join(rows).encode() + b"\n" * rng.randrange(2))
    for _ in range(rng.choice([0, 0, 0, 3])):
        if content:
            content[rng.randrange(len(content))] = rng.randrange(256)
    (run / "metrics.jsonl").write_bytes(content)
    for name in ("status.json", "slurm/state.json"):
        if rng.random() < 0.8:
            (run / name).write_text(altered(STATUS, rng, []))
    (run / "config.yaml").write_text(rng.choice(CONFIGURATIONS))
    return run


def listed(rng: random.Random, path: Path) -> int:
    run = a_run(rng, path)
    return runs.main([str(rng.choice([run, path])), *rng.choice([[], ["--json"]])])


def drawn(rng: random.Random, path: Path) -> int:
    words = [str(a_run(rng, path))]
    words *= rng.choice([1, 1, 2])
    return report.main([*words, "--out", str(path / "out")] if len(words) > 1 else words)


@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("case", "seeds"),
    [
        pytest.param(listed, range(40), id="listed-some"),
        pytest.param(listed, range(40, 1500), id="listed-many", marks=slow),
        pytest.param(drawn, range(40), id="drawn-some"),
        pytest.param(drawn, range(40, 300), id="drawn-many", marks=slow),
    ],
)
def test_no_record_is_a_traceback(case, seeds: range, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **more: None)
    survive(case, seeds, tmp_path, capsys)
