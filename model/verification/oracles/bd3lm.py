"""Oracle of BD3-LM: its bound is tight if the denoiser is exact.

The stand-in for the network returns the true conditionals of a small joint, given what the
attention layout lets a position see: its own noisy block, and the clean blocks before it. The
bound of every sequence is then -log p for any block size (Arriola et al. 2025, eq. 8); with blocks
of one token this holds for each draw of the noise (section 3, L_1 = NLL); with one block everything
equals MDLM's, bit for bit.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import fields

import torch
from torch import Tensor

from configs.load import Plugin
from model.architectures.dit import DiT
from model.draws import Draws
from model.networks.attention_layouts import FULL, dense_mask
from model.objectives import Noisy
from model.objectives.bd3lm import Bd3lm
from model.objectives.mdlm import Mdlm
from model.schedules.loglinear import LogLinear
from model.verification import texts
from model.verification.check import Check, Comparison, checks, relative
from model.verification.joint import Conditionals, Joint

NODES = 32
"""Nodes of the Gauss-Legendre rule over time; the integrands are polynomials of low degree."""

LENGTH = 4
GIVEN: Sequence[Sequence[bool]] = (
    [True] * 4,
    [False, True, True, True],
    [False, False, True, True],
    [True, False, False, True],
)
"""Which positions are free: all, after BOS or a prompt, and around given tokens."""


def oracles() -> Iterator[Check]:
    """Checks of :class:`model.objectives.bd3lm.Bd3lm`."""
    yield from checks("bd3lm", _held_out_bound, _training_loss, _one_block, _uniform_predictor)


def _joint() -> Joint:
    return Joint.random(2, LENGTH)


def _held_out_bound() -> list[Comparison]:
    """Held-out bound by block size, over every number and order of masked tokens in a block."""
    joint, comparisons = _joint(), []
    for size in range(1, LENGTH + 1):
        cases = [_bound(joint, size, torch.tensor(free)) for free in GIVEN]
        truth = torch.cat([_by_blocks(joint, size, torch.tensor(free)) for free in GIVEN])
        means = torch.cat([losses_NW.mean(dim=1) for losses_NW in cases])
        comparisons.append(relative(f"-log p, blocks of {size}", means, truth, _least(truth)))
        if size == 1:
            each = torch.cat([losses_NW.flatten() for losses_NW in cases])
            known = truth.repeat_interleave(len(each) // len(truth))
            comparisons.append(
                relative("-log p by each draw, blocks of 1", each, known, _least(known))
            )
    return comparisons


def _least(truth: Tensor) -> Tensor:
    """Denominator of relative deviations: |truth|, at least 1e-6 (0 if no token is free)."""
    return truth.abs().clamp(min=1e-6)


def _bound(joint: Joint, size: int, free_L: Tensor) -> Tensor:
    """The held-out loss of each outcome under each case of the noise, ``[N, W]``.

    All blocks have the same time: the loss is a sum over blocks, none of which depends on the
    noise of another.
    """
    cases = math.lcm(*range(1, size + 1))  # every number of masks per block, equally often
    batch, draws = texts.every_order(joint, cases)
    free_BL = free_L.expand(batch["tokens"].shape)
    noisy = Bd3lm(block_size=size).bound_corrupt(batch | {"free": free_BL}, draws, joint.config)
    return _losses(noisy, denoised(joint, noisy)).view(len(joint.outcomes), -1)


def _by_blocks(joint: Joint, size: int, free_L: Tensor) -> Tensor:
    """-log p of the free tokens of each outcome, given what their blocks attend to, ``[N]``."""
    total_N = torch.zeros(len(joint.outcomes), dtype=torch.float64)
    place_L = torch.arange(LENGTH)
    for start in range(0, LENGTH, size):
        later_L, here_L = place_L >= start + size, place_L >= start
        told_NL = joint.outcomes.masked_fill(later_L | (here_L & free_L), joint.mask)
        both_NL = joint.outcomes.masked_fill(later_L, joint.mask)
        total_N += joint.masked_log_prob(told_NL) - joint.masked_log_prob(both_NL)
    return total_N


def _training_loss() -> list[Comparison]:
    """Under exact schedules the training loss integrates to -log p of all tokens but the first."""
    joint, comparisons = _joint(), []
    given_NL = joint.outcomes.clone()
    given_NL[:, 1:] = joint.mask
    after_first = joint.masked_log_prob(given_NL) - joint.log_prob
    plugin = Plugin("model.schedules")
    for name in plugin.names():
        found, truth = [], []
        for size in range(1, LENGTH + 1):
            schedule = plugin.build(name).exact()
            found.append(_integral(Bd3lm(block_size=size, schedule=schedule, t_min=0.0), joint))
            truth.append(after_first if size < LENGTH else -joint.log_prob)
        comparisons.append(relative(f"-log p, {name}", torch.cat(found), torch.cat(truth)))
    return comparisons


def _integral(objective: Bd3lm, joint: Joint) -> Tensor:
    """The expected training loss of each outcome, over all times and masks, ``[N]``."""
    time_W, pattern_WL, weight_W = texts.times_and_masks(LENGTH, NODES)
    chance_W = texts.mask_probability(objective.schedule.alpha(time_W), pattern_WL)
    batch, draws = texts.every_outcome(joint, time_W, pattern_WL)
    noisy = objective.corrupt(batch, draws, joint.config)
    losses_NW = _losses(noisy, denoised(joint, noisy)).view(len(joint.outcomes), -1)
    return losses_NW @ (weight_W * chance_W)


def _one_block() -> list[Comparison]:
    """A block as long as the text, or longer, gives MDLM's corruption bit for bit."""
    model = DiT(vocab_size=7, width=2, num_heads=1)
    draws = Draws(seed=3, split="verify", batch=32)
    uniform_BL = draws.uniform("text", torch.arange(32), 12)
    batch = texts.batch_of((7 * uniform_BL).long())
    batch["valid"] = torch.arange(12) < 1 + torch.arange(32)[:, None] % 12
    batch["ending"] = ~batch["valid"]
    batch["free"] = batch["valid"] & (uniform_BL < 0.9)
    comparisons = []
    for padding in ("masked", "generated", "visible"):
        settings: dict[str, object] = {"padding": padding, "schedule": LogLinear(eps=0.1)}
        apart = 0
        for size in (12, 40):
            one, other = Bd3lm(block_size=size, **settings), Mdlm(**settings)  # type: ignore[arg-type]
            for method in ("corrupt", "bound_corrupt"):
                found, truth = (
                    getattr(objective, method)(batch, draws, model) for objective in (one, other)
                )
                apart += _differing(found, truth)
        comparisons.append(Comparison(what=f"as MDLM's, padding {padding}", deviation=apart))
    return comparisons


