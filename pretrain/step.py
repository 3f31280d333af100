"""One training step: read, corrupt, refine, all-reduce the counts, run, update the objective.

The trainer, ``tools.verify``, the tests of layouts and the benches all take this step.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from model.draws import Draws
from model.facts import Facts
from model.objectives import LEVEL_BUCKETS, Batch, LossSums, Noisy, training_layout
from pretrain.config import RunConfig
from pretrain.optim import learning_rate
from pretrain.parallel.batch import positions
from pretrain.parallel.engine import Engine
from pretrain.parallel.mesh import Mesh


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Denominators of a step's global batch, the same on all ranks.

    Args:
        tokens: of the text that was read.
        terms: number of values that each term of the loss is a mean over.
    """

    tokens: int
    terms: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Mean losses over the global batch of a step.

    Args:
        total: the weighted sum of the terms.
        terms: unweighted mean of each term.
        levels: mean loss by range of noise levels, keyed by its lower end; empty ranges left out.
    """

    total: float
    terms: Mapping[str, float]
    levels: Mapping[float, float]


class TrainingStep:
    """The steps of a run, on one rank.

    Args:
        read: returns the samples at positions of the stream, on the rank's device.
        facts: statistics of the training text.

    Attributes:
        state: of the objective.
    """

    def __init__(
        self,
        config: RunConfig,
        engine: Engine,
        mesh: Mesh,
        read: Callable[[range], Batch],
        facts: Facts,
    ) -> None:
        self._config, self._engine, self._mesh, self._read = config, engine, mesh, read
        self._objective, self._length = config.objective, config.data.sequence_length
        self.draws = Draws(seed=config.seed, split="train", batch=config.global_batch)
        self.state = config.objective.init_state(facts)

    def read(self, number: int) -> list[Batch]:
        """This rank's micro-batches; empty on stages of a pipeline that need none."""
        mesh = self._mesh
        if not mesh.reads and not self._objective.refines:
            return []
        mine = positions(self._config, number, mesh.data_rank, mesh.data_size)
        return [self._read(part) for part in mine]

    def corrupt(self, number: int, batches: Sequence[Batch]) -> list[Noisy]:
        """Corrupt and refine the micro-batches of step ``number``."""
        objective, model = self._objective, self._config.model
        layout = training_layout(objective, model, self.draws, number, self._length)
        made = (
            replace(objective.corrupt(batch, self.draws, model, self.state), layout=layout)
            for batch in batches
        )
        ask = self._engine.ask
        return [objective.refine(noisy, ask, self.draws, self.state) for noisy in made]

    def all_reduce_counts(
        self, micro_batches: Sequence[Noisy], *others: int
    ) -> tuple[Counts, list[int]]:
        """Sum counts, and other numbers, over all ranks in one all-reduce."""
        names = list(self._objective.terms)
        own = torch.zeros(1 + len(names), dtype=torch.int64, device=self._mesh.device)
        for noisy in micro_batches:
            text = noisy.over_BL.sum() if noisy.tokens is None else noisy.tokens
            own += torch.stack([text, *(noisy.count(name) for name in names)])
        tokens, *sums = self._mesh.all_reduce_counts(own, *others)
        terms = dict(zip(names, sums[: len(names)], strict=True))
        return Counts(tokens=tokens, terms=terms), sums[len(names) :]

    def run(self, number: int, micro_batches: Sequence[Noisy], counts: Counts) -> LossSums:
        """Forward, backward and optimizer step; then update the state of the objective."""
        config = self._config
        # Dropout is the one draw that torch makes: seeded by step, a resume repeats it.
        torch.manual_seed(self.draws.key(f"dropout/{number}/{self._mesh.data_rank}"))
        rate = learning_rate(config.optim, number, config.steps)
        layout = training_layout(config.objective, config.model, self.draws, number, self._length)
        sums = self._engine.train_step(micro_batches, counts.terms, rate, layout)
        if self.state:
            first = (number - 1) * config.global_batch
            position_N = torch.arange(first, first + config.global_batch, device=self._mesh.device)
            seen_NK = self._engine.seen(config, number, sums)
            self.state = self._objective.update_state(self.state, seen_NK, position_N, self.draws)
        return sums

    def losses(self, sums: LossSums, counts: Counts) -> Losses:
        """Mean losses of a step, from the sums of all ranks; a collective."""
        names = list(self._objective.terms)
        own = [*sums.terms.values(), *sums.level_loss, *sums.level_count]
        found = self._mesh.total(torch.stack(own).double()).tolist()
        terms = {
            name: value / max(1, counts.terms[name])
            for name, value in zip(names, found, strict=False)
        }
        level_loss = found[len(names) : len(names) + LEVEL_BUCKETS]
        level_count = found[len(names) + LEVEL_BUCKETS :]
        return Losses(
            total=sum(self._objective.terms[name] * value for name, value in terms.items()),
            terms=terms,
            levels={
                bucket / LEVEL_BUCKETS: part / num
                for bucket, (part, num) in enumerate(zip(level_loss, level_count, strict=True))
                if num
            },
        )
