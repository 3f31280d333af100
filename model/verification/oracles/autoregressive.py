"""Oracle of the autoregressive baseline: its loss is exactly -log p.

By the chain rule: with the true conditionals of a small joint distribution in place of the
network, the nats of a sequence sum to -log p, and left-to-right samples follow the distribution.
"""

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from model.architectures.dit import DiT
from model.draws import Draws
from model.networks.attention_layouts import AttentionLayout, Cached, Causal
from model.objectives import Noisy
from model.objectives.autoregressive import Autoregressive
from model.prediction import Answer, Read
from model.query import Query
from model.samplers import Job
from model.samplers.left_to_right import LeftToRight
from model.verification.check import Check, Comparison, checks, relative
from model.verification.joint import Conditionals, Joint, Texts
from model.verification.texts import batch_of, predicted, row_losses, uniform_logits

SAMPLES = 4000
DEVIATIONS = 4.5
"""Largest allowed deviation of a chi-square statistic from its mean, in standard deviations."""

DRAWS = Draws(seed=5, split="verify", batch=64)


def oracles() -> Iterator[Check]:
    """Checks of :class:`model.objectives.autoregressive.Autoregressive` and of its sampler."""
    yield from checks(
        "autoregressive", _likelihood, _texts_of_any_length, _uniform_predictor, _sampler
    )


class ChainRule:
    """Stand-in for a network: the exact p(x_j | x_1 ... x_{j-1}) for each predicted column.

    It supports queries with causal attention or a causal cache, and rejects others.
    """

    def __init__(self, joint: Conditionals) -> None:
        self._joint = joint
        self._read_BL = torch.zeros(0, 0, dtype=torch.int64)

    def ask(self, query: Query, read: Read[Answer]) -> Answer:
        """See :meth:`model.samplers.SampledNetwork.ask`."""
        past, ids_BL = _past(query.layout), query.ids_BL
        if past:
            ids_BL = torch.cat([self._read_BL[:, :past], ids_BL], dim=1)
        self._read_BL = ids_BL
        logits_MR = self.logits(ids_BL, torch.nn.functional.pad(query.predict_mask_BL, (past, 0)))
        return read(predicted(logits_MR))

    def encode(self, query: Query) -> Query:
        """The query as it is."""
        return query

    def logits(self, ids_BL: Tensor, predict_mask_BL: Tensor) -> Tensor:
        """log p at the predicted columns ``[M, V + 1]``, each given inputs up to its own column.

        Raises:
            ValueError: the first column is not the start symbol.
        """
        joint = self._joint
        if not bool((ids_BL[:, 0] == joint.mask).all()):
            raise ValueError("the first column reads something else than the start symbol")
        row_M, column_M = predict_mask_BL.nonzero(as_tuple=True)
        length = joint.outcomes.shape[1]
        seen_ML = torch.full((len(row_M), length), joint.mask)
        place_L = torch.arange(length)
        for place in range(ids_BL.shape[1] - 1):
            reads_M = place < column_M
            seen_ML[reads_M, place] = ids_BL[row_M[reads_M], place + 1]
        level_M1 = torch.zeros(len(row_M), 1)
        return joint.denoise(seen_ML, level_M1, place_L == column_M[:, None])


def _past(layout: AttentionLayout) -> int:
    if isinstance(layout, Cached) and layout.causal:
        return layout.past
    if not isinstance(layout, Causal):
        raise ValueError(f"{layout} is not causal")
    return 0


def _joints() -> list[Joint]:
    return [Joint.random(2, 2), Joint.random(3, 3)]


def _likelihood() -> list[Comparison]:
    """Loss in training and held out: of all tokens, and of some given those before them."""
    trained, found, truth, truth_given = [], [], [], []
    for joint in _joints():
        objective, batch = Autoregressive(), batch_of(joint.outcomes)
        trained.append(_nats(objective.corrupt(batch, DRAWS, joint.config), joint))
        truth.append(-joint.log_prob)
        for given in range(joint.length):
            free_BL = (torch.arange(joint.length) >= given).expand(joint.outcomes.shape)
            noisy = objective.bound_corrupt(batch | {"free": free_BL}, DRAWS, joint.config)
            found.append(_nats(noisy, joint))
            prompt_NL = joint.outcomes.masked_fill(free_BL, joint.mask)
            truth_given.append(joint.masked_log_prob(prompt_NL) - joint.log_prob)
    return [
        relative("-log p, in training", torch.cat(trained), torch.cat(truth)),
        relative("-log p, all or given a prompt", torch.cat(found), torch.cat(truth_given)),
    ]


