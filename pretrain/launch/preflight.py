"""What is looked at before any rank is started, so that a mistake costs a moment and one line."""

from pathlib import Path

import torch

from configs.errors import UserError
from model.draws import Draws
from model.networks.build import build
from pretrain.checkpoint import networks, store
from pretrain.checkpoint.reader import Reader
from pretrain.checkpoint.training import fork_names
from pretrain.checkpoint.weights import find
from pretrain.config import RunConfig
from pretrain.data import corpus_path, load_tokenizer, open_corpus, other_tokenizer
from pretrain.run import writable as place
from pretrain.run.directory import RunDirectory


def check(config: RunConfig, path: Path, *, fresh: bool = False) -> str | None:
    """Whether a run can start in ``path``, or go on there.

    Args:
        fresh: whatever runs in ``path`` now will be moved aside first.

    Returns:
        What to say where there is nothing to do; None where there is.

    Raises:
        UserError: with what stands in the way.
        OSError: where a file cannot be read.
    """
    place.check(path)
    # The corpus first: where it is missing, another run in the directory is not what is wrong.
    _check_data(config)
    if not fresh:
        RunDirectory(path).check(config)
    # A run that has begun reads them no more, and they may be gone by now.
    if config.fork_from and (fresh or store.newest(RunDirectory(path).checkpoints)[0] is None):
        _check_fork(config, Path(config.fork_from))
    if config.objective.networks:
        _check_networks(config, None if fresh else store.newest(RunDirectory(path).checkpoints)[0])
    if not fresh:
        return nothing_to_do(path, config.steps)
    if config.fork_from and Path(config.fork_from).resolve().is_relative_to(path.resolve()):
        raise UserError(
            f"--fresh would move {config.fork_from} away, from which this run is to begin: "
            "choose another run_dir"
        )
    return None


def _check_data(config: RunConfig) -> None:
    """Open the corpus once, for the errors that this may give."""
    open_corpus(config, Draws(seed=config.seed, split="train", batch=config.global_batch))


def _check_fork(config: RunConfig, source: Path) -> None:
    """UserError unless the weights to begin with are there and fit."""
    with torch.device("meta"):
        parameters = build(config.model).parameter_names()
    names = fork_names(config)
    shapes = {
        f"master/{found}": tuple(p.shape)
        for p, name in parameters.items()
        if (found := names(name)) is not None
    }
    reader = Reader(find(source))
    reader.require(shapes)
    corpus, trained = corpus_path(config), reader.state.get("tokenizer_sha256")
    problem = other_tokenizer(load_tokenizer(corpus), corpus, trained)
    if problem and config.fork_tokenizer == "same":
        raise UserError(f"{problem}; if that is meant, set fork_tokenizer=other")


def _check_networks(config: RunConfig, newest: Path | None) -> None:
    """UserError unless the networks that the objective asks are there and fit.

    Args:
        newest: of the run's checkpoints, if it has begun: it needs no other then.
    """
    begun = newest or (find(Path(config.fork_from)) if config.fork_from else None)
    reader = Reader(begun) if begun else None
    if reader is not None and (newest or networks.holds(config, reader)):
        sources = networks.held(config, reader)
    else:
        sources = networks.named(networks.paths(config))
    networks.check(sources, config, config.parallel)
    corpus = corpus_path(config)
    tokenizer = load_tokenizer(corpus)
    for name, source in sources.items():
        problem = other_tokenizer(tokenizer, corpus, source.facts["tokenizer_sha256"])
        if problem:
            raise UserError(f"the objective's network {name}: {problem}")


def nothing_to_do(path: Path, steps: int) -> str | None:
    """What to say of a run that is at its last step, or beyond."""
    directory = RunDirectory(path)
    newest, _ = store.newest(directory.checkpoints)
    if newest is None:
        return None
    state = store.check(newest).state
    at = int(state["step"])
    if at < steps or store.damage(newest) is not None:
        return None
    # A request to stop may have come within the last validation, which is owed then.
    if state.get("owes_validation") and directory.read_status().get("state") != "done":
        return None
    if at == steps:
        return f"{path} is done: {steps} steps; set steps=N to go on"
    return (
        f"{path} is at step {at:,}: steps={steps} lies behind it; set steps above {at} to go on, "
        "or run_dir=PATH to begin another run"
    )
