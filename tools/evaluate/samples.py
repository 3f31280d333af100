"""``python -m tools.evaluate RUN --task samples``: draw texts, and judge them beside held-out ones.

The same judge reads as many held-out texts of the same length: a sampler's perplexity and entropy
are good where they are near to theirs, not where they are low.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from configs.errors import UserError, log_to_stderr
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
from tools.evaluate.judges.named import NGRAM, check_judge, is_pretrained, open_judge
from tools.evaluate.judges.pretrained import PretrainedJudge, pretrained_judge
from tools.evaluate.mauve import FEW, check_mauve, mauve
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
    options.add_argument(
        "--mauve",
        metavar="PYTHON",
        help="MAUVE too, by the Python of an environment that has mauve-text",
    )
    options.add_argument(
        "--features",
        type=Path,
        metavar="DIR",
        help="with --mauve: a directory as of --judge, whose model gives the features (default: "
        "that of --judge)",
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
    _check_mauve(arguments)
    if arguments.length is not None and not all(sampler.any_length for sampler in samplers):
        notes = length_hints(arguments.length, config)
        if os.environ.get("RANK", "0") == "0":
            for note in notes:
                print(f"note: {note}", file=sys.stderr)


def _check_mauve(arguments: argparse.Namespace) -> None:
    if arguments.mauve is None:
        if arguments.features is not None:
            raise UserError("--features gives the features of MAUVE: it needs --mauve PYTHON")
        return
    features = _features_of(arguments)
    if not is_pretrained(features):
        raise UserError(
            f"--mauve compares features of a language model, and {features} is no directory of "
            "one; name it with --features DIR, or as --judge DIR"
        )
    check_mauve(arguments.mauve)


def _features_of(arguments: argparse.Namespace) -> Path:
    return Path(arguments.features or arguments.judge)


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
    held_out, judge, featurizer = [], None, None
    if loaded.is_first:  # before the samples, which take long
        held_out = _texts_of(
            _split(arguments, config), config, tokenizer, num=arguments.num, length=length
        )
        judge = open_judge(arguments.judge, loaded, tokenizer, loaded.device, arguments.batch)
        if arguments.mauve:
            featurizer = pretrained_judge(
                _features_of(arguments), loaded.device, tokenizer.sha256, option="--features"
            )
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
    written = [[text_of(ids, tokenizer) for ids in found.ids] for _, _, found in drawn]
    rows: list[Row] = [
        {
            "sampler": sampler.name,
            "settings": vars(sampler),
            "swept": setting,
            "evaluations": fmean(found.evaluations),
            **scores(texts, judge, seed=arguments.seed),
        }
        for (setting, sampler, found), texts in zip(drawn, written, strict=True)
    ]
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
    if featurizer is not None:
        train = _texts_of(
            config.data.train_split, config, tokenizer, num=arguments.num, length=length
        )
        _add_mauve(summary, arguments.mauve, featurizer, held_out, [*written, train])
    if arguments.out:
        write_json(arguments.out, summary)
    return summary


def _add_mauve(
    summary: dict[str, Any],
    python: str,
    featurizer: PretrainedJudge,
    held_out: list[Text],
    others: list[list[Text]],
) -> None:
    """MAUVE of each row against held-out texts; that of the held-out row is of training texts."""
    reference_ND, *others_ND = (featurizer.features(texts) for texts in (held_out, *others))
    fewest = min(map(len, (reference_ND, *others_ND)))
    if fewest < FEW:
        log_to_stderr(
            f"note: MAUVE of {fewest:,} texts depends on how many they are; compare it with "
            f"numbers of as many, and take --num {FEW:,} or more"
        )
    found = mauve(python, reference_ND, others_ND, seed=summary["seed"])
    for row, value in zip([*summary["rows"], summary["reference"]], found, strict=True):
        row["mauve"] = value
    summary["mauve_features"] = f"last token's hidden state, {featurizer.facts['judge']}"
    summary["mauve_texts"] = fewest


def names_of(summary: dict[str, Any]) -> list[tuple[str, Row]]:
    """The rows with their names, the one of held-out texts last."""
    rows = [
        (" ".join(filter(None, (row["sampler"], row["swept"]))), row) for row in summary["rows"]
    ]
    return [*rows, (HELD_OUT, summary["reference"])]


def _split(arguments: argparse.Namespace, config: RunConfig) -> str:
    return str(arguments.split or config.data.valid_split)


def _texts_of(
    name: str, config: RunConfig, tokenizer: Tokenizer, *, num: int, length: int
) -> list[Text]:
    """As many windows of a split as there are samples, or all, from all over it."""
    split = open_split(corpus_path(config), name, tokenizer=tokenizer)
    how: Any = config.data.packing
    packed = pack(split, length, how)
    places = np.linspace(0, len(packed) - 1, min(num, len(packed))).astype(np.int64)
    arrays = packed.read(places)
    return [
        text_of(tokens[valid][1:-1].tolist(), tokenizer)
        for tokens, valid in zip(arrays["tokens"], arrays["valid"], strict=True)
    ]
