"""A frozen network beside the trained one: a teacher, a reference.

It is divided over tensor and pipeline axes like the trained one, with stage bounds of its own,
and computes in the run's precision. Its exact values are kept in fp32, an even part on every
data-parallel rank (:class:`pretrain.parallel.frozen.Frozen`), from which checkpoints are
written. Under ZeRO 1 and 2 each rank also keeps its layers in full, in the run's precision, as
it does for the trained network. Under ZeRO 3 a layer is gathered for as long as it computes; the
first and the last, which share tables and compute the prediction, for the whole forward pass.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from model.networks.config import ModelConfig
from model.prediction import Answer, Read
from model.query import Query
from pretrain.config import RunConfig
from pretrain.parallel.config import ParallelConfig
from pretrain.parallel.frozen import Frozen
from pretrain.parallel.mesh import Mesh
from pretrain.parallel.network import DistributedNetwork, local_denoiser
from pretrain.parallel.ranges import Flats
from pretrain.parallel.shards import places
from pretrain.precision import DTYPES


class FrozenNetwork:
    """This rank's part of a frozen network.

    Args:
        kind: of its tensors in checkpoints.
        facts: its entry of ``state.json``.

    Attributes:
        flats: its fp32 values, to be filled by the caller, who then calls :meth:`refresh`.
    """

    def __init__(
        self,
        kind: str,
        model: ModelConfig,
        facts: Mapping[str, Any],
        config: RunConfig,
        mesh: Mesh,
    ) -> None:
        self.facts = facts
        layout = ParallelConfig(tensor=mesh.tensor_size, pipeline=mesh.pipe_size)
        length = config.data.sequence_length
        network = local_denoiser(model, layout, length, mesh, config.seed)
        network.requires_grad_(False).eval().to(mesh.device, DTYPES[config.precision])
        self._values = Frozen(places(network, mesh.tensor_rank), mesh, group=0)
        self._forward = DistributedNetwork(network, mesh)
        self.flats = Flats(
            kinds={kind: self._values.flats}, owned_ranges=[*self._values.owned_ranges]
        )
        self._ends: list[nn.Parameter] = []
        self._is_cut = config.parallel.zero_stage == 3 and mesh.data_size > 1
        if self._is_cut:
            first, *blocks, last = network.layers.values()
            self._ends = list(dict.fromkeys([*first.parameters(), *last.parameters()]))
            for block in blocks:
                block.register_forward_pre_hook(self._before)
                block.register_forward_hook(self._after)
            self._values.release(network.parameters())

    def refresh(self) -> None:
        """Update the weights from the values; a collective of data-parallel ranks."""
        if not self._is_cut:
            self._values.refresh()

    def ask(self, query: Query, read: Read[Answer]) -> Answer:
        """See :meth:`DistributedNetwork.ask`; under ZeRO 3 a collective of data-parallel ranks."""
        with self._ends_gathered():
            return self._forward.ask(query, read)

    @contextmanager
    def _ends_gathered(self) -> Iterator[None]:
        self._values.gather(self._ends)
        try:
            yield
        finally:
            self._values.release(self._ends)

    def _before(self, layer: nn.Module, given: Any) -> None:
        self._values.gather(layer.parameters())

    def _after(self, layer: nn.Module, given: Any, made: Any) -> None:
        self._values.release(layer.parameters())
