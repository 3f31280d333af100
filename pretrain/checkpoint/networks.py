"""Frozen networks that an objective names (a teacher, a reference): where they are read.

A run reads each from the named checkpoint once, when it begins. From then on its own checkpoints
hold it, as the kind ``networks/NAME``, with its configuration in ``state.json``.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from configs.errors import UserError
from configs.load import named_plain
from model.networks.config import ModelConfig
from model.prediction import Ask, Networks
from pretrain.checkpoint.reader import Reader
from pretrain.checkpoint.weights import Loaded, config_of, find, load_network
from pretrain.config import RunConfig
from pretrain.parallel.config import ParallelConfig
from pretrain.parallel.misfits import misfits
from pretrain.run.stored_config import stored_model

STATE = "networks"
"""The key of ``state.json`` with origin and configuration of each network."""


def kind_of(name: str) -> str:
    """The kind of a network's tensors in the checkpoints of the run."""
    return f"networks/{name}"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a network's weights are read.

    Args:
        kind: of the tensors in the reader's checkpoint.
        facts: entry of state.json: its ``model``, the ``checkpoint`` that was named and its
            ``step``, and the ``tokenizer_sha256`` of its training.
    """

    reader: Reader
    kind: str
    model: ModelConfig
    facts: Mapping[str, Any]


def sources(
    config: RunConfig,
    reader: Reader | None,
    layout: ParallelConfig,
    *,
    is_own: bool = False,
    find_paths: Callable[[RunConfig], Mapping[str, Path]] | None = None,
) -> dict[str, Source]:
    """Where each of the objective's frozen networks is read.

    That is ``reader``'s checkpoint where it holds networks of these names and paths, and otherwise
    the checkpoints that the objective names: an export or an average has left them out, a fork may
    be of another objective.

    Args:
        reader: the checkpoint that the trained weights are read from; None where they are drawn.
        layout: by whose tensor and pipeline axes the networks have to be divisible.
        is_own: the checkpoint is the run's own, which has to hold them: those that the objective
            names may have changed, or be gone.
        find_paths: in place of :func:`paths`.

    Raises:
        UserError: a network is missing, reads other ids than the run, or cannot be divided.
    """
    if reader is not None and (is_own or _holds(config, reader)):
        found = _held(config, reader)
    else:
        found = _named((find_paths or paths)(config))
    problems = [
        f"the objective's network {name} ({source.facts['checkpoint']}): {problem}"
        for name, source in found.items()
        for problem in _misfits(source.model, config, layout)
    ]
    if problems:
        raise UserError("\n".join(problems))
    return found


def paths(config: RunConfig) -> dict[str, Path]:
    """The checkpoints that the objective names; where it names a run, its newest.

    Raises:
        UserError: there is none.
    """
    found = {}
    for name, where in config.objective.networks.items():
        try:
            found[name] = find(Path(where))
        except UserError as error:
            raise UserError(f"the objective's network {name}: {error}") from error
    return found


def _named(where: Mapping[str, Path]) -> dict[str, Source]:
    """The averaged weights of these checkpoints."""
    found = {}
    for name, path in where.items():
        reader = Reader(path)
        model = config_of(reader).model
        facts = {
            "checkpoint": str(path),
            "step": reader.state["step"],
            "tokenizer_sha256": reader.state.get("tokenizer_sha256"),
            "model": named_plain(model),
        }
        kind = reader.weights("ema")
        found[name] = Source(reader=reader, kind=kind, model=model, facts=facts)
    return found


def _holds(config: RunConfig, reader: Reader) -> bool:
    """Whether a checkpoint, of any run, holds the networks that the objective names."""
    theirs: Mapping[str, str] = config_of(reader).objective.networks
    return STATE in reader.state and dict(theirs) == dict(config.objective.networks)


def _held(config: RunConfig, reader: Reader) -> dict[str, Source]:
    """The networks in a checkpoint; UserError where one is missing."""
    known: Mapping[str, Any] = reader.state.get(STATE, {})
    found = {}
    for name in config.objective.networks:
        if name not in known:
            raise UserError(f"{reader.path} holds no network {name}, which the objective asks")
        where = f"{reader.path}/state.json: {STATE}.{name}.model"
        model: ModelConfig = stored_model(known[name]["model"], where)
        found[name] = Source(reader=reader, kind=kind_of(name), model=model, facts=known[name])
    return found


def _misfits(model: ModelConfig, config: RunConfig, layout: ParallelConfig) -> Iterator[str]:
    for key in ("vocab_size", "mask_id"):
        its, ours = getattr(model, key), getattr(config.model, key)
        if its != ours:
            yield f"its model.{key} is {its}, the run's is {ours}: it must read the run's ids"
    # Asked without gradient, it cuts no sequence and drops nothing out.
    cut = ParallelConfig(tensor=layout.tensor, pipeline=layout.pipeline)
    for problem in misfits(model, config.data.sequence_length, cut):
        yield f"{problem}; choose a layout that it can be cut by as well"


def asking(loaded: Loaded) -> Ask:
    """Forward passes of a loaded network, and of the frozen ones that its objective asks."""
    config, mesh, own = loaded.config, loaded.mesh, loaded.network.ask
    if not config.objective.networks:
        return Networks(own)
    layout = ParallelConfig()
    if mesh is not None:
        layout = ParallelConfig(tensor=mesh.tensor_size, pipeline=mesh.pipe_size)
    others = {
        name: load_network(
            source.reader, source.kind, source.model, config, torch.device(loaded.device),
            layout=layout, mesh=mesh,
        ).ask
        for name, source in sources(config, Reader(loaded.checkpoint), layout).items()
    }  # fmt: skip
    return Networks(own, others)
