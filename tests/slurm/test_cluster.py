"""What the scenarios assert, on a real SLURM cluster: see scenarios.py."""

from pathlib import Path

import pytest
from lab import ENDLESS, Lab
from lanes import Lanes
from scenarios import FIRST, SECOND, THIRD, controller_dies
from test_quoting import ODD

from slurm import controller
from slurm.quoting import directive, pattern
from slurm.script import template
from slurm.settings import Settings

# The scenarios are under way from the first test on: what else there is takes place meanwhile.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("lanes")]

BAD = {
    "partition=nowhere": "there is no partition 'nowhere'; choose one of main, low",
    "time=2:00:00": "time 2:00:00 is more than partition main allows: set time to 01:00:00",
    "ranks_per_node=0 gpus_per_node=2": "SLURM would refuse the job:",
    "nodes=8": "SLURM would refuse the job:",
    "cpus_per_rank=64": "SLURM would refuse the job:",
    "options={no-such-option: 1}": "SLURM would refuse the job:",
    "nodes=3": "3 nodes x 1 ranks: global_batch 8 does not divide by the data-parallel size 3",
    "node=2": "unknown setting 'node'; did you mean 'nodes'? allowed: nodes, gpus_per_node",
}


@pytest.mark.parametrize("settings", BAD)
def test_what_is_wrong_is_one_message_before_anything_is_submitted(lab: Lab, settings: str) -> None:
    words = settings.split() if "{" not in settings else [settings]
    done = lab.command("submit", str(lab.settings), *words, "--", *lab.words("refused"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert BAD[settings] in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (lab.directory / "refused").exists()


@pytest.mark.parametrize("value", [*ODD, "a\\b", "a\\'b", "trailing\\", "x" * 180, "漢" * 60])
def test_sbatch_reads_values_as_they_stand(lab: Lab, tmp_path: Path, value: str) -> None:
    """The parser itself: of a script that is printed, and of one that a submission keeps."""
    settings = Settings(ranks_per_node=1, time="0:50:00", options={"comment": value})
    text = template(settings, value, "runs/x", ["c.yaml"], ["x.yaml", "a=b\nc"])
    file = tmp_path / "job.sbatch"
    place = tmp_path if "\\" in value else tmp_path / value
    output = f"{pattern(str(place))}/%j.out"
    file.write_text(text.replace("--output=%x-%j.out", f"--output={directive(output)}"))
    lab.cluster.run("sbatch", "--test-only", str(file))
    job = lab.cluster.run("sbatch", "--parsable", "--hold", str(file)).strip()
    shown = lab.cluster.run("scontrol", "show", "job", job)
    lab.cluster.run("scancel", job)
    facts = dict(line.lstrip().partition("=")[::2] for line in shown.splitlines())
    assert facts["JobId"] == f"{job} JobName={value}"
    assert facts["Comment"].removesuffix(" ") == value  # scontrol ends the line with one
    # scontrol shows a doubled % in a way of its own; the scenario of odd names finds the file.
    assert "%" in value or facts["StdOut"] == f"{place}/{job}.out"
    assert controller.shown(" ".join(shown.split()), job).state == "PENDING"


def test_a_wrong_configuration_is_said_at_submission(lab: Lab) -> None:
    words = lab.words("refused", "optim.lrr=1", f"steps={ENDLESS}")
    done = lab.command("submit", str(lab.settings), "--", *words)
    assert done.returncode == 2
    assert "optim.lrr: unknown key; did you mean 'lr'?" in done.stderr


@pytest.mark.parametrize("name", [one.__name__ for one in [*FIRST, *SECOND, *THIRD]])
def test_scenario(lanes: Lanes, name: str) -> None:
    lanes.result(name, 880)


def test_the_controller_dies_and_comes_back(lanes: Lanes, lab: Lab) -> None:
    """After all others: it concerns every job."""
    lanes.wait()
    controller_dies(lab)
