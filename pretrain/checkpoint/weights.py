"""Loads the model of a checkpoint for sampling, evaluation and export, on one rank or several."""

import multiprocessing
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from configs.errors import UserError
from model.networks.base import Network
from model.networks.build import build
from model.networks.config import ModelConfig
from model.objectives import NO_STATE, State
from pretrain.checkpoint import store
from pretrain.checkpoint.dcp import DcpShard
from pretrain.checkpoint.reader import Reader
from pretrain.config import RunConfig
from pretrain.evaluation.evaluator import Share
from pretrain.parallel.config import ParallelConfig
from pretrain.parallel.misfits import misfits
from pretrain.parallel.network import DistributedNetwork, local_denoiser
from pretrain.parallel.shards import places
from pretrain.run import console
from pretrain.run.stored_config import stored_config

if TYPE_CHECKING:
    from data_pipeline.tokenizer import Tokenizer
    from pretrain.parallel.mesh import Mesh

Which = Literal["ema", "raw"]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A denoiser in evaluation mode, with the checkpoint and configuration that it comes from.

    Args:
        denoiser: the network, or this rank's part under the ``mesh``.
        state: of its objective.
        tokenizer_sha256: of the tokenizer that it was trained with; None where it is not known.
    """

    denoiser: Network
    config: RunConfig
    checkpoint: Path
    step: int
    tokens_seen: int
    device: torch.device
    state: State = field(default_factory=lambda: NO_STATE)
    tokenizer_sha256: str | None = None
    mesh: "Mesh | None" = None

    def tokenizer(self) -> "Tokenizer":
        """The tokenizer of the run's corpus.

        Raises:
            UserError: it is not the one that the weights were trained with.
        """
        from pretrain.data import corpus_path, load_tokenizer, other_tokenizer

        corpus = corpus_path(self.config)
        tokenizer = load_tokenizer(corpus)
        if problem := other_tokenizer(tokenizer, corpus, self.tokenizer_sha256):
            raise UserError(f"{problem}; put the corpus back that {self.checkpoint} names")
        return tokenizer

    @cached_property
    def network(self) -> DistributedNetwork | Network:
        """The network as samplers call it; the ranks of a model call it together."""
        return self.denoiser if self.mesh is None else DistributedNetwork(self.denoiser, self.mesh)

    @property
    def is_first(self) -> bool:
        """Whether this process prints and writes for all of them."""
        return self.mesh is None or self.mesh.is_first

    @property
    def share(self) -> Share:
        """This process's share of the batches."""
        if self.mesh is None:
            return Share()
        return Share(rank=self.mesh.data_rank, size=self.mesh.data_size)

    def total(self, values: Tensor) -> Tensor:
        """Sum over all shares."""
        return values if self.mesh is None else self.mesh.total(values.to(self.device)).cpu()

    def gather(self, value: Any) -> list[Any]:
        """Gather the values of all shares, in their order."""
        return [value] if self.mesh is None else self.mesh.gather(value)


def find(where: Path) -> Path:
    """The checkpoint itself, or the newest sound one of a run directory.

    Newer ones that are passed over are logged once, by the process that the user started.

    Raises:
        UserError: where there is none.
    """
    return where if (where / store.MANIFEST).exists() else _newest(where).path


def open_reader(where: Path) -> Reader:
    """The checkpoint of :func:`find`, open."""
    return Reader(where if (where / store.MANIFEST).exists() else _newest(where))


def _newest(where: Path) -> store.Contents:
    newest, problems = store.open_newest(where / "checkpoints")
    if newest is None:
        detail = "; ".join(problems) or "train it first with `python -m pretrain`"
        raise UserError(f"{where} is neither a checkpoint nor a run with one: {detail}")
    if multiprocessing.parent_process() is None:
        for problem in problems:
            _log_once(f"{problem}; passed over")
    return newest


_log_once = cache(console.log_rank_zero)


def configuration(where: Path) -> RunConfig:
    """The configuration of a run or checkpoint, without its weights."""
    return config_of(open_reader(where))


def check_layout(where: Path, layout: ParallelConfig) -> None:
    """UserError unless there is a checkpoint, and its model divides as ``layout`` asks."""
    config = configuration(where)
    problems = misfits(config.model, config.data.sequence_length, layout)
    if problems:
        raise UserError("; ".join(problems))


def load_denoiser(
    where: Path,
    which: Which,
    device: torch.device | str = "cpu",
    *,
    layout: ParallelConfig | None = None,
    mesh: "Mesh | None" = None,
) -> Loaded:
    """The averaged (``ema``) or last (``raw``) fp32 weights of a run or checkpoint.

    Args:
        layout, mesh: load this rank's part only, reading no more than that.
    """
    reader = open_reader(where)
    config = config_of(reader)
    device = torch.device(device)
    kind = reader.weights(which)
    return Loaded(
        denoiser=_filled(reader, kind, config.model, config, device, layout, mesh),
        config=config,
        checkpoint=reader.path,
        step=reader.state["step"],
        tokens_seen=reader.state["tokens_seen"],
        device=device,
        state=reader.objective_state(),
        tokenizer_sha256=reader.state.get("tokenizer_sha256"),
        mesh=mesh,
    )


def load_network(
    reader: Reader,
    kind: str,
    model: ModelConfig,
    config: RunConfig,
    device: torch.device,
    *,
    layout: ParallelConfig | None = None,
    mesh: "Mesh | None" = None,
) -> DistributedNetwork | Network:
    """A network in evaluation mode, from the tensors of a kind.

    Args:
        model: configuration of the network.
        config: of the run whose text it reads.
    """
    network = _filled(reader, kind, model, config, device, layout, mesh)
    return network if mesh is None else DistributedNetwork(network, mesh)


def _filled(
    reader: Reader,
    kind: str,
    model: ModelConfig,
    config: RunConfig,
    device: torch.device,
    layout: ParallelConfig | None,
    mesh: "Mesh | None",
) -> Network:
    """The network, or this rank's part of it."""
    if mesh is None:
        network = build(model)
    else:
        length = config.data.sequence_length
        network = local_denoiser(model, layout or ParallelConfig(), length, mesh, config.seed)
    reader.read_into(
        {
            f"{kind}/{place.name}": DcpShard(place.part, parameter.detach().view(-1))
            for parameter, place in places(network, mesh.tensor_rank if mesh else 0).items()
        }
    )
    return network.to(device).eval()


def config_of(reader: Reader) -> RunConfig:
    """The configuration of the run that a checkpoint belongs to."""
    return stored_config(reader.state["config"], where=f"{reader.path}/state.json")
