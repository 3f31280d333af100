"""The work of each command of ``python -m tools.convert``, and the line that it prints."""

import argparse
from dataclasses import fields
from pathlib import Path

from pretrain.checkpoint import store
from tools.convert.average import average
from tools.convert.card import About
from tools.convert.format import Options
from tools.convert.from_hf import from_hf
from tools.convert.parity import summary
from tools.convert.strip import strip_checkpoint, strip_file, to_safetensors
from tools.convert.to_hf import to_hf


def _to_hf(arguments: argparse.Namespace) -> str:
    report = to_hf(
        arguments.source,
        arguments.out,
        weights=arguments.weights,
        format_name=arguments.format,
        tokenizer=arguments.tokenizer,
        no_tokenizer=arguments.no_tokenizer,
        shard_bytes=_shard_bytes(arguments),
        about=About(license=arguments.license, repository=arguments.repository),
    )
    line = summary(report)
    if not report["tokenizer"] and not arguments.no_tokenizer:
        line += "; no tokenizer is here: name one with --tokenizer"
    return line


def _from_hf(arguments: argparse.Namespace) -> str:
    given = vars(arguments)
    options = Options(**{f.name: given[f.name] for f in fields(Options) if f.name in given})
    report = from_hf(
        arguments.source,
        arguments.out,
        format_name=arguments.format,
        options=options,
        ema=arguments.weights == "ema",
        tokenizer=arguments.tokenizer,
        shard_bytes=_shard_bytes(arguments),
    )
    line = summary(report)
    if report["left_out"]:
        line += f"; left out {report['left_out']:,} rows that the tokenizer has no ids for"
    if not report["length_known"]:
        line += (
            "; how long its training sequences were is not known: recorded as "
            f"{report['length']:,}, and --length N changes that"
        )
    return line


def _average(arguments: argparse.Namespace) -> str:
    report = average(
        arguments.sources,
        arguments.out,
        shares=arguments.shares,
        shard_bytes=_shard_bytes(arguments),
        weights=arguments.weights,
    )
    return summary(report)


def _to_safetensors(arguments: argparse.Namespace) -> str:
    return summary(
        to_safetensors(arguments.source, arguments.out, weights=arguments.weights or "ema")
    )


def _strip(arguments: argparse.Namespace) -> str:
    source: Path = arguments.source
    if source.is_file() and source.name != store.MANIFEST:
        names = strip_file(source, arguments.out, ema=arguments.weights == "ema")
        return f"left behind: {', '.join(names) or 'nothing but plain data'}"
    report = strip_checkpoint(
        source,
        arguments.out,
        shard_bytes=_shard_bytes(arguments),
        weights=arguments.weights or "ema",
    )
    return summary(report)


def _shard_bytes(arguments: argparse.Namespace) -> int:
    return int(arguments.shard_mib) * 2**20


COMMANDS = {
    "to-hf": _to_hf,
    "from-hf": _from_hf,
    "average": _average,
    "to-safetensors": _to_safetensors,
    "strip": _strip,
}
"""By name."""
