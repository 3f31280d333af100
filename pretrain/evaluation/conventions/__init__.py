"""Conventions of a held-out number: which tokens are scored, and how, one convention a file.

The folder is the registry: the name of a file is the name of its convention
(``tools.evaluate --convention``), its frozen dataclass of that name the convention.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from data_pipeline.shards import Split
from data_pipeline.windows import Windows
from model.objectives import Scope
from pretrain.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Convention(ABC):
    """A way to cut a split into windows and to score them."""

    samples: ClassVar[int]
    """Corruptions of each window, by default."""

    estimator: ClassVar[str | None] = None
    """Estimator of the bound, by default; None for the one that the run's objective has."""

    @abstractmethod
    def check(self, config: RunConfig) -> None:
        """Raise UserError if the convention does not apply to the objective or the packing."""

    @abstractmethod
    def windows(self, split: Split, config: RunConfig) -> Windows:
        """The windows whose tokens are scored."""

    @abstractmethod
    def told(self, windows: Windows, scope: Scope) -> str:
        """What is counted, in words."""
