"""What SLURM's environment variables tell a task: its rank, its nodes, its job."""

from collections.abc import Mapping
from dataclasses import dataclass

from slurm.node_list import expand


@dataclass(frozen=True, kw_only=True)
class RankInfo:
    """Rank of a task, and the job that it belongs to.

    Args:
        rank, size: among all ranks. local_rank, local_size: among those of its node.
        node: index of its node in the step's node list. first_host: the first of that list.
        job: see :func:`job_name`. restart: see :func:`restarts`.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    node: int
    job: str
    restart: int
    first_host: str


def rank_info(environ: Mapping[str, str]) -> RankInfo:
    """Read the variables of a task's step, or those of its job where the step sets none.

    Raises:
        ValueError: a variable is missing: this is no task of SLURM's.
    """

    def first(*names: str) -> str:
        for name in names:
            if environ.get(name):
                return environ[name]
        raise ValueError(f"{names[0]} is not set: slurm.job.task is started by srun")

    nodes = first("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
    node = int(first("SLURM_NODEID"))
    return RankInfo(
        rank=int(first("SLURM_PROCID")),
        size=int(first("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS")),
        local_rank=int(first("SLURM_LOCALID")),
        local_size=_per_node(first("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"))[node],
        node=node,
        job=job_name(environ),
        restart=restarts(environ),
        first_host=expand(nodes)[0],
    )


def _per_node(text: str) -> list[int]:
    """Expand ``2(x2),1`` to 2, 2, 1."""
    sizes = []
    for part in text.split(","):
        size, _, times = part.rstrip(")").partition("(x")
        sizes += [int(size)] * int(times or 1)
    return sizes


def job_name(environ: Mapping[str, str]) -> str:
    """The job's id for scontrol; ARRAY_TASK for a member of an array, whose own id changes."""
    array = environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{environ['SLURM_ARRAY_TASK_ID']}" if array else environ["SLURM_JOB_ID"]


def restarts(environ: Mapping[str, str]) -> int:
    """How often the job was requeued; SLURM sets no variable in its first start."""
    return int(environ.get("SLURM_RESTART_COUNT", "0"))


def torchrun_variables(info: RankInfo, address: str, port: int) -> dict[str, str]:
    """The environment variables that torchrun sets, which pretrain reads."""
    return {
        "RANK": str(info.rank),
        "WORLD_SIZE": str(info.size),
        "LOCAL_RANK": str(info.local_rank),
        "LOCAL_WORLD_SIZE": str(info.local_size),
        "GROUP_RANK": str(info.node),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
    }
