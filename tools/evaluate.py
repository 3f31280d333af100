"""``python -m tools.evaluate RUN``: held-out numbers of a run or checkpoint, as JSON.

    python -m tools.evaluate runs/demo
    python -m tools.evaluate runs/e2e --task seq2seq --data test.jsonl --train-data train.jsonl

nelbo, nelbo_ci95   nats per token, with a 95% bootstrap interval over documents
perplexity          exp(nelbo)
bits_per_byte       the same bound per byte of text: no tokenizer can flatter it
loss                of an objective without a bound: its training loss, at even times
unigram, ratio      cross-entropy of the training unigram on the same tokens; nelbo / unigram
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from configs.errors import UserError
from data_pipeline.packing import held_out
from data_pipeline.shards import open_split
from data_pipeline.tokenizer import load_tokenizer
from model.draws import Draws
from model.objectives import Bounded
from pretrain.checkpoint.weights import Loaded, Which, configuration
from pretrain.data import corpus_path, open_corpus
from pretrain.evaluate import document_losses, mean_losses, summarise
from tools import command
from tools.seq2seq.evaluate import add_sampling_options, evaluate_seq2seq, sampler_of


def evaluate(
    loaded: Loaded, split_name: str, *, which: Which, samples: int, batch: int, seed: int
) -> dict[str, Any]:
    """The summary of :func:`pretrain.evaluate.summarise`, and how it was come by."""
    config = loaded.config
    path = corpus_path(config)
    tokenizer = load_tokenizer(path)
    train = open_split(path, config.data.train_split, tokenizer=tokenizer)
    split = open_split(path, split_name, tokenizer=tokenizer)
    how: Any = config.data.packing
    windows = held_out(split, config.data.sequence_length, how)
    with (
        torch.inference_mode(),
        command.progress(loaded, len(windows), "window", "evaluate") as bar,
    ):
        sums = document_losses(
            loaded.network.predict,
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


def held_out_loss(
    loaded: Loaded, split_name: str, *, which: Which, batch: int, seed: int
) -> dict[str, Any]:
    """The objective's mean loss on a split, for objectives without a bound."""
    config = loaded.config
    data = replace(config.data, valid_split=split_name)
    draws = Draws(seed=config.seed, split="train", batch=config.global_batch)
    corpus = open_corpus(replace(config, data=data), draws)
    if corpus.held_out is None:
        raise UserError(f"{corpus.path} has no split '{split_name}'")
    if loaded.is_first:
        for note in corpus.notes:
            print(f"warning: {note}", file=sys.stderr)
    stream, num = corpus.held_out
    with torch.inference_mode(), command.progress(loaded, num, "sample", "evaluate") as bar:
        sums = mean_losses(
            loaded.network.predict,
            config.objective,
            config.model,
            stream,
            seed=seed,
            num=num,
            batch=batch,
            share=loaded.share,
            device=loaded.device,
            on_batch=bar.update,
        )
    loss, count = loaded.total(sums).tolist()
    facts = {"split": split_name, "weights": which, "samples": num, "step": loaded.step}
    return {"loss": loss / count, **facts}


def _parser() -> argparse.ArgumentParser:
    parser = command.model_parser("evaluate", __doc__)
    parser.add_argument(
        "--task",
        choices=("held-out", "seq2seq"),
        default="held-out",
        help="held-out (default): the bound, or the loss where there is none; seq2seq: texts and "
        "their BLEU and ROUGE",
    )
    parser.add_argument("--split", help="split of the run's corpus (default: its held-out one)")
    parser.add_argument(
        "--samples", type=int, default=4, help="corruptions of each window (default 4)"
    )
    parser.add_argument(
        "--batch", type=int, default=32, help="windows per forward pass (default 32)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the corruptions (default 0)")
    add_sampling_options(parser)
    options = parser.add_argument_group("the task seq2seq")
    options.add_argument("--data", type=Path, metavar="FILE", help="pairs, one JSON object a line")
    options.add_argument(
        "--train-data", type=Path, metavar="FILE", help="training pairs, for the baselines"
    )
    options.add_argument(
        "--pairs",
        nargs=2,
        default=("source", "target"),
        metavar=("SOURCE", "TARGET"),
        help="their fields (default: source target)",
    )
    options.add_argument("--steps", type=int, default=50, help="of the sampler (default 50)")
    options.add_argument("--sources", type=int, help="only the first so many different sources")
    options.add_argument(
        "--must-say",
        metavar="REGEX",
        help="count the outputs that hold what its group captures in their source",
    )
    options.add_argument("--out", type=Path, metavar="FILE", help="write all texts as JSON lines")
    return parser


def _work(loaded: Loaded, arguments: argparse.Namespace) -> int:
    split = arguments.split or loaded.config.data.valid_split
    if arguments.task == "seq2seq":
        summary = evaluate_seq2seq(loaded, arguments)
    elif isinstance(loaded.config.objective, Bounded):
        summary = evaluate(
            loaded,
            split,
            which=arguments.weights,
            samples=arguments.samples,
            batch=arguments.batch,
            seed=arguments.seed,
        )
    else:
        summary = held_out_loss(
            loaded, split, which=arguments.weights, batch=arguments.batch, seed=arguments.seed
        )
    if loaded.is_first:
        print(json.dumps(summary, indent=2))
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """UserError for options that do not fit, before a model is loaded."""
    if arguments.samples < 1 or arguments.batch < 1 or arguments.candidates < 1:
        raise UserError("--samples, --batch and --candidates must be at least 1")
    is_seq2seq = configuration(arguments.run).model.seq2seq is not None
    if arguments.task == "seq2seq":
        if not is_seq2seq:
            raise UserError(f"--task seq2seq: {arguments.run} is no encoder-decoder")
        if arguments.data is None:
            raise UserError("--task seq2seq needs --data FILE, pairs of a source and a target")
        if arguments.must_say and arguments.train_data is None:
            raise UserError("--must-say tells seen from unseen: it needs --train-data FILE")
        sampler_of(arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = _parser().parse_intermixed_args(argv)

    def evaluate_run() -> int:
        _check(arguments)
        return command.with_model(_work, arguments)

    return command.run(evaluate_run)


if __name__ == "__main__":
    # By its importable name: ranks are to find this module's functions too.
    from tools.evaluate import main as command_main

    sys.exit(command_main())
