"""Resizing the vocabulary: tables and head with other rows, [MASK] at its id.

Tables have more rows than there are ids (a multiple of ``ROWS_MULTIPLE``); which of them are
answers follows from the configuration. A [MASK] of our own is the id after the tokenizer's
last. Once tokens are added behind it, it is an id among others that is never an answer.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from model.networks.config import ROWS_MULTIPLE, ModelConfig
from model.networks.linears import DenseFactory, Head


def resized(model: ModelConfig, num_ids: int | None, multiple_of: int | None) -> ModelConfig:
    """The architecture with ``num_ids`` ids, [MASK] among them.

    Raises:
        ValueError: [MASK] would be lost, or rows are no multiple of what is asked.
    """
    if multiple_of is not None and (multiple_of < 1 or ROWS_MULTIPLE % multiple_of):
        raise ValueError(
            f"tables here have a multiple of {ROWS_MULTIPLE} rows already, whatever the number of "
            f"ids; pad_to_multiple_of={multiple_of} does not divide it: leave it out"
        )
    if num_ids is None or num_ids == model.num_ids:
        return model
    if num_ids <= model.mask:
        raise ValueError(
            f"with {num_ids} ids there would be no [MASK], which is id {model.mask}; keep at "
            f"least {model.mask + 1}"
        )
    return replace(model, vocab_size=num_ids, mask_id=model.mask)


@torch.no_grad()
def resize(
    tables: Iterable[nn.Embedding], old: ModelConfig, new: ModelConfig, *, std: float | None
) -> None:
    """Give tables the rows of ``new``, in place.

    Args:
        std: of new rows, which are random; None makes them the mean of all tokens'.
    """
    for table in tables:
        table.weight = _parameter(table.weight, old, new, std)
        table.num_embeddings = new.num_rows


@torch.no_grad()
def resized_head(head: Head, old: ModelConfig, new: ModelConfig, *, mean: bool) -> Head:
    """A head with the rows of ``new``; without ``mean`` new ones are 0, as training starts."""
    bias = head.bias is not None
    made = DenseFactory().head(head.weight.shape[1], new.num_rows, new.excluded_rows, bias=bias)
    assert isinstance(made, Head)
    made.to(head.weight.device)
    std = None if mean else 0.0
    made.weight = _parameter(head.weight, old, new, std)
    if head.bias is not None:
        made.bias = _parameter(head.bias, old, new, std)
    return made.train(head.training)


def _parameter(rows: Tensor, old: ModelConfig, new: ModelConfig, std: float | None) -> nn.Parameter:
    """``[R]`` or ``[R, D]`` with other rows; those that are no id are 0."""
    kept, num_new = min(old.num_ids, new.num_ids), new.num_ids - old.num_ids
    made: Tensor = rows.new_zeros(new.num_rows, *rows.shape[1:])
    made[:kept] = rows[:kept]
    if num_new > 0:
        tokens = rows[: old.num_rows][~old.excluded_rows.to(rows.device)].float()
        drawn: Any = made[old.num_ids : new.num_ids]
        if std is None:
            drawn.copy_(tokens.mean(dim=0).expand_as(drawn))
        else:
            drawn.normal_(0.0, std)
    return nn.Parameter(made, requires_grad=rows.requires_grad)


def check_table(value: nn.Module, table: nn.Embedding) -> None:
    """Check that ``value`` can replace a table.

    Raises:
        ValueError: its shape is another.
    """
    shape = getattr(getattr(value, "weight", None), "shape", None)
    if shape != table.weight.shape:
        raise ValueError(
            f"embeddings of shape {list(shape or [])} in the place of {list(table.weight.shape)}; "
            "resize_token_embeddings changes how many there are"
        )
