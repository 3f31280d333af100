"""Reverse complements: the other strand of a piece of DNA, read in its own direction.

Both strands hold the same genome, so a model of one that sees either learns from twice the
sequences. Which strand a sample is read from follows from its position in the training stream:
independent of the parallel layout, and drawn anew in every epoch.
"""

import numpy as np
import torch

from configs.errors import UserError
from data_pipeline.characters import CharacterTokenizer
from data_pipeline.packing import Packing, segments_of
from data_pipeline.paragraphs import Uniforms
from data_pipeline.shards import Split
from data_pipeline.tokenizer import Tokenizer

COMPLEMENTS = {"A": "T", "C": "G", "G": "C", "T": "A"}


class ReverseComplements:
    """A packing whose samples are replaced by their reverse complements at a given rate.

    The frame and the padding stay where they are; an EOS between documents is mirrored.

    Args:
        packing: the samples.
        split: that they come from.
        tokenizer: of its characters.
        rate: probability that a sample is replaced.
        uniforms: decide which ones.

    Raises:
        UserError: the tokenizer is not one of single bases.
    """

    def __init__(
        self,
        packing: Packing,
        split: Split,
        tokenizer: Tokenizer,
        *,
        rate: float,
        uniforms: Uniforms,
    ) -> None:
        self._packing, self._split = packing, split
        self._rate, self._uniforms = rate, uniforms
        self._complement = complement_ids(tokenizer)

    def __len__(self) -> int:
        return len(self._packing)

    def document_of(self, indices: np.ndarray) -> np.ndarray:
        """See `Packing.document_of`."""
        return self._packing.document_of(indices)

    def read(
        self, indices: np.ndarray, positions: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """See `Packing.read`."""
        assert positions is not None
        found = self._packing.read(indices, positions)
        drawn_B1 = self._uniforms.uniform("reverse_complement", torch.from_numpy(positions), 1)
        chosen = drawn_B1[:, 0].numpy() < self._rate
        tokens = found["tokens"].copy()
        tokens[chosen] = self.reversed(tokens[chosen], found["valid"][chosen])
        found = found | {"tokens": tokens}
        return found | (segments_of(self._split, tokens) if "segment" in found else {})

    def reversed(self, tokens: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Reverse complements int64 [B, L] of framed samples, which `valid` positions begin."""
        place = np.arange(tokens.shape[1])[None]
        last = valid.sum(axis=1, keepdims=True) - 1
        within = (place > 0) & (place < last)
        mirrored = np.take_along_axis(tokens, np.where(within, last - place, place), axis=1)
        return np.where(within, self._complement[mirrored], mirrored)


def complement_ids(tokenizer: Tokenizer) -> np.ndarray:
    """The id of each id's complement, int64 [V]: itself for N and for special tokens.

    Raises:
        UserError: the tokenizer is not one of single bases.
    """
    pieces = [tokenizer.id_to_piece(index) for index in range(tokenizer.vocab_size)]
    if not isinstance(tokenizer, CharacterTokenizer) or not set(COMPLEMENTS) <= set(pieces):
        raise UserError(
            "data.reverse_complement: the corpus is not one of single bases; make its tokenizer "
            "with `python -m data_pipeline tokenizer --kind characters --alphabet dna`, or leave "
            "it out"
        )
    return np.array([pieces.index(COMPLEMENTS.get(piece, piece)) for piece in pieces])
