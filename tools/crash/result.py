"""The report of kills and faults, as Markdown."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from pretrain.run.directory import provenance
from tools.bench.measure import machine_facts
from tools.crash.evidence import NEAR
from tools.crash.faults import Survived
from tools.crash.kills import Killed, Victim
from tools.text_table import markdown

MOMENTS = ("start-up", "training", "writing", "pruning")
VICTIMS: dict[Victim, str] = {
    "all": "all processes",
    "rank": "one rank",
    "launcher": "the launcher",
}


@dataclass(kw_only=True)
class Result:
    """All survived kills and faults.

    Args:
        command: that repeats it; worst: by chain, the largest relative difference of a loss
            from one rank's.
    """

    command: str
    kills: list[Killed] = field(default_factory=list)
    faults: list[Survived] = field(default_factory=list)
    worst: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def text(self) -> str:
        """The report as Markdown."""
        seconds = time.monotonic() - self.began
        known = {**machine_facts(torch.device("cpu")), **provenance()}
        parts = [
            "# Runs killed at random moments",
            f"`{self.command}`, {seconds / 60:.0f} minutes on {time.strftime('%Y-%m-%d')}.",
            self._summary(),
        ]
        if self.kills:
            parts += ["## Kills", self._moments(), self._layouts(), self._every_kill()]
        if self.faults:
            rows = [[each.fault, each.outcome] for each in self.faults]
            parts += ["## Faults", markdown(["fault", "what the run did"], rows)]
        parts += ["## Machine", _facts(known)]
        return "\n\n".join(parts) + "\n"

    def _summary(self) -> str:
        mixed = sum(kill.chain in self.worst for kill in self.kills)
        same = len(self.kills) - mixed
        found = [f"Nothing committed was lost in {len(self.kills)} kills"]
        found[0] += f" and {len(self.faults)} faults." if self.faults else "."
        if same:
            found.append(
                f"After {same} kills the run went on under the same layout: each finished curve, "
                "and the last weights, moments and averages, are bit by bit those of a run which "
                "nothing interrupted."
            )
        if mixed:
            found.append(
                f"After {mixed} it went on under another: each segment is, bit by bit, that of a "
                "reference restarted from the same checkpoint, and its losses are those of one "
                f"uninterrupted rank up to {max(self.worst.values()):.0e} (allowed: "
                f"{NEAR['loss']:.0e})."
            )
        return "\n".join(found)

    def _moments(self) -> str:
        counts = Counter((kill.victim, kill.moment) for kill in self.kills)
        rows = [
            [words, *(str(counts[victim, moment]) for moment in MOMENTS)]
            for victim, words in VICTIMS.items()
        ]
        return markdown(["SIGKILL to", *MOMENTS], rows)

    def _layouts(self) -> str:
        counts = Counter(kill.kill.layout for kill in self.kills)
        return markdown(["layout killed", "times"], [[k, str(n)] for k, n in counts.most_common()])

    def _every_kill(self) -> str:
        rows = [
            [
                str(number),
                each.chain,
                each.kill.layout,
                VICTIMS[each.victim],
                each.moment,
                f"{each.resumed} → {each.reached}",
            ]
            for number, each in enumerate(self.kills, 1)
        ]
        head = ["kill", "run", "layout", "SIGKILL to", "while", "steps of this start"]
        return markdown(head, rows)


def line(number: int, total: int, one: Killed) -> str:
    """One kill, as it is survived."""
    return (
        f"✓ {number:>3}/{total}  {one.chain:<30}{one.kill.layout:<23}{VICTIMS[one.victim]:<15}"
        f"{one.moment:<10}steps {one.resumed:>3} → {one.reached:<4}{one.seconds:6.1f} s"
    )


def _facts(known: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in known["packages"].items())
    return (
        f"{known['cpu']}, {known['cores']} cores, load average {known['load_average']}, "
        f"{known['platform']}; Python {known['python']}, {packages}; code {known['git_commit']}."
    )