def _differing(found: Noisy, truth: Noisy) -> int:
    """Number of fields that differ in any bit."""
    pairs = ((getattr(x, field.name) for x in (found, truth)) for field in fields(Noisy))
    return sum(
        not (torch.equal(one, other) if isinstance(one, Tensor) else one == other)
        for one, other in pairs
    )


def _uniform_predictor() -> list[Comparison]:
    """A uniform predictor: log V per token held out, for any draw; (1 - eps) log V in training."""
    model = DiT(vocab_size=7, width=2, num_heads=1)
    draws = Draws(seed=5, split="verify", batch=64)
    position_B = torch.arange(64)
    batch = texts.batch_of((7 * draws.uniform("text", position_B, 13)).long())
    free_BL = draws.uniform("free", position_B, 13) < (position_B[:, None] + 1) / 64
    free_BL[:, 0] = True
    found, expected = [], []
    for size in (1, 4, 5, 12):
        objective = Bd3lm(block_size=size, schedule=LogLinear(eps=0.1), t_min=0.2, t_max=0.7)
        noisy = objective.bound_corrupt(batch | {"free": free_BL}, draws, model)
        found.append(_losses(noisy, texts.uniform_logits(noisy, model)) / free_BL.sum(dim=1))
        noisy = objective.corrupt(batch, draws, model)
        over_BL = noisy.over_BL
        masked_BL = 1 - objective.schedule.alpha(noisy.level_BK.double())
        expected.append((noisy.weight_BK * masked_BL)[over_BL] * math.log(7))
    known = torch.tensor(math.log(7), dtype=torch.float64)
    held_out, training = torch.cat(found), torch.cat(expected)
    return [
        relative("log V, held out", held_out, known.expand(len(held_out))),
        relative("(1 - eps) log V, in training", training, (0.9 * known).expand(len(training))),
    ]


def denoised(joint: Conditionals, noisy: Noisy) -> Tensor:
    """True conditionals at each predicted position given what it attends to, ``[M, V + 1]``."""
    row_M, column_M = noisy.predict_mask_BL.nonzero(as_tuple=True)
    read, length = noisy.ids_BL.shape[1], joint.outcomes.shape[1]
    seen_ML = noisy.ids_BL[row_M]
    if noisy.layout != FULL:
        mask_LL = dense_mask(noisy.layout, read, read, noisy.ids_BL.device)
        assert mask_LL is not None
        seen_ML = seen_ML.masked_fill(~mask_LL[column_M], joint.mask)
    # At most one of a position and its copy is visible; [MASK] is the largest id.
    seen_ML = seen_ML.unflatten(1, (-1, length)).amin(dim=1)
    where_ML = torch.arange(length) == column_M[:, None]
    return joint.denoise(seen_ML, noisy.level_BK, where_ML)


def _losses(noisy: Noisy, logits_MR: Tensor) -> Tensor:
    """Losses of every sample, ``[B]`` float64."""
    return texts.row_losses(Bd3lm().bound_losses, noisy, logits_MR)
