"""Corpus statistics for objectives, available before the first step: id and length counts."""

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor


class Facts:
    """Statistics of the training split, each computed at its first use.

    Args:
        counts, lengths: functions that compute ``counts_V`` and ``lengths_N``.
    """

    def __init__(self, counts: Callable[[], Tensor], lengths: Callable[[], Tensor]) -> None:
        self._counts, self._lengths = counts, lengths

    @cached_property
    def counts_V(self) -> Tensor:  # noqa: N802 - the suffix is its shape
        """Number of occurrences of each id, int64 ``[V]``."""
        return self._counts()

    @cached_property
    def lengths_N(self) -> Tensor:  # noqa: N802 - the suffix is its shape
        """Number of texts of each length in tokens, from 0 on; int64 ``[longest + 1]``."""
        return self._lengths()


def facts_of(texts: Callable[[], tuple[Tensor, Tensor]], vocab_size: int) -> Facts:
    """:class:`Facts` of texts in memory.

    Args:
        texts: returns their ids ``[N, L]`` int64, and a bool mask, false at padding.
    """

    def counts() -> Tensor:
        tokens_NL, valid_NL = texts()
        return torch.bincount(tokens_NL[valid_NL].cpu(), minlength=vocab_size)

    return Facts(counts, lambda: torch.bincount(texts()[1].sum(dim=1).cpu()))
