"""Oracle of GENIE: known values of its process and loss, and an information identity.

The strongest check is an identity of information theory (Guo, Shamai & Verdu 2005, theorem 1):
over all signal-to-noise ratios, half the minimum mean squared error of a token's embedding
integrates to the token's entropy. So with the exact posterior mean in place of the network, two
equally likely tokens must give log 2; this covers levels, noise, target and error.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from model.architectures.encoder_decoder import EncoderDecoder
from model.categorical import Categorical
from model.networks.config import ModelConfig
from model.objectives import LOSS, Noisy
from model.objectives.genie import Genie
from model.prediction import Prediction
from model.processes import gaussian
from model.processes.gaussian import Gaussian
from model.verification.check import Check, Comparison, checks, close
from model.verification.scripted import Scripted

SQRT = Gaussian(schedule="sqrt", num_steps=2000)
GOLDEN = (
    ("beta_0", 0.01464131053),
    ("beta_1", 0.00888908777),
    ("beta_999", 0.00120612296),
    ("beta_1999", 0.999),
    ("abar_0", 0.98535868947),
    ("abar_1", 0.97659974959),
    ("abar_999", 0.29578031482),
    ("abar_1998", 2.0204e-4),
    ("abar_1999", 2.0204e-7),
    ("std_0", 0.1210012832),
)
"""Values of the sqrt schedule at T = 2000, computed independently of this code."""

NODES = 64
"""Nodes of the Gauss-Hermite rule over the noise."""


def oracles() -> Iterator[Check]:
    """Checks of the Gaussian process and of :class:`model.objectives.genie.Genie`."""
    yield from checks("gaussian", _golden_values, _any_step)
    yield from checks("genie", _information, _known_losses)


def _golden_values() -> list[Comparison]:
    beta = gaussian.betas("sqrt", 2000)
    found = {
        "beta": beta,
        "abar": SQRT.abar(torch.arange(2000)),
        "std": torch.tensor([SQRT.start_std], dtype=torch.float64),
    }
    comparisons = []
    for name, known in GOLDEN:
        kind, _, index = name.partition("_")
        value = float(found[kind][int(index)])
        allowed = 1e-4 if known < 1e-3 else 1e-8  # by the number of known digits
        comparisons.append(close(f"{name} of the sqrt schedule", value, known, allowed))
    return comparisons


def _any_step() -> list[Comparison]:
    """A step from i to j gives x_j the distribution q(x_j | x_0), for every stride."""
    worst = {"posterior mean": 0.0, "posterior variance": 0.0, "ddim": 0.0, "ddim at eta 1": 0.0}
    for schedule in ("sqrt", "cosine", "linear"):
        process = Gaussian(schedule=schedule, num_steps=50)
        abar = process.abar(torch.arange(-1, 50))
        for i in range(1, 51):
            a, b = abar[i], abar[:i]
            move = gaussian.posterior(a, b)
            mean = move.of_x * a.sqrt() + move.of_x0 - b.sqrt()
            variance = move.of_x**2 * (1 - a) + move.small - (1 - b)
            half, full = (gaussian.implicit(a, b, eta) for eta in (0.5, 1.0))
            apart = {
                "posterior mean": mean,
                "posterior variance": variance,
                "ddim": half.of_eps**2 + half.variance - (1 - b),
                "ddim at eta 1": full.variance - move.small,
            }
            for name, value in apart.items():
                worst[name] = max(worst[name], float(value.abs().max()))
    return [
        Comparison(what=f"{name}, 3 schedules, every stride", deviation=value, allowed=1e-12)
        for name, value in worst.items()
    ]


def _information() -> list[Comparison]:
    """The information in one of two equally likely tokens, embedded at -1 and 1: log 2 nats."""
    comparisons = []
    node, weight = np.polynomial.hermite_e.hermegauss(NODES)
    eps_W = torch.tensor(node.tolist(), dtype=torch.float64)
    weight_W = torch.tensor((weight / weight.sum()).tolist(), dtype=torch.float64)
    for schedule in ("sqrt", "cosine"):
        objective = Genie(schedule=schedule, num_steps=2000)
        index_I = torch.arange(2000)
        snr_I = _snr(objective.process.abar(index_I))
        error_IW = _errors(objective, index_I, eps_W)
        mmse_I = error_IW @ weight_W
        # Integrate from the noisiest index; at lower SNR the error is that of no information.
        rest = 0.5 * float(snr_I[-1]) * float(mmse_I[-1])
        found = rest + 0.5 * float(torch.trapezoid((mmse_I * snr_I).flip(0), snr_I.log().flip(0)))
        comparisons.append(
            close(f"information in a token, {schedule} schedule", found, math.log(2), 2e-3)
        )
    return comparisons


def _snr(abar: Tensor) -> Tensor:
    return abar / (1 - abar)


def _errors(objective: Genie, index_I: Tensor, eps_W: Tensor) -> Tensor:
    """The objective's squared error ``[I, W]``, with the posterior mean in place of the network."""
    num = len(index_I) * len(eps_W)
    noisy = _corrupt(objective, index_I.repeat_interleave(len(eps_W)), eps_W.repeat(len(index_I)))
    assert noisy.signal_BK is not None
    assert noisy.noise_BLE is not None
    embedding_M1 = torch.ones(num, 1, dtype=torch.float64)
    signal_M1 = noisy.signal_BK.double()
    x_M1 = signal_M1 * embedding_M1 + noisy.noise_BLE[:, 0].double()
    mean_M1 = torch.tanh(signal_M1 * x_M1 / (1 - signal_M1**2))
    prediction = Prediction(
        vector_ME=mean_M1,
        clean_ME=embedding_M1,
        rounding=Categorical(torch.zeros(num, 2)),
    )
    return objective.errors(prediction, noisy).double().view(len(index_I), len(eps_W))


