"""The rows of a foreign vocabulary that are kept: ids of the tokenizer, and [MASK].

Tables are often longer than the tokenizer has ids. A [MASK] beyond these becomes the id after
the last of them, which is our own.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from configs.errors import UserError
from model.networks.config import ModelConfig
from tools.convert.fit import parameter_shapes
from tools.convert.format import Incoming, Options
from tools.convert.parity import Inputs
from tools.convert.tensors import Tensors


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Args:
    rows: of the source's tables. vocab_size: V. mask: the source's row of [MASK].
    """

    rows: int
    vocab_size: int
    mask: int

    @property
    def mask_id(self) -> int | None:
        """The model's ``mask_id``: None where [MASK] is our own, the id after the vocabulary."""
        return self.mask if self.mask < self.vocab_size else None

    @property
    def kept(self) -> list[int]:
        """Rows of the source, by our ids."""
        return [*range(self.vocab_size), *([] if self.mask_id is not None else [self.mask])]

    @property
    def left_out(self) -> int:
        """How many rows are not kept."""
        return self.rows - len(self.kept)

    def taken(self, value: Tensor, num_rows: int) -> Tensor:
        """The rows that are kept, and zeros behind them."""
        kept = self.kept
        out = torch.zeros(num_rows, *value.shape[1:])
        out[: self.vocab_size] = value[: self.vocab_size]
        out[self.vocab_size : len(kept)] = value[kept[self.vocab_size :]]
        return out

    def renumbered(self, logits: Callable[[Inputs], Tensor]) -> Callable[[Inputs], Tensor]:
        """The source's logits, by our ids and of our ids."""
        kept = torch.tensor(self.kept)
        return lambda inputs: logits(replace(inputs, ids_BL=kept[inputs.ids_BL]))[..., kept]

    def incoming(
        self,
        model: ModelConfig,
        origin: str,
        read: Callable[[str], Tensor],
        logits: Callable[[Inputs], Tensor],
        length: int | None,
    ) -> Incoming:
        """A model with this vocabulary, as it comes in.

        Args:
            read: a tensor by our name of it. logits: the source's, by its own ids.
        """
        return Incoming(
            model=model,
            tensors=Tensors(parameter_shapes(model), read, origin),
            compared_as=model,
            num_ids=model.num_ids,
            logits=self.renumbered(logits),
            length=length,
            left_out=self.left_out,
        )


def vocabulary(rows: int, mask: int | None, options: Options, origin: str) -> Vocabulary:
    """The vocabulary of tables with ``rows`` rows.

    Args:
        mask: the row of [MASK] by the configuration of the source, if known.

    Raises:
        UserError: the tokenizer has more ids than there are rows, or [MASK] is none of them.
    """
    size = options.vocab_size
    if size is not None and size > rows:
        raise UserError(f"vocabulary mismatch: the tokenizer has {size} ids, {origin} {rows} rows")
    for given in (options.mask_id, mask, options.tokenizer_mask):
        if given is not None:
            mask = given
            break
    if mask is None:
        mask = rows - 1 if size is None else size
    if not 0 <= mask < rows:
        raise UserError(
            f"{origin}: mask_token_id {mask} is no id of its vocabulary of {rows}; "
            "name the right one with --mask-id"
        )
    if size is None:
        size = rows - 1 if mask == rows - 1 else rows
    return Vocabulary(rows=rows, vocab_size=size, mask=mask)
