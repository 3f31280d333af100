"""The mesh of ranks: tensor, data and pipeline axes, their process groups and collectives.

Rank r of D x T x P is at tensor r mod T, data (r / T) mod D, pipeline r / (T D): the
order of Megatron, and of DeepSpeed's topology, so that tensor-parallel ranks, which talk
most, are neighbours on a node.
"""

import datetime
import os
import socket
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pretrain.launch import device
from pretrain.launch.host_memory import keep_freed_memory
from pretrain.launch.local import World
from pretrain.parallel import deepspeed

TIMEOUT = datetime.timedelta(minutes=10)
"""How long a collective waits for a rank before the run ends with an error."""


class Mesh:
    """One rank's coordinates, process groups and device.

    Attributes:
        rank, size: of all ranks.
        local_size: ranks that share this machine.
        tensor_rank, tensor_size: of the axis that splits matrices.
        data_rank, data_size: of the axis that splits the batch.
        pipe_rank, pipe_size: of the axis that splits the list of layers.
        tensor_group, data_group, pipe_group: the ranks that differ from this one in that axis
            only; model_group: all that share its part of the batch.
        device: where this rank computes.
    """

    def __init__(self, world: World, *, tensor: int = 1, pipeline: int = 1) -> None:
        self.rank, self.size, self.local_size = world.rank, world.size, world.local_size
        self.tensor_size, self.pipe_size = tensor, pipeline
        self.data_size = world.size // (tensor * pipeline)
        assert self.data_size * tensor * pipeline == world.size, (world, tensor, pipeline)
        self.tensor_rank = world.rank % tensor
        self.data_rank = world.rank // tensor % self.data_size
        self.pipe_rank = world.rank // (tensor * self.data_size)
        gpus = device.num_gpus()
        on_gpu = gpus > 0
        # Where each rank is shown its own GPU alone, that one has number 0.
        local = world.local_rank % gpus if on_gpu else world.local_rank
        if on_gpu:
            torch.cuda.set_device(local)
        else:
            keep_freed_memory()
            torch.set_num_threads(world.threads or max(1, available_cores() // world.local_size))
        self.device = torch.device("cuda", local) if on_gpu else torch.device("cpu")
        # DeepSpeed reads this variable, whatever its arguments are.
        os.environ["LOCAL_RANK"] = str(local)
        store, _, _ = next(
            dist.rendezvous(world.init_method, world.rank, world.size, timeout=TIMEOUT)
        )
        store.set_timeout(TIMEOUT)
        if on_gpu:
            device.check_distinct(store, world.rank, world.size, _identity(local))
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=store,
            rank=world.rank,
            world_size=world.size,
            timeout=TIMEOUT,
            device_id=self.device if on_gpu else None,
        )
        deepspeed.init_distributed("nccl" if on_gpu else "gloo")
        ranks = torch.arange(world.size).view(pipeline, self.data_size, tensor)
        self.tensor_group = self._group(ranks)
        self.data_group = self._group(ranks.transpose(1, 2))
        self.pipe_group = self._group(ranks.permute(1, 2, 0))
        self.model_group = self._group(ranks.transpose(0, 1).flatten(1))
        self._pipe_ranks = ranks[:, self.data_rank, self.tensor_rank].tolist()

    def _group(self, rows: Tensor) -> dist.ProcessGroup:
        """Create a group for each row of ``rows``; returns the one with this rank."""
        mine = None
        for members in rows.reshape(-1, rows.shape[-1]).tolist():
            group = dist.new_group(members, timeout=TIMEOUT)
            if self.rank in members:
                mine = group
        assert mine is not None
        return mine

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes and prints for all ranks."""
        return self.rank == 0

    @property
    def is_first_stage(self) -> bool:
        """Whether this rank holds the embedding."""
        return self.pipe_rank == 0

    @property
    def is_last_stage(self) -> bool:
        """Whether this rank holds the head, and so the loss."""
        return self.pipe_rank == self.pipe_size - 1

    @property
    def reads(self) -> bool:
        """Whether this rank reads the batch, for the first layer or for the loss."""
        return self.is_first_stage or self.is_last_stage

    @property
    def counts(self) -> bool:
        """Whether this rank's sums enter a total: one rank for each part of the batch."""
        return self.is_last_stage and self.tensor_rank == 0

    def stage(self, index: int) -> int:
        """The rank of stage ``index`` in this rank's pipeline."""
        return int(self._pipe_ranks[index])

    def total(self, values: Tensor) -> Tensor:
        """Sum over the parts of the batch, on every rank; the argument is not changed.

        Of the ranks that share a part of the batch only one counts (:attr:`counts`).
        """
        total = values.clone() if self.counts else torch.zeros_like(values)
        dist.all_reduce(total)
        return total

    def all_reduce_counts(self, counts_K: Tensor, *others: int) -> list[int]:
        """Sum counts over the parts of the batch, the others over all ranks; one all-reduce."""
        own_K = counts_K if self.counts else torch.zeros_like(counts_K)
        return self._sums(torch.cat([own_K, own_K.new_tensor(others)]))

    def count(self, *numbers: int) -> list[int]:
        """Sum each number over all ranks."""
        return self._sums(torch.tensor(numbers, device=self.device))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank; the same on all."""
        return self.count(int(flag))[0] > 0

    @staticmethod
    def _sums(values: Tensor) -> list[int]:
        dist.all_reduce(values)
        return [int(value) for value in values.tolist()]

    def all_gather_object(self, value: Any) -> list[Any]:
        """The values of all ranks, in their order, on every rank."""
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def from_last_stage(self, value: Tensor) -> Tensor:
        """Broadcast the last stage's value; on other stages the argument gives its shape only."""
        if self.pipe_size > 1:
            value = value.contiguous()
            dist.broadcast(value, self.stage(self.pipe_size - 1), group=self.pipe_group)
        return value

    def gather(self, value: Any) -> list[Any]:
        """The values of the ranks of :attr:`counts`, in the order of the parts of the batch."""
        everywhere = self.all_gather_object((self.counts, self.data_rank, value))
        return [value for counts, _, value in sorted(everywhere, key=lambda x: x[1]) if counts]

    def barrier(self) -> None:
        """Wait for every rank."""
        dist.barrier()

    def close(self) -> None:
        """Destroy all process groups, so that this process can create others."""
        deepspeed.destroy()


def _identity(gpu: int) -> str:
    """Host and UUID of a GPU of this process."""
    return f"{socket.gethostname()}/{torch.cuda.get_device_properties(gpu).uuid}"


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
