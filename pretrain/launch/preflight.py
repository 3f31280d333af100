"""Checks before any rank is started, so that a mistake costs a moment and one line."""

from pathlib import Path

import torch

from configs.errors import UserError
from model.draws import Draws
from model.networks.build import build
from pretrain.checkpoint import networks, store
from pretrain.checkpoint.reader import Reader
from pretrain.checkpoint.weights import open_reader
from pretrain.config import RunConfig
from pretrain.data import corpus_path, load_tokenizer, open_corpus, other_tokenizer
from pretrain.run import writable as place
from pretrain.run.directory import RunDirectory


def check(config: RunConfig, path: Path, *, fresh: bool = False) -> str | None:
    """Check that a run can start in ``path``, or be resumed there.

    Args:
        fresh: the run that is in ``path`` now will be moved aside first.

    Returns:
        A message where there is nothing to do; None where there is.

    Raises:
        UserError: it cannot.
        OSError: where a file cannot be read.
    """
    place.check(path)
    # The corpus first: where it is missing, another run in the directory is not what is wrong.
    _check_data(config)
    if not fresh:
        RunDirectory(path).check(config)
    newest = None if fresh else store.open_newest(RunDirectory(path).checkpoints)[0]
    # A run that has begun does not read its fork_from again, which may be gone by now.
    if config.fork_from and newest is None:
        _check_fork(config, Path(config.fork_from))
    if config.objective.networks:
        _check_networks(config, newest)
    if not fresh:
        return nothing_to_do(path, newest, config.steps)
    if config.fork_from and Path(config.fork_from).resolve().is_relative_to(path.resolve()):
        raise UserError(
            f"--fresh would move {config.fork_from} away, from which this run is to begin: "
            "choose another run_dir"
        )
    return None


def _check_data(config: RunConfig) -> None:
    """Open the corpus once, for the errors that this may raise."""
    open_corpus(config, Draws(seed=config.seed, split="train", batch=config.global_batch))


def _check_fork(config: RunConfig, source: Path) -> None:
    """UserError unless the weights to begin with are there and fit."""
    from pretrain.checkpoint.training import fork_names

    with torch.device("meta"):
        parameters = build(config.model).parameter_names()
    names = fork_names(config)
    shapes = {
        f"master/{found}": tuple(p.shape)
        for p, name in parameters.items()
        if (found := names(name)) is not None
    }
    reader = open_reader(source)
    reader.require(shapes)
    corpus, trained = corpus_path(config), reader.state.get("tokenizer_sha256")
    problem = other_tokenizer(load_tokenizer(corpus), corpus, trained)
    if problem and config.fork_tokenizer == "same":
        raise UserError(f"{problem}; if that is meant, set fork_tokenizer=other")


def _check_networks(config: RunConfig, newest: store.Contents | None) -> None:
    """UserError unless the networks that the objective asks are there and fit.

    Args:
        newest: the run's newest checkpoint, if it has begun.
    """
    reader = Reader(newest) if newest else None
    if newest is None and config.fork_from:
        reader = open_reader(Path(config.fork_from))
    is_own = newest is not None
    corpus = corpus_path(config)
    tokenizer = load_tokenizer(corpus)
    for name, source in networks.sources(config, reader, config.parallel, is_own=is_own).items():
        problem = other_tokenizer(tokenizer, corpus, source.facts["tokenizer_sha256"])
        if problem:
            raise UserError(f"the objective's network {name}: {problem}")


def nothing_to_do(path: Path, newest: store.Contents | None, steps: int) -> str | None:
    """The message for a run that is at its last step, or beyond; None for others.

    Args:
        newest: the run's newest checkpoint.
    """
    if newest is None or (at := int(newest.state["step"])) < steps:
        return None
    # A request to stop may have come within the last validation, which is owed then.
    is_owed = newest.state.get("owes_validation", False)
    if is_owed and RunDirectory(path).read_status().get("state") != "done":
        return None
    try:
        store.require_sound(newest)
    except (UserError, OSError):
        return None  # the ranks pass it over
    if at == steps:
        return f"{path} is done: {steps} steps; set steps=N to go on"
    return (
        f"{path} is at step {at:,}: steps={steps} lies behind it; set steps above {at} to go on, "
        "or run_dir=PATH to begin another run"
    )
