"""What a job asks of a cluster: one YAML file per cluster, which may inherit another.

``inherits: base.yaml`` in a file names the one it builds upon, beside it.
"""

import dataclasses
import difflib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.checks import Checked, at_least, at_most
from configs.errors import UserError
from configs.load import merge, parse_override, read_yaml, validate
from slurm import quoting
from slurm.durations import seconds

INHERITS = "inherits"
SCHEDULER_LOOK_S = 30
"""Seconds between slurmctld's looks at time limits: a signal may come up to twice this early."""

MOST_RANKS = 100_000
"""Upper bound on nodes and on ranks of a node: more is a typing error."""


_OPTION = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_OURS = ("array", "chdir", "dependency", "output", "wrap")
_NONE = ("help", "parsable", "quiet", "test-only", "usage", "version", "wait")
"""Options with which sbatch prints no job id, or submits nothing."""


@dataclass(frozen=True, kw_only=True)
class Settings(Checked):
    """What a job requests of the cluster, and how it restarts.

    Args:
        nodes: machines.
        gpus_per_node: one rank for each of their GPUs.
        ranks_per_node: ranks without GPUs; give this or ``gpus_per_node``.
        cpus_per_rank: cores of each rank.
        elastic: run on any number of nodes between ``min_nodes`` and ``nodes``, with a layout
            that fits them at the same global batch.
        min_nodes: with ``elastic``, the fewest machines to run on.
        memory: of a node, as ``--mem`` takes it; by default the cluster's.
        time: limit of one start, as ``--time`` takes it, in quotes: "1-00:00:00", "0:30:00".
        partition, account, qos, constraint, exclude, reservation: as sbatch takes them.
        environment: shell lines run first, such as ``module load``; these alone are commands, and
            no other value is read by a shell.
        container: command in front of each rank's, such as ``apptainer exec --nv image.sif``.
        python: the interpreter on the cluster; by default the one that submits.
        options: further options of sbatch, ``name: value``; ``true`` for one without a value.
        srun_options: further words for srun.
        requeue: the site lets a job requeue itself; else successors are submitted.
        stop_ahead_s: seconds before the time limit at which the run saves and leaves: the duration
            of a save and a minute or more.
        max_restarts: consecutive starts without a new saved step after which the run stops.
        heartbeat_s: seconds without a heartbeat after which a node counts as lost.
        exclude_lost_nodes: exclude a lost node from later starts.
        max_parallel: members of a sweep that run at the same time.
    """

    nodes: int = 1
    gpus_per_node: int = 0
    ranks_per_node: int = 0
    cpus_per_rank: int = 1
    elastic: bool = False
    min_nodes: int = 1
    memory: str | None = None
    time: str = "1-00:00:00"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    reservation: str | None = None
    environment: tuple[str, ...] = ()
    container: str | None = None
    python: str | None = None
    options: dict[str, str | int | bool] = field(default_factory=dict)
    srun_options: tuple[str, ...] = ()
    requeue: bool = True
    stop_ahead_s: int = 120
    max_restarts: int = 5
    heartbeat_s: float = 90.0
    exclude_lost_nodes: bool = True
    max_parallel: int = 64

    def _check_texts(self) -> Iterator[str]:
        """Values with control characters, which would be more than a value in a script."""
        for field_ in dataclasses.fields(self):
            if field_.name != "environment" and quoting.control(_texts(self, field_.name)):
                yield f"{field_.name} holds a newline or another control character"
        for key in self.options:
            if not _OPTION.fullmatch(key):
                yield f"options: '{key}' is no name of an option of sbatch"
            if key in _OURS or key in _NONE:
                yield f"options.{key} is for submit itself to set: leave it out"

    def _check_values(self) -> Iterator[str]:
        yield from at_least(
            self, 1, "nodes", "cpus_per_rank", "min_nodes", "max_restarts", "max_parallel"
        )
        yield from at_least(self, 0, "gpus_per_node", "ranks_per_node", "stop_ahead_s")
        yield from at_most(self, MOST_RANKS, "nodes", "gpus_per_node", "ranks_per_node")
        yield from at_most(self, MOST_RANKS, "cpus_per_rank", "stop_ahead_s")
        if self.heartbeat_s <= 0:
            yield f"heartbeat_s must be above 0, not {self.heartbeat_s}"

    def _check_ranks(self) -> Iterator[str]:
        if (self.gpus_per_node > 0) == (self.ranks_per_node > 0):
            yield (
                "set gpus_per_node (a rank for each GPU) or ranks_per_node (without GPUs), one of "
                "the two"
            )

    def _check_nodes(self) -> Iterator[str]:
        if self.min_nodes > self.nodes:
            yield f"min_nodes {self.min_nodes} is more than nodes {self.nodes}"

    def _check_time(self) -> Iterator[str]:
        try:
            limit = seconds(self.time)
        except ValueError as error:
            yield f"time: {error}"
            return
        # A signal that comes at the start of every start would requeue for ever.
        if limit is not None and limit < 2 * (self.stop_ahead_s + SCHEDULER_LOOK_S):
            yield (
                f"time {self.time} is too short for stop_ahead_s {self.stop_ahead_s}: allow at "
                f"least {2 * (self.stop_ahead_s + SCHEDULER_LOOK_S)} s, or lower stop_ahead_s"
            )

    def _check_commands(self) -> Iterator[str]:
        if self.python is not None and (not self.python or self.python[0] in "-~$"):
            yield f"python must name an interpreter, not '{self.python}': no shell reads it"
        try:
            words = shlex.split(self.container or "")
        except ValueError as error:
            yield f"container: {error}"
            return
        if words and words[0].startswith("-"):
            yield f"container must begin with a command, not '{words[0]}'"

    @property
    def per_node(self) -> int:
        """Ranks on each node."""
        return self.gpus_per_node or self.ranks_per_node

    @property
    def node_counts(self) -> range:
        """Numbers of nodes on which the run may start."""
        return range(self.min_nodes if self.elastic else self.nodes, self.nodes + 1)


