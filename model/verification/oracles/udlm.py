"""Oracle of UDLM: with the exact prediction its bound is -log p.

The exact prediction at a position is p(x_0 there | the other positions of x_t): then the
reverse rates are those of the true process, whose paths end at x with probability p(x), and
the bound is -log p(x) for every x. Noise is enumerated and time integrated by quadrature.
"""

import itertools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from configs.load import Plugin
from model.architectures.dit import DiT
from model.categorical import Categorical
from model.draws import Draws
from model.objectives import LOSS, Batch, Noisy
from model.objectives.udlm import Udlm
from model.prediction import Prediction
from model.processes import uniform
from model.verification.check import LOG_PROB, Check, Comparison, checks, relative
from model.verification.joint import Conditionals, Joint, Texts
from model.verification.scripted import Scripted
from model.verification.texts import batch_of, legendre, row_losses

NODES = 24
"""Nodes of the Gauss-Legendre rule over w, with time w^3: integrands are logarithmic at 0."""
TRAINING_NODES = 64
"""Nodes of the same rule under every schedule: some change fast."""

Loss = Callable[[Prediction, Noisy], Tensor]


def oracles() -> Iterator[Check]:
    """Checks of :class:`model.objectives.udlm.Udlm` and of its process."""
    yield from checks(
        "udlm",
        _held_out_bound,
        _texts_of_any_length,
        _training_loss,
        _integrand,
        _uniform_predictor,
        _reverse_step,
    )


# -- the bound of a small joint ---------------------------------------------------------------


def _held_out_bound() -> list[Comparison]:
    """Held-out bound of all tokens, and of some given the others."""
    found, truth = [], []
    objective = Udlm()
    for joint in (Joint.random(4, 1), Joint.random(2, 2), Joint.random(3, 3)):
        for free in itertools.product([False, True], repeat=joint.length):
            if any(free):
                free_NL = torch.tensor(free).expand(joint.outcomes.shape)
                given_NL = joint.outcomes.masked_fill(free_NL, joint.mask)
                truth.append(joint.masked_log_prob(given_NL) - joint.log_prob)
                found.append(_bound(objective, joint, free_NL, lambda batch: {}))
    return [relative("-log p, all or given some", torch.cat(found), torch.cat(truth))]


def _texts_of_any_length() -> list[Comparison]:
    """Padded texts: the bound is on the text given its length; only letters are counted."""
    texts = Texts((0.5, 0.3, 0.2))
    place_L = torch.arange(texts.outcomes.shape[1])
    ending_NL = place_L > texts.num_letters[:, None]
    free_NL = (place_L > 0) & (texts.outcomes != texts.PAD)

    def padded(tokens_BL: Tensor) -> Batch:
        length_B1 = (tokens_BL != texts.PAD).sum(dim=1, keepdim=True)
        return {"valid": tokens_BL != texts.PAD, "ending": place_L > length_B1 - 2}

    objective, batch = Udlm(), batch_of(texts.outcomes) | {"ending": ending_NL}
    counted_NL = objective.counted(batch | {"free": free_NL}, texts.config)
    wrong = int((counted_NL.sum(dim=1) != texts.num_letters).sum())
    truth = texts.log_prob_of_length - texts.log_prob
    found = _bound(objective, texts, counted_NL, padded)
    return [
        relative("-log p given the length", found, truth),
        Comparison(what="tokens counted", deviation=wrong),
    ]


def _bound(
    objective: Udlm, law: Conditionals, free_NL: Tensor, more: Callable[[Tensor], Batch]
) -> Tensor:
    """The expected held-out loss of each outcome with its free tokens noised, ``[N]``."""
    node_T, weight_T = _nodes()
    found = []
    for ids_L, free_L in zip(law.outcomes, free_NL, strict=True):
        noise_ZL = _noise(law.vocab, free_L)
        root_W = node_T.repeat_interleave(len(noise_ZL))
        batch = batch_of(ids_L.repeat(len(root_W), 1))
        batch |= more(batch["tokens"])
        share_W1 = (1 - root_W.square())[:, None]
        draws = _scripted(root_W, share_W1, noise_ZL.repeat(len(node_T), 1), law.vocab)
        free_BL = free_L.expand(batch["tokens"].shape)
        noisy = objective.bound_corrupt(batch | {"free": free_BL}, draws, law.config)
        loss_W = _losses(objective.bound_losses, law, noisy, share_W1)
        chance_W = weight_T.repeat_interleave(len(noise_ZL)) * _chance(law, noisy, share_W1)
        found.append(loss_W @ chance_W)
    return torch.stack(found)


