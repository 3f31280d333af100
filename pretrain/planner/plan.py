"""Plan of a run before it starts: parameters, memory, communication and FLOPs of a layout."""

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from model.networks.config import ModelConfig
from model.networks.flops import training_flops_per_token
from pretrain.config import RunConfig
from pretrain.parallel.batch import data_size, micro_batch
from pretrain.parallel.config import ParallelConfig
from pretrain.planner.hardware import DEFAULT_MFU, GIB, Cluster
from pretrain.planner.memory import Memory, memory
from pretrain.planner.speed import Speed, bubble, speed
from pretrain.planner.stages import Stage, stages
from pretrain.planner.traffic import Traffic, traffic


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Predicted numbers of a run under one parallel layout.

    Args:
        layout: with ``data`` and ``micro_batch`` set, and a ZeRO stage of at least 1.
        accumulation: micro-batches per rank and step.
        tokens_per_step: positions in the global batch.
        flops_per_token: forward and backward FLOPs of the full model, attention counted in full.
        expansion, head_share: from the objective: positions that the network processes per
            position of a sample, and the share of them at which the head runs.
        stages, stage_memory, stage_traffic: one per pipeline stage; bytes are per rank.
    """

    parameters: int
    layout: ParallelConfig
    accumulation: int
    tokens_per_step: int
    flops_per_token: float
    expansion: int
    head_share: float
    precision: str
    stages: tuple[Stage, ...]
    stage_memory: tuple[Memory, ...]
    stage_traffic: tuple[Traffic, ...]

    @property
    def ranks(self) -> int:
        """Number of ranks, D x T x P."""
        return self.data * self.layout.tensor * self.layout.pipeline

    @property
    def data(self) -> int:
        """D, the data-parallel size."""
        assert self.layout.data is not None
        return self.layout.data

    @property
    def micro_batch(self) -> int:
        """Samples per rank and forward pass."""
        assert self.layout.micro_batch is not None
        return self.layout.micro_batch

    @property
    def bubble(self) -> float:
        """Pipeline bubble: share of a step in which a rank waits for other stages."""
        return bubble(self.layout.pipeline, self.accumulation)

    @cached_property
    def memory(self) -> Memory:
        """Memory of the stage that needs most, which must fit."""
        return max(self.stage_memory, key=lambda memory: memory.total)

    @cached_property
    def traffic(self) -> Traffic:
        """Traffic of the stage that sends most."""
        return max(self.stage_traffic, key=lambda traffic: traffic.total)

    def speed(self, cluster: Cluster, mfu: float = DEFAULT_MFU) -> Speed:
        """Predicted step time in seconds, of the slowest stage."""
        return speed(
            list(zip(self.stages, self.stage_memory, self.stage_traffic, strict=True)),
            self.layout,
            self.precision,
            self.expansion * self.tokens_per_step // self.data,
            self.accumulation,
            cluster,
            mfu,
        )


def count_parameters(config: ModelConfig) -> int:
    """Number of parameters of the denoiser, including padded rows of the embedding."""
    return sum(stage.parameters for stage in stages(config, 1, 1, 1))


def plan(config: RunConfig, ranks: int | None) -> Plan:
    """The plan of a run on ``ranks`` ranks (None: as many as the layout requires).

    Raises:
        UserError: the layout does not divide ranks or batch.
    """
    size = data_size(config, ranks)
    layout = replace(config.parallel, data=size, micro_batch=micro_batch(config, size))
    return lay_out(config, layout)


def lay_out(config: RunConfig, layout: ParallelConfig) -> Plan:
    """The plan of a run under ``layout``, all of whose sizes are set, instead of its own."""
    layout = replace(layout, zero_stage=max(1, layout.zero_stage))
    assert layout.data is not None
    assert layout.micro_batch is not None
    model, length = config.model, config.data.sequence_length
    accumulation = config.global_batch // (layout.data * layout.micro_batch)
    parts = stages(model, length, layout.tensor, layout.pipeline)
    expansion = config.objective.expansion
    share = config.objective.head_share
    rest = (layout, config.precision, expansion * length, accumulation, share)
    flops = training_flops_per_token(model, length, head_share=share)
    return Plan(
        parameters=count_parameters(model),
        layout=layout,
        accumulation=accumulation,
        tokens_per_step=config.global_batch * length,
        expansion=expansion,
        head_share=share,
        flops_per_token=expansion * flops,
        precision=config.precision,
        stages=parts,
        stage_memory=tuple(memory(model, stage, *rest) for stage in parts),
        stage_traffic=tuple(traffic(model, stage, *rest) for stage in parts),
    )


def describe(config: RunConfig, ranks: int | None) -> str:
    """The plan as human-readable lines."""
    numbers = plan(config, ranks)
    layout, memory, moved = numbers.layout, numbers.memory, numbers.traffic
    extras = ", sequence parallel" if layout.sequence_parallel else ""
    if layout.recompute_every:
        extras += f", every {layout.recompute_every}. block recomputed"
    unit, size = ("GiB", GIB) if memory.total > 10 * GIB else ("MiB", 2**20)
    stage = " of the fullest stage" if layout.pipeline > 1 else ""
    return "\n".join(
        [
            f"parameters       {numbers.parameters:,}",
            f"layout           {numbers.ranks} ranks: data {numbers.data} x tensor "
            f"{layout.tensor} x pipeline {layout.pipeline}, ZeRO {layout.zero_stage}, "
            f"{config.precision}{extras}",
            f"batch            {config.global_batch} samples = {numbers.data} data-parallel ranks "
            f"x {numbers.accumulation} micro-batches of {numbers.micro_batch}",
            f"tokens per step  {numbers.tokens_per_step:,}; of the run "
            f"{numbers.tokens_per_step * config.steps:,}",
            f"operations       {numbers.flops_per_token:.3g} per token, "
            f"{numbers.flops_per_token * numbers.tokens_per_step:.3g} per step, forward and "
            "backward",
            f"memory per rank  about {memory.total / size:,.0f} {unit}{stage}"
            + _kinds(memory, size),
            f"sent per rank    about {moved.total / size:,.0f} {unit} per step"
            + _kinds(moved, size),
            f"pipeline bubble  {numbers.bubble:.1%} of a step",
        ]
    )


def _kinds(numbers: Memory | Traffic, unit: int) -> str:
    """The parts of a total as text, with about three digits."""
    sizes = {kind: value / unit for kind, value in vars(numbers).items() if value}
    texts = (f"{k} {v:,.0f}" if v >= 100 else f"{k} {v:.3g}" for k, v in sizes.items())
    return ": " + ", ".join(texts) if sizes else ""


def as_json(config: RunConfig, ranks: int | None) -> dict[str, Any]:
    """The plan as JSON-serializable data; memory and traffic are in bytes."""
    return to_plain(plan(config, ranks))


def to_plain(numbers: Plan) -> dict[str, Any]:
    """The plan as nested dictionaries and scalars."""
    return {
        "parameters": numbers.parameters,
        "ranks": numbers.ranks,
        "layout": asdict(numbers.layout),
        "micro_batch": numbers.micro_batch,
        "accumulation": numbers.accumulation,
        "tokens_per_step": numbers.tokens_per_step,
        "flops_per_token": numbers.flops_per_token,
        "bubble": numbers.bubble,
        "memory_bytes": {**vars(numbers.memory), "total": numbers.memory.total},
        "traffic_bytes": {**vars(numbers.traffic), "total": numbers.traffic.total},
        "stages": [
            {
                "layers": [stage.layers.start, stage.layers.stop],
                "parameters": stage.parameters,
                "memory_bytes": {**vars(memory), "total": memory.total},
            }
            for stage, memory in zip(numbers.stages, numbers.stage_memory, strict=True)
        ],
    }
