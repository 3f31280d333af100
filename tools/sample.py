"""``python -m tools.sample RUN``: text from a run or checkpoint.

    python -m tools.sample runs/demo --num 4 --length 128 --steps 64
    python -m tools.sample runs/demo --prompt 'The "assert" statement'
    python -m tools.sample runs/demo --prompt 'if ___{12}: return ___' --length 64
    python -m tools.sample runs/e2e --source 'name : Blue Spice | area : riverside'

Text of a prompt stays as it is; ``___`` is an equal share of the free length, ``___{n}``
exactly n tokens. An encoder-decoder writes a target for each ``--source``, a text or a
file of them: the candidate that is most like the others. The same seed gives the same
samples, whatever the batch.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from configs.errors import UserError
from configs.words import parse as parse_words
from data_pipeline.tokenizer import Tokenizer
from model.draws import Draws
from model.generate import CountingAsk, generate
from model.samplers.ancestral import Ancestral
from pretrain.checkpoint.weights import Loaded, configuration
from tools import command
from tools.prompt import hints, length_hints, parse
from tools.seq2seq.candidates import draw_candidates
from tools.seq2seq.choose import choose
from tools.seq2seq.evaluate import add_sampling_options, sampler_of
from tools.seq2seq.pairs import read_sources


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Texts, and evaluations of the network (NFE) for each of them."""

    texts: list[str]
    evaluations: list[int]


def sample(
    loaded: Loaded,
    tokenizer: Tokenizer,
    *,
    prompt: str,
    num: int,
    length: int,
    sampler: Ancestral,
    seed: int,
    batch: int,
) -> Samples:
    """``num`` texts of ``length`` positions, frame included, around the prompt.

    A model of padded texts says itself where they end, unless it was given their lengths.
    """
    config = loaded.config
    mask = config.model.mask
    ends = config.objective.scope(padded=config.data.packing == "pad").end_masked
    template = parse(prompt, tokenizer, length, mask, open_end=ends)
    draws = Draws(seed=seed, split="sample", batch=num)
    mine: list[tuple[int, str, int]] = []
    with (
        torch.inference_mode(),
        command.progress(loaded, num * sampler.steps, "step", "sample") as bar,
    ):
        firsts = range(0, num, batch)
        for first in firsts[loaded.share.rank :: loaded.share.size]:
            position_B = torch.arange(first, min(num, first + batch), device=loaded.device)
            ids_BL = torch.tensor(template.ids, device=loaded.device).repeat(len(position_B), 1)
            ask = CountingAsk(loaded.network.ask)
            drawn_BL = generate(
                ids_BL,
                position_B,
                ask,
                sampler=sampler,
                schedule=loaded.config.objective.schedule,
                draws=draws,
                mask=mask,
                on_step=lambda ids_BL: bar.update(len(ids_BL) * loaded.share.size),
            )
            for position, ids_L in zip(position_B.tolist(), drawn_BL.tolist(), strict=True):
                kept = template.text(ids_L, tokenizer.eos_id) if ends else ids_L
                mine.append((position, tokenizer.decode(kept), ask.evaluations))
    everyone = sorted(item for items in loaded.gather(mine) for item in items)
    return Samples(
        texts=[text for _, text, _ in everyone],
        evaluations=[evaluations for _, _, evaluations in everyone],
    )


def _parser() -> argparse.ArgumentParser:
    parser = command.model_parser("sample", __doc__)
    parser.add_argument(
        "--num", type=command.positive, default=4, help="how many texts (default 4)"
    )
    parser.add_argument(
        "--length",
        type=command.positive,
        help="positions, BOS and EOS included (default: as trained)",
    )
    parser.add_argument(
        "--steps",
        type=command.number(1, 2**24),
        help="of the sampler (default 64; 50 for an encoder-decoder)",
    )
    parser.add_argument("--seed", type=command.seed, default=0, help="of the draws (default 0)")
    parser.add_argument("--prompt", default="", help="fixed text, with ___ where more is wanted")
    parser.add_argument(
        "--temperature",
        type=command.finite,
        default=1.0,
        help="of the token draws; 0 takes the likeliest (default 1)",
    )
    parser.add_argument(
        "--batch", type=command.positive, default=16, help="texts per forward pass (default 16)"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.add_argument(
        "--source", metavar="TEXT|FILE", help="what an encoder-decoder writes a target for"
    )
    parser.add_argument(
        "--source-field", default="source", help="of a JSON-lines file (default: source)"
    )
    add_sampling_options(parser)
    return parser


def _work(loaded: Loaded, arguments: argparse.Namespace) -> int:
    if arguments.source is not None:
        return _targets(loaded, arguments)
    samples = sample(
        loaded,
        loaded.tokenizer(),
        prompt=arguments.prompt,
        num=arguments.num,
        length=loaded.config.data.sequence_length if arguments.length is None else arguments.length,
        sampler=_sampler(arguments),
        seed=arguments.seed,
        batch=arguments.batch,
    )
    if not loaded.is_first:
        return 0
    if arguments.json:
        print(json.dumps({**vars(samples), "seed": arguments.seed, "step": loaded.step}))
        return 0
    for number, text in enumerate(samples.texts, 1):
        print(f"--- sample {number} of {len(samples.texts)}\n{text}")
    return 0


def _targets(loaded: Loaded, arguments: argparse.Namespace) -> int:
    """A target for each source."""
    given = Path(arguments.source)
    is_file = len(arguments.source) < 256 and given.is_file()
    sources = read_sources(given, arguments.source_field) if is_file else [arguments.source]
    tokenizer = loaded.tokenizer()
    drawn = draw_candidates(
        loaded,
        tokenizer,
        tokenizer.encode(sources),
        num=arguments.candidates,
        sampler=sampler_of(arguments),
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


def _check(arguments: argparse.Namespace) -> None:
    """UserError for options that do not fit, before a model is loaded."""
    config = configuration(arguments.run)
    is_seq2seq = config.model.seq2seq is not None
    if is_seq2seq != (arguments.source is not None):
        raise UserError(
            f"{arguments.run} is an encoder-decoder: say what to write about with --source"
            if is_seq2seq
            else f"{arguments.run} is no encoder-decoder: use --prompt instead of --source"
        )
    if arguments.steps is None:
        arguments.steps = 50 if is_seq2seq else 64
    if is_seq2seq and arguments.choose == "oracle":
        raise UserError("--choose oracle needs references; it belongs to tools.evaluate")
    (sampler_of if is_seq2seq else _sampler)(arguments)
    notes = [] if is_seq2seq else hints(arguments.prompt)
    if arguments.length is not None:
        if arguments.length < 1:
            raise UserError(f"--length must be at least 1, not {arguments.length}")
        notes += length_hints(arguments.length, config)
    if os.environ.get("RANK", "0") == "0":
        for note in notes:
            print(f"note: {note}", file=sys.stderr)


def _sampler(arguments: argparse.Namespace) -> Ancestral:
    try:
        return Ancestral(steps=arguments.steps, temperature=arguments.temperature)
    except ValueError as error:
        raise UserError(str(error)) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = parse_words(_parser(), argv)

    def sample_run() -> int:
        _check(arguments)
        return command.with_model(_work, arguments)

    return command.run(sample_run)


if __name__ == "__main__":
    # By its importable name: ranks are to find this module's functions too.
    from tools.sample import main as command_main

    sys.exit(command_main())
