"""``python -m tools.evaluate RUN``: the held-out bound of a run or checkpoint, as JSON.

nelbo, nelbo_ci95   nats per token, with a 95% bootstrap interval over documents
perplexity          exp(nelbo)
bits_per_byte       the same bound per byte of text: no tokenizer can flatter it
unigram, ratio      cross-entropy of the training unigram on the same tokens; nelbo / unigram
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import torch

from configs.errors import UserError
from data_pipeline.packing import held_out
from data_pipeline.shards import open_split
from data_pipeline.tokenizer import load_tokenizer
from pretrain.checkpoint.weights import Loaded, Which
from pretrain.data import corpus_path
from pretrain.evaluate import document_losses, summarise
from tools import command


def evaluate(
    loaded: Loaded, split_name: str, *, which: Which, samples: int, batch: int, seed: int
) -> dict[str, Any]:
    """The summary of :func:`pretrain.evaluate.summarise`, and how it was come by."""
    config = loaded.config
    path = corpus_path(config)
    tokenizer = load_tokenizer(path)
    train = open_split(path, config.data.train_split, tokenizer=tokenizer)
    split = open_split(path, split_name, tokenizer=tokenizer)
    windows = held_out(split, config.data.sequence_length, config.data.packing)
    with (
        torch.inference_mode(),
        command.progress(loaded, len(windows), "window", "evaluate") as bar,
    ):
        sums = document_losses(
            loaded.predict,
            config.objective,
            config.model,
            windows,
            seed=seed,
            samples=samples,
            batch=batch,
            share=loaded.share,
            device=loaded.device,
            on_batch=bar.update,
        )
    facts = {"split": split_name, "weights": which, "samples": samples, "step": loaded.step}
    return {**summarise(loaded.total(sums), train, split, seed=seed), **facts}


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("evaluate", __doc__)
    parser.add_argument("--split", help="split of the run's corpus (default: its held-out one)")
    parser.add_argument(
        "--samples", type=int, default=4, help="corruptions of each window (default 4)"
    )
    parser.add_argument("--batch", type=int, default=32, help="windows per forward pass")
    parser.add_argument("--seed", type=int, default=0, help="of the corruptions")
    return parser


def _work(loaded: Loaded, arguments: argparse.Namespace) -> int:
    summary = evaluate(
        loaded,
        arguments.split or loaded.config.data.valid_split,
        which=arguments.weights,
        samples=arguments.samples,
        batch=arguments.batch,
        seed=arguments.seed,
    )
    if loaded.is_first:
        print(json.dumps(summary, indent=2))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = _parser().parse_intermixed_args(argv)

    def evaluate_run() -> int:
        if arguments.samples < 1 or arguments.batch < 1:
            raise UserError("--samples and --batch must be at least 1")
        return command.with_model(_work, arguments)

    return command.run(evaluate_run)


if __name__ == "__main__":
    # By its importable name: ranks are to find this module's functions too.
    from tools.evaluate import main as command_main

    sys.exit(command_main())
