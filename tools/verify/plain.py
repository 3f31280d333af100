"""The truth that every layout is held to: a plain PyTorch loop, with no engine in it.

One process sees the whole global batch at once, divides one sum by one count, clips with
PyTorch's own function and steps PyTorch's own AdamW.
"""

import torch

from model.annealing import open_attention
from model.draws import Draws
from model.network import build, predict
from model.objectives import sum_losses
from pretrain.config import RunConfig
from pretrain.optim import adamw, learning_rate
from tools.verify.synthetic import batch


class PlainLoop:
    """A training run of one process; ``losses`` and ``grad_norms`` grow by one a step."""

    def __init__(self, config: RunConfig, device: torch.device | str = "cpu") -> None:
        self.config, self.device = config, device
        self.draws = Draws(seed=config.seed, split="train", batch=config.global_batch)
        self.denoiser = build(config.model, seed=config.seed).to(device)
        self.optimizer = adamw(self.denoiser.parameter_names(), config.optim)
        self.state = config.objective.begin()
        self.losses: list[float] = []
        self.grad_norms: list[float] = []

    def step(self) -> None:
        """The next step."""
        config, number = self.config, len(self.losses)
        first = number * config.global_batch
        positions = range(first, first + config.global_batch)
        samples = batch(config, self.draws, positions, self.device)
        length = config.data.sequence_length
        open_attention(self.denoiser, config.model, self.draws, number + 1, length)
        objective = config.objective
        noisy = objective.corrupt(samples, self.draws, config.model, self.state)
        if objective.drafts:
            with torch.no_grad():
                draft = predict(self.denoiser, objective.draft_query(noisy))
            noisy = objective.with_draft(noisy, draft)
        losses_M = objective.token_losses(predict(self.denoiser, noisy), noisy)
        sums = sum_losses(losses_M, noisy)
        self.state = objective.learn(self.state, sums.sample_loss, samples["position"], self.draws)
        loss = sums.loss / noisy.count
        self.optimizer.zero_grad()
        loss.backward()
        clip = config.optim.clip or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config.optim, number + 1, config.steps)
        self.optimizer.step()
        self.losses.append(float(loss.detach()))
        self.grad_norms.append(float(norm))
