"""Checks before any run of a comparison starts, so that a mistake costs a moment and one line."""

from collections.abc import Sequence
from pathlib import Path

from configs.errors import UserError
from configs.load import to_plain
from pretrain.launch import device, preflight
from pretrain.planner.plan import plan
from pretrain.run.stored_config import read_file, stored_config
from tools.compare.config import CompareConfig
from tools.compare.evaluate import check_evaluation
from tools.compare.members import Member

FIXED = ("steps", "precision", "fork_from", "fork_weights")
"""Keys that may change when a run is resumed, but not under a comparison: numbers depend on them.
The others are refused by the run directory itself."""


def check(compare: CompareConfig, found: Sequence[Member]) -> None:
    """Check corpus, layouts, directories and samplers, before anything is trained.

    Raises:
        UserError: the corpus or a split of it is missing, or a run cannot start, or go on.
    """
    _check_corpus(compare)
    for member in found:
        try:
            _check_unchanged(member)
            preflight.check(member.config, member.path)
            device.check(member.config.device, plan(member.config, None).ranks)
            check_evaluation(compare, member)
        except UserError as error:
            raise UserError(f"{member.title}: {error}") from error


def _check_corpus(compare: CompareConfig) -> None:
    if compare.corpus == "demo" or Path(compare.corpus).is_dir():
        return
    commands = " && ".join(compare.prepare) or (
        f"python -m data_pipeline tokenizer --train FILES --vocab-size N --out {compare.corpus} "
        f"&& python -m data_pipeline tokenize FILES --corpus {compare.corpus} --split train"
    )
    raise UserError(f"corpus {compare.corpus}: there is none; make it: {commands}")


def _check_unchanged(member: Member) -> None:
    """UserError if the run has begun with other values of :data:`FIXED`."""
    if not member.directory.config.exists():
        return
    plain = read_file(member.directory.config)
    before, now = to_plain(stored_config(plain, str(member.path))), to_plain(member.config)
    changed = [
        f"{key}: was {before[key]}, is {now[key]}" for key in FIXED if before[key] != now[key]
    ]
    if changed:
        raise UserError(
            f"{member.path} has begun with another configuration ({'; '.join(changed)}); put it "
            "back, remove that directory, or set out=DIR"
        )
