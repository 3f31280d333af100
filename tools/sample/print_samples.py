"""The work of ``python -m tools.sample`` on each rank: draw samples, and print them."""

import argparse
import json
from pathlib import Path

from pretrain.checkpoint.weights import Loaded
from tools.evaluate.choose import choose
from tools.evaluate.pairs import read_sources
from tools.sample.candidates import draw_candidates
from tools.sample.options import sampler_of
from tools.sample.text import sample


def print_samples(loaded: Loaded, arguments: argparse.Namespace) -> int:
    """Draw on every rank what the options ask for, and print it on the first."""
    if arguments.source is not None:
        return _print_targets(loaded, arguments)
    samples = sample(
        loaded,
        loaded.tokenizer(),
        prompt=arguments.prompt,
        num=arguments.num,
        length=loaded.config.data.sequence_length if arguments.length is None else arguments.length,
        sampler=sampler_of(arguments.sampler, loaded.config),
        seed=arguments.seed,
        batch=arguments.batch,
    )
    if not loaded.is_first:
        return 0
    if arguments.json:
        found = {"texts": samples.texts, "evaluations": samples.evaluations}
        print(json.dumps(found | {"seed": arguments.seed, "step": loaded.step}))
        return 0
    for number, text in enumerate(samples.texts, 1):
        print(f"--- sample {number} of {len(samples.texts)}\n{text}")
    return 0


def _print_targets(loaded: Loaded, arguments: argparse.Namespace) -> int:
    """Draw candidates for each source, and print the chosen one."""
    given = Path(arguments.source)
    is_file = len(arguments.source) < 256 and given.is_file()
    sources = read_sources(given, arguments.source_field) if is_file else [arguments.source]
    tokenizer = loaded.tokenizer()
    drawn = draw_candidates(
        loaded,
        tokenizer,
        tokenizer.encode(sources),
        num=arguments.candidates,
        sampler=sampler_of(arguments.sampler, loaded.config),
        seed=arguments.seed,
        batch=arguments.batch,
        length=arguments.length,
    )
    if not loaded.is_first:
        return 0
    chosen = [choose(own, arguments.choose) for own in drawn.texts]
    for source, own, output in zip(sources, drawn.texts, chosen, strict=True):
        if arguments.json:
            line = {"source": source, "output": output, "candidates": own}
            print(json.dumps(line | {"evaluations_per_candidate": drawn.evaluations}))
        else:
            print(f"--- {source}\n{output}")
    return 0
