"""The mean of several checkpoints' weights (Izmailov et al. 2018; Wortsman et al. 2022)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from configs.errors import UserError
from configs.load import named_plain
from pretrain.checkpoint.reader import Reader
from pretrain.checkpoint.weights import Which, config_of, find
from tools.convert import tensors, write
from tools.convert.fit import parameter_shapes, require
from tools.convert.strip import write_weights
from tools.convert.tensors import Tensors


def average(
    checkpoints: Sequence[Path],
    out: Path,
    *,
    weights: Which = "ema",
    shares: Sequence[float] | None = None,
    shard_bytes: int = write.SHARD_BYTES,
) -> dict[str, Any]:
    """Write the checkpoint ``out``; returns the report, which compares it with a second mean.

    Args:
        shares: of each checkpoint, normalised to 1; by default even.

    Raises:
        UserError: fewer than two, or they are not of one architecture.
    """
    if len(checkpoints) < 2:
        raise UserError("an average takes two checkpoints or more")
    given = list(shares or [1.0] * len(checkpoints))
    if len(given) != len(checkpoints) or sum(given) <= 0 or min(given) < 0:
        raise UserError("--shares needs one number of at least 0 for each checkpoint")
    readers = [Reader(find(path)) for path in checkpoints]
    _check_same(readers)
    shapes = parameter_shapes(config_of(readers[0]).model)
    held = [tensors.of_checkpoint(reader, reader.weights(weights)) for reader in readers]
    for one in held:
        require(one, shapes)
    mean = Tensors(shapes, lambda name: _mean(held, given, name), "the average")
    newest = max(readers, key=lambda reader: int(reader.state["step"]))
    origin = f"the mean of {', '.join(reader.path.name for reader in readers)}"
    return write_weights(out, mean, origin, newest, shard_bytes, score=None)


def _mean(held: Sequence[Tensors], shares: Sequence[float], name: str) -> Tensor:
    """The weighted mean of one tensor, summed in float64."""
    total = torch.zeros(held[0].shapes[name], dtype=torch.float64)
    for one, share in zip(held, shares, strict=True):
        total.add_(one.read(name).double(), alpha=share / sum(shares))
    return total.float()


def _check_same(readers: Sequence[Reader]) -> None:
    """UserError where they are not of one model, or of tokenizers that are known to differ."""
    known = {reader.state.get("tokenizer_sha256"): reader.path for reader in readers}
    known.pop(None, None)
    if len(known) > 1:
        one, other, *_ = known.values()
        raise UserError(f"{one} and {other} were trained with different tokenizers")
    first = named_plain(config_of(readers[0]).model)
    for reader in readers[1:]:
        model = named_plain(config_of(reader).model)
        found = [
            f"{key}: {first[key]} and {model.get(key)}"
            for key in first
            if first[key] != model.get(key)
        ]
        if found:
            raise UserError(
                f"{readers[0].path} and {reader.path} differ in model:\n  " + "\n  ".join(found)
            )
