"""Compatibility of an objective with the network and the data: what it needs, what they offer.

:func:`misfits` rejects a configuration with unmet needs before anything is built.
"""

from collections.abc import Iterator
from enum import Enum


class Need(Enum):
    """A feature that not every network or data set has."""

    IDS = "a categorical over ids at each position"
    EMBEDDINGS = "noised embeddings in, vectors out"
    ANY_VECTOR = "vectors that may stand for noise or velocity too"
    DRAFT = "an input for an earlier prediction (self-conditioning)"
    SOURCE = "samples that have a source"
    OWN_LAYOUT = "attention that the objective lays out"
    OWN_POSITION = "a prediction that is read off its own position"
    NO_LEVEL = "a network that is not told the level"


_MISSING = {
    Need.IDS: "it predicts ids: set model.name=dit or transformer",
    Need.EMBEDDINGS: ("it needs an encoder-decoder: set model.name=encoder_decoder"),
    Need.ANY_VECTOR: (
        "model.output mixture is of clean embeddings: predict x0, or set it to vector"
    ),
    Need.DRAFT: (
        "objective.self_conditioning and model.self_conditioning go together: set both or neither"
    ),
    Need.SOURCE: "it needs samples with a source: set data.packing=pairs or paragraphs",
    Need.OWN_LAYOUT: (
        "it says itself who attends to whom: leave model.attention and "
        "model.causal_annealing_steps out"
    ),
    Need.OWN_POSITION: "it predicts each token at its own position: leave model.shifted_output out",
    Need.NO_LEVEL: "its network is not told the level: leave model.time_conditioning out",
}
_UNREAD = {
    Need.DRAFT: _MISSING[Need.DRAFT],
    Need.SOURCE: "it does not read the source that data.packing gives: set it to wrap or pad",
}
"""Features that are an error if the objective does not use them."""


def misfits(needs: frozenset[Need], offers: frozenset[Need], *, has_source: bool) -> Iterator[str]:
    """One line per unmet need of an objective, with the setting that meets it.

    Args:
        offers: features of the network. has_source: whether samples are source/target pairs.
    """
    there = offers | {Need.SOURCE} if has_source else offers
    for need in Need:
        if need in needs - there:
            yield _MISSING[need]
        elif need in there - needs and need in _UNREAD:
            yield _UNREAD[need]
