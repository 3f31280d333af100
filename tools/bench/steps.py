"""The two steps that `train` compares, and the optimizer that they share.

In bf16 both sides keep an fp32 master of every weight in the same way: the gradients are
copied up, AdamW steps the masters, and they are copied back down.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from configs import defaults
from configs.build import Plugin
from model.draws import Draws
from model.networks.base import Network
from model.objectives import Noisy
from model.prediction import Read
from model.query import Query
from pretrain.optim import adamw
from pretrain.optim_config import OptimConfig
from tools.bench import reference

OBJECTIVE: Any = Plugin("model.objectives").resolve(defaults.OBJECTIVE)()
"""The objective that is timed; the reference step (:mod:`tools.bench.reference`) is its own."""


class MasterWeights:
    """A denoiser in some precision, and AdamW over its weights in fp32."""

    def __init__(self, denoiser: Network, dtype: torch.dtype) -> None:
        self._master = denoiser
        self.denoiser = denoiser
        if dtype != torch.float32:
            self.denoiser = deepcopy(denoiser).to(dtype)
        self._optimizer = adamw(self._master.parameter_names(), OptimConfig())

    def update(self, loss: Tensor) -> None:
        """Backward, and one step of AdamW."""
        loss.backward()
        if self.denoiser is not self._master:
            for low, high in self._both():
                assert low.grad is not None
                high.grad, low.grad = low.grad.float(), None
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self.denoiser is not self._master:
            with torch.no_grad():
                for low, high in self._both():
                    low.copy_(high)

    def _both(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.denoiser.parameters(), self._master.parameters(), strict=True)


class OurStep:
    """A step as :mod:`pretrain` takes it, without its engine."""

    def __init__(self, trained: MasterWeights, tokens_BL: Tensor) -> None:
        self._trained, self._tokens_BL = trained, tokens_BL
        self._draws = Draws(seed=0, split="train", batch=tokens_BL.shape[0])
        self._position_B = torch.arange(tokens_BL.shape[0], device=tokens_BL.device)

    def __call__(self) -> None:
        """One step, and on to the next positions of the stream."""
        noisy = our_corrupt(self._tokens_BL, self._position_B, self._draws, self._trained.denoiser)
        self._trained.update(our_loss(self._trained.denoiser.ask, noisy))
        self._position_B = self._position_B + self._position_B.numel()


class ReferenceStep:
    """The plain step."""

    def __init__(self, trained: MasterWeights, tokens_BL: Tensor, carry_over: bool) -> None:
        self._trained, self._tokens_BL, self._carry_over = trained, tokens_BL, carry_over

    def __call__(self) -> None:
        """One step."""
        denoiser, tokens_BL = self._trained.denoiser, self._tokens_BL
        noisy_BL, t_B = reference.corrupt(tokens_BL, denoiser.config.mask)
        loss = reference.mean_loss(denoiser, noisy_BL, t_B, tokens_BL, carry_over=self._carry_over)
        self._trained.update(loss)


def our_corrupt(tokens_BL: Tensor, position_B: Tensor, draws: Draws, denoiser: Network) -> Noisy:
    """The corruption of tokens without padding."""
    valid_BL = torch.ones_like(tokens_BL, dtype=torch.bool)
    batch = {"tokens": tokens_BL, "valid": valid_BL, "position": position_B}
    return OBJECTIVE.corrupt(batch, draws, denoiser.config)


def our_loss(ask: Callable[[Query, Read[Tensor]], Tensor], noisy: Noisy) -> Tensor:
    """Nats a token, with the sums by level that training reports."""
    losses_M = ask(noisy, lambda found: OBJECTIVE.bound_losses(found, noisy))
    return losses_M.sum() / noisy.count()
