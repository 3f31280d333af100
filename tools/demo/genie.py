"""The demo of GENIE: denoising errors beside baselines without a network, and filled-in spans."""

from dataclasses import asdict
from typing import Any

import numpy as np

from data_pipeline.tokenizer import load_tokenizer
from model.draws import Draws
from pretrain.checkpoint.weights import Loaded
from pretrain.data import corpus_path, open_corpus
from tools.evaluate.recovery import recovery
from tools.sample.candidates import draw_candidates, text_of
from tools.sample.options import sampler_of

LEVELS = tuple(round(0.1 * tenth, 1) for tenth in range(1, 11))
HARD = 0.3
"""Levels are hard where rounding alone recovers at most this share of the tokens."""
SAMPLES = 256

TEXT = """
Palimpsest trained a GENIE (continuous paragraph denoise) on the Python language reference.
On spans of {paragraphs} held-out paragraphs, padding left out:

  noise   squared error            tokens recovered
  level   network  mean embedding  network  rounding alone
{table}
  rounding recovers at most {hard:.0%} at levels {hard_levels}; there the network recovers
  {least_ratio:.1f} to {best_ratio:.1f} times as many tokens
"""
NEXT = """\
  {python} -m tools.sample {run} --source 'The "if" statement is used for conditional execution.'
  {python} -m pretrain {config} objective.times=loss_second_moment run_dir=runs/by-loss
"""


def evaluated(loaded: Loaded) -> dict[str, Any]:
    """Errors and recovered tokens by level."""
    config = loaded.config
    draws = Draws(seed=config.seed, split="train", batch=config.global_batch)
    corpus = open_corpus(config, draws)
    assert corpus.held_out is not None
    rows = recovery(loaded, corpus, LEVELS, num=SAMPLES, batch=32, seed=config.seed)
    hard = [row for row in rows if row.rounded <= HARD]
    ratios = [row.recovered / max(row.rounded, 1e-9) for row in hard]
    table = "\n".join(
        f"  {row.level:5.1f}   {row.error:7.3f}  {row.mean_error:14.3f}  {row.recovered:7.1%}  "
        f"{row.rounded:14.1%}"
        for row in rows
    )
    return {
        "paragraphs": min(SAMPLES, corpus.held_out[1]),
        "levels": [asdict(row) for row in rows],
        "table": table,
        "hard": HARD,
        "hard_levels": ", ".join(f"{row.level:.1f}" for row in hard) or "none",
        "least_ratio": min(ratios, default=0.0),
        "best_ratio": max(ratios, default=0.0),
    }


def samples(loaded: Loaded) -> dict[str, list[str]]:
    """Held-out paragraphs with a masked span, what the network puts there, and what was there."""
    config = loaded.config
    tokenizer = load_tokenizer(corpus_path(config))
    draws = Draws(seed=config.seed, split="train", batch=config.global_batch)
    corpus = open_corpus(config, draws)
    assert corpus.held_out is not None
    batch = corpus.held_out[0].batch(np.arange(4))
    sources = [
        ids[valid].tolist()
        for ids, valid in zip(batch["source"], batch["source_valid"], strict=True)
    ]
    drawn = draw_candidates(
        loaded,
        tokenizer,
        sources,
        num=1,
        sampler=sampler_of([], config),
        seed=config.seed,
        batch=4,
    )
    mask, texts = config.model.mask, []
    for ids, own, target in zip(sources, drawn.texts, batch["tokens"].tolist(), strict=True):
        place = ids.index(mask)
        before, after = tokenizer.decode(ids[:place]), tokenizer.decode(ids[place + 1 :])
        texts.append(
            f"{before} [[{own[0].strip()}]] {after}\n(was: {text_of(target, tokenizer).strip()})"
        )
    return {"filled": texts}
