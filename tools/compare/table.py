"""The result of a comparison: rows by run, with mean and spread over seeds."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any

from configs.json_files import read_json
from pretrain.planner.plan import count_parameters
from pretrain.run.metrics import number, read_rows
from tools.compare.members import Member
from tools.compare.train import MACHINE
from tools.evaluate.sample_scores import COLUMNS, cell
from tools.evaluate.samples import names_of
from tools.text_table import markdown

NONE = "-"
UNITS = {
    "nelbo": "nats per token",
    "perplexity": "perplexity per token",
    "bits_per_byte": "bits per byte",
    "bits_per_character": "bits per character",
}
"""Held-out numbers, and their heads; of an objective without a bound there are none."""

HEAD = ("", *UNITS.values(), "parameters", "tokens", "tokens/s", "minutes", "likelihood")


@dataclass(frozen=True, kw_only=True)
class Result:
    """The numbers of one training.

    Args:
        name: of the run, which its seeds share.
        held_out, samples: of :mod:`tools.compare.evaluate`.
        tokens: read in training.
        tokens_per_second: the median over the logged rows.
        seconds: in the training loop.
        machine, commit: which trained it.
    """

    name: str
    seed: int
    directory: str
    parameters: int
    tokens: int
    tokens_per_second: float | None
    seconds: float
    machine: dict[str, Any]
    commit: str | None
    packages: dict[str, str]
    held_out: dict[str, Any]
    samples: dict[str, Any] | None


def result(member: Member, held_out: dict[str, Any], samples: dict[str, Any] | None) -> Result:
    """The numbers of a run that is trained and evaluated."""
    rows = read_rows(member.directory.metrics)
    speeds = [
        value for row in rows if (value := number(row.get("perf/tokens_per_second"))) is not None
    ]
    origin = read_json(member.path / "run.json")
    return Result(
        name=member.name,
        seed=member.seed,
        directory=str(member.path),
        parameters=count_parameters(member.config.model),
        tokens=int(rows[-1].get("tokens_seen", 0)) if rows else 0,
        tokens_per_second=median(speeds) if speeds else None,
        seconds=member.seconds,
        machine=read_json(member.path / MACHINE),
        commit=origin.get("git_commit"),
        packages=origin.get("packages") or {},
        held_out=held_out,
        samples=samples,
    )


# -- the held-out numbers -------------------------------------------------------------------


def held_out_table(results: Sequence[Result], baselines: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown row for each run and baseline; columns of which no row has a number are left."""
    rows = [HEAD, *(_run_row(own) for own in by_name(results)), *map(_baseline_row, baselines)]
    kept = [
        place
        for place, column in enumerate(zip(*rows, strict=True))
        if place == 0 or any(value != NONE for value in column[1:])
    ]
    head, *others = [[row[place] for place in kept] for row in rows]
    return markdown(head, others)


def by_name(results: Sequence[Result]) -> list[list[Result]]:
    """The results of each run, its seeds together."""
    names = dict.fromkeys(one.name for one in results)
    return [[one for one in results if one.name == name] for name in names]


def _run_row(own: Sequence[Result]) -> list[str]:
    first = own[0]
    name = first.name if len(own) == 1 else f"{first.name} ({len(own)} seeds)"
    speeds = [one.tokens_per_second for one in own if one.tokens_per_second is not None]
    return [
        name,
        *(_over_seeds([one.held_out for one in own], unit) for unit in UNITS),
        f"{first.parameters:,}",
        f"{fmean(one.tokens for one in own):,.0f}",
        f"{fmean(speeds):,.0f}" if speeds else NONE,
        f"{fmean(one.seconds for one in own) / 60:.1f}",
        _likelihood(first.held_out),
    ]


def _baseline_row(row: Mapping[str, Any]) -> list[str]:
    numbers = (_over_seeds([row], unit) for unit in UNITS)
    return [row["name"], *numbers, NONE, f"{row['counted']:,}", NONE, NONE, _likelihood(row)]


def _likelihood(numbers: Mapping[str, Any]) -> str:
    if numbers.get("nelbo") is None:
        return "none: its loss is no bound"
    return "exact" if numbers["exact"] else "upper bound on -log p"


def _over_seeds(numbers: Sequence[Mapping[str, Any]], unit: str) -> str:
    """One number with its interval, or the mean of several with their standard deviation."""
    values = [one[unit] for one in numbers if one.get(unit) is not None]
    if not values:
        return NONE
    if len(values) > 1:
        return f"{_short(fmean(values))} ± {_short(stdev(values))}"
    ends = numbers[0].get(f"{unit}_ci95")
    return _short(values[0]) + (f" ({_short(ends[0])} to {_short(ends[1])})" if ends else "")


