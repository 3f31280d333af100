"""An objective's frozen networks on the ranks of a run, from the checkpoints that hold them."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from configs.errors import UserError
from pretrain.checkpoint import networks
from pretrain.checkpoint.dcp import pieces_of
from pretrain.checkpoint.networks import Source, kind_of
from pretrain.checkpoint.reader import Reader
from pretrain.config import RunConfig
from pretrain.nonfinite import non_finite
from pretrain.parallel.frozen_network import FrozenNetwork
from pretrain.parallel.mesh import Mesh
from pretrain.parallel.ranges import Flats


def load(config: RunConfig, mesh: Mesh, reader: Reader | None = None) -> dict[str, FrozenNetwork]:
    """The objective's networks at the beginning of a run, ready for forward passes.

    Args:
        reader: the checkpoint that a fork begins with; see :func:`networks.sources`.

    Raises:
        UserError: one is missing, does not fit, or is not finite.
    """

    def paths(config: RunConfig) -> dict[str, Path]:
        # A run that is live may save after one rank has looked for its newest checkpoint.
        return mesh.all_gather_object(networks.paths(config))[0]

    sources = networks.sources(config, reader, config.parallel, find_paths=paths)
    found = read(sources, config, mesh)
    for name, source in sources.items():
        flats = found[name].flats
        problems = mesh.all_gather_object(non_finite(flats.kinds, flats.owned_ranges))
        if culprit := next((text for text in problems if text), None):
            raise UserError(
                f"{source.reader.path} is not finite ({culprit}); name another checkpoint"
            )
    refresh(found.values())
    return found


def read(sources: Mapping[str, Source], config: RunConfig, mesh: Mesh) -> dict[str, FrozenNetwork]:
    """This rank's part of each, without any collective; :func:`refresh` has to follow."""
    found = {}
    for name, source in sources.items():
        network = FrozenNetwork(kind_of(name), source.model, source.facts, config, mesh)
        values = network.flats.kinds[kind_of(name)]
        there = Flats(kinds={source.kind: values}, owned_ranges=network.flats.owned_ranges)
        source.reader.read_into(pieces_of(there))
        found[name] = network
    return found


def refresh(found: Iterable[FrozenNetwork]) -> None:
    """Update the weights of networks from the values read; all data-parallel ranks together."""
    for network in found:
        network.refresh()
