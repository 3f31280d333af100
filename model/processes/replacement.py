"""Replacement of tokens by ids that are drawn evenly over the vocabulary."""

from torch import Tensor

from model.config import ModelConfig


def any_id(uniform: Tensor, model: ModelConfig) -> Tensor:
    """An id for each uniform in [0, 1), all as likely as one another, [MASK] never: int64.

    They are the rows that :attr:`model.config.ModelConfig.excluded_rows` leaves.
    """
    among_them = int(model.mask < model.vocab_size)
    ids = (uniform * (model.vocab_size - among_them)).long()
    return ids + (ids >= model.mask)
