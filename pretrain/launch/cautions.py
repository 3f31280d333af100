"""Warnings before the first step, one line each: memory, precision, corpus, average.

None ends a run: memory is an estimate, and few windows may be intended.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pretrain.config import RunConfig
from pretrain.data import Corpus
from pretrain.launch.available_memory import available_bytes
from pretrain.launch.device import cpu_has_bf16
from pretrain.planner.plan import Plan, plan
from pretrain.run.banner import opening, size

if TYPE_CHECKING:
    from pretrain.parallel.mesh import Mesh

FEW_WINDOWS = 10
"""With fewer samples than this a run hardly learns, and the remainder that fills no window may be
a tenth of the corpus."""


def introduction(config: RunConfig, corpus: Corpus, mesh: "Mesh", path: Path) -> list[str]:
    """The lines that describe a run and warn, before anything is built."""
    numbers = plan(config, mesh.size)
    # Ranks of one machine share its memory; each has a GPU of its own.
    sharing = 1 if mesh.device.type == "cuda" else mesh.local_size
    available = available_bytes(mesh.device)
    slow_bf16 = mesh.device.type == "cpu" and not cpu_has_bf16()
    return [
        *opening(config, numbers, corpus, mesh.device, path),
        *cautions(config, numbers, corpus, available, sharing, slow_bf16=slow_bf16),
    ]


def cautions(
    config: RunConfig,
    numbers: Plan,
    corpus: Corpus,
    available: int | None,
    sharing: int,
    *,
    slow_bf16: bool = False,
) -> list[str]:
    """The warnings of a run.

    Args:
        available: bytes that can be had on the device or machine of a rank; None if unknown.
        sharing: ranks that have to share them.
        slow_bf16: whether the device computes bf16 in software.
    """
    found = [
        *corpus.notes,
        memory_caution(config, numbers, available, sharing),
        precision_caution(config, slow_bf16),
        window_caution(config, corpus),
        average_caution(config),
    ]
    return [f"warning: {text}" for text in found if text]


def memory_caution(
    config: RunConfig, numbers: Plan, available: int | None, sharing: int
) -> str | None:
    """A warning if a step needs more memory than there is."""
    needed = sharing * numbers.memory.total
    if available is None or needed <= available:
        return None
    ranks = f" ({sharing} ranks of {size(numbers.memory.total)})" if sharing > 1 else ""
    return (
        f"a step will need about {size(needed)} of memory{ranks}, and {size(available)} are free "
        f"here; {_remedy(numbers)}"
    )


def _remedy(numbers: Plan) -> str:
    """Settings that reduce the largest part of memory, if possible without changing results."""
    memory, layout = numbers.memory, numbers.layout
    if memory.activations < memory.total / 2:
        return "spread the model over more ranks, or make it smaller (see `python -m tools.plan`)"
    ways = []
    if numbers.micro_batch > 1:
        ways.append("a smaller parallel.micro_batch")
    if layout.recompute_every != 1:
        ways.append("parallel.recompute_every=1")
    if ways:
        return f"set {' or '.join(ways)}: the numbers stay the same"
    return "set a shorter data.sequence_length, or cut it over ranks (parallel.tensor)"


def precision_caution(config: RunConfig, slow_bf16: bool) -> str | None:
    """A warning if bf16 is slower than fp32: 7 times, on a CPU with AVX2 (measured)."""
    if config.precision != "bf16" or not slow_bf16:
        return None
    return (
        "this CPU computes bf16 in software, several times as slowly as fp32; set precision=fp32 "
        "(a run may go on in another precision)"
    )


def window_caution(config: RunConfig, corpus: Corpus) -> str | None:
    """A warning if the corpus makes too few samples to learn from."""
    windows, batch = len(corpus.stream), config.global_batch
    if windows >= max(FEW_WINDOWS, batch):
        return None
    tokens, length = corpus.train.num_tokens, config.data.sequence_length
    times = batch / windows
    again = f", and each step sees it {times:.3g} times" if windows == 1 else ""
    if 1 < windows < batch:
        again = f", and each step of {batch} sees every one {times:.3g} times"
    unused = ""
    if config.data.packing == "wrap":
        left = tokens - windows * (length - 2)
        if left > tokens / 20:
            unused = f"; {left:,} tokens that fill no window are never seen"
    plural = "s" if windows > 1 else ""
    return (
        f"the {tokens:,} tokens of {corpus.path} make only {windows} sample{plural} of "
        f"data.sequence_length {length:,}{again}{unused}; set it lower, or use a larger corpus"
    )


def average_caution(config: RunConfig) -> str | None:
    """A warning if the run is shorter than the span of its average of weights."""
    decay, steps = config.ema.decay, config.steps
    if steps >= _span(decay):
        return None
    return (
        f"ema.decay {decay:g} averages the weights of {_span(decay):,} steps, and the run "
        f"has {steps:,}: at its end the average is of about the last {_reach(steps)}"
    )


def weights_of(config: RunConfig, step: int) -> str:
    """Names the weights that are validated after a step, with the reach of a young average."""
    if not config.ema.decay:
        return "raw weights: ema.decay is 0"
    young = step < _span(config.ema.decay)
    return "averaged weights" + (f", of about the last {_reach(step)} steps" if young else "")


def _span(decay: float) -> int:
    """Steps over which an average of this decay reaches back in the long run."""
    return round(1 / (1 - decay))


def _reach(step: int) -> int:
    """Steps over which the average reaches back while its decay is (1 + n) / (10 + n)."""
    return max(1, round((10 + step) / 9))
