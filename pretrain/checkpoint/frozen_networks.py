"""An objective's frozen networks on the ranks of a run, from the checkpoints that hold them."""

from collections.abc import Iterable, Mapping

from configs.errors import UserError
from pretrain.checkpoint import networks
from pretrain.checkpoint.dcp import pieces_of
from pretrain.checkpoint.networks import Source, kind_of
from pretrain.config import RunConfig
from pretrain.nonfinite import non_finite
from pretrain.parallel.frozen_network import FrozenNetwork
from pretrain.parallel.mesh import Mesh
from pretrain.parallel.ranges import Flats


def named(config: RunConfig, mesh: Mesh) -> dict[str, FrozenNetwork]:
    """Those in the checkpoints that the objective names, ready to be asked.

    Raises:
        UserError: one is not there, does not fit, or is not finite.
    """
    # A run that goes on may save between one rank's look and another's.
    paths = mesh.all_gather_object(networks.paths(config))[0]
    sources = networks.named(paths)
    networks.check(sources, config, config.parallel)
    found = loaded(sources, config, mesh)
    for name, path in paths.items():
        flats = found[name].flats
        problems = mesh.all_gather_object(non_finite(flats.kinds, flats.owned_ranges))
        if culprit := next((text for text in problems if text), None):
            raise UserError(f"{path} is not finite ({culprit}); name another checkpoint")
    refresh(found.values())
    return found


def loaded(
    sources: Mapping[str, Source], config: RunConfig, mesh: Mesh
) -> dict[str, FrozenNetwork]:
    """This rank's part of each, read without the other ranks; :func:`refresh` comes after it."""
    found = {}
    for name, source in sources.items():
        network = FrozenNetwork(kind_of(name), source.model, source.facts, config, mesh)
        values = network.flats.kinds[kind_of(name)]
        there = Flats(kinds={source.kind: values}, owned_ranges=network.flats.owned_ranges)
        source.reader.read_into(pieces_of(there))
        found[name] = network
    return found


def refresh(found: Iterable[FrozenNetwork]) -> None:
    """Let networks compute with what was read; all data-parallel ranks together."""
    for network in found:
        network.refresh()
