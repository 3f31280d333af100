"""``python -m tools.evaluate RUN``: held-out numbers of a run or checkpoint, as JSON.

    python -m tools.evaluate runs/demo
    python -m tools.evaluate runs/e2e --task seq2seq --data test.jsonl --train-data train.jsonl

nelbo, nelbo_ci95   nats per counted token, and its 95% interval; "interval" says over what,
                    or why there is none (null): below 10 documents
perplexity          exp(nelbo)
bits_per_byte       the same bound per byte of text: no tokenizer can flatter it
unigram, ratio      cross-entropy of the training unigram on the same tokens (without EOS where
                    that is given); nelbo / unigram
bound_on            what nelbo is a bound on: the texts and their ends, or, with
length_given        true, each text given its length (packing pad; objective.padding masked
                    or visible). Then EOS is given too, and is neither predicted nor counted
exact               whether nelbo is no bound but that itself: then one corruption is scored
documents_cut       padded documents longer than a window: how many windows each fills is given
tokens, eos_counted, padding_counted, padding
                    how many tokens nelbo is divided by, how many of these are EOS or padding,
                    and what becomes of padding
loss, loss_ci95     of an objective without a bound (GENIE): its training loss at even times,
                    padding counted since it is generated; a bound on nothing
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from configs.errors import UserError, exit_code
from configs.words import parse
from data_pipeline.packing import held_out
from data_pipeline.shards import open_split
from model.draws import Draws
from model.objectives import Bounded
from model.prediction import Networks
from pretrain.checkpoint.networks import asking
from pretrain.checkpoint.weights import Loaded, Which, configuration
from pretrain.config import RunConfig
from pretrain.data import corpus_path, open_corpus
from pretrain.evaluation.bound import document_losses, mean_losses, summarise
from pretrain.evaluation.interval import ratio_interval
from tools import command
from tools.evaluate.seq2seq import evaluate_seq2seq
from tools.sample.candidates import add_candidate_options
from tools.sample.options import add_sampler_option, asks_for_help, listing, sampler_of

OF_PAIRS = "held-out samples"
"""What an interval of a loss is over, where samples are not cut from documents."""


def evaluate(
    loaded: Loaded, split_name: str, *, which: Which, samples: int, batch: int, seed: int
) -> dict[str, Any]:
    """The summary of :func:`summarise`, with its interval and the settings that gave it."""
    config = loaded.config
    path = corpus_path(config)
    tokenizer = loaded.tokenizer()
    train = open_split(path, config.data.train_split, tokenizer=tokenizer)
    split = open_split(path, split_name, tokenizer=tokenizer)
    how: Any = config.data.packing
    mask = config.data.document_mask
    windows = held_out(split, config.data.sequence_length, how, segments=mask)
    scope = config.objective.scope(padded=how == "pad")
    samples = 1 if scope.exact else samples
    with (
        torch.inference_mode(),
        command.progress(loaded, len(windows), "window", "evaluate") as bar,
    ):
        tally = document_losses(
            Networks(loaded.network.ask),
            config.objective,
            config.model,
            windows,
            seed=seed,
            samples=samples,
            batch=batch,
            state=loaded.state,
            share=loaded.share,
            device=loaded.device,
            on_batch=bar.update,
        )
    tally = tally.total(loaded.total)
    scored = tally.documents_D3[tally.documents_D3[:, 1] > 0, :2].numpy()
    interval = ratio_interval(scored, seed=seed)
    summary = summarise(tally, train, split, scope)
    facts = {"split": split_name, "weights": which, "samples": samples, "step": loaded.step}
    return {
        "nelbo": summary.pop("nelbo"),
        "nelbo_ci95": interval.bounds,
        "interval": interval.told,
        **summary,
        **facts,
    }


def held_out_loss(
    loaded: Loaded, split_name: str, *, which: Which, batch: int, seed: int
) -> dict[str, Any]:
    """The objective's mean loss on a split, for objectives without a bound."""
    config = loaded.config
    data = replace(config.data, valid_split=split_name)
    loaded.tokenizer()
    draws = Draws(seed=config.seed, split="train", batch=config.global_batch)
    corpus = open_corpus(replace(config, data=data), draws)
    if corpus.held_out is None:
        raise UserError(f"{corpus.path} has no split '{split_name}'")
    if loaded.is_first:
        for note in corpus.notes:
            print(f"warning: {note}", file=sys.stderr)
    stream, num = corpus.held_out
    with torch.inference_mode(), command.progress(loaded, num, "sample", "evaluate") as bar:
        found = mean_losses(
            asking(loaded),
            config.objective,
            config.model,
            stream,
            seed=seed,
            num=num,
            batch=batch,
            state=loaded.state,
            share=loaded.share,
            device=loaded.device,
            on_batch=bar.update,
        )
    found = found.total(loaded.total)
    losses = found.losses(config.objective)
    assert corpus.document_of is not None
    samples = found.by_sample(config.objective).numpy()
    documents = by_document(samples, corpus.document_of())
    of = OF_PAIRS if config.data.packing == "pairs" else "documents"
    interval = ratio_interval(documents, seed=seed, of=of)
    return {
        "loss": losses.pop("loss"),
        "loss_ci95": interval.bounds,
        "interval": interval.told,
        "bound_on": None,
        "terms": losses,
        "positions": int(found.tokens_N.sum()),
        "documents": len(documents),
        "padding": "as in training",
        "split": split_name,
        "weights": which,
        "samples": num,
        "step": loaded.step,
    }


