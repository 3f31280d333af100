"""Validation while training: the held-out bound, or the held-out loss where there is no bound."""

from torch import Tensor

from model.objectives import State
from pretrain.config import RunConfig
from pretrain.data import Corpus
from pretrain.ema import Ema
from pretrain.evaluation.bound import document_losses
from pretrain.evaluation.evaluator import Evaluator, Share
from pretrain.evaluation.losses import mean_losses
from pretrain.evaluation.summary import summarise
from pretrain.launch import preemption
from pretrain.launch.watchdog import Watchdog
from pretrain.parallel.engine import Engine
from pretrain.parallel.mesh import Mesh


class StopRequest(Exception):  # noqa: N818 - no error
    """Leaves a validation, which can be repeated, in order to save; raised on all ranks alike."""


class Validator:
    """Computes held-out numbers of the averaged weights; all ranks call it together.

    Args:
        watchdog: beats after every batch.
    """

    def __init__(
        self,
        config: RunConfig,
        corpus: Corpus,
        engine: Engine,
        ema: Ema,
        mesh: Mesh,
        watchdog: Watchdog,
    ) -> None:
        self._config, self._corpus, self._engine, self._ema = config, corpus, engine, ema
        self._mesh, self._watchdog = mesh, watchdog
        self._is_first = True

    def validate(self, state: State) -> dict[str, float] | None:
        """Held-out numbers by name, among them one of :data:`configs.run_files.SCORES`.

        Args:
            state: of the objective.

        Returns:
            None where a request to stop arrives before all batches are done.
        """
        patience = self._watchdog.during("its first validation", self._is_first)
        try:
            with patience, self._ema.applied(self._engine.shards):
                numbers = self._numbers(state)
        except StopRequest:
            return None
        self._is_first = False
        return numbers

    def _numbers(self, state: State) -> dict[str, float]:
        config, corpus, mesh = self._config, self._corpus, self._mesh
        evaluator = Evaluator(
            ask=self._engine.ask,
            objective=config.objective,
            model=config.model,
            seed=config.seed,
            batch=config.eval.batch,
            state=state,
            share=Share(rank=mesh.data_rank, size=mesh.data_size),
            device=mesh.device,
            on_batch=self._after_batch,
        )
        if corpus.held_out is not None:
            stream, available = corpus.held_out
            num = min(available, config.eval.windows or available)
            found = mean_losses(evaluator, stream, num=num)
            return found.total(self._total).losses(config.objective)
        assert corpus.windows is not None
        assert corpus.valid is not None
        tally = document_losses(
            evaluator,
            corpus.windows,
            samples=config.eval.samples,
            num_windows=config.eval.windows,
        )
        padded = config.data.packing == "pad"
        scope = config.objective.scope(padded=padded)
        summary = summarise(tally.total(self._total), corpus.train, corpus.valid, scope)
        names = ("nelbo", "perplexity", "bits_per_byte", "ratio")
        numbers = {name: summary[name] for name in names}
        return numbers | ({"length_given": float(scope.length_given)} if padded else {})

    def _total(self, values: Tensor) -> Tensor:
        return self._mesh.total(values.to(self._mesh.device))

    def _after_batch(self, done: int) -> None:
        self._watchdog.beat()
        if self._mesh.any(preemption.reason() is not None):
            raise StopRequest
