"""The smallest run of each objective (its ``trial``), on a synthetic corpus that needs no disk.

Tokens and uneven lengths are drawn by stream position.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from configs.load import Plugin, merge, validate
from model.draws import Draws
from model.facts import Facts, facts_of
from pretrain.config import RunConfig

OBJECTIVES = Plugin("model.objectives")

SMALL: dict[str, Any] = {
    "precision": "fp32",
    "steps": 20,
    "global_batch": 16,
    "model": {
        "vocab_size": 90,
        "width": 32,
        "num_layers": 4,
        "num_heads": 4,
        "conditioning_width": 16,
        "time_conditioning": True,
    },
    "data": {"corpus": "synthetic", "sequence_length": 16},
    # Adam magnifies rounding where gradients vanish; its eps bounds by how much.
    "optim": {"lr": 3e-3, "eps": 1e-6, "weight_decay": 0.1},
    "parallel": {},
}
"""A model that trains in moments and divides under T = 4 and P = 4."""


class NoTrialError(Exception):
    """An objective is installed that defines no ``trial``."""


def trial(objective: str) -> dict[str, Any]:
    """The changes that make a small run one of an objective, its name included.

    Raises:
        NoTrialError: its class has no ``trial``; what to write.
    """
    cls: Any = OBJECTIVES.resolve(objective)
    if "trial" not in vars(cls):
        raise NoTrialError(
            f"objective {objective} has no trial: give the class {cls.__name__} in "
            f"{cls.__module__} the attribute `trial: ClassVar`, the blocks of a configuration "
            "that make its smallest run of pretrain/trial.py's ({} where none is needed)"
        )
    return merge({"objective": {"name": objective}}, cls.trial)


def run_config(objective: str, /, **changes: Any) -> RunConfig:
    """The small run of an objective's trial; changed blocks are merged in."""
    plain = merge(merge(SMALL, trial(objective)), changes)
    return validate(RunConfig, plain, where=f"the trial of {objective}")


def batch(
    config: RunConfig,
    draws: Draws,
    positions: Sequence[int],
    device: torch.device | str = "cpu",
) -> dict[str, Tensor]:
    """Samples of the stream: a skewed unigram, and lengths from 1 to L, most of them short."""
    position_B = torch.tensor(positions, device=device)
    length = config.data.sequence_length
    uniform_BL = draws.uniform("text", position_B, length)
    share_B1 = draws.uniform("length", position_B, 1) ** 2
    found = {
        "tokens": (uniform_BL**2 * config.model.vocab_size).long(),
        "valid": torch.arange(length, device=device) < 1 + share_B1 * (length - 1),
        "position": position_B,
    }
    if config.data.source_length is not None:
        num = config.data.source_length
        uniform_BS = draws.uniform("source", position_B, num)
        share_B1 = draws.uniform("source length", position_B, 1)
        found["source"] = (uniform_BS**2 * config.model.vocab_size).long()
        found["source_valid"] = torch.arange(num, device=device) < 1 + share_B1 * (num - 1)
    return found


def facts(config: RunConfig) -> Facts:
    """Facts of the corpus, by the samples of the first batch."""

    def texts() -> tuple[Tensor, Tensor]:
        draws = Draws(seed=config.seed, split="train", batch=config.global_batch)
        found = batch(config, draws, range(config.global_batch))
        return found["tokens"], found["valid"]

    return facts_of(texts, config.model.vocab_size)


@dataclass(frozen=True, kw_only=True)
class SyntheticWindows:
    """Held-out windows, each a document of its own, the last one short."""

    config: RunConfig
    num: int = 7

    @property
    def split(self) -> Any:
        """The part of a split that the evaluator uses."""
        return SimpleNamespace(num_documents=self.num)

    def __len__(self) -> int:
        return self.num

    def read(self, start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
        """See :class:`data_pipeline.windows.Windows`."""
        draws = Draws(seed=1, split="windows", batch=self.num)
        for first, last in ((start, min(stop, self.num - 1)), (max(start, self.num - 1), stop)):
            if first < last:
                short = 3 if last == self.num else 0
                arrays = {
                    key: value[:, : self.config.data.sequence_length - short].numpy()
                    for key, value in batch(self.config, draws, range(first, last)).items()
                    if key != "position"
                }
                document = np.arange(first, last)[:, None]
                arrays["scored"] = arrays["valid"]
                arrays["document"] = np.where(arrays["valid"], document, -1)
                yield arrays


class SyntheticStream:
    """Held-out samples of the synthetic corpus, as a stream gives them."""

    def __init__(self, config: RunConfig, num: int = 7) -> None:
        self._config, self._num = config, num
        self._draws = Draws(seed=1, split="windows", batch=num)

    def __len__(self) -> int:
        return self._num

    def batch(self, positions: np.ndarray) -> dict[str, Tensor]:
        """See :class:`data_pipeline.loader.Stream`."""
        return batch(self._config, self._draws, positions.tolist())
