"""The lines that a run prints before its first step and after its last."""

from pathlib import Path

import torch

from model.naming import method_name
from pretrain.config import RunConfig
from pretrain.data import Corpus
from pretrain.planner.hardware import GIB
from pretrain.planner.plan import Plan
from pretrain.run.progress import clock


def opening(
    config: RunConfig, plan: Plan, corpus: Corpus, device: torch.device, path: Path
) -> list[str]:
    """Parameters, corpus, batch, layout, device and directory of a run."""
    name = method_name(config.objective)
    length, windows = config.data.sequence_length, len(corpus.stream)
    layout = plan.layout
    extras = ", sequence parallel" if layout.sequence_parallel else ""
    epochs = config.steps * config.global_batch / windows
    return [
        f"model      {plan.parameters:,} parameters, objective {name}",
        f"corpus     {corpus.path}: {corpus.train.num_tokens:,} tokens, {windows:,} "
        f"{_samples(config)} of {length}",
        f"batch      {config.global_batch} x {length} = {plan.tokens_per_step:,} tokens a step; "
        f"{config.steps:,} steps are {_short(epochs)} passes over the corpus",
        f"layout     {plan.ranks} rank{'s' * (plan.ranks > 1)}: data {plan.data} x tensor "
        f"{layout.tensor} x pipeline {layout.pipeline}, ZeRO {layout.zero_stage}, "
        f"{plan.accumulation} x {plan.micro_batch} samples each{extras}",
        f"device     {_device(device)}; {config.precision}, about {size(plan.memory.total)} a rank",
        f"run        {path}",
    ]


def closing(config: RunConfig, path: Path, step: int, tokens: int, seconds: float) -> list[str]:
    """How the run ended, its directory, and commands that use it."""
    prompt = " --source TEXT" if config.model.reads_source else ""
    how = "done" if step >= config.steps else "ended by stop_after"
    return [
        f"{how}: {step:,} steps, {tokens:,} tokens in {clock(seconds)}; the run is in {path}",
        f"next: python -m tools.evaluate {path}",
        f"      python -m tools.sample {path}{prompt}",
        f"      python -m tools.report {path}",
    ]


def size(num: float) -> str:
    """Bytes in GiB, MiB or KiB."""
    for unit, bytes_ in (("GiB", GIB), ("MiB", 2**20)):
        if num >= bytes_:
            digits = 1 if num < 10 * bytes_ else 0
            return f"{num / bytes_:,.{digits}f} {unit}"
    return f"{num / 1024:,.0f} KiB"


def _samples(config: RunConfig) -> str:
    kinds = {"paragraphs": "paragraphs, targets", "pairs": "pairs, targets"}
    return kinds.get(config.data.packing, "windows")


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        return f"{torch.cuda.get_device_name(device)}, {size(total)}"
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads > 1)} a rank"
