"""Oracle of SUNDAE: its corruption, its loss and the loss's minimum, and its fixed point.

Corruption is enumerated: the Gauss-Legendre rule over the rate is exact for polynomials, which the
probabilities of all texts are, and at each position a token is kept or becomes any of V ids.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.architectures.dit import DiT
from model.draws import Draws
from model.networks.config import ModelConfig
from model.objectives import LOSS, Noisy, sum_losses
from model.objectives.sundae import Sundae
from model.prediction import Answer, Networks, Read
from model.query import Query
from model.samplers import Job
from model.samplers.unrolled import Unrolled
from model.verification.check import LOG_PROB, Check, Comparison, checks, close
from model.verification.joint import Joint
from model.verification.scripted import Scripted
from model.verification.texts import batch_of, legendre, predicted

NODES = 4
"""Nodes of the rule over the rate: exact for texts of up to seven positions."""


def oracles() -> Iterator[Check]:
    """Checks of :class:`model.objectives.sundae.Sundae` and of its sampler."""
    yield from checks(
        "sundae", _corruption, _least_loss, _uniform_predictor, _two_views_by_hand, _fixed_point
    )


@dataclass(frozen=True)
class _Network:
    """Stand-in for a network: logits ``[M, R]`` from a function of the query."""

    logits: Callable[[Query], Tensor]

    def ask(self, query: Query, read: Read[Answer]) -> Answer:
        """See :class:`model.samplers.SampledNetwork`."""
        return read(predicted(self.logits(query)))

    def encode(self, query: Query) -> Query:
        """The query as it is."""
        return query


# -- corruption -----------------------------------------------------------------------------


def _corruption() -> list[Comparison]:
    """Distribution of one token over all rates, with and without [MASK] in the vocabulary."""
    comparisons = []
    for model in (_model(3), _model(5, mask_id=2), _model(4, mask_id=3)):
        ids_V = _ids(model)
        num = len(ids_V)
        noisy, chance_W = _enumerated(ids_V[:, None], model)
        found_VV = torch.zeros(num, model.vocab_size, dtype=torch.float64)
        row_B = torch.arange(num).repeat_interleave(len(chance_W))
        found_VV.index_put_((row_B, noisy.ids_BL[:, 0]), chance_W.repeat(num), accumulate=True)
        known_VV = torch.eye(num, dtype=torch.float64) / 2 + 1 / (2 * num)
        apart = (found_VV[:, ids_V] - known_VV).abs().max()
        changed = 1 - found_VV[:, ids_V].diagonal().mean()
        known = (1 - 1 / num) / 2
        comparisons += [
            Comparison(what=f"law of one token, {num} ids", deviation=float(apart), allowed=1e-12),
            close(f"changed share, {num} ids", float(changed), known, 1e-12),
        ]
    return comparisons


def _least_loss() -> list[Comparison]:
    """The loss is minimal at Bayes' posterior, where it is the entropy of the clean tokens."""
    joint, model = Joint.random(3, 2), _model(3)
    noisy, chance_W = _enumerated(joint.outcomes, model)
    chance_B = (joint.probability[:, None] * chance_W).flatten()
    code_B = (noisy.ids_BL * torch.tensor([3, 1])).sum(dim=1)

    posterior_YLV, chance_Y = _posterior(joint)
    table_YLV = posterior_YLV.log().requires_grad_()
    logits_MR = torch.nn.functional.pad(table_YLV[code_B].flatten(0, 1), (0, 1), value=-torch.inf)
    losses_M = Sundae(unrolls=1).losses(predicted(logits_MR), noisy)[LOSS].double()
    loss = (chance_B.repeat_interleave(joint.length) * losses_M).sum()
    loss.backward()
    assert table_YLV.grad is not None
    entropy_Y = -(posterior_YLV * posterior_YLV.log()).sum(dim=(1, 2))
    known = float((chance_Y * entropy_Y).sum())
    slope = float(table_YLV.grad.abs().max())
    return [
        close("entropy of the text given the corrupted one", float(loss.detach()), known, LOG_PROB),
        Comparison(what="slope there", deviation=slope, allowed=LOG_PROB),
    ]


