"""Logits of source and result on fixed inputs, and the report that stands beside the weights.

Both are computed layer by layer, each layer's weights read when its turn comes, so that
neither model is in memory as a whole; and in float64, of the same float32 weights. What is
left between two right ways to compute a network is then rounding of some 1e-14 of the
largest logit, however large the logits and however deep the model. In float32 it is 1e-6 of
it, as much as a wrong epsilon makes.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from configs.errors import RunError
from model.draws import Draws
from model.networks.build import build
from model.networks.config import ModelConfig
from model.query import Query
from tools.convert.tensors import Tensors

LIMIT = 1e-9
"""The largest difference of a logit, as a share of the largest logit: far above rounding, far
below the last bit of a float32 weight (6e-8)."""
BATCH, LENGTH = 3, 24
FILE_NAME = "parity.json"


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Inputs of both models.

    Args:
        ids_BL: int64, a third of them [MASK] where the source knows it.
        level_B1: float32, differing levels.
    """

    ids_BL: Tensor
    level_B1: Tensor


Logits = Callable[[Inputs], Tensor]


def inputs(model: ModelConfig, num_ids: int) -> Inputs:
    """Fixed inputs for a model, of the ids below ``num_ids``."""
    draws = Draws(seed=0, split="parity", batch=BATCH)
    position = torch.arange(BATCH)
    length = min(LENGTH, model.max_length or LENGTH)
    ids = (draws.uniform("ids", position, length) * min(num_ids, model.vocab_size)).long()
    if model.mask < num_ids:
        ids[:, ::3] = model.mask
    level = torch.linspace(0.1, 0.9, BATCH)[:, None]
    return Inputs(ids_BL=ids, level_B1=level)


@torch.no_grad()
def logits(model: ModelConfig, tensors: Tensors, given: Inputs) -> Tensor:
    """Logits ``[B, L, R]`` float64 of a network with these weights, one layer in memory at a time.

    An encoder-decoder's are its rounding classifier's, of what it predicts.

    Args:
        model: its class says which network it is: ours, or that beside exported weights.
    """
    query = _query(model, given)
    last = model.total_layers - 1
    stream: tuple[Tensor, ...] = ()
    network: Any = None
    for index in range(last + 1):
        del network  # before the next one takes memory
        network = build(model, span=range(index, index + 1)).eval().double()
        for parameter, name in network.parameter_names().items():
            parameter.copy_(tensors.read(name))
        if index == 0:
            stream = network.inputs(query)
        if index < last:
            stream = network.layers[str(index)](stream)
    scores: Tensor = network.scores(network.finish(stream, query))
    return scores.view(*given.ids_BL.shape, -1)


def of_network(model: ModelConfig, tensors: Tensors) -> Logits:
    """:func:`logits` of one of our networks, for any inputs."""
    return partial(logits, model, tensors)


def _query(model: ModelConfig, given: Inputs) -> Query:
    """The inputs as networks read them; an encoder-decoder has them as source and target."""
    batch, length = given.ids_BL.shape
    draws = Draws(seed=0, split="parity", batch=batch)
    shape = (batch, length, model.table_width)

    def normal(kind: str) -> Tensor:
        return draws.normal(kind, torch.arange(batch), length * model.table_width).view(shape)

    # Sources of several lengths.
    valid_BS = torch.arange(length) < length - torch.arange(batch)[:, None]
    return Query(
        ids_BL=given.ids_BL,
        level_BK=given.level_B1,
        predict_mask_BL=torch.ones_like(given.ids_BL, dtype=torch.bool),
        signal_BK=(1 - given.level_B1).sqrt(),
        noise_BLE=normal("noise") * given.level_B1.sqrt()[..., None],
        self_cond_BLE=normal("draft"),
        source_BS=given.ids_BL,
        source_valid_BS=valid_BS,
    )


@dataclass(frozen=True, kw_only=True)
class Report:
    """How far two models' logits lie apart.

    Args:
        source, result: what was compared.
        limit: of the difference, as a share of the largest logit.
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
        return {"equal": self.equal, **asdict(self)}

    @property
    def equal(self) -> bool:
        """Whether the difference is rounding."""
        return self.largest_difference <= self.limit * self.largest_logit


def compare(
    source: Tensor, result: Tensor, names: tuple[str, str], given: Inputs, note: str = ""
) -> Report:
    """The report on two sets of logits ``[B, L, ids]``, -inf where an id is no answer.

    Raises:
        RunError: they differ by more than ``LIMIT``, a logit is not a number, or more ids than
            one ([MASK]) are answers for one of the two alone.
    """
    width = min(source.shape[-1], result.shape[-1])
    source, result = source[..., :width], result[..., :width]
    compared = source.isfinite() & result.isfinite()
    bad = source.isnan() | result.isnan()
    answers_of_one = (source.isfinite() != result.isfinite()).flatten(0, -2).any(dim=0).sum()
    difference = torch.tensor(torch.inf)
    if compared.any() and answers_of_one <= 1:
        difference = (source - result).abs()[compared].max()
    report = Report(
        source=names[0],
        result=names[1],
        largest_difference=float("nan") if bool(bad.any()) else float(difference),
        limit=LIMIT,
        logits=int(compared.sum()),
        largest_logit=float(source[compared].abs().max()) if compared.any() else 0.0,
        inputs=f"{tuple(given.ids_BL.shape)} ids, levels 0.1 to 0.9, float64{note}",
        torch=torch.__version__,
    )
    if not report.equal:
        raise RunError(
            f"the logits of {names[0]} and {names[1]} differ by {report.largest_difference:.3g}, "
            f"more than {LIMIT:g} of the largest ({report.largest_logit:.3g}): nothing was written"
        )
    return report


def report(
    model: ModelConfig,
    source: Logits,
    result: Logits,
    names: tuple[str, str],
    *,
    num_ids: int | None = None,
    note: str = "",
) -> dict[str, Any]:
    """:func:`compare` on fixed inputs, for parity.json.

    Args:
        model: whose inputs are asked for. source, result: logits of the two, for any inputs.
        num_ids: ids that the source knows; by default the model's.
    """
    given = inputs(model, model.num_ids if num_ids is None else num_ids)
    return compare(source(given), result(given), names, given, note).as_json()


def summary(report: Mapping[str, Any]) -> str:
    """One line for the user."""
    return (
        f"logits agree to {report['largest_difference']:.2g} (limit {report['limit']:g} of "
        f"the largest; {report['logits']:,} logits up to {report['largest_logit']:.3g})"
    )
