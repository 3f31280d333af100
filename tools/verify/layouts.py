"""A short run under a layout, and all of its numbers that a layout must not change."""

import hashlib
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from model.draws import Draws
from model.objectives import Noisy, State
from model.prediction import Prediction
from model.samplers import Job, Sampler
from pretrain.checkpoint import frozen_networks
from pretrain.config import RunConfig
from pretrain.evaluation.bound import document_losses
from pretrain.evaluation.evaluator import Evaluator, Share
from pretrain.evaluation.losses import mean_losses
from pretrain.launch.local import World
from pretrain.parallel.build import build
from pretrain.parallel.engine import Engine
from pretrain.parallel.mesh import Mesh
from pretrain.parallel.ranges import FlatRange, Slice, copy_overlap
from pretrain.step import TrainingStep
from pretrain.trial import SyntheticStream, SyntheticWindows, batch, facts
from tools.sample.options import SAMPLERS


@dataclass(kw_only=True)
class Outcome:
    """The numbers of a run on one rank.

    Args:
        initial, final: this rank's pieces of the fp32 masters, before and after.
        noise: for each stream position, a digest of all that corruption made of it.
        document_nats: of the held-out windows, after the last step.
        samples: texts drawn with the last weights.
        drawn: one id for each noisy position of the first batch, with the last weights.
        logits: at these positions, where ids are drawn and one rank has them whole.
    """

    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    initial: list[tuple[FlatRange, Tensor]] = field(default_factory=list)
    final: list[tuple[FlatRange, Tensor]] = field(default_factory=list)
    noise: dict[int, str] = field(default_factory=dict)
    document_nats: list[float] = field(default_factory=list)
    samples: list[list[int]] = field(default_factory=list)
    drawn: list[int] = field(default_factory=list)
    logits: Tensor | None = None


def run(world: World, config: RunConfig, steps: int) -> Outcome:
    """Train for some steps, evaluate, and sample, on one of the ranks."""
    return _on_mesh(world, config, steps, judged=True)


def train(world: World, config: RunConfig, steps: int) -> Outcome:
    """Train for some steps, on one of the ranks; nothing is evaluated or sampled."""
    return _on_mesh(world, config, steps, judged=False)


def _on_mesh(world: World, config: RunConfig, steps: int, *, judged: bool) -> Outcome:
    mesh = Mesh(world, tensor=config.parallel.tensor, pipeline=config.parallel.pipeline)
    torch.set_num_threads(1)  # on busy cores threads were seen to make tiny steps ten times slower
    outcome = _run(mesh, config, steps, judged)
    mesh.close()  # not after an error: the peers' complaints would come before its traceback
    return outcome


def _run(mesh: Mesh, config: RunConfig, steps: int, judged: bool) -> Outcome:
    draws = Draws(seed=config.seed, split="train", batch=config.global_batch)
    trained = build(config, mesh)
    trained.networks = frozen_networks.load(config, mesh)
    training = TrainingStep(
        config,
        trained,
        mesh,
        lambda positions: batch(config, draws, positions, mesh.device),
        facts(config),
    )
    outcome = Outcome(initial=_masters(trained))
    for step in range(1, steps + 1):
        batches = training.read(step)
        for samples in batches:
            noisy = config.objective.corrupt(samples, training.draws, config.model, training.state)
            made = {name: value for name, value in vars(noisy).items() if isinstance(value, Tensor)}
            if training.state:
                del made["weight_BK"]  # follows from losses, and so is equal up to rounding
            outcome.noise |= _digests(noisy.position_B, made)
        micro_batches = training.corrupt(step, batches)
        counts, _ = training.all_reduce_counts(micro_batches)
        sums = training.run(step, micro_batches, counts)
        outcome.losses.append(training.losses(sums, counts).total)
        outcome.grad_norms.append(trained.grad_norm)
    outcome.final = _masters(trained)
    if judged:
        outcome.document_nats = _evaluate(trained, mesh, config, training.state)
        outcome.samples = _sample(trained, mesh, config, training.state)
        outcome.drawn, outcome.logits = _draw(trained, mesh, config)
    return outcome


def _masters(trained: Engine) -> list[tuple[FlatRange, Tensor]]:
    weights = trained.shards.weights
    return [
        (owned_range.range, owned_range.of(weights).cpu().clone())
        for owned_range in trained.shards.owned_ranges
    ]


def _digests(position_B: Tensor, noisy: dict[str, Tensor]) -> dict[int, str]:
    """Digests of the samples' rows of all tensors, by stream position."""
    rows = [value.cpu() for value in noisy.values() if value.dim() > 0]
    return {
        position: hashlib.sha256(
            b"".join(value[row].numpy().tobytes() for value in rows)
        ).hexdigest()
        for row, position in enumerate(position_B.tolist())
    }


