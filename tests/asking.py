"""Ways to ask a network, and networks whose logits a test knows."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from configs.build import Plugin
from model.categorical import Categorical
from model.networks.base import Network
from model.prediction import Answer, Prediction, Read
from model.query import Query

Denoise = Callable[[Query], Tensor]


def query_of(
    ids_BL: Tensor,
    level_BK: Tensor,
    predict_mask_BL: Tensor | None = None,
    valid_BL: Tensor | None = None,
) -> Query:
    """Asks for the positions of ``predict_mask_BL``, by default for all of them."""
    everywhere = torch.ones(ids_BL.shape[:2], dtype=torch.bool)
    predict_mask_BL = everywhere if predict_mask_BL is None else predict_mask_BL
    return Query(
        ids_BL=ids_BL, level_BK=level_BK, predict_mask_BL=predict_mask_BL, valid_BL=valid_BL
    )


def logits_of(network: Network, *given: Tensor | None) -> Tensor:
    """Logits ``[M, R]``; what is given as to :func:`query_of`."""
    found: Tensor = network(query_of(*given))["logits"]
    return found


class Known:
    """In the place of a network: logits ``[M, R]`` from a function of the query."""

    def __init__(self, logits: Denoise) -> None:
        self.logits = logits

    def ask(self, query: Query, read: Read[Answer]) -> Answer:
        return read(Prediction(logits=Categorical(self.logits(query))))

    def encode(self, query: Query) -> Query:
        return query


ARCHITECTURES = Plugin("model.architectures", default="dit")


def configured(**fields: Any) -> Any:
    """The configuration of a network, as the block ``model`` of a file makes it."""
    return ARCHITECTURES.build(fields)
