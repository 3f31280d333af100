"""`gpu`: speed, memory and MFU of a training step on one GPU, beside the floor of its hardware.

The step is the plain one of :mod:`tools.bench.whole_step`, in bf16 with fp32 masters: no engine
has to be installed. Its floor is the larger of two times: of its operations at the peak rate of
dense bf16, and of the bytes that cannot stay on the chip at the peak rate of the memory. MFU
(Chowdhery et al. 2022, appendix B) counts the same operations: full attention, the head at the
share of the positions at which it runs, nothing twice. The table is Markdown.
"""

import argparse
import gc
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

from configs.errors import UserError
from model.architectures.dit import DiT
from pretrain.config import RunConfig
from pretrain.planner.hardware import GIB, GPUS, Gpu, find
from pretrain.planner.plan import plan
from tools.bench.measure import interleaved, machine_facts
from tools.bench.options import conclude, new_parser
from tools.bench.whole_step import plain_step, run_config
from tools.command import positive
from tools.text_table import markdown

SIZES = {
    "170M": DiT(vocab_size=50257, width=768, num_layers=12, num_heads=12),
    "400M": DiT(vocab_size=50257, width=1024, num_layers=24, num_heads=16),
    "1.3B": DiT(vocab_size=50257, width=2048, num_layers=24, num_heads=16),
}
"""The widths of GPT-2 and GPT-3 (Brown et al. 2020, table 2.1), with GPT-2's vocabulary."""

LENGTHS = (1024, 4096)

BYTES_PER_PARAMETER = 42
"""Moved by a step: the bf16 weight read forward and backward and written (6); its gradient
written and read in bf16 (4), written and read in fp32 (8); master and both moments, fp32,
read and written (24)."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the subcommand and its options."""
    parser = new_parser(subparsers, run, __doc__, has_targets=False)
    parser.add_argument("--size", action="append", choices=list(SIZES), help="default: all of them")
    parser.add_argument(
        "--length", action="append", type=positive, metavar="L", help="default: 1024 and 4096"
    )
    parser.add_argument(
        "--tokens", type=positive, default=32768, metavar="N", help="of a step (default 32768)"
    )
    parser.add_argument("--compile", action="store_true", help="run through torch.compile")
    parser.add_argument(
        "--gpu", default="h200-141g", metavar="NAME",
        help=f"whose peak rates set the floor: {', '.join(GPUS)} (default h200-141g)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Measure, print a Markdown table, write JSON; returns the exit status.

    Raises:
        ValueError: without a GPU, or where a size does not fit into its memory.
    """
    peaks = find(arguments.gpu)
    if not torch.cuda.is_available():
        raise UserError(
            "gpu needs a GPU that this torch can use, and finds none: for the cores of this "
            "machine run `python -m tools.bench train` or `python -m tools.bench parallel`"
        )
    device = torch.device("cuda")
    facts = machine_facts(device)
    cases = [
        (size, length) for size in arguments.size or SIZES for length in arguments.length or LENGTHS
    ]
    rows = []
    with tqdm(total=len(cases) * (arguments.repeats + 1), unit="round", desc="bench gpu") as bar:
        for size, length in cases:
            bar.set_postfix_str(f"{size}, L = {length}")
            config = run_config(SIZES[size], max(1, arguments.tokens // length), length, "bf16")
            words = f"--size {size} --length {length} --tokens {arguments.tokens}"
            words += " --compile" if arguments.compile else ""
            rows.append(
                {"size": size, "command": f"python -m tools.bench gpu {words}"}
                | floor(config, peaks)
                | measure(config, device, arguments, bar.update)
            )
            rows[-1]["mfu"] = rows[-1]["flops"] / median(rows[-1]["seconds"]) / peaks.bf16_flops
    return conclude(arguments, f"{table(rows)}\n", facts, rows=rows)


def floor(config: RunConfig, peaks: Gpu) -> dict[str, Any]:
    """What a step computes and moves, and the least seconds that each of them takes.

    Bytes are those of weights and optimizer, and of the activations that backward keeps,
    written once and read once.
    """
    numbers = plan(config, 1)
    flops = numbers.flops_per_token * numbers.tokens_per_step
    moved = BYTES_PER_PARAMETER * numbers.parameters + 2 * numbers.memory.activations
    return {
        "parameters": numbers.parameters,
        "length": config.data.sequence_length,
        "batch": config.global_batch,
        "tokens": numbers.tokens_per_step,
        "flops": flops,
        "bytes": moved,
        "flops_seconds": flops / peaks.bf16_flops,
        "bytes_seconds": moved / peaks.memory_rate,
    }


def measure(
    config: RunConfig,
    device: torch.device,
    arguments: argparse.Namespace,
    advance: Callable[[], object],
) -> dict[str, Any]:
    """Seconds of a step, one for each repeat, and the peak of allocated memory."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        step, denoiser = plain_step(config, device)
        if arguments.compile:
            denoiser.compile()
        seconds = interleaved(
            {"step": step},
            steps=arguments.steps,
            repeats=arguments.repeats,
            synchronize=torch.cuda.synchronize,
            advance=advance,
        )["step"]
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{config.global_batch} samples of {config.data.sequence_length} positions do not fit "
            f"into the memory of this GPU: lower --tokens, now {arguments.tokens}"
        ) from error
    return {"seconds": seconds, "peak_bytes": torch.cuda.max_memory_allocated(device)}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: one row for each size and length."""
    heads = ["size", "parameters", "L", "batch", "ms", "tokens/s", "peak GiB", "MFU"]
    heads += ["floor ms: FLOPs", "floor ms: bytes", "step / floor", "command"]
    cells = []
    for row in rows:
        seconds = median(row["seconds"])
        least = max(row["flops_seconds"], row["bytes_seconds"])
        cells.append(
            [
                row["size"],
                f"{row['parameters']:,}",
                str(row["length"]),
                str(row["batch"]),
                f"{1e3 * seconds:.1f}",
                f"{row['tokens'] / seconds:,.0f}",
                f"{row['peak_bytes'] / GIB:.1f}",
                f"{row['mfu']:.1%}",
                f"{1e3 * row['flops_seconds']:.1f}",
                f"{1e3 * row['bytes_seconds']:.1f}",
                f"{seconds / least:.2f}",
                f"`{row['command']}`",
            ]
        )
    return markdown(heads, cells)