def _training_loss() -> list[Comparison]:
    """Under every exact schedule the training loss integrates to -log p."""
    plugin = Plugin("model.schedules")
    joint = Joint.random(3, 2)
    comparisons = []
    for name in plugin.names():
        schedule = plugin.build(name).exact()
        objective = Udlm(schedule=schedule, t_min=0.0)
        node_T, weight_T = _nodes(TRAINING_NODES)
        noise_ZL = _noise(joint.vocab, torch.ones(joint.length, dtype=torch.bool))
        time_W = node_T.repeat_interleave(len(noise_ZL))
        alpha_W1 = schedule.alpha(time_W)[:, None]
        draws = _scripted(time_W, alpha_W1, noise_ZL.repeat(len(node_T), 1), joint.vocab)
        found = []
        for ids_L in joint.outcomes:
            batch = batch_of(ids_L.repeat(len(time_W), 1))
            noisy = objective.corrupt(batch, draws, joint.config)
            loss_W = _losses(_only(objective), joint, noisy, alpha_W1)
            chance_W = weight_T.repeat_interleave(len(noise_ZL)) * _chance(joint, noisy, alpha_W1)
            found.append(loss_W @ chance_W)
        comparisons.append(
            relative(f"-log p, {name} schedule", torch.stack(found), -joint.log_prob)
        )
    return comparisons


def _only(objective: Udlm) -> Loss:
    """The single term of its training loss."""
    return lambda prediction, noisy: objective.losses(prediction, noisy)[LOSS]


def _losses(loss: Loss, law: Conditionals, noisy: Noisy, alpha_B1: Tensor) -> Tensor:
    """Losses of every sample under the exact prediction, ``[B]`` float64."""
    logits_MR = torch.nn.functional.pad(
        others(law, noisy.ids_BL, noisy.predict_mask_BL, alpha_B1)[noisy.predict_mask_BL]
        .log()
        .clamp(min=-1e4),
        (0, law.config.num_ids - law.vocab),
        value=-torch.inf,
    )
    return row_losses(loss, noisy, logits_MR)


def others(law: Conditionals, ids_BL: Tensor, noised_BL: Tensor, alpha_B1: Tensor) -> Tensor:
    """p(x_0 at a position | other positions of x_t), ``[B, L, V]``; unnoised tokens are known."""
    other_B11 = ((1 - alpha_B1) / law.vocab)[:, None]
    same_BNL = (ids_BL[:, None] == law.outcomes).double()
    like_BNL = alpha_B1[:, None] * same_BNL + other_B11
    like_BNL = torch.where(noised_BL[:, None], like_BNL, same_BNL)
    one_hot_NLV = torch.nn.functional.one_hot(law.outcomes, law.vocab).double()
    found = []
    for place in range(law.outcomes.shape[1]):
        rest = [column for column in range(law.outcomes.shape[1]) if column != place]
        weight_BN = like_BNL[:, :, rest].prod(dim=-1) * law.probability
        marginal_BV = weight_BN @ one_hot_NLV[:, place]
        found.append(marginal_BV / marginal_BV.sum(dim=-1, keepdim=True))
    return torch.stack(found, dim=1)


def _chance(law: Conditionals, noisy: Noisy, alpha_B1: Tensor) -> Tensor:
    """q(x_t | x_0) of every sample, ``[B]``."""
    kept_BL = alpha_B1 * (noisy.ids_BL == noisy.target_BL) + (1 - alpha_B1) / law.vocab
    return torch.where(noisy.predict_mask_BL, kept_BL, 1.0).prod(dim=1)


# -- identities of the integrand --------------------------------------------------------------


def _integrand() -> list[Comparison]:
    """The integrand in two other forms, in float64; zero at the truth; two ids by hand."""
    num, alpha_A = 7, torch.tensor([1e-3, 0.1, 0.5, 0.9, 0.999], dtype=torch.float64)
    case = torch.arange(num * num).repeat_interleave(len(alpha_A))
    alpha_M, clean_M, noisy_M = alpha_A.repeat(num * num), case // num, case % num
    number = torch.arange(len(case))
    logits_MV = 4 * Draws(seed=3, split="verify", batch=1).uniform("logits", number, num)
    found = _density(logits_MV, clean_M, noisy_M, alpha_M)

    x_MV = torch.nn.functional.one_hot(clean_M, num).double()
    bar, bar_theta = (
        num * alpha_M[:, None] * p + 1 - alpha_M[:, None] for p in (x_MV, logits_MV.softmax(dim=1))
    )
    at, at_theta = (values.gather(1, noisy_M[:, None]) for values in (bar, bar_theta))
    logs_M = (bar / at * (at_theta * bar / (bar_theta * at)).log()).sum(dim=1)
    published = -(num / at - num / at_theta)[:, 0] + logs_M
    kl_M = (bar / num * (bar / bar_theta).log()).sum(dim=1)
    ratio_M = (at / at_theta)[:, 0]
    general = (kl_M + ratio_M - ratio_M.log() - 1) / (alpha_M * at[:, 0])

    exact = _density(400 * x_MV - 400, clean_M, noisy_M, alpha_M)
    halves = torch.zeros(2, 2, dtype=torch.float64)
    half = torch.full((2,), 0.5, dtype=torch.float64)
    by_hand = _density(halves, torch.zeros(2).long(), torch.arange(2), half)
    kl = 0.75 * math.log(1.5) - 0.25 * math.log(2)
    known = [(kl + 0.5 - math.log(1.5)) / 0.75, (kl - 0.5 + math.log(2)) / 0.25]
    return [
        _nats("as published", found, published / (num * alpha_M)),
        _nats("KL and Itakura-Saito", found, general),
        Comparison(what="zero at the truth", deviation=float(exact.abs().max()), allowed=LOG_PROB),
        relative("two ids by hand", by_hand, torch.tensor(known, dtype=torch.float64)),
        relative(
            "two ids, log(3)/2 on average",
            (by_hand @ torch.tensor([0.75, 0.25], dtype=torch.float64))[None],
            torch.tensor([math.log(3) / 2], dtype=torch.float64),
        ),
    ]


