"""The layer factory: the one seam through which tensor parallelism enters the model.

The denoiser asks a factory for its wide layers and never learns whether it holds whole
matrices or shards. Column layers split their outputs, row layers their inputs, in the
sense of Shoeybi et al. 2019 (Megatron-LM, section 3); here nothing is split.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.categorical import AllRows, Rows

Give = Literal["logits", "nearest", "mean"]


class LayerFactory(Protocol):
    """What networks are built from. All layers map ``[..., in]`` to ``[..., out]``.

    A factory may also keep only some positions of the stream on a rank (sequence
    parallelism); :meth:`cut`, :meth:`enter`, :meth:`spread` and :meth:`whole` then lead from
    one form to the other, each with the backward pass that makes every gradient whole.
    """

    def column(self, num_in: int, num_out: int, *, bias: bool) -> nn.Module:
        """A linear layer whose outputs may be split over ranks."""

    def row(self, num_in: int, num_out: int, *, bias: bool) -> nn.Module:
        """A linear layer whose inputs may be split; its output is whole on every rank."""

    def grouped(
        self, num_in: int, num_heads: int, num_groups: int, head_width: int, *, bias: bool
    ) -> nn.Module:
        """Key or value heads for this rank's share of ``num_heads`` queries.

        There are ``num_groups`` of them over all ranks; on each, consecutive queries share
        one, and their number divides that of the rank's queries.
        """

    def share(self, value: Tensor) -> Tensor:
        """A weight that all ranks hold alike, and each uses on its own heads."""

    def embedding(self, num_rows: int, width: int) -> nn.Module:
        """Ids ``[B, L]`` to ``[B, L, width]``; ``.weight`` is ``[num_rows, width]``."""

    def head(self, width: int, num_rows: int, excluded: Tensor, *, bias: bool) -> nn.Module:
        """Hidden ``[M, width]`` to logits ``[M, num_rows]``, -inf where ``excluded``."""

    def cut(self, x_BLD: Tensor) -> Tensor:
        """What all ranks hold alike, as this rank's stream."""

    def enter(self, x_BLD: Tensor) -> Tensor:
        """This rank's stream as column layers read it: all positions."""

    def spread(self, value: Tensor) -> Tensor:
        """What all ranks hold alike (a gain, a condition ``[B, K, D]``), for use on the stream."""

    def whole(self, x_BLD: Tensor) -> Tensor:
        """This rank's stream at all positions, for work that every rank does alike."""

    def rows(self, num_here: int) -> Rows:
        """Which rows of the vocabulary a head has, of which ``num_here`` are this rank's."""

    def all_positions(self) -> AbstractContextManager[None]:
        """The stream uncut meanwhile: held-out windows and prompts may have any length."""

    def whole_shape(self, parameter: Tensor) -> torch.Size:
        """The shape of a parameter of which this rank may hold a part."""

    def part(self, parameter: Tensor, whole: Tensor) -> Tensor:
        """What this rank holds of the ``whole`` value of a parameter."""


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _exclusion(
    rows: tuple[int, ...], num_rows: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """What is added to logits: -inf at the excluded rows, ``[R]``.

    No buffer of a module: one that is not saved is lost where a model is built on the meta
    device and filled from its state dict, and one that is saved is no weight.
    """
    added = torch.zeros(num_rows, device="cpu")
    added[list(rows)] = -torch.inf
    return added.to(device, dtype)


class Head(nn.Module):
    """A linear layer whose bias carries the -inf of the excluded rows, at no cost.

    The gradient at an excluded row is exactly zero, since its probability is.

    Args:
        excluded: which rows are no answer, bool ``[R]`` on the CPU.
    """

    def __init__(self, width: int, num_rows: int, excluded: Tensor, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_rows, width))
        self.bias = nn.Parameter(torch.empty(num_rows)) if bias else None
        self.excluded = tuple(excluded.nonzero()[:, 0].tolist())

    def exclusion(self, dtype: torch.dtype) -> Tensor:
        """What is added to logits: -inf at the excluded rows, ``[R]``."""
        return _exclusion(self.excluded, len(self.weight), self.weight.device, dtype)

    def forward(self, hidden_MD: Tensor, *, give: Give = "logits") -> Tensor:
        """Logits ``[M, R]``, or something else of the matrix's rows, in float32.

        Args:
            give: ``nearest`` gives scores ``[M, R]`` instead, highest at the row nearest to the
                vector: half the difference of the squared lengths and distances. ``mean``
                gives the rows' mean ``[M, D]`` under the softmax of the logits.
        """
        hidden_MD = self.enter(hidden_MD)
        if give == "nearest":
            table_RD = self.weight.float()
            offset_R = self.exclusion(torch.float32) - 0.5 * table_RD.square().sum(dim=1)
            return F.linear(hidden_MD.float(), table_RD, offset_R)
        offset_R = self.exclusion(self.weight.dtype)
        if self.bias is not None:
            offset_R = self.bias + offset_R
        logits_MR = F.linear(hidden_MD, self.weight, offset_R)
        return logits_MR if give == "logits" else self.mean(logits_MR.float())

    def enter(self, hidden_MD: Tensor) -> Tensor:
        """The vectors, as the matrix reads them."""
        return hidden_MD

    def mean(self, logits_MR: Tensor) -> Tensor:
        """The rows' mean ``[M, D]`` under the softmax of logits."""
        return logits_MR.softmax(dim=-1) @ self.weight.float()


class DenseFactory:
    """Whole matrices on one device."""

    def column(self, num_in: int, num_out: int, *, bias: bool) -> nn.Module:
        """A plain linear layer."""
        return nn.Linear(num_in, num_out, bias=bias)

    def row(self, num_in: int, num_out: int, *, bias: bool) -> nn.Module:
        """A plain linear layer."""
        return nn.Linear(num_in, num_out, bias=bias)

    def grouped(
        self, num_in: int, num_heads: int, num_groups: int, head_width: int, *, bias: bool
    ) -> nn.Module:
        """A plain linear layer."""
        return nn.Linear(num_in, num_groups * head_width, bias=bias)

    def share(self, value: Tensor) -> Tensor:
        """The value."""
        return value

    def embedding(self, num_rows: int, width: int) -> nn.Module:
        """A plain embedding."""
        return nn.Embedding(num_rows, width)

    def head(self, width: int, num_rows: int, excluded: Tensor, *, bias: bool) -> nn.Module:
        """A plain head."""
        return Head(width, num_rows, excluded, bias=bias)

    def cut(self, x_BLD: Tensor) -> Tensor:
        """The stream."""
        return x_BLD

    def enter(self, x_BLD: Tensor) -> Tensor:
        """The stream."""
        return x_BLD

    def spread(self, value: Tensor) -> Tensor:
        """The value."""
        return value

    def whole(self, x_BLD: Tensor) -> Tensor:
        """The stream."""
        return x_BLD

    def rows(self, num_here: int) -> Rows:
        """All of them."""
        return AllRows(num_here)

    def all_positions(self) -> AbstractContextManager[None]:
        """It is never cut."""
        return nullcontext()

    def whole_shape(self, parameter: Tensor) -> torch.Size:
        """Its own shape."""
        return parameter.shape

    def part(self, parameter: Tensor, whole: Tensor) -> Tensor:
        """All of it."""
        return whole
