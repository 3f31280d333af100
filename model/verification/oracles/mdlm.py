"""Oracle of MDLM: its bound is tight if the denoiser is exact.

With the true conditionals of a small joint distribution in place of the network, the
continuous-time NELBO of every sequence is -log p (Sahoo et al. 2024, eq. 10: under SUBS
and with x_theta = E[x_0 | x_t] the bound is tight for any order of revealing). The noise is
enumerated instead of sampled, so that the result is deterministic.
"""

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from configs.load import Plugin
from model.architectures.dit import DiT
from model.draws import Draws
from model.naming import method_name
from model.objectives import Noisy
from model.objectives.mdlm import Mdlm
from model.schedules import Schedule
from model.schedules.cosine_squared import CosineSquared
from model.schedules.loglinear import LogLinear
from model.verification.check import Check, Comparison, checks, relative
from model.verification.joint import Conditionals, Joint, Texts
from model.verification.scripted import Scripted
from model.verification.texts import (
    batch_of,
    every_order,
    every_outcome,
    legendre,
    mask_probability,
    row_losses,
    times_and_masks,
    uniform_logits,
    with_masks,
)

NODES = 32
"""Nodes of the Gauss-Legendre rule over time; its error is far below float32 precision."""


def oracles() -> Iterator[Check]:
    """Checks of :class:`model.objectives.mdlm.Mdlm` and of the schedules."""
    yield from checks(
        "mdlm",
        _held_out_bound,
        _texts_of_any_length,
        _training_loss,
        _importance_sampling,
        _discrete_time,
        _uniform_predictor,
    )


def _joints() -> list[Joint]:
    return [Joint.random(2, 2), Joint.random(3, 3)]


def _held_out_bound() -> list[Comparison]:
    """Held-out bound of all tokens, and of some given the others, over all mask orders."""
    found, truth = [], []
    for joint in _joints():
        for free in itertools.product([False, True], repeat=joint.length):
            if any(free):
                free_L = torch.tensor(free)
                found.append(_bound(joint, free_L))
                given_NL = joint.outcomes.masked_fill(free_L, joint.mask)
                truth.append(joint.masked_log_prob(given_NL) - joint.log_prob)
    return [relative("-log p, all or given some", torch.cat(found), torch.cat(truth))]


def _bound(joint: Joint, free_L: Tensor) -> Tensor:
    """The expected held-out loss of each outcome, ``[N]``."""
    batch, draws = every_order(joint, int(free_L.sum()))
    free_BL = free_L.expand(batch["tokens"].shape)
    noisy = Mdlm().bound_corrupt(batch | {"free": free_BL}, draws, joint.config)
    return _losses(noisy, _denoised(joint, noisy)).view(len(joint.outcomes), -1).mean(dim=1)


def _texts_of_any_length() -> list[Comparison]:
    """Padded texts: the bound, given the length or including it, and the tokens counted."""
    texts = Texts((0.5, 0.3, 0.2))
    text = -(texts.log_prob - texts.log_prob_of_length)
    known = {
        "visible": ("-log p given the length", text, texts.num_letters),
        "generated": ("-log p, the length with it", -texts.log_prob, texts.num_letters + 1),
        "masked": ("text in any order", _any_order(texts), texts.num_letters),
    }
    comparisons = []
    for padding, (what, truth, tokens) in known.items():
        objective = Mdlm(padding=padding)  # type: ignore[arg-type]
        found, counted = _padded_bound(objective, texts)
        comparisons.append(relative(f"{what}, padding {padding}", found, truth))
        wrong = int((counted != tokens).sum())
        comparisons.append(Comparison(what=f"tokens counted, padding {padding}", deviation=wrong))
    # In any order it is a code for the text given its length: on average at least -log p.
    over = (texts.probability * (_any_order(texts) - text)).sum()
    comparisons.append(Comparison(what="a bound, padding masked", deviation=float(over < 0)))
    return comparisons