def _uniform_predictor() -> list[Comparison]:
    """A uniform predictor: log V per token for every text, and a closed form at each alpha."""
    num = 5
    alpha_A = torch.linspace(0.02, 0.98, 9, dtype=torch.float64)
    other_A = (1 - alpha_A) / num
    kept_A = alpha_A + other_A
    found = sum(
        chance_A * _density(torch.zeros(9, num), torch.zeros(9).long(), noisy_A.long(), alpha_A)
        for noisy_A, chance_A in ((torch.zeros(9), kept_A), (torch.ones(9), (num - 1) * other_A))
    )
    log_kept, log_other = (num * kept_A).log(), (num * other_A).log()
    kl_A = kept_A * log_kept + (num - 1) * other_A * log_other
    known = (kl_A - (log_kept + (num - 1) * log_other) / num) / alpha_A
    joint = Joint(torch.full((num, num), num**-2.0, dtype=torch.float64))
    free_NL = torch.ones_like(joint.outcomes, dtype=torch.bool)
    score = _bound(Udlm(), joint, free_NL, lambda batch: {}) / 2
    return [
        _nats("closed form at each alpha", torch.as_tensor(found), known),
        relative("log V a token", score, torch.full_like(score, math.log(num))),
    ]


def _reverse_step() -> list[Comparison]:
    """The reverse step equals Bayes' rule over two steps of the process; so does its normaliser."""
    model = DiT(vocab_size=4, mask_id=1, width=2, num_heads=1)
    ids, num = torch.tensor([0, 2, 3]), 3
    logits_MR = torch.full((num, model.num_rows), -torch.inf)
    logits_MR[:, ids] = torch.tensor([0.3, -1.0, 1.2])
    x_theta = Categorical(logits_MR)
    p_V = logits_MR[0, ids].double().softmax(dim=0)
    off = normaliser = 0.0
    for t, s in itertools.product(range(1, 6), range(5)):
        if s < t:
            alpha_t, alpha_s = 1 - torch.tensor([t, s]).double() / 5
            found = uniform.posterior(x_theta, ids, alpha_s, alpha_t, model)
            step_VV = alpha_t / alpha_s * torch.eye(num) + (1 - alpha_t / alpha_s) / num
            joint_VV = (alpha_s * p_V + (1 - alpha_s) / num)[:, None] * step_VV
            truth = (joint_VV / joint_VV.sum(dim=0)).T
            apart = (found.log_p().exp()[:, ids].double() - truth).abs().max()
            off = max(off, float(apart), float(found.log_p().exp()[:, 1].max()))
            known = (alpha_t * p_V + (1 - alpha_t) / num).log()
            normaliser = max(normaliser, float((found.logsumexp() - known).abs().max()))
    return [
        Comparison(what="by Bayes' rule, none on [MASK]", deviation=off, allowed=LOG_PROB),
        Comparison(what="sums to q(x_t)", deviation=normaliser, allowed=LOG_PROB),
    ]


def _density(logits_MV: Tensor, clean_M: Tensor, noisy_M: Tensor, alpha_M: Tensor) -> Tensor:
    prediction = Categorical(logits_MV.float())
    return uniform.bound_density(prediction, clean_M, noisy_M, alpha_M).double()


# -- cases ------------------------------------------------------------------------------------


def _nodes(num: int = NODES) -> tuple[Tensor, Tensor]:
    """Quadrature points in (0, 1) and weights, ``[num]`` each."""
    w, weight_T = legendre(num)
    return w**3, 3 * w.square() * weight_T


def _noise(vocab: int, free_L: Tensor) -> Tensor:
    """Enumerate every id at every free position, 0 elsewhere, ``[Z, L]``."""
    choices = [range(vocab) if free else (0,) for free in free_L.tolist()]
    return torch.tensor(list(itertools.product(*choices)))


def _scripted(time_W: Tensor, alpha_W1: Tensor, noise_WL: Tensor, vocab: int) -> Draws:
    """Scripted draws that replace every noised token by these ids."""
    share_WL = (noise_WL + 0.5) / vocab
    uniform_WL = alpha_W1 + (1 - alpha_W1) * share_WL
    return Scripted(time_B1=time_W[:, None], uniform_BL=uniform_WL)


def _nats(what: str, found: Tensor, truth: Tensor) -> Comparison:
    """Compare nats: absolute deviation if the truth is below one, else relative."""
    return relative(what, found, truth, truth.clamp(min=1))
