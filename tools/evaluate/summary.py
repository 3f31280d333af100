"""The work of ``python -m tools.evaluate`` on each rank: evaluate, and print the summary."""

import argparse
import json
import math
import sys
from typing import Any

from pretrain.checkpoint.weights import Loaded
from pretrain.evaluation.of_checkpoint import held_out_bound, held_out_loss
from tools.evaluate.seq2seq import evaluate_seq2seq


def print_summary(loaded: Loaded, arguments: argparse.Namespace) -> int:
    """Evaluate on every rank, and print a JSON object on the first."""
    common = {"which": arguments.weights, "batch": arguments.batch, "seed": arguments.seed}
    split = arguments.split or loaded.config.data.valid_split
    if arguments.task == "seq2seq":
        summary = evaluate_seq2seq(loaded, arguments)
    elif loaded.config.objective.bound is not None:
        summary = held_out_bound(loaded, split, samples=arguments.samples, **common)
    else:
        summary = held_out_loss(loaded, split, **common)
    if loaded.is_first:
        if arguments.task == "held-out":
            print(in_words(summary), file=sys.stderr)
        print(json.dumps(plain(summary), indent=2, allow_nan=False))
    return 0


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
    return (
        f"held-out nelbo {summary['nelbo']:.4f} nats a token (interval: {spread}): {is_what} "
        f"{summary['bound_on']}; counted {summary['tokens']:,} tokens, "
        f"{summary['eos_counted']:,} of them EOS; padding: {summary['padding']}"
    )


def plain(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary with null for each number that is not finite, which JSON does not have."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in summary.items()
    }
