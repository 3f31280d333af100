"""Perplexity against entropy of samples: what ``tools.evaluate --task samples`` has written."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter, ScalarFormatter

from configs.json_files import read_json
from pretrain.run.metrics import number

TASK = "samples"
"""The task by which its files are known."""

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Rows that one judge has scored on texts of one length.

    Args:
        rows: of samples, one for each sampler and its settings.
        reference: of held-out texts; None where it has no numbers.
    """

    judge: str
    tokenizer: str
    length: int
    rows: list[Row]
    reference: Row | None


def read_sweeps(run: Path) -> list[Sweep]:
    """The sweeps in a run directory, ``RUN/*.json``; those of one judge and length are one."""
    found: dict[tuple[str, str, int], Sweep] = {}
    for path in sorted(run.glob("*.json")):
        summary = read_json(path)
        rows, reference = summary.get("rows"), summary.get("reference")
        if summary.get("task") != TASK or not isinstance(rows, list):
            continue
        own = [row for row in rows if _is_drawn(row) and isinstance(row.get("sampler"), str)]
        judge, tokenizer = (str(summary.get(key)) for key in ("judge", "judge_tokenizer"))
        length = int(number(summary.get("length")) or 0)
        sweep = found.setdefault(
            (judge, tokenizer, length),
            Sweep(
                judge=judge,
                tokenizer=tokenizer,
                length=length,
                rows=[],
                reference=reference if _is_drawn(reference) else None,
            ),
        )
        sweep.rows.extend(own)
    return [sweep for sweep in found.values() if sweep.rows]


def _is_drawn(row: Any) -> bool:
    return isinstance(row, dict) and all(
        (number(row.get(key)) or 0) > 0 for key in ("perplexity", "entropy")
    )


def cells(sweep: Sweep) -> Iterator[list[str]]:
    """A table: its head, and a line for each row, the held-out texts last."""
    yield ["", "NFE", "perplexity", "nats/byte", "entropy", "distinct-2", "copied"]
    named = [
        (" ".join(filter(None, (row["sampler"], row.get("swept")))), row) for row in sweep.rows
    ]
    for name, row in [*named, *([("held-out text", sweep.reference)] if sweep.reference else [])]:
        yield [
            name,
            _shown(row, "evaluations", ".4g"),
            _shown(row, "perplexity", ",.1f"),
            *(_shown(row, key, ".3f") for key in ("nats_per_byte", "entropy", "distinct2")),
            _shown(row, "copied", ".3f"),
        ]


def _shown(row: Row, key: str, how: str) -> str:
    value = number(row.get(key))
    return "-" if value is None else format(value, how)


def draw_sweep(sweep: Sweep, path: Path, *, size: tuple[float, float]) -> Path:
    """A line for each sampler, its points marked by evaluations of the network (NFE)."""
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    for name in dict.fromkeys(row["sampler"] for row in sweep.rows):
        own = [row for row in sweep.rows if row["sampler"] == name]
        own.sort(key=lambda row: number(row.get("evaluations")) or 0)
        entropies, perplexities = ([row[key] for row in own] for key in ("entropy", "perplexity"))
        axes.plot(entropies, perplexities, "o-", label=name.replace("$", r"\$"))
        for row in own:
            place = (row["entropy"], row["perplexity"])
            text = _shown(row, "evaluations", ".4g")
            axes.annotate(text, place, xytext=(3, 3), textcoords="offset points", fontsize="small")
    if sweep.reference:
        place = (sweep.reference["entropy"], sweep.reference["perplexity"])
        axes.plot(*place, "*", color="tab:red", markersize=11, label="held-out text")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="entropy of a text, nats", ylabel="perplexity")
    axes.margins(0.12)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize="small")
    figure.savefig(path)
    plt.close(figure)
    return path
