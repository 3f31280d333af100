"""How a start ended, and what is to be done about it.

srun's status says little: with ``--kill-on-bad-exit`` the killed siblings mask the one that
failed. The tasks' own accounts come first; but what srun says of lost nodes comes before a rank's
failure, which may be the loss of its peers. srun's status comes last.
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
    """An end.

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
    said: str = "",
    asked: Collection[str] = (),
    lost: Collection[str] = (),
    complaint: str = "",
) -> Verdict:
    """The verdict on a start.

    Args:
        exits: accounts of the ranks that left one. size: of all ranks.
        status, said: of srun. asked: signals that the supervisor had.
        lost: nodes that fell silent. complaint: why the run says that it failed.
    """
    codes = {rank: int(account.get("code", -1)) for rank, account in exits.items()}
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
    found = _INFRASTRUCTURE.search(said)
    line = next((x for x in said.splitlines() if found and found[0] in x), "").strip()
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
    heard = {name for account in exits.values() for name in account.get("signals", ())}
    heard |= set(asked)
    names = ", ".join(sorted(heard)) or "another launcher's"
    if heard & _USER_SIGNALS and not _ENDING & set(asked):
        return Verdict(kind="stopped", reason=f"saved on request ({names})")
    return Verdict(kind="terminated", reason=f"saved on request ({names})")
