"""``python -m tools.evaluate RUN``: the held-out bound or loss, and the options of both."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from configs.build import Plugin
from configs.errors import UserError
from data_pipeline.manifest import read_manifest
from model.naming import method_name
from model.processes.masked_bound import ESTIMATORS
from pretrain.checkpoint.weights import Loaded
from pretrain.config import RunConfig
from pretrain.evaluation.conventions import Convention
from pretrain.evaluation.of_checkpoint import held_out_bound, held_out_loss, with_estimator
from pretrain.evaluation.rounds import LEAST, Target
from tools import command
from tools.evaluate.text import SPLIT, check_text

CONVENTIONS = Plugin("pretrain.evaluation.conventions")
OURS = "documents"
OF_A_BOUND = ("estimator", "convention", "target_ci", "samples_out")
"""Options of a likelihood bound, None where they are not given."""


def _positive_number(text: str) -> float:
    found = command.finite(text)
    if found <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return found


def add_held_out_options(parser: argparse.ArgumentParser) -> None:
    """The options of a likelihood bound."""
    options = parser.add_argument_group("the held-out bound")
    options.add_argument(
        "--samples",
        type=command.positive,
        help="corruptions of each window (default: 4, or the convention's)",
    )
    options.add_argument(
        "--estimator",
        choices=ESTIMATORS,
        help="of masked diffusion, all of one mean: exact-k (default) draws how many tokens are "
        "masked first, evenly over all corruptions; stratified-time draws the time first, of "
        "infinite variance; fixed-l draws the number for each window by itself",
    )
    options.add_argument(
        "--convention",
        choices=CONVENTIONS.names(),
        help="what is scored: documents (default), each of their tokens once; or all positions of "
        "full windows, BOS and EOS included, as published perplexities are (see tools/README.md)",
    )
    options.add_argument(
        "--target-ci",
        type=_positive_number,
        metavar="NATS",
        help="draw corruptions until what their chance adds is this narrow: half the width of the "
        "95%% interval of nelbo, given the documents, whose own differences no corruption narrows",
    )
    options.add_argument(
        "--most-samples",
        type=command.number(LEAST),
        default=128,
        help=f"with --target-ci: corruptions of each window at most, {LEAST} or more (default 128)",
    )
    options.add_argument(
        "--samples-out",
        type=Path,
        metavar="FILE",
        help="write index, tokens, nats and nats_per_token of each document as JSON lines",
    )


def check_held_out(arguments: argparse.Namespace, config: RunConfig) -> None:
    """UserError for options that do not fit the run or one another."""
    command.check_output("--samples-out", arguments.samples_out)
    check_text(arguments)
    given = [name for name in OF_A_BOUND if getattr(arguments, name) is not None]
    if arguments.text is not None:
        given.append("text")
    if given and arguments.task != "held-out":
        raise UserError(f"{_option(given[0])} is for --task held-out; leave one of the two out")
    if config.model.reads_source and arguments.text is not None:
        raise UserError(f"--text: {arguments.run} reads pairs of a source and a target")
    if config.objective.bound is None:
        if of_bound := [name for name in given if name in OF_A_BOUND]:
            raise UserError(
                f"{_option(of_bound[0])}: {method_name(config.objective)} has no likelihood bound; "
                "leave it out"
            )
        return
    with_estimator(config.objective, arguments.estimator)
    convention(arguments).check(config)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def convention(arguments: argparse.Namespace) -> Convention:
    """The convention that is asked for, by default ours."""
    found: Convention = CONVENTIONS.resolve(arguments.convention or OURS)()
    return found


def held_out(loaded: Loaded, arguments: argparse.Namespace) -> dict[str, Any]:
    """Held-out numbers of a split, or of the text whose corpus is ``arguments.corpus``."""
    split = arguments.split or loaded.config.data.valid_split
    about: dict[str, Any] = {}
    if arguments.corpus is not None:
        split, corpus = SPLIT, arguments.corpus
        data = replace(loaded.config.data, corpus=str(corpus))
        loaded = replace(loaded, config=replace(loaded.config, data=data))
        manifest = read_manifest(corpus / SPLIT)
        about = {
            "text": arguments.text,
            "detokenized": arguments.detokenize,
            "left_out_empty": manifest.skipped_empty,
            "left_out_bad": manifest.skipped_bad,
        }
    common: Any = {"which": arguments.weights, "batch": arguments.batch, "seed": arguments.seed}
    if loaded.config.objective.bound is None:
        return held_out_loss(loaded, split, **common) | about
    target = None
    if arguments.target_ci is not None:
        target = Target(half_width=arguments.target_ci, most=arguments.most_samples)
    found = held_out_bound(
        loaded,
        split,
        samples=arguments.samples,
        estimator=arguments.estimator,
        convention=convention(arguments),
        target=target,
        **common,
    )
    if arguments.samples_out is not None and loaded.is_first:
        _write(arguments.samples_out, found.documents_D2)
    return found.summary | {"target_ci": arguments.target_ci} | about


def _write(path: Path, documents_D2: np.ndarray) -> None:
    """Write one JSON object a document, those of which nothing is counted included."""
    with path.open("w", encoding="utf-8") as file:
        for index, (nats, tokens) in enumerate(documents_D2.tolist()):
            each = nats / tokens if tokens else None
            line = {"index": index, "tokens": round(tokens), "nats": nats, "nats_per_token": each}
            file.write(json.dumps(line) + "\n")


def in_words(summary: dict[str, Any]) -> str:
    """One line on the held-out number, its interval and what was counted."""
    name = "nelbo" if "nelbo" in summary else "loss"
    ends = summary[f"{name}_ci95"]
    spread = summary["interval"] + (f", {ends[0]:.4f} to {ends[1]:.4f}" if ends else "")
    if name == "loss":
        return (
            f"held-out loss {summary['loss']:.4f} a position (interval: {spread}): the training "
            f"loss at even times, no bound on any likelihood; {summary['positions']:,} positions, "
            f"padding {summary['padding']}"
        )
    is_what = "exactly" if summary["exact"] else "an upper bound on"
    cut = (
        f"{summary['documents_cut']:,} documents are cut into windows"
        if summary["documents_cut"]
        else f"{summary['windows']:,} windows"
    )
    return (
        f"held-out nelbo {summary['nelbo']:.4f} nats a token (interval: {spread}): {is_what} "
        f"{summary['bound_on']}; counted {summary['tokens']:,} tokens, "
        f"{summary['eos_counted']:,} of them EOS: {summary['counted']}; {cut} of "
        f"{summary['window_tokens']:,} tokens at most; padding: {summary['padding']}"
        f"{_corruptions(summary)}"
    )


def _corruptions(summary: dict[str, Any]) -> str:
    """What the corruptions' chance adds, where a target was given."""
    target, width = summary.get("target_ci"), summary["corruptions_half_width"]
    if target is None:
        return ""
    reached = "reached" if width <= target else "not reached, at --most-samples"
    return (
        f"; {summary['samples']} corruptions of each window add +-{width:.4f} (--target-ci "
        f"{target:g} {reached})"
    )
