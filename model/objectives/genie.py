"""GENIE: Gaussian diffusion over learned embeddings of a target, given a source.

Lin et al. 2023; the loss is Diffusion-LM's (Li et al. 2022, eq. 2 and appendix), with e the
embeddings of the ids w, x_0 = e + std0 n, x_i = sqrt(abar_i) x_0 + sqrt(1 - abar_i) eps:

    |f(x_i, i) - x_0|^2  +  |sqrt(abar_{T-1}) x_0|^2  -  log p(w | x_0)

averaged over the width E and over all positions, padding included (it is generated). At
index 0 the first term's target is e. The last term, the rounding loss, is on the noised
embeddings themselves: it keeps the embeddings of different tokens apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from model.draws import Draws
from model.facts import Facts
from model.needs import Need
from model.networks.config import ModelConfig
from model.objectives import LOSS, NO_STATE, Batch, Noisy, Objective, State
from model.prediction import Ask, Prediction
from model.processes.gaussian import Gaussian, Parameterisation, ScheduleName, target
from model.time_sampling import SecondMoment

MOST_STEPS = 100_000
"""Maximum number of steps: losses of each are kept in memory and in checkpoints."""


@dataclass(frozen=True, kw_only=True)
class Genie(Objective):
    """The objective of GENIE and of the Diffusion-LM family.

    Args:
        schedule, num_steps: noise schedule and number of steps T of the Gaussian process.
        prediction: parameterisation of the network's output: x0, eps or v.
        times: noise indices drawn uniformly, or in proportion to the root mean square of their
            recent losses (Nichol & Dhariwal 2021, eq. 18), with importance weights.
        self_conditioning: probability that a sample is conditioned on the network's own earlier
            prediction (Chen et al. 2023, who use 0.5); GENIE has 0.
        rounding: weight of the rounding loss.
    """

    summary: ClassVar[str] = (
        "An encoder-decoder that writes a target for a source by denoising its embeddings "
        "(GENIE, Lin et al. 2023), all positions at a time."
    )
    trial: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "model": {
            "name": "encoder_decoder",
            "num_encoder_layers": 2,
            "num_layers": 2,
            "embedding_width": 16,
            "output": "mixture",
        },
        "objective": {"num_steps": 50},
        "data": {"packing": "paragraphs", "source_length": 48, "sequence_length": 16},
    }
    noise = "gaussian"
    sampler = "ddpm"

    schedule: ScheduleName = "sqrt"
    num_steps: int = 2000
    prediction: Parameterisation = "x0"
    times: Literal["uniform", "loss_second_moment"] = "uniform"
    self_conditioning: float = 0.0
    rounding: float = 1.0

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, not {self.num_steps}")
        if self.num_steps > MOST_STEPS:
            raise ValueError(f"num_steps must be at most {MOST_STEPS:,}, not {self.num_steps}")
        if not 0.0 <= self.self_conditioning <= 1.0:
            raise ValueError(f"self_conditioning must lie in [0, 1], not {self.self_conditioning}")
        if self.rounding <= 0.0:
            raise ValueError(
                f"rounding must be above 0, not {self.rounding}: without that loss all "
                "embeddings become one"
            )
        if self.self_conditioning and self.prediction != "x0":
            raise ValueError("self_conditioning goes on from clean embeddings: set prediction: x0")

    @property
    def process(self) -> Gaussian:
        """The Gaussian forward process."""
        return Gaussian(schedule=self.schedule, num_steps=self.num_steps)

    @property
    def needs(self) -> frozenset[Need]:
        """An encoder-decoder; with self-conditioning also an input for the earlier prediction."""
        needs = {Need.EMBEDDINGS, Need.SOURCE}
        if self.prediction != "x0":
            needs.add(Need.ANY_VECTOR)
        if self.self_conditioning:
            needs.add(Need.DRAFT)
        return frozenset(needs)

    # -- corruption -----------------------------------------------------------------------

    def init_state(self, facts: Facts) -> State:
        """The recent losses of each index, if times depend on them."""
        return self._sampler.init_state() if self.times == "loss_second_moment" else NO_STATE

    @property
    def _sampler(self) -> SecondMoment:
        return SecondMoment(num_steps=self.num_steps)

    def indices(self, position_B: Tensor, draws: Draws, state: State) -> tuple[Tensor, Tensor]:
        """Noise index ``[B, 1]`` of each sample and importance weight, from stratified uniforms.

        Indices depend on the losses only in training, so that held-out losses of different runs
        can be compared.
        """
        u_B1 = draws.times(position_B)
        if state and draws.split == "train":
            return self._sampler.draw(u_B1, state)
        index_B1 = (u_B1 * self.num_steps).long().clamp(max=self.num_steps - 1)
        return index_B1, torch.ones_like(u_B1)

    def corrupt(
        self, batch: Batch, draws: Draws, model: ModelConfig, state: State = NO_STATE
    ) -> Noisy:
        """Add Gaussian noise at every target position (and padding), one index per sample."""
        tokens, position = batch["tokens"], batch["position"]
        index_B1, weight_B1 = self.indices(position, draws, state)
        shape = (*tokens.shape, model.table_width)
        num = shape[1] * shape[2]
        start_BLE = draws.normal("start", position, num).view(shape) * self.process.start_std
        end_BLE = draws.normal("noise", position, num).view(shape)
        abar_B1 = self.process.abar(index_B1)
        signal_B1, noise_B1 = abar_B1.sqrt().float(), (1 - abar_B1).sqrt().float()
        return Noisy(
            ids_BL=tokens,
            level_BK=self.process.level(index_B1).float(),
            predict_mask_BL=batch["valid"],
            valid_BL=batch["valid"],
            signal_BK=signal_B1,
            noise_BLE=torch.addcmul(end_BLE * noise_B1[..., None], start_BLE, signal_B1[..., None]),
            source_BS=batch["source"],
            source_valid_BS=batch["source_valid"],
            x0_noise_BLE=start_BLE,
            eps_BLE=end_BLE,
            position_B=position,
            target_BL=tokens,
            weight_BK=weight_B1.float(),
            over_BL=batch["valid"],
        )

    @property
    def refines(self) -> bool:
        """True with self-conditioning."""
        return self.self_conditioning > 0

    def refine(self, noisy: Noisy, ask: Ask, draws: Draws, state: State = NO_STATE) -> Noisy:
        """Self-conditioning: a first prediction as input for a random share of samples, else 0."""
        if not self.refines:
            return noisy
        assert noisy.noise_BLE is not None
        self_cond_BLE = torch.zeros_like(noisy.noise_BLE)
        # The first prediction is made without self-conditioning and without the loss tensors.
        self_cond_BLE[noisy.predict_mask_BL] = ask(replace(noisy, x0_noise_BLE=None), _clean)
        drafted_B1 = draws.uniform("draft", noisy.position_B, 1) < self.self_conditioning
        return replace(noisy, self_cond_BLE=self_cond_BLE * drafted_B1[..., None])

    # -- loss -----------------------------------------------------------------------------

    def losses(self, prediction: Prediction, noisy: Noisy) -> Mapping[str, Tensor]:
        """The weighted sum of the three terms at each position, ``[M]`` float32."""
        assert prediction.rounding is not None
        ids_M, weight_M, error_M, x0_ME = self._terms(prediction, noisy)
        last = torch.tensor(self.num_steps - 1, device="cpu")
        prior_M = float(self.process.abar(last)) * x0_ME.square().mean(dim=1)
        rounding_M = -prediction.rounding.log_prob(ids_M)
        return {LOSS: weight_M * (error_M + prior_M + self.rounding * rounding_M)}

    def errors(self, prediction: Prediction, noisy: Noisy) -> Tensor:
        """The first term of the loss, ``[M]`` float32: mean squared error of the output."""
        return self._terms(prediction, noisy)[2]

    def _terms(self, prediction: Prediction, noisy: Noisy) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Ids ``[M]``, weights, squared errors and noised embeddings ``[M, E]``, by position."""
        assert prediction.vector_ME is not None
        assert prediction.clean_ME is not None
        assert noisy.x0_noise_BLE is not None
        assert noisy.eps_BLE is not None
        predict_mask_BL = noisy.predict_mask_BL
        embedding_ME = prediction.clean_ME.float()
        x0_ME = embedding_ME + noisy.x0_noise_BLE[predict_mask_BL]
        level_M, weight_M = (
            x_BK.expand(predict_mask_BL.shape)[predict_mask_BL]
            for x_BK in (noisy.level_BK, noisy.weight_BK)
        )
        index_M = self.process.index(level_M.double())
        clean_M1 = torch.where(index_M[:, None] == 0, embedding_ME, x0_ME)
        wanted_ME = target(
            self.prediction,
            clean_M1,
            noisy.eps_BLE[predict_mask_BL],
            self.process.abar(index_M)[:, None].float(),
        )
        error_M = (prediction.vector_ME.float() - wanted_ME).square().mean(dim=1)
        return noisy.target_BL[predict_mask_BL], weight_M, error_M, x0_ME

    @property
    def num_seen(self) -> int:
        """1: one number per sample."""
        return 1

    def seen(self, losses: Mapping[str, Tensor], noisy: Noisy) -> Tensor:
        """The mean loss of each sample, without its importance weight."""
        row_M, _ = noisy.predict_mask_BL.nonzero(as_tuple=True)
        weight_M = noisy.weight_BK.expand(noisy.predict_mask_BL.shape)[noisy.predict_mask_BL]
        plain_M = losses[LOSS] / weight_M
        sum_B = plain_M.new_zeros(len(noisy.ids_BL)).index_add(0, row_M, plain_M)
        return (sum_B / noisy.predict_mask_BL.sum(dim=1).clamp(min=1))[:, None]

    def update_state(
        self, state: State, seen_NK: Tensor, position_N: Tensor, draws: Draws
    ) -> State:
        """Add the losses of a step to the recent losses of their indices."""
        if not state:
            return state
        index_N1, _ = self.indices(position_N, draws, state)
        return self._sampler.update_state(state, index_N1[:, 0], seen_NK[:, 0])


def _clean(prediction: Prediction) -> Tensor:
    """The predicted clean embeddings ``[M, E]``."""
    assert prediction.vector_ME is not None
    return prediction.vector_ME.float()
