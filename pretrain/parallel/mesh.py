"""The mesh of ranks: who this rank is, and sums over all of them."""

import datetime
import os

import torch
import torch.distributed as dist
from torch import Tensor

from pretrain.host_memory import keep_freed_memory
from pretrain.launch import World
from pretrain.parallel import deepspeed

TIMEOUT = datetime.timedelta(minutes=10)
"""How long a collective may wait for a rank before the run ends with an error."""


class Mesh:
    """Data-parallel ranks over one process group.

    Attributes:
        rank, size: of all ranks.
        data_rank, data_size: of the axis that splits the batch.
        device: where this rank computes.
    """

    def __init__(self, world: World) -> None:
        self.rank, self.size = world.rank, world.size
        self.data_rank, self.data_size = world.rank, world.size
        on_gpu = torch.cuda.is_available()
        if on_gpu:
            torch.cuda.set_device(world.local_rank)
        else:
            keep_freed_memory()
            torch.set_num_threads(max(1, available_cores() // world.local_size))
        self.device = torch.device("cuda", world.local_rank) if on_gpu else torch.device("cpu")
        # DeepSpeed looks here, whatever it is told.
        os.environ["LOCAL_RANK"] = str(world.local_rank)
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            init_method=world.init_method,
            rank=world.rank,
            world_size=world.size,
            timeout=TIMEOUT,
        )
        deepspeed.init_distributed("nccl" if on_gpu else "gloo")

    @property
    def is_first(self) -> bool:
        """Whether this rank writes what is written once."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all data-parallel ranks; the argument is left as it is."""
        total = values.clone()
        dist.all_reduce(total)
        return total

    def barrier(self) -> None:
        """Wait for every rank."""
        dist.barrier()

    def close(self) -> None:
        """Leave the process group."""
        dist.destroy_process_group()


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
