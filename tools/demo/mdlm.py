"""The demo of MDLM: its bound beside a unigram's, and free and infilled texts."""

from typing import Any

from data_pipeline.tokenizer import load_tokenizer
from pretrain.checkpoint.weights import Loaded
from pretrain.data import corpus_path
from pretrain.evaluation.of_checkpoint import held_out_bound
from tools.sample.options import sampler_of
from tools.sample.text import sample

PROMPT = 'The "___" statement is used to ___.'

TEXT = """
Palimpsest trained a text diffusion model on the Python language reference.

  held-out NELBO    {nelbo:.3f} nats per token, an upper bound on {bound_on}
                    = perplexity {perplexity:.1f} per token, {bits_per_byte:.3f} bits per byte
                    interval: {spread}
  unigram           {unigram:.3f} nats per token on the same documents
  ratio             {ratio:.3f} (1 is no better than counting words; lower is better)
"""
NEXT = """\
  {python} -m tools.sample {run} --prompt 'if ___{{12}}: return ___' --length 64
  {python} -m tools.evaluate {run} --samples 8
  {python} -m pretrain {config} model.time_conditioning=true run_dir=runs/with-time
"""


def evaluated(loaded: Loaded) -> dict[str, Any]:
    """The held-out bound."""
    config = loaded.config
    summary = held_out_bound(
        loaded, config.data.valid_split, which="ema", samples=4, batch=32, seed=config.seed
    ).summary
    ends = summary["nelbo_ci95"]
    spread = summary["interval"] + (f", {ends[0]:.3f} to {ends[1]:.3f}" if ends else "")
    return {**summary, "spread": spread}


def samples(loaded: Loaded) -> dict[str, list[str]]:
    """Texts from nothing, and around a prompt."""
    config = loaded.config
    tokenizer = load_tokenizer(corpus_path(config))
    return {
        name: sample(
            loaded,
            tokenizer,
            prompt=prompt,
            num=4,
            length=config.data.sequence_length,
            sampler=sampler_of([], config),
            seed=config.seed,
            batch=4,
        ).texts
        for name, prompt in (("free", ""), ("infilled", PROMPT))
    }
