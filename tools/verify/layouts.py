"""A short run under a layout, and everything of it that a layout must not change."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from model.draws import Draws
from model.generate import CountingPredict, generate
from model.samplers.ancestral import Ancestral
from pretrain.config import RunConfig
from pretrain.evaluate import Share, document_losses
from pretrain.launch import World
from pretrain.layout import positions
from pretrain.optim import learning_rate
from pretrain.parallel import engine
from pretrain.parallel.engine import Engine
from pretrain.parallel.mesh import Mesh
from pretrain.ranges import Box, Range, copy_overlap
from tools.verify.synthetic import SyntheticWindows, batch


@dataclass(kw_only=True)
class Outcome:
    """What one rank saw of a run.

    Args:
        initial, final: this rank's pieces of the fp32 masters, before and after.
        noise: for each stream position, a digest of all that corruption made of it.
        document_nats: of the held-out windows, after the last step.
        samples: ids drawn with the last weights.
    """

    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    initial: list[tuple[Range, Tensor]] = field(default_factory=list)
    final: list[tuple[Range, Tensor]] = field(default_factory=list)
    noise: dict[int, str] = field(default_factory=dict)
    document_nats: list[float] = field(default_factory=list)
    samples: list[list[int]] = field(default_factory=list)


def run(world: World, config: RunConfig, steps: int) -> Outcome:
    """Train for some steps, evaluate, and sample, on one of the ranks."""
    mesh = Mesh(world, tensor=config.parallel.tensor, pipeline=config.parallel.pipeline)
    outcome = _run(mesh, config, steps)
    mesh.close()  # not after an error: the peers' complaints would come before its traceback
    return outcome


def _run(mesh: Mesh, config: RunConfig, steps: int) -> Outcome:
    draws = Draws(seed=config.seed, split="train", batch=config.global_batch)
    trained = engine.build(config, mesh)
    outcome = Outcome(initial=_masters(trained))
    for step in range(1, steps + 1):
        micro_batches = []
        count = torch.zeros((), dtype=torch.int64)
        for mine in positions(config, step, mesh.data_rank, mesh.data_size) if mesh.reads else ():
            samples = batch(config, draws, mine)
            noisy = config.objective.corrupt(samples, draws, config.model)
            micro_batches.append((noisy, samples["valid"]))
            count += noisy.count
            outcome.noise |= _digests(samples["position"], vars(noisy))
        total, _ = mesh.agree(count, asked=False)
        rate = learning_rate(config.optim, step, config.steps)
        sums = trained.train_step(micro_batches, total, rate)
        outcome.losses.append(float(mesh.total(sums.loss)) / total)
        outcome.grad_norms.append(trained.grad_norm)
    outcome.final = _masters(trained)
    outcome.document_nats = _evaluate(trained, mesh, config)
    outcome.samples = _sample(trained, config)
    return outcome


def _masters(trained: Engine) -> list[tuple[Range, Tensor]]:
    masters = trained.owned.masters
    return [(fragment.range, fragment.of(masters).clone()) for fragment in trained.owned.fragments]


def _digests(position_B: Tensor, noisy: dict[str, Tensor]) -> dict[int, str]:
    """By stream position, a digest of the sample's row of every tensor."""
    rows = [value for value in noisy.values() if value.dim() > 0]
    return {
        position: hashlib.sha256(b"".join(value[row].numpy().tobytes() for value in rows)).hexdigest()
        for row, position in enumerate(position_B.tolist())
    }


def _evaluate(trained: Engine, mesh: Mesh, config: RunConfig) -> list[float]:
    sums = document_losses(
        trained.predict,
        config.objective,
        config.model,
        SyntheticWindows(config=config),
        seed=0,
        samples=2,
        batch=2,
        share=Share(rank=mesh.data_rank, size=mesh.data_size),
    )
    nats: list[float] = mesh.total(sums)[:, 0].tolist()
    return nats


def _sample(trained: Engine, config: RunConfig, num: int = 4) -> list[list[int]]:
    """The same texts on every rank: none of the draws names a rank."""
    drawn = generate(
        torch.full((num, config.data.sequence_length - 3), config.model.mask),
        torch.arange(num),
        CountingPredict(trained.predict),
        sampler=Ancestral(steps=6),
        schedule=config.objective.schedule,
        draws=Draws(seed=0, split="sample", batch=num),
        mask=config.model.mask,
    )
    texts: list[list[int]] = drawn.tolist()
    return texts


def assemble(pieces: list[tuple[Range, Tensor]]) -> dict[str, Tensor]:
    """Whole parameters from all ranks' pieces.

    Raises:
        ValueError: two ranks hold different values of one element, or none holds it.
    """
    whole: dict[str, Tensor] = {}
    for owned, value in pieces:
        target = whole.setdefault(owned.name, torch.full(owned.shape, torch.nan))
        everything = Box(corner=(0,) * len(owned.shape), sizes=owned.shape, at=0)
        for box in owned.boxes():
            part = value[box.at : box.at + box.num]
            before = torch.empty(box.num)
            copy_overlap(before, box, target.flatten(), everything)
            if not bool(((before == part) | before.isnan()).all()):
                raise ValueError(f"two ranks hold different values of {owned.name}")
            copy_overlap(target.view(-1), everything, part, box)
    missing = [name for name, value in whole.items() if bool(value.isnan().any())]
    if missing:
        raise ValueError(f"no rank holds all of {', '.join(missing)}")
    return whole


def merged_noise(outcomes: list[Outcome]) -> dict[int, str]:
    """The noise of every stream position, on which all ranks that saw it must agree.

    Raises:
        ValueError: two ranks made different noise for one position.
    """
    merged: dict[int, str] = {}
    for outcome in outcomes:
        for position, digest in outcome.noise.items():
            if merged.setdefault(position, digest) != digest:
                raise ValueError(f"two ranks made different noise for stream position {position}")
    return merged


def deviation(found: list[float], truth: list[float]) -> float:
    """The largest relative deviation."""
    assert len(found) == len(truth)
    return max(abs(a - b) / abs(b) for a, b in zip(found, truth, strict=True))


