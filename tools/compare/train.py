"""Trains the runs of a comparison one after the other, as ``python -m pretrain`` would."""

from collections.abc import Sequence

from configs.errors import log_to_stderr
from configs.exit_codes import STOPPED
from configs.json_files import write_json
from configs.load import to_yaml
from pretrain.__main__ import main as pretrain
from pretrain.launch import preemption
from pretrain.run.progress import clock
from tools.bench.measure import machine_facts
from tools.command import best_device
from tools.compare.members import Member, seconds_left

CONFIG = ".yaml"
"""Beside a run's directory stands its complete configuration, under its name."""

MACHINE = "machine.json"
"""In a run directory: the machine that trained it."""


def train(found: Sequence[Member]) -> int:
    """Train what is not trained yet; returns the exit status of the first run that stops.

    A run that stands at its last step is left as it is, one that was stopped goes on.
    """
    for place, member in enumerate(found, 1):
        head = f"run {place} of {len(found)}: {member.title}"
        if member.is_done:
            log_to_stderr(f"{head}: is trained")
            continue
        left = seconds_left(found)
        about = "" if left is None else f"; about {clock(left)} of training left in all"
        config = member.config
        log_to_stderr(f"{head}: {config.steps:,} steps, {member.tokens:,} tokens{about}")
        file = member.path.with_name(member.path.name + CONFIG)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(to_yaml(config), encoding="utf-8")
        status = pretrain([str(file)])
        if status:
            return status
        write_json(member.path / MACHINE, machine_facts(best_device()))
        if preemption.reason():
            return STOPPED
        if not member.is_done:
            return 0
    return 0
