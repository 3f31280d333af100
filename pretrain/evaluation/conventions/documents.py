"""Our convention: every token of every document once, and nothing else.

Windows are packed as in training, but none is dropped, and what frames a window (BOS, and the EOS
behind it) is given: it stands in the same places in every window, and costs nothing to predict.
"""

from dataclasses import dataclass
from typing import Any

from data_pipeline.shards import Split
from data_pipeline.windows import Windows, held_out
from model.objectives import Scope
from pretrain.config import RunConfig
from pretrain.evaluation.conventions import Convention


@dataclass(frozen=True, kw_only=True)
class Documents(Convention):
    """Each token of the documents is scored once; no frame, no remainder."""

    samples = 4

    def check(self, config: RunConfig) -> None:
        """Every bound and packing."""

    def windows(self, split: Split, config: RunConfig) -> Windows:
        """The run's packing, with nothing left out."""
        how: Any = config.data.packing
        mask = config.data.document_mask
        return held_out(split, config.data.sequence_length, how, segments=mask)

    def told(self, windows: Windows, scope: Scope) -> str:
        """Which of the documents' tokens are counted."""
        ends = "EOS is given" if scope.length_given else "and the EOS after each"
        return f"the tokens of all documents, {ends}; what frames a window is given"