def _texts_of_any_length() -> list[Comparison]:
    """Padded texts: BOS is given; EOS is predicted and counted, padding is not."""
    texts, objective = Texts((0.5, 0.3, 0.2)), Autoregressive()
    ids_NL = texts.outcomes
    batch = batch_of(ids_NL)
    batch["valid"] = ids_NL != texts.PAD
    place_L = torch.arange(ids_NL.shape[1])
    batch["ending"] = place_L >= batch["valid"].sum(dim=1, keepdim=True) - 1
    batch["free"] = batch["valid"] & (place_L > 0)
    counted_NL = objective.counted(batch, texts.config)
    noisy = objective.bound_corrupt(batch, DRAWS, texts.config)
    wrong = int((counted_NL.sum(dim=1) != texts.num_letters + 1).sum())
    return [
        relative("-log p, the length with it", _nats(noisy, texts), -texts.log_prob),
        Comparison(what="tokens counted", deviation=wrong),
        Comparison(
            what="a length that is given",
            deviation=int(objective.scope(padded=True).length_given),
        ),
    ]


def _uniform_predictor() -> list[Comparison]:
    """A uniform predictor has log V per token, with no probability on [MASK]."""
    model = DiT(vocab_size=7, width=2, num_heads=1)
    batch = batch_of((7 * DRAWS.uniform("text", torch.arange(64), 12)).long())
    noisy = Autoregressive().corrupt(batch, DRAWS, model)
    nats_B = _summed(noisy, uniform_logits(noisy, model))
    known_B = torch.full((64,), 12 * math.log(7), dtype=torch.float64)
    return [relative("log V", nats_B, known_B)]


def _sampler() -> list[Comparison]:
    """Samples follow the distribution, with and without a prompt and a cache."""
    comparisons, joint = [], Joint.random(3, 3)
    for given, cache in itertools.product((0, 1), (True, False)):
        # The prompt is drawn from the joint, so that complete texts follow it too.
        code_B = torch.multinomial(
            joint.probability, SAMPLES, replacement=True, generator=_generator(given)
        )
        ids_BL = joint.outcomes[code_B]
        job = Job(
            ids_BL=ids_BL,
            free_BL=(torch.arange(joint.length) >= given).expand(ids_BL.shape),
            position_B=torch.arange(SAMPLES),
            draws=DRAWS,
            objective=Autoregressive(),
            model=joint.config,
            network=ChainRule(joint),
        )
        drawn_BL = LeftToRight(cache=cache).run(job)
        place_L = joint.vocab ** torch.arange(joint.length - 1, -1, -1)
        counts_N = torch.bincount((drawn_BL * place_L).sum(dim=1), minlength=joint.p.numel())
        expected_N = joint.probability * SAMPLES
        degrees = joint.p.numel() - 1
        chi_square = ((counts_N - expected_N) ** 2 / expected_N).sum()
        comparisons.append(
            Comparison(
                what=f"chi-square, {given} tokens given, {'cached' if cache else 'read again'}",
                deviation=float((chi_square - degrees).abs()) / math.sqrt(2 * degrees),
                allowed=DEVIATIONS,
                figures=f"{float(chi_square):.4g} with {degrees} degrees of freedom",
            )
        )
    return comparisons


def _generator(seed: int) -> torch.Generator:
    return torch.Generator(device=torch.get_default_device()).manual_seed(seed)


def _nats(noisy: Noisy, joint: Conditionals) -> Tensor:
    """Nats of every sample under the chain rule, ``[B]`` float64."""
    _past(noisy.layout)
    return _summed(noisy, ChainRule(joint).logits(noisy.ids_BL, noisy.predict_mask_BL))


def _summed(noisy: Noisy, logits_MR: Tensor) -> Tensor:
    return row_losses(Autoregressive().bound_losses, noisy, logits_MR)
