"""Ranks and their rendezvous, from the variables that SLURM sets."""

import itertools
import socket
from pathlib import Path

import pytest

from slurm import node_list
from slurm.job import rendezvous
from slurm.job.rank_info import rank_info, torchrun_variables
from slurm.job.rendezvous import meet
from slurm.records import Records

STEP = {
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_STEP_NODELIST": "a[08-09]",
    "SLURM_JOB_ID": "77",
    "HOSTNAME": "wrong",
}


def test_a_rank_comes_from_the_step() -> None:
    here = rank_info({**STEP, "SLURM_NTASKS": "99", "SLURM_JOB_NODELIST": "b1"})
    assert (here.rank, here.size, here.local_rank, here.local_size, here.node) == (3, 4, 1, 2, 1)
    assert (here.first_host, here.job, here.restart) == ("a08", "77", 0)


def test_where_the_step_says_nothing_the_job_does() -> None:
    step = {k: v for k, v in STEP.items() if "STEP" not in k}
    job = {"SLURM_NTASKS": "4", "SLURM_TASKS_PER_NODE": "2(x2)", "SLURM_JOB_NODELIST": "a8,b[1-2]"}
    here = rank_info({**step, **job})
    assert (here.size, here.local_size, here.first_host) == (4, 2, "a8")


def test_a_member_of_an_array_has_the_arrays_name() -> None:
    array = {"SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "2", "SLURM_RESTART_COUNT": "5"}
    here = rank_info({**STEP, **array})
    assert (here.job, here.restart) == ("70_2", 5)


def test_outside_a_step_it_is_refused() -> None:
    with pytest.raises(ValueError, match="is started by srun"):
        rank_info({"SLURM_JOB_ID": "1"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("node1", ["node1"]),
        ("a[1-2,05-07],b3", ["a1", "a2", "a05", "a06", "a07", "b3"]),
        ("r[1-2]n[3-4]", ["r1n3", "r1n4", "r2n3", "r2n4"]),
        ("gpu-a,gpu-b-[9-11]-x", ["gpu-a", "gpu-b-9-x", "gpu-b-10-x", "gpu-b-11-x"]),
    ],
)
def test_node_lists_are_read(text: str, expected: list[str]) -> None:
    assert node_list.expand(text) == expected


def test_ports_differ_between_attempts() -> None:
    first = [list(itertools.islice(rendezvous.ports("7", restart, 1), 3)) for restart in range(4)]
    flat = [port for ports in first for port in ports]
    assert len(set(flat)) == len(flat)
    assert all(rendezvous.FIRST_PORT <= port < 32768 for port in flat)


def test_a_port_in_use_is_passed_over() -> None:
    taken, following = itertools.islice(rendezvous.ports("8", 0, 0), 2)
    with socket.socket() as other:
        other.bind(("", taken))
        other.listen()
        assert rendezvous.free_port("8", 0) == following
    with socket.socket() as other:
        other.bind(("127.0.0.1", taken))
        other.listen()
        assert rendezvous.free_port("8", 0) == following


def test_ranks_meet_at_the_first_host(tmp_path: Path) -> None:
    start = Records(tmp_path).new_start({})
    first = rank_info({**STEP, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"})
    address, port = meet(first, start)
    assert address == "a08"
    assert meet(rank_info(STEP), start) == (address, port)
    variables = torchrun_variables(rank_info(STEP), address, port)
    assert variables["MASTER_ADDR"] == "a08"
    assert variables["MASTER_PORT"] == str(port)
    assert (variables["RANK"], variables["WORLD_SIZE"], variables["LOCAL_RANK"]) == ("3", "4", "1")
