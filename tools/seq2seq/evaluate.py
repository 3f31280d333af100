"""The task of ``python -m tools.evaluate RUN --task seq2seq``: generate, choose, score."""

import argparse
import json
from pathlib import Path
from typing import Any

from configs.errors import UserError
from model.gaussian_samplers import GaussianSampler
from model.gaussian_samplers.ddim import Ddim
from model.gaussian_samplers.ddpm import Ddpm
from pretrain.checkpoint.weights import Loaded
from tools.command import finite, positive
from tools.seq2seq.candidates import draw_candidates
from tools.seq2seq.choose import choose
from tools.seq2seq.pairs import (
    References,
    nearest_targets,
    random_targets,
    read_references,
    said,
)
from tools.seq2seq.scores import bleu, distinct, rouge, self_bleu


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """How candidates of an encoder-decoder are drawn and chosen."""
    options = parser.add_argument_group("encoder-decoders (seq2seq)")
    options.add_argument(
        "--sampler",
        choices=("ddpm", "ddim"),
        default="ddpm",
        help="with noise at every step (ddpm, default), or without",
    )
    options.add_argument(
        "--candidates", type=positive, default=5, help="for each source (default 5)"
    )
    options.add_argument(
        "--choose",
        choices=("mbr", "single", "oracle"),
        default="mbr",
        help="which candidate counts: mbr, the one most like the others (default); the first; "
        "oracle, the one most like the references, which is no result of a model",
    )
    options.add_argument(
        "--clamp-below",
        type=finite,
        default=1.0,
        help="clamp predictions to the nearest embedding at noise levels up to this one: 1 "
        "always (default), 0 never",
    )


def sampler_of(arguments: argparse.Namespace) -> GaussianSampler:
    """The sampler that the options ask for; UserError where they are out of range."""
    kind = Ddpm if arguments.sampler == "ddpm" else Ddim
    try:
        return kind(steps=arguments.steps, clamp_below=arguments.clamp_below)
    except ValueError as error:
        raise UserError(str(error)) from error


def evaluate_seq2seq(loaded: Loaded, arguments: argparse.Namespace) -> dict[str, Any]:
    """Scores of the chosen candidates, and of what needs no model beside them."""
    references = read_references(arguments.data, arguments.pairs)
    training = (
        read_references(arguments.train_data, arguments.pairs) if arguments.train_data else None
    )
    if arguments.sources is not None:
        references = References(
            sources=references.sources[: arguments.sources],
            targets=references.targets[: arguments.sources],
        )
    tokenizer = loaded.tokenizer()
    drawn = draw_candidates(
        loaded,
        tokenizer,
        tokenizer.encode(references.sources),
        num=arguments.candidates,
        sampler=sampler_of(arguments),
        seed=arguments.seed,
        batch=arguments.batch,
    )
    if not loaded.is_first:
        return {}
    chosen = [
        choose(own, arguments.choose, targets)
        for own, targets in zip(drawn.texts, references.targets, strict=True)
    ]
    if arguments.out:
        _write(arguments.out, references, drawn.texts, chosen)
    score, signature = bleu(chosen, references.targets)
    summary: dict[str, Any] = {
        "bleu": score,
        "sacrebleu": signature,
        **rouge(chosen, references.targets),
        "chosen_by": "oracle (sees the references)"
        if arguments.choose == "oracle"
        else arguments.choose,
        "candidates": arguments.candidates,
        "distinct1": distinct(chosen, 1),
        "distinct2": distinct(chosen, 2),
        "self_bleu": self_bleu(drawn.texts),
        "evaluations_per_candidate": drawn.evaluations,
        "evaluations_per_text": drawn.evaluations * arguments.candidates,
        "sources": len(references.sources),
        "references": sum(map(len, references.targets)),
        "weights": arguments.weights,
        "step": loaded.step,
    }
    if training is not None:
        for name, texts in (
            ("random_target", random_targets(references, training, arguments.seed)),
            ("nearest_target", nearest_targets(references, training)),
        ):
            baseline = {"bleu": bleu(texts, references.targets)[0]}
            summary[name] = baseline | rouge(texts, references.targets)
        if arguments.must_say:
            found = said(arguments.must_say, references.sources, chosen, training)
            summary["said"] = {name: vars(one) for name, one in found.items()}
    return summary


def _write(
    path: Path, references: References, candidates: list[list[str]], chosen: list[str]
) -> None:
    """A JSON line for each source."""
    with path.open("w", encoding="utf-8") as file:
        for source, own, output in zip(references.sources, candidates, chosen, strict=True):
            line = {"source": source, "output": output, "candidates": own}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
