"""The convention of MDLM's published code, for comparison with published perplexities.

Documents, EOS behind each, are joined and cut into pieces of L - 2 tokens; each is framed by BOS
and EOS, all L positions are masked and counted alike (Sahoo et al. 2024, section 5.1, and the
evaluation of its code). BOS and EOS of the frame are all but certain, so that the number is lower
than ours by about 2/L of it. One time per sequence, stratified; what fills no window is dropped.

Two things differ from the code. It draws times from [0.001, 1] and masks with a probability of
0.999 t, so that its number is lower by about a thousandth; here the times are all of (0, 1]. It
drops a remainder for every 1,000 documents, here once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from configs.errors import UserError
from data_pipeline.packing import FRAME, check_length
from data_pipeline.shards import Split
from data_pipeline.windows import Windows, WrappedWindows
from model.naming import method_name
from model.objectives import Scope
from pretrain.config import RunConfig
from pretrain.evaluation.conventions import Convention


@dataclass(frozen=True, kw_only=True)
class FramedWindows:
    """The full windows of a stream, all L positions of which are scored.

    Raises:
        UserError: none can be filled.
    """

    wrapped: WrappedWindows

    def __post_init__(self) -> None:
        if not len(self):
            raise UserError(
                f"--convention mdlm drops what fills no window: {self.split.directory} has "
                f"{self.split.num_tokens} tokens, and a window takes "
                f"{self.wrapped.sequence_length - FRAME}"
            )

    @property
    def split(self) -> Split:
        """The split that is cut into windows."""
        return self.wrapped.split

    @property
    def dropped(self) -> int:
        """Number of tokens behind the last full window."""
        return self.split.num_tokens - len(self) * (self.wrapped.sequence_length - FRAME)

    def __len__(self) -> int:
        return self.wrapped.num_full

    def read(self, start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
        """See :class:`data_pipeline.windows.Windows`; the frame is scored, too."""
        for arrays in self.wrapped.read(start, stop):
            yield arrays | {"scored": np.ones_like(arrays["scored"])}


@dataclass(frozen=True, kw_only=True)
class Mdlm(Convention):
    """All L positions of each full window are scored, BOS and EOS among them."""

    samples = 1
    estimator = "stratified-time"

    def check(self, config: RunConfig) -> None:
        """Masked diffusion of wrapped text only."""
        if self.estimator not in config.objective.estimators:
            raise UserError(
                f"--convention mdlm is one of masked diffusion, not of "
                f"{method_name(config.objective)}; leave it out"
            )
        if config.data.packing != "wrap":
            raise UserError(
                f"--convention mdlm joins documents, but this model has seen data.packing="
                f"{config.data.packing}; leave it out"
            )

    def windows(self, split: Split, config: RunConfig) -> FramedWindows:
        """The full windows of the stream."""
        length, mask = config.data.sequence_length, config.data.document_mask
        check_length(length)
        return FramedWindows(
            wrapped=WrappedWindows(split=split, sequence_length=length, segments=mask)
        )

    def told(self, windows: Windows, scope: Scope) -> str:
        """What is counted beside the text, and what is dropped."""
        assert isinstance(windows, FramedWindows)
        return (
            f"all {windows.wrapped.sequence_length} positions of {len(windows):,} windows of "
            f"joined documents, BOS and EOS around each included; the last {windows.dropped:,} "
            "tokens, which fill no window, are dropped"
        )