def _short(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 20 else f"{value:,.1f}"


# -- the samples ----------------------------------------------------------------------------


def samples_table(results: Sequence[Result]) -> str | None:
    """A Markdown row for each sampler of each run, and one of held-out texts; None without any."""
    rows: list[tuple[str, dict[str, Any]]] = []
    reference: dict[str, dict[str, Any]] = {}
    for own in by_name(results):
        found = [names_of(one.samples) for one in own if one.samples is not None]
        for same in zip(*found, strict=True):
            name, row = same[0][0], _mean([row for _, row in same])
            if row.get("evaluations") is None:
                reference[name] = row
            else:
                rows.append((f"{own[0].name}, {name}", row))
    if not rows:
        return None
    rows += reference.items()
    shown = [key for key in COLUMNS if any(row.get(key) is not None for _, row in rows)]
    cells = [[name, *(cell(row, key) for key in shown)] for name, row in rows]
    return markdown(["", *(COLUMNS[key] for key in shown)], cells)


def _mean(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of each number over seeds; None where one has none."""
    found: dict[str, Any] = {}
    for key in COLUMNS:
        values = [row.get(key) for row in rows]
        known = [value for value in values if value is not None]
        found[key] = fmean(known) if len(known) == len(values) else None
    return found


# -- the page -------------------------------------------------------------------------------


def notes(results: Sequence[Result], baselines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What a reader has to know to compare the rows."""
    several = len({one.seed for one in results}) > 1
    yield (
        "Held-out numbers are means over seeds, ± their standard deviation."
        if several
        else "In parentheses are 95% intervals over documents (bootstrap-t)."
    )
    tokens = {one.name: one.held_out.get("tokens") for one in results}
    tokens |= {row["name"]: row["tokens"] for row in baselines}
    known = {name: value for name, value in tokens.items() if value is not None}
    if len(set(known.values())) > 1:
        told = ", ".join(f"{name} {value:,}" for name, value in known.items())
        yield f"**Not the same tokens are counted, so that rows cannot be compared**: {told}."
    elif known:
        yield f"All are of the same {next(iter(known.values())):,} held-out tokens."
    losses = {
        one.name: one.held_out["loss"] for one in results if one.held_out.get("loss") is not None
    }
    for name, loss in losses.items():
        yield f"{name} has a held-out loss of {loss:.4f}, which bounds no likelihood."
    judged = next((one.samples for one in results if one.samples is not None), None)
    if judged:
        yield (
            f"Samples: {judged['rows'][0]['texts']} texts of {judged['length']} positions for each "
            f"row, judged by {judged['judge']}. NFE: evaluations of the network for one text. Good "
            "is near to held-out text."
        )


def page(
    title: str,
    results: Sequence[Result],
    baselines: Sequence[Mapping[str, Any]],
    commands: Sequence[str],
    picture: str,
) -> str:
    """The Markdown page: tables, notes, commands, versions and machine."""
    parts = [f"# {title}", held_out_table(results, baselines)]
    if samples := samples_table(results):
        parts.append(samples)
    parts.append("\n".join(f"- {note}" for note in notes(results, baselines)))
    parts.append(f"![Loss over tokens, and held-out numbers]({picture})")
    parts.append("```console\n" + "\n".join(f"$ {command}" for command in commands) + "\n```")
    parts.append("\n".join(f"- {line}" for line in origin(results)))
    return "\n\n".join(parts) + "\n"


def origin(results: Sequence[Result]) -> Iterator[str]:
    """Which code and machine trained the runs; each different answer once."""
    machines = dict.fromkeys(_machine(one.machine) for one in results if one.machine)
    yield from (f"machine: {told}" for told in machines)
    commits = dict.fromkeys(one.commit for one in results if one.commit)
    yield from (f"commit: {commit}" for commit in commits)
    packages = dict.fromkeys(
        ", ".join(f"{name} {version}" for name, version in one.packages.items())
        for one in results
        if one.packages
    )
    yield from (f"packages: {told}" for told in packages)


def _machine(facts: Mapping[str, Any]) -> str:
    where = facts.get("gpu") or f"{facts.get('cpu')}, {facts.get('cores')} cores"
    return str(where)


def commands(prepare: Sequence[str], words: Sequence[str]) -> list[str]:
    """The commands that make the table, from the text on."""
    return [*prepare, shlex.join(["python", "-m", "tools.compare", *words])]
