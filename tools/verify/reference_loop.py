"""The reference of every layout: a plain PyTorch training loop, with no engine.

One process sees the whole global batch at once, divides one sum by one count, clips with
PyTorch's own function and steps PyTorch's own AdamW.
"""

from dataclasses import replace
from pathlib import Path

import torch

from model.draws import Draws
from model.networks.build import build
from model.objectives import sum_losses, training_layout
from model.prediction import Networks
from pretrain.checkpoint.weights import load_denoiser
from pretrain.config import RunConfig
from pretrain.optim import adamw, learning_rate
from pretrain.trial import batch, facts


class PlainLoop:
    """A training run of one process; ``losses`` and ``grad_norms`` grow by one a step."""

    def __init__(self, config: RunConfig, device: torch.device | str = "cpu") -> None:
        self.config, self.device = config, device
        self.draws = Draws(seed=config.seed, split="train", batch=config.global_batch)
        self.denoiser = build(config.model, seed=config.seed).to(device)
        others = {
            name: load_denoiser(Path(where), "ema", device).denoiser.ask
            for name, where in config.objective.networks.items()
        }
        self.ask = Networks(self.denoiser.ask, others)
        self.optimizer = adamw(self.denoiser.parameter_names(), config.optim)
        self.state = config.objective.init_state(facts(config))
        self.losses: list[float] = []
        self.grad_norms: list[float] = []

    def step(self) -> None:
        """The next step."""
        config, number = self.config, len(self.losses)
        first = number * config.global_batch
        positions = range(first, first + config.global_batch)
        samples = batch(config, self.draws, positions, self.device)
        objective = config.objective
        noisy = replace(
            objective.corrupt(samples, self.draws, config.model, self.state),
            layout=training_layout(
                objective, config.model, self.draws, number + 1, config.data.sequence_length
            ),
        )
        with torch.no_grad():
            noisy = objective.refine(noisy, self.ask, self.draws, self.state)
        sums = sum_losses(objective, self.denoiser.prediction(self.denoiser(noisy)), noisy)
        self.state = objective.update_state(self.state, sums.seen, samples["position"], self.draws)
        means = {name: value / noisy.count(name) for name, value in sums.terms.items()}
        loss = torch.stack([objective.terms[name] * mean for name, mean in means.items()]).sum()
        self.optimizer.zero_grad()
        loss.backward()
        clip = config.optim.clip or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config.optim, number + 1, config.steps)
        self.optimizer.step()
        self.losses.append(float(loss.detach()))
        self.grad_norms.append(float(norm))
