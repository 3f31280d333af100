"""Accelerators and clusters for the planner: memory, FLOP/s and bandwidths from data sheets.

Memory is as shown by ``nvidia-smi``, in GiB. FLOP/s are dense (data sheets often give those with
2:4 sparsity, twice as many), bf16 on tensor cores and fp32 without them, the default for matrix
products in PyTorch. Link bandwidths are for one direction of one GPU: half of NVIDIA's NVLink
figure; network bandwidth is per GPU in the vendor's own node.

Sources: NVIDIA A100, H100, H200 and DGX B200 data sheets (DGX A100: HDR InfiniBand, 200
Gbit/s a GPU; DGX H100, H200, B200: NDR, 400 Gbit/s); AMD Instinct MI300X data sheet and
CDNA 3 white paper (seven Infinity Fabric links of 64 GB/s; 400 Gbit/s a GPU as commonly
built). ``cpu`` is a rough figure for a few cores, for trials on a laptop.
"""

from dataclasses import dataclass

from configs.errors import UserError

GIB = 2**30
LINK_SHARE = 0.8
"""Share of a link's data-sheet rate that collectives reach (NCCL bus bandwidth, large messages)."""
DEFAULT_MFU = 0.4
"""Share of its peak that a GPU is taken to reach while it computes."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One accelerator.

    Args:
        memory: bytes. bf16_flops, fp32_flops: dense FLOP/s.
        memory_rate, node_rate, network_rate: bandwidth in bytes per second to its own memory, to
            other GPUs in the node and to other nodes.
    """

    name: str
    memory: int
    bf16_flops: float
    fp32_flops: float
    memory_rate: float
    node_rate: float
    network_rate: float

    def flops(self, precision: str) -> float:
        """FLOP/s at the precision of a run."""
        return self.fp32_flops if precision == "fp32" else self.bf16_flops


def _gpu(name: str, gib: int, bf16: float, fp32: float, memory: float, *links: float) -> Gpu:
    """A :class:`Gpu` from GiB, TFLOP/s, TFLOP/s, TB/s and, for the links, GB/s."""
    return Gpu(
        name=name,
        memory=gib * GIB,
        bf16_flops=bf16 * 1e12,
        fp32_flops=fp32 * 1e12,
        memory_rate=memory * 1e12,
        node_rate=links[0] * 1e9,
        network_rate=links[1] * 1e9,
    )


GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("a100-40g", 40, 312, 19.5, 1.555, 300, 25),
        _gpu("a100-80g", 80, 312, 19.5, 2.039, 300, 25),
        _gpu("h100-80g", 80, 989, 67, 3.35, 450, 50),
        _gpu("h200-141g", 140, 989, 67, 4.8, 450, 50),
        _gpu("b200-180g", 179, 2250, 75, 8.0, 900, 50),
        _gpu("mi300x-192g", 192, 1307, 163.4, 5.3, 448, 50),
        _gpu("cpu", 16, 0.1, 0.1, 0.02, 5, 1),
    )
}


def find(name: str) -> Gpu:
    """Look up an accelerator by name; UserError with the known names if there is none."""
    if name not in GPUS:
        raise UserError(f"unknown GPU '{name}'; there are: {', '.join(GPUS)}")
    return GPUS[name]


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster with one rank per GPU, in nodes of equal size.

    Args:
        ranks: total over all nodes. ranks_per_node: ranks connected by the fast links.
    """

    gpu: Gpu
    ranks: int
    ranks_per_node: int

    def __post_init__(self) -> None:
        if self.ranks < 1 or self.ranks_per_node < 1:
            raise ValueError("a cluster has at least 1 rank, and 1 in a node")

    def rate(self, stride: int, size: int) -> float:
        """Bytes per second that each rank can send in a ring of ``size`` ranks, ``stride`` apart.

        A ring across nodes leaves each node once, over the network links of all its members in
        that node: k members give k times the bandwidth.
        """
        together = max(1, self.ranks_per_node // stride)
        rate = self.gpu.node_rate
        if size > together:
            rate = min(rate, together * self.gpu.network_rate)
        return LINK_SHARE * rate
