"""Layout of a run over its ranks: the block ``parallel`` of its configuration."""

from collections.abc import Iterator
from dataclasses import dataclass

from configs.checks import Checked, at_least, at_most

MOST = 2**31
"""Upper bound of numbers of samples, positions and ranks, beyond which a setting is a slip."""


@dataclass(frozen=True, kw_only=True)
class ParallelConfig(Checked):
    """Layout of a run over D x T x P ranks; it changes the cost of a run, not its results.

    Args:
        data: data-parallel size D; by default ranks / (T P), or 1.
        tensor: tensor-parallel size T: every matrix is cut into T parts.
        pipeline: pipeline-parallel size P: the list of layers is cut into P stages.
        zero_stage: what DeepSpeed shards over D: 1 optimizer state, 2 also gradients, 3 also
            weights. 0 runs as 1; with a pipeline only 1 is possible.
        sequence_parallel: between its matrices, cut the activations along the sequence over
            the T ranks too (Korthikanti et al. 2022).
        micro_batch: samples of a rank per forward pass; by default all of its share, with a
            pipeline 1 / (4 P) of it.
        param_persistence_threshold: ZeRO 3 keeps parameters of at most this many elements whole on
            every rank (DeepSpeed's ``stage3_param_persistence_threshold``).
        recompute_every: activation checkpointing of every n-th block: 1 is all of them, 0
            none; backward computes these blocks again instead of keeping their insides.
    """

    data: int | None = None
    tensor: int = 1
    pipeline: int = 1
    zero_stage: int = 1
    sequence_parallel: bool = False
    micro_batch: int | None = None
    param_persistence_threshold: int = 100_000
    recompute_every: int = 0

    def _check_values(self) -> Iterator[str]:
        yield from at_least(self, 1, "data", "tensor", "pipeline", "micro_batch")
        yield from at_most(self, MOST, "data", "tensor", "pipeline", "micro_batch")
        yield from at_least(self, 0, "recompute_every", "param_persistence_threshold")
        yield from at_most(self, MOST, "param_persistence_threshold")

    def _check_stage(self) -> Iterator[str]:
        if self.zero_stage not in (0, 1, 2, 3):
            yield f"zero_stage must be 0, 1, 2 or 3, not {self.zero_stage}"
        if self.pipeline > 1 and self.zero_stage > 1:
            yield (
                f"zero_stage {self.zero_stage} cannot run with a pipeline, whose stages keep "
                "their gradients over all micro-batches: set zero_stage to 1, or pipeline to 1"
            )

    def _check_sequence(self) -> Iterator[str]:
        if self.sequence_parallel and self.tensor == 1:
            yield "sequence_parallel needs tensor > 1: it shares out T's activations"
