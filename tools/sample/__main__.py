"""``python -m tools.sample RUN``: text from a run or checkpoint.

    python -m tools.sample runs/demo --num 4 --length 128 --sampler steps=64
    python -m tools.sample runs/demo --prompt 'The "assert" statement'
    python -m tools.sample runs/demo --prompt 'if ___{12}: return ___' --length 64
    python -m tools.sample runs/e2e --source 'name : Blue Spice | area : riverside'
    python -m tools.sample runs/e2e --sampler help

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

from configs.errors import UserError, exit_code
from configs.words import parse as parse_words
from data_pipeline.tokenizer import Tokenizer
from model.draws import Draws
from model.samplers import Job, Sampler
from pretrain.checkpoint.weights import Loaded, configuration
from pretrain.config import RunConfig
from tools import command
from tools.evaluate.choose import choose
from tools.evaluate.pairs import read_sources
from tools.sample.candidates import add_candidate_options, draw_candidates
from tools.sample.options import add_sampler_option, asks_for_help, listing, sampler_of
from tools.sample.prompt import hints, length_hints, parse


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
    sampler: Sampler,
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
    try:
        sampler.check_free(torch.tensor([template.blank]), loaded.config.objective)
    except ValueError as error:
        raise UserError(f"--prompt: {error}") from error
    draws = Draws(seed=seed, split="sample", batch=num)
    mine: list[tuple[int, str, int]] = []
    with (
        torch.inference_mode(),
        command.progress(loaded, num * sampler.num_steps(length), "step", "sample") as bar,
    ):
        blank_L = torch.tensor(template.blank, device=loaded.device)
        firsts = range(0, num, batch)
        for first in firsts[loaded.share.rank :: loaded.share.size]:
            position_B = torch.arange(first, min(num, first + batch), device=loaded.device)
            job = Job(
                ids_BL=torch.tensor(template.ids, device=loaded.device).repeat(len(position_B), 1),
                free_BL=blank_L.repeat(len(position_B), 1),
                position_B=position_B,
                draws=draws,
                objective=config.objective,
                model=config.model,
                network=loaded.network,
                state=loaded.state,
                on_step=lambda ids_BL: bar.update(len(ids_BL) * loaded.share.size),
            )
            drawn_BL = sampler.run(job)
            for position, ids_L in zip(position_B.tolist(), drawn_BL.tolist(), strict=True):
                kept = template.text(ids_L, tokenizer.eos_id) if ends else ids_L
                mine.append((position, tokenizer.decode(kept), job.evaluations))
    all_gather_object = sorted(item for items in loaded.gather(mine) for item in items)
    return Samples(
        texts=[text for _, text, _ in all_gather_object],
        evaluations=[evaluations for _, _, evaluations in all_gather_object],
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
    parser.add_argument("--seed", type=command.seed, default=0, help="of the draws (default 0)")
    parser.add_argument("--prompt", default="", help="fixed text, with ___ where more is wanted")
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
    add_candidate_options(parser)
    add_sampler_option(parser)
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
        sampler=sampler_of(arguments.sampler, loaded.config),
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


def _check(arguments: argparse.Namespace, config: RunConfig) -> None:
    """UserError for options that do not fit, before a model is loaded."""
    is_seq2seq = config.model.seq2seq is not None
    if is_seq2seq != (arguments.source is not None):
        raise UserError(
            f"{arguments.run} is an encoder-decoder: say what to write about with --source"
            if is_seq2seq
            else f"{arguments.run} is no encoder-decoder: use --prompt instead of --source"
        )
    if is_seq2seq and arguments.choose == "oracle":
        raise UserError("--choose oracle needs references; it belongs to tools.evaluate")
    sampler_of(arguments.sampler, config)
    notes = [] if is_seq2seq else hints(arguments.prompt)
    if arguments.length is not None:
        if arguments.length < 1:
            raise UserError(f"--length must be at least 1, not {arguments.length}")
        notes += length_hints(arguments.length, config)
    if os.environ.get("RANK", "0") == "0":
        for note in notes:
            print(f"note: {note}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = parse_words(_parser(), argv)

    def sample_run() -> int:
        config = configuration(arguments.run)
        if asks_for_help(arguments.sampler):
            print(listing(config))
            return 0
        _check(arguments, config)
        return command.with_model(_work, arguments)

    return exit_code(sample_run)


if __name__ == "__main__":
    # By its importable name: ranks are to find this module's functions too.
    from tools.sample.__main__ import main as command_main

    sys.exit(command_main())