def _texts(settings: Settings, name: str) -> str:
    """The keys and values of a setting, joined."""
    value = getattr(settings, name)
    parts = value.items() if isinstance(value, dict) else [value]
    return "".join(
        "".join(map(str, part)) if isinstance(part, tuple) else str(part) for part in parts
    )


NAMES = tuple(one.name for one in dataclasses.fields(Settings))


def load(file: Path, overrides: Sequence[str] = ()) -> Settings:
    """Load a cluster file and apply ``key=value`` words to it.

    Raises:
        UserError: lists every problem; for a misspelt setting, all settings.
    """
    data = inherited(file)
    for word in overrides:
        key, _, text = word.partition("=")
        if key.split(".")[0] not in NAMES:
            raise UserError(f"{_unknown(key)}; words of the run come after --")
        # On a command line 90 is meant as sbatch takes it, though YAML reads a number there.
        minutes = key == "time" and text.isdigit()
        data = merge(data, {key: text} if minutes else parse_override(word))
    return checked(data, where=str(file))


def checked(data: Mapping[str, Any], where: str) -> Settings:
    """Validate plain data as settings; ``where`` names the data in errors."""
    unknown = [key for key in data if key not in NAMES]
    if unknown:
        hint = "; a run's configuration comes after --" if _A_RUNS & set(data) else ""
        raise UserError(f"{where}: {_unknown(unknown[0])}{hint}")
    if isinstance(data.get("time"), int):
        raise UserError(f"{where}: write time in quotes, such as '1-00:00:00' or '0:30:00'")
    return validate(Settings, data, where)


_A_RUNS = {"model", "objective", "data", "global_batch"}


def _unknown(key: str) -> str:
    close = difflib.get_close_matches(key, NAMES, n=1)
    guess = f"; did you mean '{close[0]}'?" if close else ";"
    return f"unknown setting '{key}'{guess} allowed: {', '.join(NAMES)}"


def inherited(file: Path, below: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A cluster file merged over those that it inherits, as plain data."""
    if file.resolve() in below:
        raise UserError(f"{file} inherits itself")
    data = read_yaml(file)
    base = data.pop(INHERITS, None)
    if base is None:
        return data
    if not isinstance(base, str):
        raise UserError(f"{file}: {INHERITS} must name a file beside it")
    return merge(inherited(file.parent / base, (*below, file.resolve())), data)
