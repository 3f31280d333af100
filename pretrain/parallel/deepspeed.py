"""DeepSpeed, imported without its log messages, and without a compiler.

DeepSpeed logs at import, warns of kernels that no run here asks for, and compiles a
shared-memory collective at its first ``init_distributed`` on a CPU; only inference uses
that one, it changes the order of sums, and a kill while it compiles leaves a lock that
hangs every later run. So its builder is marked incompatible before anything asks for it.
"""

import contextlib
import inspect
import io
import logging
import os
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import torch

from pretrain.launch import device

if not device.num_gpus():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("DS_IGNORE_CUDA_DETECTION", "1")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import deepspeed
    import deepspeed.ops
    from deepspeed.runtime.pipe import p2p
    from deepspeed.runtime.pipe.module import PipelineModule
    from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology
    from deepspeed.runtime.zero.parameter_offload import DeepSpeedZeRoOffload
    from deepspeed.utils import logger

__all__ = ["PipeModelDataParallelTopology", "PipelineModule"]

logger.setLevel(logging.ERROR)
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress what DeepSpeed prints about memory, seeds and stages while it is set up."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


_ENGINES: "weakref.WeakSet[Any]" = weakref.WeakSet()


def initialize(**arguments: Any) -> Any:
    """Call ``deepspeed.initialize``; returns the engine."""
    with quiet():
        engine = deepspeed.initialize(**arguments)[0]
    _ENGINES.add(engine)
    return engine


def init_distributed(backend: str) -> None:
    """Let DeepSpeed adopt the process group that exists."""
    deepspeed.init_distributed(dist_backend=backend, verbose=False)


_LINEAR = torch.nn.functional.linear
_MODULE_COUNT = (
    inspect.signature(DeepSpeedZeRoOffload._register_deepspeed_module).parameters["count"].default
)


def destroy() -> None:
    """Destroy all engines and process groups, and undo DeepSpeed's changes to the process.

    An engine hangs on hooks of tensors that it holds, a cycle that the garbage collector cannot
    see: with it would stay the weights, the moments and the process groups, whose threads go on.
    ZeRO 3 numbers parameters and modules over the life of a process, and replaces
    PyTorch's linear function by one whose gradients come in another order. Ranks that join a new
    group after different runs would disagree, in ZeRO 2 without an error.
    """
    with quiet():
        for engine in list(_ENGINES):
            engine.destroy()
            vars(engine).clear()
    _ENGINES.clear()
    deepspeed.comm.destroy_process_group()
    deepspeed.comm.comm.cdb = None
    p2p._grid = p2p._groups = None
    torch.nn.functional.linear = _LINEAR
    deepspeed.zero.Init.param_id = 0
    _MODULE_COUNT[0] = 0
