"""A weight format: how a family of models names and shapes its tensors.

A format brings a model in (``incoming``), and some take one out (``outgoing``). Each knows how
to compute its own logits from its own tensors, apart from our model: that is what the parity
report compares with.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from configs.errors import UserError
from model.networks.config import ModelConfig
from pretrain.config import RunConfig
from tools.convert.parity import Inputs
from tools.convert.tensors import Tensors


@dataclass(frozen=True, kw_only=True)
class Options:
    """Settings of incoming weights that their files may lack.

    Args:
        mask_id: the id of [MASK], where the vocabulary has one already.
        vocab_size, tokenizer_mask: ids of the tokenizer that is named, and its [MASK], if it
            has one; the embedding may have more rows.
        length: of the sequences that it was trained on.
        packing: how documents became these sequences.
        heads: of attention, where no configuration has the number.
        time_conditioning: whether the level reaches the network, likewise.
        shifted_output, annealing_steps: of causal models that become denoisers; see
            :class:`model.architectures.transformer.Transformer`.
    """

    mask_id: int | None = None
    vocab_size: int | None = None
    tokenizer_mask: int | None = None
    length: int | None = None
    packing: Literal["wrap", "pad"] | None = None
    heads: int | None = None
    time_conditioning: bool = False
    shifted_output: bool = True
    annealing_steps: int = 0


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """A foreign model as a denoiser of ours.

    Args:
        model: the denoiser that it becomes. tensors: its weights, under our names.
        compared_as: the denoiser whose logits must equal the source's: a causal model is
            compared before bidirectional attention is switched on.
        num_ids: ids that the source knows. logits: the source's, ``[B, L, ids]``.
        length: of the sequences that it was trained on, if known.
        run: settings of the run that the weights ask for besides.
        left_out: rows of the vocabulary that the tokenizer has no ids for.
    """

    model: ModelConfig
    tensors: Tensors
    compared_as: ModelConfig
    num_ids: int
    logits: Callable[[Inputs], Tensor]
    length: int | None = None
    run: Mapping[str, Any] = field(default_factory=dict)
    left_out: int = 0


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """A denoiser of ours as a model of a format.

    Args:
        config: its config.json. tensors: its weights, under the names of the format.
        logits: of such weights as they were written, ``[B, L, ids]``.
        files: texts that lie beside them, by name.
    """

    config: Mapping[str, Any]
    tensors: Tensors
    logits: Callable[[Tensors, Inputs], Tensor]
    files: Mapping[str, str] = field(default_factory=dict)


class Format(Protocol):
    """A format: one family of models."""

    @property
    def name(self) -> str:
        """The name on the command line."""

    def recognises(self, config: Mapping[str, Any], tensors: Tensors) -> bool:
        """Whether a config.json (empty if there is none) and its tensors are of this family."""

    def incoming(self, source: Tensors, config: Mapping[str, Any], options: Options) -> Incoming:
        """How it becomes a denoiser.

        Raises:
            UserError: tensors are missing, extra or of other shapes, or a setting has no place.
        """

    def outgoing(self, run: RunConfig, ours: Tensors) -> Outgoing:
        """How the model of a run becomes one of this family.

        Raises:
            UserError: the model has no place in this format; every reason is given.
        """


def one_way(name: str) -> UserError:
    """The error of a format that cannot be written."""
    return UserError(
        f"format {name} comes in only; the help of to-hf lists those that can be written"
    )


def padded(value: Tensor, num_rows: int) -> Tensor:
    """Rows of zeros behind the others, up to ``num_rows``."""
    out = torch.zeros(num_rows, *value.shape[1:])
    out[: len(value)] = value
    return out


def frequencies(width: int, base: float) -> Tensor:
    """Rotary frequencies of a head ``[E / 2]``, float32: the buffer that some formats keep."""
    return base ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)


def check_frequencies(source: Tensors, model: ModelConfig) -> None:
    """UserError where the weights bring rotary frequencies that the denoiser would not have."""
    wanted = frequencies(model.head_width, model.rotary_base)
    for name in source.shapes:
        if not name.endswith("inv_freq"):
            continue
        found = source.read(name).flatten()
        # Some were kept in half precision.
        if found.shape != wanted.shape or not torch.allclose(found, wanted, rtol=1e-2, atol=1e-6):
            raise UserError(
                f"{source.origin}: {name} is not that of {len(wanted)} frequencies to base "
                f"{model.rotary_base:g}, as their configuration has it"
            )


def count(names: Mapping[str, Any], prefix: str) -> int:
    """How many numbered modules ``prefix0.``, ``prefix1.``, ... there are."""
    numbers = {
        int(rest)
        for rest in (
            name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)
        )
        if rest.isdigit()
    }
    return 1 + max(numbers, default=-1)


def same_rows(found: Tensors, one: str, other: str) -> bool:
    """Whether two tensors hold the same values."""
    return found.shapes[one] == found.shapes[other] and torch.equal(
        found.read(one), found.read(other)
    )
