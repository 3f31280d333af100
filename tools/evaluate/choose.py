"""Choosing one of several candidates for a source.

single   the first
mbr      minimum Bayes risk: the one most like the others by sentence BLEU (Kumar & Byrne
         2004); it never sees a reference
oracle   the one most like the references: no result of a model, and named so
"""

from collections.abc import Sequence
from typing import Literal

Choice = Literal["single", "mbr", "oracle"]


def choose(candidates: Sequence[str], how: Choice, references: Sequence[str] = ()) -> str:
    """The chosen candidate; among equals the first."""
    if how == "single" or len(candidates) == 1:
        return candidates[0]
    from tools.evaluate.text_scores import sentence_bleu

    if how == "oracle":
        merits = [sentence_bleu(one, references) for one in candidates]
    else:
        merits = [
            sum(
                sentence_bleu(one, [other])
                for place, other in enumerate(candidates)
                if place != own_place
            )
            for own_place, one in enumerate(candidates)
        ]
    return candidates[merits.index(max(merits))]
