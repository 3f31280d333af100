"""``python -m tools.evaluate RUN --task seq2seq``: generate candidates, choose one, score it."""

import argparse
import json
from pathlib import Path
from typing import Any

from pretrain.checkpoint.weights import Loaded
from tools.evaluate.choose import choose
from tools.evaluate.diversity import distinct
from tools.evaluate.pairs import (
    References,
    count_mentions,
    nearest_targets,
    random_targets,
    read_references,
)
from tools.sample.candidates import draw_candidates
from tools.sample.options import sampler_of


def evaluate_seq2seq(loaded: Loaded, arguments: argparse.Namespace) -> dict[str, Any]:
    """Scores of the chosen candidates, and of baselines that need no model."""
    from tools.evaluate.text_scores import bleu, rouge, self_bleu

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
        sampler=sampler_of(arguments.sampler, loaded.config),
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
    words = [text.split() for text in chosen]
    score, signature = bleu(chosen, references.targets)
    summary: dict[str, Any] = {
        "bleu": score,
        "sacrebleu": signature,
        **rouge(chosen, references.targets),
        "chosen_by": "oracle (sees the references)"
        if arguments.choose == "oracle"
        else arguments.choose,
        "candidates": arguments.candidates,
        "distinct1": distinct(words, 1),
        "distinct2": distinct(words, 2),
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
            found = count_mentions(arguments.must_say, references.sources, chosen, training)
            summary["said"] = {name: vars(one) for name, one in found.items()}
    return summary


def _write(
    path: Path, references: References, candidates: list[list[str]], chosen: list[str]
) -> None:
    """Write sources, chosen outputs and candidates as JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        for source, own, output in zip(references.sources, candidates, chosen, strict=True):
            line = {"source": source, "output": output, "candidates": own}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