def _posterior(joint: Joint) -> tuple[Tensor, Tensor]:
    """p(x_i | y) ``[Y, L, V]`` of every corrupted text y, and p(y) ``[Y]``, in closed form.

    With c of two positions changed, the probabilities over all rates, products of (1 - r) + r / V
    for a kept token and r / V for one other id, are integrals of polynomials.
    """
    kept, other = np.polynomial.Polynomial([1, 1 / 3 - 1]), np.polynomial.Polynomial([0, 1 / 3])
    by_changes = [float((kept ** (2 - c) * other**c).integ()(1.0)) for c in range(3)]
    apart_NY = (joint.outcomes[:, None] != joint.outcomes[None]).sum(dim=-1)
    both_NY = joint.probability[:, None] * torch.tensor(by_changes).double()[apart_NY]
    one_hot_NLV = torch.nn.functional.one_hot(joint.outcomes, joint.vocab).double()
    marginal_YLV = torch.einsum("ny,nlv->ylv", both_NY, one_hot_NLV)
    return marginal_YLV / marginal_YLV.sum(dim=-1, keepdim=True), both_NY.sum(dim=0)


def _enumerated(tokens_NL: Tensor, model: ModelConfig) -> tuple[Noisy, Tensor]:
    """Each text under each of W corruptions, ``[N W, L]``, and their probabilities, ``[W]``."""
    num, (texts, length) = len(_ids(model)), tokens_NL.shape
    rate_T, weight_T = legendre(NODES)
    # At rate r, uniforms above 1 - r replace the token; each id has r / V of the unit interval.
    drawn_TC = 1 - rate_T[:, None] * (torch.arange(num) + 0.5) / num
    uniform_TC = torch.cat([drawn_TC, (1 - rate_T[:, None]) / 2], dim=1)
    chance_TC = torch.cat([(rate_T / num)[:, None].expand(-1, num), 1 - rate_T[:, None]], dim=1)
    case_CL = torch.tensor(list(itertools.product(range(num + 1), repeat=length)))
    uniform_WL = uniform_TC[:, case_CL].flatten(0, 1)
    chance_W = (weight_T[:, None] * chance_TC[:, case_CL].prod(dim=-1)).flatten()
    draws = Scripted(
        time_B1=rate_T.repeat_interleave(len(case_CL)).repeat(texts)[:, None],
        uniform_BL=uniform_WL.repeat(texts, 1),
    )
    batch = batch_of(tokens_NL.repeat_interleave(len(chance_W), dim=0))
    return Sundae().corrupt(batch, draws, model), chance_W


# -- loss -----------------------------------------------------------------------------------


def _uniform_predictor() -> list[Comparison]:
    """A uniform predictor has log V at every position of every view, for any draw."""
    comparisons = []
    draws = Draws(seed=5, split="verify", batch=64)
    position_B = torch.arange(64)
    for model in (_model(7), _model(7, mask_id=3)):
        ids_V = _ids(model)

        def even(query: Query, model: ModelConfig = model) -> Tensor:
            logits_MR = torch.zeros(int(query.predict_mask_BL.sum()), model.num_rows)
            return logits_MR.masked_fill(model.excluded_rows.to(logits_MR.device), -torch.inf)

        batch = batch_of(ids_V[(len(ids_V) * draws.uniform("text", position_B, 12)).long()])
        batch["valid"] = draws.uniform("valid", position_B, 12) < (position_B[:, None] + 1) / 64
        batch["tokens"] = torch.where(batch["valid"], batch["tokens"], model.mask)
        network, text = _Network(even), int(batch["valid"].sum())
        for unrolls in (1, 2, 3):
            objective = Sundae(unrolls=unrolls)
            noisy = objective.corrupt(batch, draws, model)
            noisy = objective.refine(noisy, Networks(network.ask), draws)
            losses_M = objective.losses(predicted(even(noisy)), noisy)[LOSS].double()
            apart = float((losses_M / math.log(len(ids_V)) - 1).abs().max())
            what = f"log {len(ids_V)}, {unrolls} views"
            comparisons.append(Comparison(what=what, deviation=apart, allowed=LOG_PROB))
            missing = abs(len(losses_M) - unrolls * text) + abs(int(noisy.count()) - len(losses_M))
            comparisons.append(Comparison(what=f"positions, {unrolls} views", deviation=missing))
    return comparisons


