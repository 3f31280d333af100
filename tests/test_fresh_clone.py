"""What a new user does on a fresh clone: the README's first command.

Its environment holds what the package asks for, and nothing that only tests do. It is not made by
pip, which takes minutes: `make test` on a fresh clone begins with that.
"""

import json
import os
import subprocess
from importlib.metadata import requires
from pathlib import Path

import pytest
from environments import make_environment
from packaging.requirements import Requirement


@pytest.mark.alone
@pytest.mark.timeout(1500)
def test_the_demos_learn_on_a_fresh_clone(root: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(root), str(clone)], check=True)
    wanted = [Requirement(text) for text in requires("palimpsest") or ()]
    wanted = [one for one in wanted if not one.marker or one.marker.evaluate({"extra": ""})]
    make_environment(clone / ".venv", *map(str, wanted))
    (clone / ".venv" / ".installed").touch()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("VIRTUAL", "PYTHON"))}
    subprocess.run(["make", "demo"], cwd=clone, env=environment, check=True)
    summary = json.loads((clone / "runs" / "demo" / "summary.json").read_text())
    assert summary["ratio"] <= 0.90
    assert summary["nelbo_ci95"][0] < summary["nelbo"] < summary["nelbo_ci95"][1]
    assert len(summary["samples"]) == 4
    subprocess.run(["make", "demo", "OBJECTIVE=genie"], cwd=clone, env=environment, check=True)
    summary = json.loads((clone / "runs" / "demo-genie" / "summary.json").read_text())
    assert summary["seconds_training"] <= 240
    hard = [row for row in summary["levels"] if row["rounded"] <= 0.3]
    assert all(row["recovered"] > row["rounded"] for row in hard)
    assert any(row["recovered"] >= 2 * row["rounded"] for row in hard)
    assert all(row["error"] < row["mean_error"] for row in hard[:-1])
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True
    )
    assert status.stdout == ""
