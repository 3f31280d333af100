"""Corpus and samples of a run: the block ``data`` of its configuration."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from configs.checks import Checked, at_least, at_most
from data_pipeline.paragraphs import ParagraphConfig
from pretrain.parallel.config import MOST


@dataclass(frozen=True, kw_only=True)
class DataConfig(Checked):
    """Where the text comes from and how it becomes samples.

    Args:
        corpus: a corpus directory made by ``python -m data_pipeline``, or ``demo``: the
            Python language reference, prepared on first use.
        demo_dir: where the demo corpus is kept.
        sequence_length: L, frame included.
        packing: ``wrap`` concatenates documents and cuts; ``pad`` keeps them apart (what becomes
            of the padding is the objective's: ``objective.padding``);
            ``paragraphs`` masks spans of them, ``pairs`` reads sources and targets: both of
            these are for an encoder-decoder, whose target has ``sequence_length`` positions.
        document_mask: let no position attend to another document that shares its sample (wrap).
        reverse_complement: probability that a training sample is replaced by its reverse
            complement, the other strand of DNA (wrap and pad, tokenizer of characters ``dna``).
        source_length: S, positions of the source.
        paragraphs: how spans are masked (continuous paragraph denoise).
        train_split: name of the corpus's split to train on.
        valid_split: name of its held-out split.
    """

    corpus: str
    demo_dir: str = "runs/corpora"
    sequence_length: int
    packing: Literal["wrap", "pad", "paragraphs", "pairs"] = "wrap"
    document_mask: bool = False
    reverse_complement: float = 0.0
    source_length: int | None = None
    paragraphs: ParagraphConfig = ParagraphConfig()
    train_split: str = "train"
    valid_split: str = "valid"

    def _check_values(self) -> Iterator[str]:
        yield from at_least(self, 3, "sequence_length", "source_length")
        yield from at_most(self, MOST, "sequence_length", "source_length")

    def _check_source(self) -> Iterator[str]:
        if self.has_source and self.source_length is None:
            yield f"source_length: packing {self.packing} needs source_length"
        if not self.has_source and self.source_length is not None:
            yield f"source_length: packing {self.packing} has no source: leave source_length out"

    def _check_reverse_complement(self) -> Iterator[str]:
        if not 0.0 <= self.reverse_complement <= 1.0:
            yield f"reverse_complement must lie in [0, 1], not {self.reverse_complement}"
        if self.reverse_complement and self.has_source:
            yield f"reverse_complement: packing {self.packing} has no strands: leave it out"

    def _check_document_mask(self) -> Iterator[str]:
        if self.document_mask and self.packing != "wrap":
            yield f"document_mask: with packing {self.packing} no documents share a sample"

    @property
    def has_source(self) -> bool:
        """Whether samples consist of a source and a target."""
        return self.packing in ("paragraphs", "pairs")
