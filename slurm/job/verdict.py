"""Verdict on a start: why it ended, judged by its tasks' records and srun's output.

srun's own status is a poor witness: with ``--kill-on-bad-exit`` the killed siblings mask the task
that failed. The tasks' records come first; but srun's messages about lost nodes come before a
rank's failure, which may follow from the loss of its peers. srun's status comes last.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from configs.exit_codes import HUNG, STOPPED, SUPERSEDED, WRONG_INPUT
from slurm.job.task import ORDERLY

Kind = Literal[
    "done", "stopped", "terminated", "wrong", "failed", "hung", "lost", "killed", "superseded"
]

_INFRASTRUCTURE = re.compile(
    r"credential revoked|task launch|node failure|unable to create step|launch failed|"
    r"communication connection failure|socket timed out|step creation",
    re.I,
)
_USER_SIGNALS = {"SIGUSR1", "SIGUSR2"}
_ENDING = {"SIGTERM", "SIGINT"}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Why a start ended.

    Args:
        kind: ``stopped`` on a request that wants the run to go on; ``terminated`` on one that
            leaves this to SLURM or to the user; ``killed`` by something that was not the run.
        reason: for people.
        nodes: those that were lost.
    """

    kind: Kind
    reason: str
    nodes: tuple[str, ...] = ()


def judge(
    exits: Mapping[int, Mapping[str, Any]],
    size: int,
    *,
    status: int | None,
    srun_output: str = "",
    asked: Collection[str] = (),
    lost: Collection[str] = (),
    complaint: str = "",
) -> Verdict:
    """The verdict on a start.

    Args:
        exits: records of the ranks that left one (:meth:`slurm.records.Start.exits`). size: number
            of ranks.
        status, srun_output: of srun. asked: names of signals that the supervisor received.
        lost: nodes without heartbeat. complaint: the run's own message about its failure.
    """
    codes = {rank: int(record.get("code", -1)) for rank, record in exits.items()}
    values = set(codes.values())
    if SUPERSEDED in values:
        return Verdict(kind="superseded", reason="a newer start of the run has begun")
    if lost:
        return Verdict(
            kind="lost", reason=f"no sign of life from {', '.join(lost)}", nodes=tuple(lost)
        )
    if WRONG_INPUT in values:
        return Verdict(kind="wrong", reason=complaint or "the run refuses its input")
    if len(codes) == size and values <= set(ORDERLY):
        return _orderly(exits, values, asked)
    if _ENDING & set(asked):
        return Verdict(kind="terminated", reason="ended before all ranks had saved")
    if HUNG in values:
        ranks = [str(rank) for rank, code in codes.items() if code == HUNG]
        return Verdict(kind="hung", reason=f"no progress; left by rank {', '.join(sorted(ranks))}")
    own = {rank: code for rank, code in codes.items() if code not in ORDERLY}
    by_itself = sorted(rank for rank, code in own.items() if code > 0)
    by_signal = sorted(rank for rank, code in own.items() if code < 0)
    found = _INFRASTRUCTURE.search(srun_output)
    line = next((x for x in srun_output.splitlines() if found and found[0] in x), "").strip()
    if line:
        return Verdict(kind="killed", reason=line)
    if by_itself and not by_signal:
        text = complaint or f"exit status {own[by_itself[0]]}; see its log"
        return Verdict(kind="failed", reason=f"rank {by_itself[0]} failed: {text}")
    if by_signal:
        rank = by_signal[0]
        return Verdict(kind="killed", reason=f"rank {rank} was killed by signal {-own[rank]}")
    return Verdict(kind="killed", reason=f"srun ended with status {status}")


def _orderly(
    exits: Mapping[int, Mapping[str, Any]], values: set[int], asked: Collection[str]
) -> Verdict:
    if STOPPED not in values:
        return Verdict(kind="done", reason="")
    heard = {name for record in exits.values() for name in record.get("signals", ())}
    heard |= set(asked)
    names = ", ".join(sorted(heard)) or "another launcher's"
    if heard & _USER_SIGNALS and not _ENDING & set(asked):
        return Verdict(kind="stopped", reason=f"saved on request ({names})")
    return Verdict(kind="terminated", reason=f"saved on request ({names})")
