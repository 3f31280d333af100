"""DeepSpeed, imported without its noise, and without a compiler.

DeepSpeed logs at import, warns of kernels that no run here asks for, and compiles a
shared-memory collective at its first ``init_distributed`` on a CPU; only inference uses
that one, it changes the order of sums, and a kill while it compiles leaves a lock that
hangs every later run. So its builder is marked incompatible before anything asks for it.
"""

import contextlib
import io
import logging
import os
import warnings
from typing import Any

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("DS_IGNORE_CUDA_DETECTION", "1")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import deepspeed
    import deepspeed.ops
    from deepspeed.utils import logger

logger.setLevel(logging.ERROR)
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")


def initialize(**arguments: Any) -> tuple[Any, ...]:
    """``deepspeed.initialize``, without what it prints about memory."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tuple(deepspeed.initialize(**arguments))


def init_distributed(backend: str) -> None:
    """Let DeepSpeed adopt the process group that exists."""
    deepspeed.init_distributed(dist_backend=backend, verbose=False)
