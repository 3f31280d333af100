"""Where ranks compute: a GPU each, or the CPU.

A process that has called the CUDA runtime, even to ask whether there is a GPU, cannot fork ranks
that use one. So the device files are looked for first, which every driver creates: without one,
the runtime is never called.
"""

from collections.abc import MutableMapping
from pathlib import Path
from typing import Literal, Protocol

from configs.errors import UserError

Device = Literal["auto", "cpu", "cuda"]

_FILES = ("nvidia[0-9]*", "nvidiactl", "nvgpu", "nvhost-gpu", "kfd", "dxg")
"""Below /dev: NVIDIA's on servers and on boards, AMD's, and those of Windows' Linux."""

_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


def may_have_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether this machine has device files of a GPU, usable or not."""
    return any(next(devices.glob(pattern), None) for pattern in _FILES)


def num_gpus() -> int:
    """GPUs that this process may use; calls the CUDA runtime only where there may be one."""
    if not may_have_gpu():
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def hide_gpus(environ: MutableMapping[str, str]) -> None:
    """Hide GPUs from this process and its children; call it before the CUDA runtime is used."""
    for name in _VISIBLE:
        environ[name] = ""


def check(asked: Device, ranks: int) -> None:
    """UserError unless there is a device for each of the ranks to be started here.

    Args:
        asked: the setting ``device``.
    """
    gpus = num_gpus()
    if asked == "cuda" and not gpus:
        raise UserError(
            "device=cuda, but PyTorch finds no GPU here: see nvidia-smi and CUDA_VISIBLE_DEVICES, "
            "or set device=cpu"
        )
    if gpus and ranks > gpus:
        raise UserError(_too_many(ranks, gpus))


def _too_many(ranks: int, gpus: int) -> str:
    return (
        f"{ranks} ranks on this machine need {ranks} GPUs, and it has {gpus}: ask for fewer ranks "
        "(parallel.*), or compute on the CPU with device=cpu (python -m pretrain) or "
        "CUDA_VISIBLE_DEVICES= in the environment (any command)"
    )


class Store(Protocol):
    """Key-value store of ranks before their first collective (``torch.distributed.Store``)."""

    def set(self, key: str, value: str) -> None:
        """Publish a value."""

    def get(self, key: str) -> bytes:
        """A value, once it is published."""


def check_distinct(store: Store, rank: int, size: int, gpu: str) -> None:
    """UserError, on all ranks, if two of them were given the same GPU.

    Counting GPUs does not show it: a launcher may make one GPU visible to a rank, or all.

    Args:
        gpu: host and identity of this rank's GPU.
    """
    store.set(f"gpu/{rank}", gpu)
    holders: dict[str, int] = {}
    for other in range(size):
        named = store.get(f"gpu/{other}").decode()
        if named in holders:
            raise UserError(
                f"rank {holders[named]} and rank {other} were both given the GPU {named}: start "
                "as many ranks on a machine as it has GPUs, or compute on the CPU with device=cpu"
            )
        holders[named] = other


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies matrices in bf16; true where PyTorch cannot tell."""
    import torch

    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return True
