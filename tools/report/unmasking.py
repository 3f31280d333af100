"""How a sampler writes one text: what stands at its positions after each step."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import torch

from data_pipeline.tokenizer import Tokenizer
from model.draws import Draws
from model.samplers import Job, Sampler
from pretrain.checkpoint.weights import load_denoiser
from tools.command import best_device
from tools.sample.options import sampler_of
from tools.sample.text import template_of

STEPS = 16
"""Steps of a sampler that has the setting."""

MOST_SHOWN = 12
MOST_POSITIONS = 128
"""Most steps and positions that are shown."""

BLOCK = "\u2588"

Kind = Literal["noise", "new", "kept"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """What stands at the positions after a step: pieces of text, each of one kind.

    Args:
        number: of the step, from 0, before which nothing is written.
        left: positions that are noise.
    """

    number: int
    left: int
    pieces: list[tuple[Kind, str]]


@dataclass(frozen=True, kw_only=True)
class Writing:
    """A text that is written step by step.

    Args:
        sampler: its name and settings.
        evaluations: of the network.
        positions: how many of the text's positions are shown, of ``length``, BOS left out.
    """

    sampler: str
    evaluations: int
    positions: int
    length: int
    steps: list[Step]


def written(run: Path, *, seed: int = 0) -> Writing | None:
    """Draw one text with the run's own sampler; None for an encoder-decoder, which has a source.

    Raises:
        UserError: no checkpoint can be read, or its corpus is gone.
    """
    loaded = load_denoiser(run, "ema", best_device())
    config = loaded.config
    if config.model.reads_source:
        return None
    tokenizer, length = loaded.tokenizer(), config.data.sequence_length
    template = template_of("", tokenizer, length, config)
    sampler: Sampler = sampler_of([], config)
    settings = dict(vars(sampler))
    if "steps" in settings:
        settings["steps"] = min(settings["steps"], STEPS)
        sampler = type(sampler)(**settings)
    states: list[list[int]] = [template.ids]
    job = Job(
        ids_BL=torch.tensor([template.ids], device=loaded.device),
        free_BL=torch.tensor([template.blank], device=loaded.device),
        position_B=torch.zeros(1, dtype=torch.int64, device=loaded.device),
        draws=Draws(seed=seed, split="sample", batch=1),
        objective=config.objective,
        model=config.model,
        network=loaded.network,
        state=loaded.state,
        on_step=lambda ids_BL: states.append(ids_BL[0].tolist()),
    )
    with torch.inference_mode():
        states.append(sampler.run(job)[0].tolist())
    if len(states) > 2 and states[-1] == states[-2]:
        states.pop()
    shown = [ids[1 : 1 + MOST_POSITIONS] for ids in states]
    said = ", ".join(f"{name}={value}" for name, value in settings.items())
    return Writing(
        sampler=f"{sampler.name} ({said})" if said else sampler.name,
        evaluations=job.evaluations,
        positions=len(shown[0]),
        length=length - 1,
        steps=_steps(shown, tokenizer, config.model.mask),
    )


def _steps(states: Sequence[list[int]], tokenizer: Tokenizer, mask: int) -> list[Step]:
    """The steps that are shown: the first, the last, and others at even distances."""
    last = len(states) - 1
    num = min(last, MOST_SHOWN - 1)
    numbers = [round(at * last / num) for at in range(num + 1)] if num else [0]
    before: list[int] = states[0]
    steps = []
    for number in numbers:
        ids = states[number]
        kinds: list[Kind] = [
            "noise" if now == mask else "kept" if now == then else "new"
            for now, then in zip(ids, before, strict=True)
        ]
        pieces = _pieces(ids, kinds, tokenizer)
        steps.append(Step(number=number, left=kinds.count("noise"), pieces=pieces))
        before = ids
    return steps


def _pieces(ids: list[int], kinds: list[Kind], tokenizer: Tokenizer) -> list[tuple[Kind, str]]:
    """Text by kind: a token's is what it adds to those before it, so that no blank is lost."""
    text, known = "", []
    tokens: list[tuple[Kind, str]] = []
    for index, kind in zip(ids, kinds, strict=True):
        if kind == "noise":
            tokens.append((kind, BLOCK))
            continue
        known.append(index)
        longer = tokenizer.decode(known)
        tokens.append((kind, longer[len(text) :]))
        text = longer
    groups: Any = groupby(tokens, key=lambda token: token[0])
    return [(kind, "".join(token[1] for token in own)) for kind, own in groups]
