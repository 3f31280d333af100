"""What the scenarios assert, on a real SLURM cluster: see scenarios.py."""

import pytest
from lab import ENDLESS, Lab
from lanes import Lanes
from scenarios import FIRST, SECOND, THIRD, controller_dies

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

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


@pytest.mark.parametrize("name", [one.__name__ for one in [*FIRST, *SECOND, *THIRD]])
def test_scenario(lanes: Lanes, name: str) -> None:
    lanes.result(name, 880)


@pytest.mark.parametrize("settings", BAD)
def test_what_is_wrong_is_one_message_before_anything_is_submitted(lab: Lab, settings: str) -> None:
    words = settings.split() if "{" not in settings else [settings]
    done = lab.command("submit", str(lab.settings), *words, "--", *lab.words("refused"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert BAD[settings] in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (lab.directory / "refused").exists()


def test_a_wrong_configuration_is_said_at_submission(lab: Lab) -> None:
    words = lab.words("refused", "optim.lrr=1", f"steps={ENDLESS}")
    done = lab.command("submit", str(lab.settings), "--", *words)
    assert done.returncode == 2
    assert "optim.lrr: unknown key; did you mean 'lr'?" in done.stderr


def test_the_controller_dies_and_comes_back(lanes: Lanes, lab: Lab) -> None:
    """After all others: it concerns every job."""
    lanes.wait()
    controller_dies(lab)
