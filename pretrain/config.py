"""The configuration of a training run: what YAML files and ``key=value`` words set.

Its blocks are in files of their own. A default of the trainer is given there or here, and nowhere
else. :func:`differences` tells whether two configurations are of the same run: of the same model,
objective, data, optimizer, seed and global batch.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from configs.build import Plugin
from configs.checks import Checked, at_least, at_most
from configs.load import to_plain
from model.needs import misfits
from model.networks.config import ModelConfig
from model.prediction import OWN
from pretrain.checkpoint.config import CheckpointConfig
from pretrain.data_config import DataConfig
from pretrain.evaluation.config import EvalConfig
from pretrain.launch.device import Device
from pretrain.optim_config import EmaConfig, OptimConfig
from pretrain.parallel.config import MOST, ParallelConfig
from pretrain.parallel.misfits import batch_misfits, each_misfit
from pretrain.run.log_config import LogConfig, WandbConfig


@dataclass(frozen=True, kw_only=True)
class RunConfig(Checked):
    """One training run.

    Args:
        seed: of initial weights, noise and order of the data.
        precision: of the weights in forward and backward (fp16 on a GPU); masters are always fp32.
        steps: optimizer steps of the whole run.
        global_batch: N, samples per step over all ranks; accumulation follows from it.
        run_dir: where the run lives; runs/<name of the last configuration file> if unset.
        fork_from: a checkpoint or run whose weights this new run begins with.
        fork_weights: which weights of ``fork_from``, averaged or raw.
        fork_part: all weights; or only an encoder-decoder's encoder, from a denoiser of BERT's
            kind (``python -m tools.convert from-hf`` makes one of BERT's weights), which may
            have more blocks than are taken.
        fork_optimizer: begin with a fresh optimizer, or keep that run's (raw weights only).
        fork_tokenizer: ``same`` refuses weights that were trained with another tokenizer than
            the corpus's; ``other`` takes them.
        stop_after: end cleanly after this step, saved, to be resumed later.
        device: where ranks compute: a GPU each (``cuda``), the ``cpu``, or GPUs if there are any.
        max_skipped_steps: steps in a row with a non-finite gradient before the run ends.
        compile: run the denoiser through torch.compile.
        profile_step: write a torch profiler trace of this step.
        watchdog_s: seconds without progress after which a rank prints all its stacks; 0 never.
        watchdog_leave: and then ends, with status 70, for a launcher that starts the run again.
        model: the network: a file of model/architectures, dit if it names none.
        objective: what is learned: a file of model/objectives.
    """

    seed: int = 0
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    steps: int
    global_batch: int
    run_dir: str | None = None
    fork_from: str | None = None
    fork_weights: Literal["ema", "raw"] = "ema"
    fork_part: Literal["all", "encoder"] = "all"
    fork_optimizer: Literal["fresh", "kept"] = "fresh"
    fork_tokenizer: Literal["same", "other"] = "same"
    stop_after: int | None = None
    device: Device = "auto"
    max_skipped_steps: int = 10
    compile: bool = False
    profile_step: int | None = None
    watchdog_s: float = 300.0
    watchdog_leave: bool = False
    model: Annotated[ModelConfig, Plugin("model.architectures", default="dit")]
    objective: Annotated[Any, Plugin("model.objectives")]
    data: DataConfig
    optim: OptimConfig = OptimConfig()
    ema: EmaConfig = EmaConfig()
    parallel: ParallelConfig = ParallelConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    eval: EvalConfig = EvalConfig()
    log: LogConfig = LogConfig()
    wandb: WandbConfig = WandbConfig()

    def _check_values(self) -> Iterator[str]:
        yield from at_least(self, 1, "steps", "global_batch", "stop_after", "max_skipped_steps")
        yield from at_least(self, 1, "profile_step")
        yield from at_most(self, MOST, "global_batch")
        yield from at_least(self, 0, "watchdog_s")
        yield from at_most(self, MOST, "watchdog_s")

    def _check_seed(self) -> Iterator[str]:
        if not 0 <= self.seed < 2**63:
            yield f"seed must lie in [0, 2^63), not {self.seed}"

    def _check_length(self) -> Iterator[str]:
        positions = self.steps * self.global_batch
        if positions >= 2**62:
            yield f"steps: {positions:,} samples in all are more than 64 bits can count"

    def _check_fork_part(self) -> Iterator[str]:
        if self.fork_part != "encoder":
            return
        is_model = self.model.encoder_model is not None
        if not (is_model and self.fork_optimizer == "fresh"):
            yield "fork_part=encoder goes with model.encoder=bert and fork_optimizer=fresh"

    def _check_fork_optimizer(self) -> Iterator[str]:
        if self.fork_optimizer == "kept" and self.fork_weights == "ema":
            yield (
                "fork_optimizer=kept goes with the weights it was made for: set fork_weights=raw"
            )

    def _check_objective(self) -> Iterator[str]:
        found = misfits(self.objective.needs, self.model.offers, has_source=self.data.has_source)
        yield from (f"objective: {line}" for line in found)
        for name in self.objective.networks:
            if name == OWN or not _NETWORK_NAME.fullmatch(name):
                yield (
                    f"objective: '{name}' is no name for a network: use small letters, digits and "
                    f"_, and not '{OWN}', which is the one that is trained"
                )

    def _check_layout(self) -> Iterator[str]:
        yield from each_misfit(self.model, self.data.sequence_length, self.parallel)

    def _check_frozen(self) -> Iterator[str]:
        if self.model.frozen:
            from pretrain.parallel import frozen_checks as frozen  # builds the model on `meta`

            length, stages = self.data.sequence_length, self.parallel.pipeline
            yield from frozen.misfits(self.model, length, stages)

    def _check_batch(self) -> Iterator[str]:
        if self.parallel.data is not None:
            yield from batch_misfits(self.global_batch, self.parallel.data, self.parallel)

    @property
    def last_step(self) -> int:
        """Where this start of the run ends: ``steps``, or ``stop_after`` if that is sooner."""
        return self.steps if self.stop_after is None else min(self.steps, self.stop_after)


_NETWORK_NAME = re.compile(r"[a-z][a-z0-9_]*")
"""It is part of the names of tensors in checkpoints."""

IDENTITY = ("seed", "global_batch", "model", "objective", "data", "optim", "ema")
"""The keys that make a run the same run; all others may change when it is resumed."""

_WHERE_ONLY = {"data.demo_dir"}


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """Keys of :data:`IDENTITY` that differ, as ``key: was ..., is ...``; empty for the same run."""
    before, after = to_plain(old), to_plain(new)
    found = []
    for key in IDENTITY:
        found += _leaves(key, before[key], after[key])
    return found


def _leaves(key: str, old: Any, new: Any) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        names = dict.fromkeys([*old, *new])
        return [
            line
            for name in names
            for line in _leaves(f"{key}.{name}", old.get(name), new.get(name))
        ]
    return [] if old == new or key in _WHERE_ONLY else [f"{key}: was {old}, is {new}"]