def by_document(samples_N2: np.ndarray, document_N: np.ndarray) -> np.ndarray:
    """Sums over the samples of each document: paragraphs of one text are not independent."""
    _, of_N = np.unique(document_N, return_inverse=True)
    sums = [np.bincount(of_N, weights=column) for column in samples_N2.T]
    return np.stack(sums, axis=1)


def in_words(summary: dict[str, Any]) -> str:
    """What the number is, its uncertainty, and what was counted."""
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
        "--samples", type=command.positive, default=4, help="corruptions of each window (default 4)"
    )
    parser.add_argument(
        "--batch", type=command.positive, default=32, help="windows per forward pass (default 32)"
    )
    parser.add_argument(
        "--seed", type=command.seed, default=0, help="of the corruptions (default 0)"
    )
    add_candidate_options(parser)
    add_sampler_option(parser)
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
    options.add_argument(
        "--sources", type=command.positive, help="only the first so many different sources"
    )
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
        if arguments.task == "held-out":
            print(in_words(summary), file=sys.stderr)
        print(json.dumps(plain(summary), indent=2, allow_nan=False))
    return 0


def plain(summary: dict[str, Any]) -> dict[str, Any]:
    """As JSON has it: null for a number that is not finite."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in summary.items()
    }


def _check(arguments: argparse.Namespace, config: RunConfig) -> None:
    """UserError for options that do not fit, before a model is loaded."""
    command.check_output("--out", arguments.out)
    is_seq2seq = config.model.seq2seq is not None
    if arguments.task == "seq2seq":
        if not is_seq2seq:
            raise UserError(f"--task seq2seq: {arguments.run} is no encoder-decoder")
        if arguments.data is None:
            raise UserError("--task seq2seq needs --data FILE, pairs of a source and a target")
        if arguments.must_say and arguments.train_data is None:
            raise UserError("--must-say tells seen from unseen: it needs --train-data FILE")
        sampler_of(arguments.sampler, config)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = parse(_parser(), argv)

    def evaluate_run() -> int:
        config = configuration(arguments.run)
        if asks_for_help(arguments.sampler):
            print(listing(config))
            return 0
        _check(arguments, config)
        return command.with_model(_work, arguments)

    return exit_code(evaluate_run)


if __name__ == "__main__":
    # By its importable name: ranks are to find this module's functions too.
    from tools.evaluate.__main__ import main as command_main

    sys.exit(command_main())
