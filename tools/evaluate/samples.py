"""``python -m tools.evaluate RUN --task samples``: draw texts, and judge them beside held-out ones.

The same judge reads as many held-out texts of the same length: a sampler's perplexity and entropy
are good where they are near to theirs, not where they are low.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from statistics import fmean
from typing import Any

import numpy as np

from configs.errors import UserError
from configs.json_files import write_json
from data_pipeline.packing import pack
from data_pipeline.shards import open_split
from data_pipeline.tokenizer import Tokenizer
from model.samplers import Sampler
from pretrain.checkpoint.weights import Loaded
from pretrain.config import RunConfig
from pretrain.data import corpus_path
from tools import command
from tools.evaluate.judges import Text, text_of
from tools.evaluate.judges.named import NGRAM, check_judge, open_judge
from tools.evaluate.sample_scores import Row, scores
from tools.sample.options import sampler_of
from tools.sample.prompt import length_hints
from tools.sample.text import sample

TASK = "samples"
HELD_OUT = "held-out text"


def add_sample_options(parser: argparse.ArgumentParser) -> None:
    """The options of the task."""
    options = parser.add_argument_group(f"the task {TASK}")
    options.add_argument(
        "--num", type=command.positive, default=64, help="texts to draw (default 64)"
    )
    options.add_argument(
        "--length",
        type=command.positive,
        help="positions, BOS and EOS included (default: as trained)",
    )
    options.add_argument(
        "--sweep",
        type=_sweep,
        metavar="KEY=VALUE,...",
        help="a row for each value of a setting of the sampler, as in steps=8,16,32",
    )
    options.add_argument(
        "--judge",
        default=NGRAM,
        metavar=f"{NGRAM}|RUN|DIR",
        help=f"{NGRAM} (default): 5-grams of the training split; a run whose likelihood is exact; "
        "a local directory of a causal language model of Hugging Face",
    )


def _sweep(text: str) -> list[str]:
    """``KEY=VALUE`` for each value."""
    key, _, values = text.partition("=")
    found = values.split(",")
    if not key or not all(found):
        raise argparse.ArgumentTypeError(f"write KEY=VALUE,VALUE,... instead of {text!r}")
    return [f"{key}={value}" for value in found]


def check_samples(arguments: argparse.Namespace, config: RunConfig) -> None:
    """UserError for options that do not fit, before a model is loaded."""
    if config.model.reads_source:
        raise UserError(
            f"--task {TASK}: {arguments.run} is an encoder-decoder, which writes about a source; "
            "use --task seq2seq"
        )
    samplers = [sampler for _, sampler in _samplers(arguments, config)]
    check_judge(arguments.judge)
    if arguments.length is not None and not all(sampler.any_length for sampler in samplers):
        notes = length_hints(arguments.length, config)
        if os.environ.get("RANK", "0") == "0":
            for note in notes:
                print(f"note: {note}", file=sys.stderr)


def _samplers(
    arguments: argparse.Namespace, config: RunConfig
) -> Iterator[tuple[str | None, Sampler]]:
    """The swept settings and their samplers."""
    for setting in arguments.sweep or [None]:
        own = [] if setting is None else [setting]
        yield setting, sampler_of([*arguments.sampler, *own], config)


def evaluate_samples(loaded: Loaded, arguments: argparse.Namespace) -> dict[str, Any]:
    """A row of scores for each sampler, and the one of held-out texts; empty on other ranks."""
    config, tokenizer = loaded.config, loaded.tokenizer()
    length = arguments.length or config.data.sequence_length
    held_out, judge = [], None
    if loaded.is_first:  # before the samples, which take long
        held_out = _held_out(config, tokenizer, arguments, length)
        judge = open_judge(arguments.judge, loaded, tokenizer, loaded.device, arguments.batch)
    drawn = [
        (
            setting,
            sampler,
            sample(
                loaded,
                tokenizer,
                prompt="",
                num=arguments.num,
                length=length,
                sampler=sampler,
                seed=arguments.seed,
                batch=arguments.batch,
            ),
        )
        for setting, sampler in _samplers(arguments, config)
    ]
    if not loaded.is_first:
        return {}
    assert judge is not None
    rows: list[Row] = []
    for setting, sampler, found in drawn:
        texts = [text_of(ids, tokenizer) for ids in found.ids]
        rows.append(
            {
                "sampler": sampler.name,
                "settings": vars(sampler),
                "swept": setting,
                "evaluations": fmean(found.evaluations),
                **scores(texts, judge, seed=arguments.seed),
            }
        )
    summary = {
        "task": TASK,
        "rows": rows,
        "reference": {"split": _split(arguments, config)}
        | scores(held_out, judge, seed=arguments.seed),
        **judge.facts,
        "length": length,
        "seed": arguments.seed,
        "weights": arguments.weights,
        "step": loaded.step,
    }
    if arguments.out:
        write_json(arguments.out, summary)
    return summary


def names_of(summary: dict[str, Any]) -> list[tuple[str, Row]]:
    """The rows with their names, the one of held-out texts last."""
    rows = [
        (" ".join(filter(None, (row["sampler"], row["swept"]))), row) for row in summary["rows"]
    ]
    return [*rows, (HELD_OUT, summary["reference"])]


def _split(arguments: argparse.Namespace, config: RunConfig) -> str:
    return str(arguments.split or config.data.valid_split)


def _held_out(
    config: RunConfig, tokenizer: Tokenizer, arguments: argparse.Namespace, length: int
) -> list[Text]:
    """As many held-out windows as there are samples, or all, from all over the split."""
    split = open_split(corpus_path(config), _split(arguments, config), tokenizer=tokenizer)
    how: Any = config.data.packing
    packed = pack(split, length, how)
    num = min(arguments.num, len(packed))
    arrays = packed.read(np.linspace(0, len(packed) - 1, num).astype(np.int64))
    return [
        text_of(tokens[valid][1:-1].tolist(), tokenizer)
        for tokens, valid in zip(arrays["tokens"], arrays["valid"], strict=True)
    ]