def _corrupt(objective: Genie, index_B: Tensor, eps_B: Tensor, start: float = 0.0) -> Noisy:
    """Corrupt one token per sample, at the given index and with the given noise."""
    num = len(index_B)
    draws = Scripted(
        time_B1=(index_B[:, None].double() + 0.5) / objective.num_steps,
        uniform_BL=torch.zeros(num, 1, dtype=torch.float64),
        normals={"start": torch.full((num, 1), start), "noise": eps_B[:, None].float()},
    )
    ones = torch.ones(num, 1, dtype=torch.bool)
    batch = {
        "tokens": torch.ones(num, 1, dtype=torch.int64),
        "valid": ones,
        "source": torch.zeros(num, 1, dtype=torch.int64),
        "source_valid": ones,
        "position": torch.arange(num),
    }
    return objective.corrupt(batch, draws, _model())


def _model() -> ModelConfig:
    return EncoderDecoder(
        vocab_size=2, width=2, num_heads=1, num_encoder_layers=1, embedding_width=1
    )


def _known_losses() -> list[Comparison]:
    """A perfect output has only prior and rounding loss; errors of x0, eps and v agree."""
    index_B = torch.tensor([0, 1, 500, 1999])
    eps_B, start = torch.tensor([0.3, -1.2, 0.7, 0.1]), 2.0
    errors = {}
    comparisons = []
    for kind in ("x0", "eps", "v"):
        objective = Genie(prediction=kind)
        noisy = _corrupt(objective, index_B, eps_B, start)
        embedding_M1 = torch.full((4, 1), 0.8, dtype=torch.float64)
        x0_M1 = embedding_M1 + start * SQRT.start_std
        clean_M1 = torch.where(index_B[:, None] == 0, embedding_M1, x0_M1)
        abar_M1 = SQRT.abar(index_B)[:, None]
        wanted = gaussian.target(kind, clean_M1, eps_B[:, None].double(), abar_M1)
        off = gaussian.target(kind, clean_M1 + 0.1, _moved(eps_B, abar_M1), abar_M1)
        rounding = Categorical(torch.zeros(4, 7))
        perfect = Prediction(vector_ME=wanted, clean_ME=embedding_M1, rounding=rounding)
        prior_M = float(SQRT.abar(torch.tensor(1999))) * x0_M1[:, 0] ** 2
        losses_M = objective.losses(perfect, noisy)[LOSS].double()
        known_M = prior_M + math.log(7)
        deviation = float((losses_M / known_M - 1).abs().max())
        comparisons.append(
            Comparison(
                what=f"log V and the prior's term, {kind}", deviation=deviation, allowed=1e-6
            )
        )
        moved = Prediction(vector_ME=off, clean_ME=embedding_M1, rounding=rounding)
        errors[kind] = objective.errors(moved, noisy).double()
    comparisons.append(_padding())
    abar_M = SQRT.abar(index_B)
    for kind, factor_M in (("eps", (1 - abar_M) / abar_M), ("v", 1 - abar_M)):
        deviation = float((factor_M * errors[kind] / errors["x0"] - 1).abs().max())
        comparisons.append(
            Comparison(what=f"error of {kind} as of x0", deviation=deviation, allowed=1e-4)
        )
    return comparisons


def _padding() -> Comparison:
    """Every target position, padding included, is noised, predicted and counted."""
    batch = {
        "tokens": (torch.arange(4) < torch.tensor([[1], [3], [4]])).long(),
        "valid": torch.ones(3, 4, dtype=torch.bool),  # PAD is a target like any other
        "source": torch.ones(3, 1, dtype=torch.int64),
        "source_valid": torch.ones(3, 1, dtype=torch.bool),
        "position": torch.arange(3),
    }
    draws = Scripted(
        time_B1=torch.full((3, 1), 0.5, dtype=torch.float64),
        uniform_BL=torch.zeros(3, 4, dtype=torch.float64),
        normals={"start": torch.zeros(3, 4), "noise": torch.ones(3, 4)},
    )
    noisy = Genie().corrupt(batch, draws, _model())
    missing = 2 * 12 - int(noisy.predict_mask_BL.sum()) - int(noisy.count())
    return Comparison(what="positions left out, padding with them", deviation=abs(missing))


def _moved(eps_B: Tensor, abar_M1: Tensor) -> Tensor:
    """The noise eps for the same noisy embedding if the clean one is 0.1 larger."""
    return eps_B[:, None].double() - 0.1 * (abar_M1 / (1 - abar_M1)).sqrt()
