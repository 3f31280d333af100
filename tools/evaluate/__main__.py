"""``python -m tools.evaluate RUN``: held-out numbers of a run or checkpoint, as JSON.

    python -m tools.evaluate runs/demo
    python -m tools.evaluate runs/demo --text wiki.txt --detokenize wikitext --target-ci 0.005
    python -m tools.evaluate runs/e2e --task seq2seq --data test.jsonl --train-data train.jsonl
    python -m tools.evaluate runs/demo --task samples --sweep steps=8,16,32

nelbo, nelbo_ci95   nats per counted token, and its 95% interval; "interval" names what
                    it is over, or why it is null: below 10 documents
perplexity          exp(nelbo)
bits_per_byte       the same bound per byte of text: no tokenizer can flatter it
bits_per_character  and per character; null for splits that were made before they were counted.
                    Each of the three has its interval, NAME_ci95: that of nelbo, mapped
unigram, ratio      cross-entropy of the training unigram on the same tokens (without EOS where
                    that is given); nelbo / unigram
bound_on            what nelbo is a bound on: the texts and their ends, or, with
length_given        true, each text given its length (packing pad; objective.padding masked
                    or visible). Then EOS is given too, and is neither predicted nor counted
exact               whether nelbo is -log p itself: then one corruption is scored
documents_cut       padded documents longer than a window: how many windows each fills is given
tokens, eos_counted, frame_counted, padding_counted, padding
                    how many tokens nelbo is divided by, how many of these are EOS of documents,
                    BOS and EOS around windows, or padding, and what becomes of padding
convention, counted, estimator, windows, window_tokens
                    what is scored, by name and in words; how; in how many windows of how
                    many tokens
samples, corruptions_half_width
                    corruptions of each window; with --target-ci, half the width of the 95%
                    interval of nelbo over corruptions of these documents
loss, loss_ci95     of an objective without a bound (GENIE): its training loss at even times,
                    padding counted since it is generated; a bound on nothing
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.errors import UserError, exit_code
from configs.words import parse
from pretrain.checkpoint.weights import configuration
from pretrain.config import RunConfig
from pretrain.launch.local import external_world
from tools import command
from tools.evaluate.held_out import add_held_out_options, check_held_out
from tools.evaluate.samples import TASK, add_sample_options, check_samples
from tools.evaluate.summary import print_summary
from tools.evaluate.text import add_text_options, text_corpus
from tools.sample.options import (
    add_candidate_options,
    add_sampler_option,
    asks_for_help,
    listing,
    sampler_of,
)


def _parser() -> argparse.ArgumentParser:
    parser = command.model_parser("evaluate", __doc__)
    parser.add_argument(
        "--task",
        choices=("held-out", "seq2seq", TASK),
        default="held-out",
        help="held-out (default): the bound, or the loss where there is none; seq2seq: texts and "
        "their BLEU and ROUGE; samples: perplexity and diversity of free texts, beside held-out "
        "ones",
    )
    parser.add_argument("--split", help="split of the run's corpus (default: its held-out one)")
    command.add_batch_and_seed(parser, 32, of="windows or texts", draws="corruptions and draws")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="seq2seq: write all texts as JSON lines; samples: what is printed, as JSON, which "
        "tools.report shows where it is RUN/*.json",
    )
    add_held_out_options(parser)
    add_text_options(parser)
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
        "--sources", type=command.positive, help="only this many different sources, the first ones"
    )
    options.add_argument(
        "--must-say",
        metavar="REGEX",
        help="count the outputs that hold what its group captures in their source",
    )
    add_sample_options(parser)
    return parser


def _check(arguments: argparse.Namespace, config: RunConfig) -> None:
    """UserError for options that do not fit, before a model is loaded."""
    command.check_output("--out", arguments.out)
    check_held_out(arguments, config)
    is_seq2seq = config.model.reads_source
    if arguments.task == "seq2seq":
        if not is_seq2seq:
            raise UserError(f"--task seq2seq: {arguments.run} is no encoder-decoder")
        if arguments.data is None:
            raise UserError("--task seq2seq needs --data FILE, pairs of a source and a target")
        if arguments.must_say and arguments.train_data is None:
            raise UserError("--must-say tells seen from unseen: it needs --train-data FILE")
        sampler_of(arguments.sampler, config)
    if arguments.task == TASK:
        check_samples(arguments, config)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = parse(_parser(), argv)
    return exit_code(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    config = configuration(arguments.run)
    if asks_for_help(arguments.sampler):
        print(listing(config))
        return 0
    _check(arguments, config)
    world = external_world(os.environ)
    with text_corpus(arguments, shown=world is None or world.rank == 0) as corpus:
        arguments.corpus = corpus
        return command.with_model(print_summary, arguments)


if __name__ == "__main__":
    sys.exit(main())
