"""The runs of a comparison: their configurations, and how far each has come."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.load import merge, validate
from pretrain.config import RunConfig
from pretrain.run.directory import RunDirectory
from pretrain.run.metrics import number, read_rows
from pretrain.run.stored_config import read_file
from tools.compare.config import CompareConfig

FILE = "config"
"""The key of ``base`` and of a run that names a configuration file."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One training of a comparison.

    Args:
        name: of the run, which its seeds share.
        config: complete.
    """

    name: str
    config: RunConfig

    @property
    def seed(self) -> int:
        """Its seed."""
        return self.config.seed

    @property
    def title(self) -> str:
        """Name and seed."""
        return f"{self.name}, seed {self.seed}"

    @property
    def path(self) -> Path:
        """Its run directory."""
        assert self.config.run_dir is not None
        return Path(self.config.run_dir)

    @property
    def directory(self) -> RunDirectory:
        """The same, with its files."""
        return RunDirectory(self.path)

    @property
    def tokens(self) -> int:
        """Positions that it reads in all its steps, padding included."""
        config = self.config
        return config.steps * config.global_batch * config.data.sequence_length

    @property
    def step(self) -> int:
        """The step that it has reached."""
        return int(self.directory.read_status().get("step") or 0)

    @property
    def is_done(self) -> bool:
        """Whether its training has ended, at its last step."""
        status = self.directory.read_status()
        return status.get("state") == "done" and status.get("step") == self.config.steps

    @property
    def seconds(self) -> float:
        """Seconds in the training loop so far, over all starts."""
        rows = read_rows(self.directory.metrics)
        return max((number(row.get("perf/elapsed_s")) or 0.0 for row in rows), default=0.0)


def members(compare: CompareConfig, out: Path) -> list[Member]:
    """The runs with each seed, checked against one another.

    Raises:
        UserError: a configuration is wrong, or the runs do not read equally many tokens.
    """
    base = _settings(compare.base, "base")
    found = [
        _member(compare, base, name, own, seed, out)
        for name, own in compare.runs.items()
        for seed in compare.seeds
    ]
    _check_tokens(found)
    return found


def _member(
    compare: CompareConfig,
    base: Mapping[str, Any],
    name: str,
    own: Mapping[str, Any],
    seed: int,
    out: Path,
) -> Member:
    where = f"runs.{name}"
    given = merge(base, _settings(own, where))
    shared = {
        "seed": seed,
        "run_dir": str(out / f"{name}-seed{seed}"),
        "data": {"corpus": compare.corpus},
    }
    return Member(name=name, config=validate(RunConfig, merge(given, shared), where))


def _settings(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A block with the file that it names below it."""
    settings = {key: value for key, value in block.items() if key != FILE}
    if FILE not in block:
        return settings
    file = block[FILE]
    if not isinstance(file, str):
        raise UserError(f"{where}.{FILE}: the path of a configuration file is expected")
    try:
        return merge(read_file(Path(file)), settings)
    except UserError as error:
        raise UserError(f"{where}.{FILE}: {error}") from error


def _check_tokens(found: Sequence[Member]) -> None:
    """UserError unless all runs read equally many tokens."""
    first, *others = {one.name: one for one in found}.values()
    if different := [one for one in others if one.tokens != first.tokens]:
        told = ", ".join(f"{one.name} {_product(one)}" for one in (first, *different))
        raise UserError(
            f"runs must read equally many tokens, steps x global_batch x data.sequence_length: "
            f"{told}; change their steps"
        )


def _product(member: Member) -> str:
    config = member.config
    sizes = (config.steps, config.global_batch, config.data.sequence_length)
    return f"{' x '.join(map(str, sizes))} = {member.tokens:,}"


def seconds_left(found: Sequence[Member]) -> float | None:
    """Seconds of training that are left, by the speed so far; None before there is any."""
    read, spent, left = 0.0, 0.0, 0.0
    for member in found:
        done = member.tokens * member.step / member.config.steps
        seconds = member.seconds
        if seconds:
            read, spent = read + done, spent + seconds
        left += member.tokens - done
    return left * spent / read if read else None