def _two_views_by_hand() -> list[Comparison]:
    """Loss of two views by hand: four tokens, and a network that predicts each id plus one.

    It is right at one position of one view.
    """
    model = _model(5)
    batch = batch_of(torch.tensor([[1, 1, 2, 3, 4]]))
    batch["valid"] = torch.tensor([[True, True, True, True, False]])
    uniform_BL = torch.tensor([[0.55, 0.8, 0.4, 0.1, 0.7]]).double()
    draws = Scripted(time_B1=torch.tensor([[0.5]]).double(), uniform_BL=uniform_BL)

    def next_id(query: Query) -> Tensor:
        ids_M = (query.ids_BL[query.predict_mask_BL] + 1) % 5
        return torch.nn.functional.pad(
            2.0 * torch.nn.functional.one_hot(ids_M, 5), (0, 1), value=-torch.inf
        )

    objective = Sundae(temperature=0.0)
    noisy = objective.corrupt(batch, draws, model)
    noisy = objective.refine(noisy, Networks(_Network(next_id).ask), draws)
    views = torch.tensor([[0, 3, 2, 3, 4], [1, 4, 3, 4, 4]])
    differ = int((noisy.ids_BL != views).sum())
    sums = sum_losses(objective, predicted(next_id(noisy)), noisy)
    found = float(sums.terms[LOSS]) / int(noisy.count())
    known = math.log(math.exp(2) + 4) - 2 / 8  # -log p of the id it adds to, at one of eight
    assert noisy.tokens is not None
    return [
        Comparison(what="ids of both views", deviation=differ),
        close("loss", found, known, LOG_PROB),
        Comparison(what="tokens", deviation=abs(int(noisy.tokens) - 4)),
    ]


def _fixed_point() -> list[Comparison]:
    """A network that knows the text unrolls to it, and sampling stops there."""
    model, draws = _model(7), Draws(seed=2, split="verify", batch=16)
    position_B = torch.arange(16)
    batch = batch_of((7 * draws.uniform("text", position_B, 12)).long())

    def known(query: Query) -> Tensor:
        tokens_BL = batch["tokens"].repeat(len(query.ids_BL) // 16, 1)
        one_hot_MV = torch.nn.functional.one_hot(tokens_BL[query.predict_mask_BL], 7).float()
        return torch.nn.functional.pad(one_hot_MV, (0, 1)).log()

    network, objective = _Network(known), Sundae(unrolls=3)
    noisy = objective.refine(objective.corrupt(batch, draws, model), Networks(network.ask), draws)
    wrong = noisy.ids_BL[16:] != batch["tokens"].repeat(2, 1)
    loss = sum_losses(objective, predicted(known(noisy)), noisy).terms[LOSS]
    comparisons = [
        Comparison(what="wrong ids in unrolled views", deviation=int(wrong.sum())),
        Comparison(what="loss", deviation=float(loss.abs())),
    ]
    for sampler, evaluations in (
        (Unrolled(proportion=1.0), 10),
        (Unrolled(proportion=1.0, temperature=0.0, min_steps=2), 2),
        (Unrolled(order="unsure", temperature=0.0), 10),
        (Unrolled(min_steps=60), 60),
    ):
        job = Job(
            ids_BL=torch.zeros_like(batch["tokens"]),
            free_BL=batch["valid"],
            position_B=position_B,
            draws=draws,
            objective=objective,
            model=model,
            network=network,
        )
        wrong = sampler.run(job) != batch["tokens"]
        extra = abs(job.evaluations - evaluations)
        comparisons += [
            Comparison(
                what="wrong ids in samples", deviation=int(wrong.sum()), figures=f"{sampler}"
            ),
            Comparison(what="evaluations", deviation=extra, figures=f"{sampler}"),
        ]
    return comparisons


def _model(vocab: int, mask_id: int | None = None) -> ModelConfig:
    return DiT(vocab_size=vocab, mask_id=mask_id, width=2, num_heads=1)


def _ids(model: ModelConfig) -> Tensor:
    """All ids except [MASK]."""
    ids_V = torch.arange(model.vocab_size)
    return ids_V[ids_V != model.mask]