def _padded_bound(objective: Mdlm, texts: Texts) -> tuple[Tensor, Tensor]:
    """The expected held-out loss of each padded text and its number of counted tokens, ``[N]``."""
    ids_NL = texts.outcomes
    length = ids_NL.shape[1] - 1  # BOS is given
    order_PL = torch.tensor(list(itertools.permutations(range(length))))
    uniform_PL = torch.nn.functional.pad((order_PL + 0.5) / length, (1, 0)).double()
    found, tokens = [], []
    for ids_L in ids_NL:
        place_L = torch.arange(length + 1)
        ending_L = place_L > (ids_L != texts.PAD).sum() - 2
        free_L = (place_L > 0) & (ids_L != texts.PAD)
        # Every number of masked positions out of the hidden ones, equally often.
        hidden = int((free_L & ~ending_L).sum()) if objective.padding == "visible" else length
        batch = batch_of(ids_L.repeat(hidden * len(order_PL), 1))
        batch["ending"] = ending_L.expand_as(batch["tokens"])
        batch["valid"] = batch["tokens"] != texts.PAD
        time_K = (torch.arange(hidden).double() + 0.5) / hidden
        draws = Scripted(
            time_B1=time_K.repeat_interleave(len(order_PL))[:, None],
            uniform_BL=uniform_PL.repeat(hidden, 1),
        )
        batch["free"] = free_L.expand_as(batch["tokens"])
        noisy = objective.bound_corrupt(batch, draws, texts.config)
        found.append(_losses(noisy, _denoised(texts, noisy)).mean())
        tokens.append(noisy.count() // len(batch["tokens"]))
    return torch.stack(found), torch.stack(tokens)


def _any_order(texts: Texts) -> Tensor:
    """-log p of the letters alone as hidden positions are revealed one by one, ``[N]``.

    It is averaged over all orders of revealing.
    """
    length = texts.outcomes.shape[1]
    total = torch.zeros(len(texts.outcomes), dtype=torch.float64)
    orders = list(itertools.permutations(range(1, length)))
    for order in orders:
        seen_NL = torch.full_like(texts.outcomes, texts.mask)
        seen_NL[:, 0] = texts.outcomes[:, 0]
        before = texts.masked_log_prob(seen_NL)
        for place in order:
            seen_NL[:, place] = texts.outcomes[:, place]
            after = texts.masked_log_prob(seen_NL)
            is_letter = place <= texts.num_letters
            total += torch.where(is_letter, before - after, 0.0)
            before = after
    return total / len(orders)


def _training_loss() -> list[Comparison]:
    """Under every exact schedule the training loss integrates to -log p."""
    plugin = Plugin("model.schedules")
    comparisons = []
    for name in plugin.names():
        objective = Mdlm(schedule=plugin.build(name).exact(), t_min=0.0)
        found = torch.cat([_integral(objective, joint) for joint in _joints()])
        truth = torch.cat([-joint.log_prob for joint in _joints()])
        comparisons.append(relative(f"-log p, {name} schedule", found, truth))
    return comparisons


def _integral(objective: Mdlm, joint: Joint) -> Tensor:
    """The expected training loss of each outcome, over all times and masks, ``[N]``."""
    return _expected(objective, joint, *legendre(NODES))


def _expected(objective: Mdlm, joint: Joint, uniform_T: Tensor, weight_T: Tensor) -> Tensor:
    """The training loss of each outcome, ``[N]``, over weighted uniforms that determine times."""
    uniform_W, pattern_WL, weight_W = with_masks(uniform_T, weight_T, joint.length)
    batch, draws = every_outcome(joint, uniform_W, pattern_WL)
    noisy = objective.corrupt(batch, draws, joint.config)
    losses_NW = _losses(noisy, _denoised(joint, noisy)).view(len(joint.outcomes), -1)
    time_W = noisy.level_BK[: len(uniform_W), 0].double()
    return losses_NW @ (weight_W * mask_probability(objective.schedule.alpha(time_W), pattern_WL))


def _importance_sampling() -> list[Comparison]:
    """Times drawn in proportion to the weight give the same expected loss, with equal weights."""
    plugin = Plugin("model.schedules")
    (joint, _), comparisons = _joints(), []
    for name in plugin.names():
        schedule = plugin.build(name)
        even, drawn = (
            _expected(Mdlm(schedule=schedule, times=times, t_min=0.01), joint, *legendre(2 * NODES))
            for times in ("uniform", "importance")
        )
        comparisons.append(relative(f"importance sampling, {name} schedule", drawn, even))
    return comparisons


STEPS = 5


def _discrete_time() -> list[Comparison]:
    """The loss with T steps is D3PM's bound (Austin et al. 2021, eq. 1), by transition matrices."""
    index_T = (torch.arange(STEPS).double() + 0.5) / STEPS
    comparisons = []
    for schedule in (LogLinear(eps=0.0), CosineSquared(eps=0.0)):
        objective = Mdlm(schedule=schedule, num_steps=STEPS)
        found = [
            _expected(objective, joint, index_T, torch.full_like(index_T, 1 / STEPS))
            for joint in _joints()
        ]
        truth = [_d3pm_bound(objective.schedule, joint) for joint in _joints()]
        what = f"D3PM's bound, {method_name(schedule)} schedule"
        comparisons.append(relative(what, torch.cat(found), torch.cat(truth)))
    return comparisons


def _d3pm_bound(schedule: Schedule, joint: Joint) -> Tensor:
    """Sum over the steps of E KL(q(x_s | x_t, x_0) || p(x_s | x_t)), ``[N]``.

    Its p is the posterior averaged over the predicted x_0, one position at a time; the last step,
    to s = 0, is -log p(x_0 | x_t).
    """
    ids, mask = joint.vocab + 1, joint.mask
    bound_N = torch.zeros(len(joint.outcomes), dtype=torch.float64)
    masks_ZL = torch.tensor(list(itertools.product([False, True], repeat=joint.length)))
    alphas = schedule.alpha(torch.arange(STEPS + 1).double() / STEPS).tolist()
    for s, t in itertools.pairwise(range(STEPS + 1)):
        to_s, to_t = (_transition(alphas[i], ids, mask) for i in (s, t))
        step = _transition(alphas[t] / alphas[s], ids, mask)
        # q(x_s = j | x_t = i, x_0 = k) for i = [MASK]: visible tokens stay, at no cost.
        q_KJ = to_s * step[:, mask] / to_t[:, mask, None].clamp(min=1e-300)
        for masked_L in masks_ZL:
            noisy_NL = joint.outcomes.masked_fill(masked_L, mask)
            logits_ML = joint.denoise(noisy_NL, torch.zeros(1), masked_L.expand(noisy_NL.shape))
            p_MK = logits_ML.softmax(dim=-1)
            true_M = joint.outcomes[masked_L.expand(noisy_NL.shape)]
            q_MJ, p_MJ = q_KJ[true_M], p_MK @ q_KJ
            kl_M = torch.where(q_MJ > 0, q_MJ * (q_MJ / p_MJ).log(), 0.0).sum(dim=-1)
            chance = mask_probability(
                torch.tensor([alphas[t]], dtype=torch.float64), masked_L[None].double()
            )
            bound_N += chance * kl_M.view(len(noisy_NL), -1).sum(dim=1)
    return bound_N


def _transition(alpha: float, ids: int, mask: int) -> Tensor:
    """Absorbing transition matrix ``[ids, ids]``: kept with probability alpha, else [MASK]."""
    matrix = alpha * torch.eye(ids, dtype=torch.float64)
    matrix[:, mask] += 1 - alpha
    return matrix


def _uniform_predictor() -> list[Comparison]:
    """A uniform predictor: log V per token held out, for any draw; (1 - eps) log V in training."""
    model = DiT(vocab_size=7, width=2, num_heads=1)
    held_out = Draws(seed=5, split="verify", batch=64)
    position_B = torch.arange(64)
    batch = batch_of((7 * held_out.uniform("text", position_B, 12)).long())
    free_BL = held_out.uniform("free", position_B, 12) < position_B[:, None] / 64
    free_BL[:, 0] = True
    noisy = Mdlm().bound_corrupt(batch | {"free": free_BL}, held_out, model)
    score_B = _losses(noisy, uniform_logits(noisy, model)) / free_BL.sum(dim=1)

    objective = Mdlm(schedule=LogLinear(eps=0.1), t_min=1e-3)
    time_W, pattern_WL, weight_W = times_and_masks(4, NODES)
    draws = Scripted(time_B1=time_W[:, None], uniform_BL=pattern_WL)
    noisy = objective.corrupt(batch_of(torch.zeros_like(pattern_WL).long()), draws, model)
    time_W = objective.t_min + (1 - objective.t_min) * time_W
    chance_W = weight_W * mask_probability(objective.schedule.alpha(time_W), pattern_WL)
    score = _losses(noisy, uniform_logits(noisy, model)) @ chance_W / 4
    known = torch.tensor([math.log(7)], dtype=torch.float64)
    return [
        relative("log V, held out", score_B, known.expand(64)),
        relative("(1 - eps) log V, in training", score[None], 0.9 * known),
    ]


def _denoised(joint: Conditionals, noisy: Noisy) -> Tensor:
    return joint.denoise(noisy.ids_BL, noisy.level_BK, noisy.predict_mask_BL)


def _losses(noisy: Noisy, logits_MR: Tensor) -> Tensor:
    """Losses of every sample, ``[B]`` float64."""
    return row_losses(Mdlm().bound_losses, noisy, logits_MR)
