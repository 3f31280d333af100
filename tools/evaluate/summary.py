"""The work of ``python -m tools.evaluate`` on each rank: evaluate, and print the summary."""

import argparse
import json
import math
import sys
from typing import Any

from pretrain.checkpoint.weights import Loaded
from tools.evaluate.held_out import held_out, in_words
from tools.evaluate.sample_scores import table
from tools.evaluate.samples import TASK, evaluate_samples, names_of
from tools.evaluate.seq2seq import evaluate_seq2seq


def print_summary(loaded: Loaded, arguments: argparse.Namespace) -> int:
    """Evaluate on every rank, and print a JSON object on the first."""
    if arguments.task == "seq2seq":
        summary = evaluate_seq2seq(loaded, arguments)
    elif arguments.task == TASK:
        summary = evaluate_samples(loaded, arguments)
    else:
        summary = held_out(loaded, arguments)
    if loaded.is_first:
        if arguments.task == "held-out":
            print(in_words(summary), file=sys.stderr)
        if arguments.task == TASK:
            print(table(names_of(summary)), file=sys.stderr)
        print(json.dumps(plain(summary), indent=2, allow_nan=False))
    return 0


def plain(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary with null for each number that is not finite, which JSON does not have."""
    return {name: _plain(value) for name, value in summary.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return None if isinstance(value, float) and not math.isfinite(value) else value
