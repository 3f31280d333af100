"""Logits of source and result on fixed inputs, and the report that stands beside the weights.

Both are computed layer by layer in float32, each layer's weights read when its turn comes,
so that neither model stands in memory whole.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from configs.errors import RunError
from model.config import ModelConfig
from model.denoiser import Denoiser
from model.draws import Draws
from tools.convert.tensors import Tensors

LIMIT = 1e-5
BATCH, LENGTH = 3, 24
FILE_NAME = "parity.json"


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What both sides are asked.

    Args:
        ids_BL: int64, a third of them [MASK] where the source knows it.
        level_B1: float32, differing levels.
    """

    ids_BL: Tensor
    level_B1: Tensor


def inputs(model: ModelConfig, num_ids: int) -> Inputs:
    """Fixed inputs for a model, of the ids below ``num_ids``."""
    draws = Draws(seed=0, split="parity", batch=BATCH)
    position = torch.arange(BATCH)
    length = min(LENGTH, model.num_positions or LENGTH)
    ids = (draws.uniform("ids", position, length) * min(num_ids, model.vocab_size)).long()
    if model.mask < num_ids:
        ids[:, ::3] = model.mask
    level = torch.linspace(0.1, 0.9, BATCH)[:, None]
    return Inputs(ids_BL=ids, level_B1=level)


@torch.no_grad()
def logits(model: ModelConfig, tensors: Tensors, given: Inputs, kind: Any = Denoiser) -> Tensor:
    """Of a denoiser with these weights, ``[B, L, R]``, one layer in memory at a time.

    Args:
        kind: the denoiser's class, ours or the one beside exported weights.
    """
    where = torch.ones_like(given.ids_BL, dtype=torch.bool)
    stream: tuple[Tensor, ...] = (given.level_B1, given.ids_BL)
    last = model.num_layers + 1
    for index in range(last + 1):
        # Untied, so that the last layer can be built without the first.
        layer = _layer(replace(model, tied_head=False, head_bias=model.has_head_bias), index, kind)
        prefix = f"layers.{index}."
        for name, parameter in layer.named_parameters():
            held = f"{prefix}{name}"
            if model.tied_head and name == "head.weight":
                held = "layers.0.tokens.weight"
            parameter.copy_(tensors.read(held))
        if index == last:
            out: Tensor = layer(stream, where)
            return out.view(*given.ids_BL.shape, -1)
        stream = layer(stream)
    raise AssertionError("a denoiser has a last layer")


def _layer(model: ModelConfig, index: int, kind: Any) -> Any:
    """One layer, its weights yet to come."""
    denoiser = kind(model, span=range(index, index + 1))
    return denoiser.layers[str(index)].eval()


@dataclass(frozen=True, kw_only=True)
class Report:
    """How far two models' logits lie apart.

    Args:
        source, result: what was compared.
        logits: compared; largest_logit: the largest in absolute value among the source's.
    """

    source: str
    result: str
    largest_difference: float
    limit: float
    logits: int
    largest_logit: float
    inputs: str
    torch: str

    def as_json(self) -> dict[str, Any]:
        """For parity.json."""
        return {"equal": self.largest_difference <= self.limit, **asdict(self)}


def compare(
    source: Tensor, result: Tensor, names: tuple[str, str], given: Inputs, note: str = ""
) -> Report:
    """The report on two sets of logits ``[B, L, ids]``, -inf where an id is no answer.

    Raises:
        RunError: they differ by more than ``LIMIT``, or a logit is not a number.
    """
    width = min(source.shape[-1], result.shape[-1])
    source, result = source[..., :width], result[..., :width]
    compared = source.isfinite() & result.isfinite()
    bad = source.isnan() | result.isnan()
    difference = (
        (source - result).abs()[compared].max() if compared.any() else torch.tensor(torch.inf)
    )
    report = Report(
        source=names[0],
        result=names[1],
        largest_difference=float("nan") if bool(bad.any()) else float(difference),
        limit=LIMIT,
        logits=int(compared.sum()),
        largest_logit=float(source[compared].abs().max()) if compared.any() else 0.0,
        inputs=f"{tuple(given.ids_BL.shape)} ids, levels 0.1 to 0.9, fp32{note}",
        torch=torch.__version__,
    )
    if not report.largest_difference <= LIMIT:
        raise RunError(
            f"the logits of {names[0]} and {names[1]} differ by {report.largest_difference:.3g}, "
            f"more than {LIMIT:g}: nothing was written"
        )
    return report


def summary(report: Mapping[str, Any]) -> str:
    """One line for the user."""
    return (
        f"logits agree to {report['largest_difference']:.2g} (limit {report['limit']:g}, "
        f"{report['logits']:,} logits up to {report['largest_logit']:.3g})"
    )
