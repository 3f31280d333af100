"""This rank's shards of the optimizer state: flat fp32 masters and moments, and their ranges.

Three of DeepSpeed's optimizers occur: ``DeepSpeedZeroOptimizer`` (ZeRO 1 in
fp32, ZeRO 2), ``BF16_Optimizer`` (ZeRO 1 in bf16) and ``DeepSpeedZeroOptimizer_Stage3``.
All keep flat masters, into which the masters, moments and averages of the parameters are
views: those two by DeepSpeed's own map, the third by the order of its partitions.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from model.networks.initialize import initial_value
from pretrain.parallel.frozen import Frozen
from pretrain.parallel.mesh import Mesh
from pretrain.parallel.ranges import OwnedRange
from pretrain.parallel.shards import ParameterShard


class OptimizerShards:
    """This rank's masters, moments and their ranges, under any of the optimizers.

    Attributes:
        frozen: frozen parameters.
        owned_ranges: where each range of a parameter lies; those of frozen ones come last.
    """

    def __init__(
        self, optimizer: Any, where: Mapping[nn.Parameter, ParameterShard], mesh: Mesh
    ) -> None:
        self._optimizer, self._inner = optimizer, optimizer.optimizer
        self._is_stage3 = hasattr(optimizer, "fp32_partitioned_groups_flat")
        find = self._stage3_ranges if self._is_stage3 else self._mapped_ranges
        self.frozen = Frozen(where, mesh, len(self._master_parameters))
        self.owned_ranges = [*find(where), *self.frozen.owned_ranges]
        self._create_moments()

    @property
    def masters(self) -> list[Tensor]:
        """The flat fp32 masters of this rank."""
        return [master.detach() for master in self._master_parameters]

    @property
    def weights(self) -> list[Tensor]:
        """The masters, followed by the values of frozen parameters."""
        return [*self.masters, *self.frozen.flats]

    def moments(self, key: str) -> list[Tensor]:
        """``exp_avg`` or ``exp_avg_sq``, laid out like the masters."""
        return [self._inner.state[master][key] for master in self._master_parameters]

    def set_learning_rate(self, rate: float) -> None:
        """Set the learning rate of the next step."""
        for group in self._inner.param_groups:
            group["lr"] = rate

    def set_optimizer_step(self, step: int) -> None:
        """Set Adam's step count, which determines its bias correction."""
        for master in self._master_parameters:
            self._inner.state[master]["step"].fill_(step)

    def refresh(self) -> None:
        """Update the weights on every rank from the present masters."""
        if not self._is_stage3:
            self._optimizer.update_lp_params()
            self.frozen.refresh()
            return
        # Weights that are gathered now would be taken for the new ones.
        self._optimizer.parameter_offload.partition_all_parameters()
        self.frozen.refresh()
        for number in range(len(self._optimizer.fp16_groups)):
            self._optimizer._reassign_or_swap_out_partitioned_parameters(number)
        persistent = self._optimizer.persistent_parameters
        if persistent:
            persistent[0].all_gather(persistent)
        self._optimizer.invalidate_secondary_tensor()

    def begin(self, seed: int, embedding_std: float) -> None:
        """Set the masters to the exact fp32 initial values, the moments to zero.

        DeepSpeed's masters are copies of weights already rounded to the precision of the
        run, and its stage 3 takes a step with no gradient while it is built.
        """
        for key in ("exp_avg", "exp_avg_sq"):
            for moment in self.moments(key):
                moment.zero_()
        self.set_optimizer_step(0)
        for owned_range in self.owned_ranges:
            shards = owned_range.range
            whole = initial_value(shards.name, torch.Size(shards.shape), seed, embedding_std)
            index = (slice(a, a + n) for a, n in zip(shards.corner, shards.sizes, strict=True))
            box = whole[tuple(index)].flatten()
            owned_range.of(self.weights).copy_(box[shards.start : shards.start + shards.num])
        self.refresh()

    @property
    def _master_parameters(self) -> list[Tensor]:
        for name in ("fp32_partitioned_groups_flat", "single_partition_of_fp32_groups"):
            if hasattr(self._optimizer, name):
                return list(getattr(self._optimizer, name))
        return list(self._optimizer.fp32_groups_flat_partition)

    def _mapped_ranges(self, where: Mapping[nn.Parameter, ParameterShard]) -> Iterator[OwnedRange]:
        for parameter, place in where.items():
            if not parameter.requires_grad:
                continue
            mapping = parameter._hp_mapping  # type: ignore[attr-defined]
            if mapping is None:  # another rank owns all of it
                continue
            local, flat = mapping.lp_fragment_address, mapping.hp_fragment_address
            yield place.owned_range(local.start, local.numel, mapping.param_group_index, flat.start)

    def _stage3_ranges(self, where: Mapping[nn.Parameter, ParameterShard]) -> Iterator[OwnedRange]:
        """Each data rank owns an even part of every parameter, the last one padded."""
        for number, parameters in enumerate(self._optimizer.fp16_groups):
            rank = torch.distributed.get_rank(self._optimizer.sub_group_process_groups[number])
            offset = 0
            for parameter in parameters:
                size = parameter.ds_tensor.ds_numel
                start = rank * size
                num = min(size, parameter.ds_numel - start)
                if num > 0:
                    yield where[parameter].owned_range(start, num, number, offset)
                offset += size

    def _create_moments(self) -> None:
        """Create the moments that AdamW creates at its first step, so that they can be read."""
        for master in self._master_parameters:
            state = self._inner.state[master]
            if "exp_avg" not in state:
                state["step"] = torch.zeros((), device=master.device)
                state["exp_avg"] = torch.zeros_like(master)
                state["exp_avg_sq"] = torch.zeros_like(master)
