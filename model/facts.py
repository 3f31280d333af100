"""What an objective may know of the corpus before the first step: counts of ids and of lengths."""

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor


class Facts:
    """Of the training split. Each is worked out when it is first asked for, and not before.

    Args:
        counts, lengths: give ``counts_V`` and ``lengths_N``.
    """

    def __init__(self, counts: Callable[[], Tensor], lengths: Callable[[], Tensor]) -> None:
        self._counts, self._lengths = counts, lengths

    @cached_property
    def counts_V(self) -> Tensor:  # noqa: N802 - the suffix is its shape
        """How often each id occurs, int64 ``[V]``."""
        return self._counts()

    @cached_property
    def lengths_N(self) -> Tensor:  # noqa: N802 - the suffix is its shape
        """How many texts have each length in tokens, from 0 on; int64 ``[longest + 1]``."""
        return self._lengths()


def facts_of(texts: Callable[[], tuple[Tensor, Tensor]], vocab_size: int) -> Facts:
    """The same of texts in memory.

    Args:
        texts: gives their ids ``[N, L]`` int64, and which of these are no padding, bool.
    """

    def counts() -> Tensor:
        tokens_NL, valid_NL = texts()
        return torch.bincount(tokens_NL[valid_NL].cpu(), minlength=vocab_size)

    return Facts(counts, lambda: torch.bincount(texts()[1].sum(dim=1).cpu()))