def _evaluate(trained: Engine, mesh: Mesh, config: RunConfig, state: State) -> list[float]:
    def summed(values: Tensor) -> Tensor:
        return mesh.total(values.to(mesh.device))

    evaluator = Evaluator(
        ask=trained.ask,
        objective=config.objective,
        model=config.model,
        seed=0,
        batch=2,
        state=state,
        share=Share(rank=mesh.data_rank, size=mesh.data_size),
        device=mesh.device,
    )
    if config.objective.bound is None:
        held_out = SyntheticStream(config)
        found = mean_losses(evaluator, held_out, num=len(held_out))
        return list(found.total(summed).losses(config.objective).values())
    tally = document_losses(evaluator, SyntheticWindows(config=config), samples=2)
    nats: list[float] = summed(tally.documents_D3[:, 0]).tolist()
    return nats


def _sample(
    trained: Engine, mesh: Mesh, config: RunConfig, state: State, num: int = 4
) -> list[list[int]]:
    """The same texts on every rank: none of the draws names a rank."""
    samples = batch(config, Draws(seed=1, split="windows", batch=num), range(num), mesh.device)
    ids_BL = samples["tokens"][:, : config.data.sequence_length - 3]
    job = Job(
        ids_BL=ids_BL,
        free_BL=torch.ones_like(ids_BL, dtype=torch.bool),
        position_B=samples["position"],
        draws=Draws(seed=0, split="sample", batch=num),
        objective=config.objective,
        model=config.model,
        network=trained,
        state=state,
        source_BS=samples.get("source"),
        source_valid_BS=samples.get("source_valid"),
    )
    with torch.no_grad():
        texts: list[list[int]] = _short_sampler(config).run(job).tolist()
    return texts


def _short_sampler(config: RunConfig) -> Sampler:
    """The objective's own, with few steps where it has steps."""
    name = config.objective.sampler
    settings = {one.name for one in fields(SAMPLERS.resolve(name))}
    sampler: Sampler = SAMPLERS.build(
        {"name": name, **({"steps": 6} if "steps" in settings else {})}
    )
    return sampler.within(config.objective)


DRAW = "check"
"""The kind of the draws of :attr:`Outcome.drawn`."""


def _draw(trained: Engine, mesh: Mesh, config: RunConfig) -> tuple[list[int], Tensor | None]:
    noisy, draw = _noisy_draw(config, mesh.device)

    def drawn(found: Prediction) -> tuple[Tensor, Tensor]:
        """Ids, and the logits that one rank has whole."""
        if found.logits is None:
            assert found.vector_ME is not None
            assert found.table is not None
            ids_M = found.table.round(found.vector_ME)
            return ids_M, torch.zeros(0, device=ids_M.device)
        return found.logits.sample(*draw), found.logits.logits_MR

    ids_M, logits_MR = trained.ask(noisy, drawn)
    whole = mesh.size == 1 and len(logits_MR) > 0
    return ids_M.tolist(), logits_MR.cpu() if whole else None


def near_ties(config: RunConfig, logits_MR: Tensor, tie: float) -> Tensor:
    """Whether the uniform of each of :attr:`Outcome.drawn` is within ``tie`` of another id's."""
    _, (draws, kind, position_M, column_M, temperature) = _noisy_draw(config, torch.device("cpu"))
    reached_MV = (logits_MR.double() / temperature).softmax(dim=-1).cumsum(dim=-1)
    uniform_M1 = draws.uniform_at(kind, position_M, column_M)[:, None]
    return (reached_MV - uniform_M1).abs().amin(dim=-1) < tie


def _noisy_draw(
    config: RunConfig, device: torch.device
) -> tuple[Noisy, tuple[Draws, str, Tensor, Tensor, float]]:
    """The first batch, corrupted, and how an id is drawn at each noisy place."""
    draws = Draws(seed=config.seed, split="train", batch=config.global_batch)
    samples = batch(config, draws, range(config.global_batch), device)
    noisy = config.objective.corrupt(samples, draws, config.model)
    row_M, column_M = noisy.predict_mask_BL.nonzero(as_tuple=True)
    return noisy, (draws, DRAW, samples["position"][row_M], column_M, 1.0)


def assemble(pieces: list[tuple[FlatRange, Tensor]]) -> dict[str, Tensor]:
    """Whole parameters from all ranks' pieces.

    Raises:
        ValueError: two ranks hold different values of one element, or none holds it.
    """
    whole: dict[str, Tensor] = {}
    for shards, value in pieces:
        target = whole.setdefault(shards.name, torch.full(shards.shape, torch.nan))
        everything = Slice(corner=(0,) * len(shards.shape), sizes=shards.shape, at=0)
        for box in shards.boxes():
            part = value[box.at : box.at + box.num]
            before = torch.empty(box.num)
            copy_overlap(before, box, target.flatten(), everything)
            if not bool(((before == part) | before.isnan()).all()):
                raise ValueError(f"two ranks hold different values of {shards.name}")
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
    """The largest relative deviation; NaN where a number is."""
    found_N, truth_N = (torch.tensor(values, dtype=torch.float64) for values in (found, truth))
    return float(((found_N - truth_N) / truth_N).abs().max())
