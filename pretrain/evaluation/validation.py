"""Validation while training: the held-out bound, or the held-out loss where there is no bound."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from model.objectives import State
from pretrain.config import RunConfig
from pretrain.data import Corpus
from pretrain.evaluation.bound import Share, document_losses, mean_losses, summarise
from pretrain.parallel.engine import Engine
from pretrain.parallel.mesh import Mesh


def held_out_numbers(
    engine: Engine,
    corpus: Corpus,
    config: RunConfig,
    mesh: Mesh,
    state: State,
    beat: Callable[[], None],
) -> dict[str, float]:
    """Numbers of the present weights, by name; of :data:`configs.run_files.SCORES` one is there.

    Args:
        state: what the objective has learnt by now.
        beat: called after every batch, as a sign of life.
    """
    shared: dict[str, Any] = {
        "seed": config.seed,
        "state": state,
        "batch": config.eval.batch,
        "share": Share(rank=mesh.data_rank, size=mesh.data_size),
        "device": mesh.device,
        "on_batch": lambda done: beat(),
    }

    def on_mesh(values: Tensor) -> Tensor:
        return mesh.total(values.to(mesh.device))

    if corpus.held_out is not None:
        stream, available = corpus.held_out
        num = min(available, config.eval.windows or available)
        found = mean_losses(engine.ask, config.objective, config.model, stream, num=num, **shared)
        return found.total(on_mesh).losses(config.objective)
    assert corpus.windows is not None
    assert corpus.valid is not None
    tally = document_losses(
        engine.ask,
        config.objective,
        config.model,
        corpus.windows,
        samples=config.eval.samples,
        num_windows=config.eval.windows,
        **shared,
    )
    total = tally.total(on_mesh)
    padded = config.data.packing == "pad"
    scope = config.objective.scope(padded=padded)
    summary = summarise(total, corpus.train, corpus.valid, scope)
    numbers = {name: summary[name] for name in ("nelbo", "perplexity", "bits_per_byte", "ratio")}
    return numbers | ({"length_given": float(scope.length_given)} if padded else {})
