"""The configuration of a training run: what YAML files and ``key=value`` words set.

Every default of the trainer stands here and nowhere else. What makes two runs the same
run (model, objective, data, optimizer, seed, global batch) is :func:`differences`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from configs.build import Plugin
from configs.checks import Checked, at_least, at_most
from configs.load import to_plain
from data_pipeline.paragraphs import ParagraphConfig
from model.needs import misfits
from model.networks.config import ModelConfig
from model.prediction import OWN
from pretrain.launch.device import Device
from pretrain.parallel.batch import batch_misfits, each_misfit
from pretrain.parallel.config import MOST, ParallelConfig


@dataclass(frozen=True, kw_only=True)
class DataConfig(Checked):
    """Where the text comes from and how it becomes samples.

    Args:
        corpus: a corpus directory made by ``python -m data_pipeline``, or ``demo``: the
            Python language reference, prepared on first use.
        demo_dir: where the demo corpus is kept.
        sequence_length: L, frame included.
        packing: ``wrap`` concatenates documents and cuts; ``pad`` keeps them apart (what becomes
            of the padding is the objective's: ``objective.padding``);
            ``paragraphs`` masks spans of them, ``pairs`` reads sources and targets: both of
            these are for an encoder-decoder, whose target has ``sequence_length`` positions.
        document_mask: let no position attend to another document that shares its sample (wrap).
        source_length: S, positions of the source.
        paragraphs: how spans are masked (continuous paragraph denoise).
        train_split: name of the corpus's split to train on.
        valid_split: name of its held-out split.
    """

    corpus: str
    demo_dir: str = "runs/corpora"
    sequence_length: int
    packing: Literal["wrap", "pad", "paragraphs", "pairs"] = "wrap"
    document_mask: bool = False
    source_length: int | None = None
    paragraphs: ParagraphConfig = ParagraphConfig()
    train_split: str = "train"
    valid_split: str = "valid"

    def _check_values(self) -> Iterator[str]:
        yield from at_least(self, 3, "sequence_length", "source_length")
        yield from at_most(self, MOST, "sequence_length", "source_length")

    def _check_source(self) -> Iterator[str]:
        if self.has_source and self.source_length is None:
            yield f"source_length: packing {self.packing} needs source_length"
        if not self.has_source and self.source_length is not None:
            yield f"source_length: packing {self.packing} has no source: leave source_length out"

    def _check_document_mask(self) -> Iterator[str]:
        if self.document_mask and self.packing != "wrap":
            yield f"document_mask: with packing {self.packing} no documents share a sample"

    @property
    def has_source(self) -> bool:
        """Whether samples are a source and a target."""
        return self.packing in ("paragraphs", "pairs")


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Checked):
    """Learning rate over the run: linear warm-up, then constant, cosine or wsd.

    Args:
        name: after warm-up: constant; cosine to ``final``; or wsd, which holds the rate and lets
            it fall linearly over the last ``decay_share`` of the steps (Hu et al. 2024, MiniCPM).
        warmup: steps of linear warm-up from 0.
        final: the rate at the end, as a share of ``lr`` (cosine and wsd).
        decay_share: share of the steps over which the rate falls (wsd).
    """

    name: Literal["constant", "cosine", "wsd"] = "constant"
    warmup: int = 0
    final: float = 0.0
    decay_share: float = 0.2

    def _check_values(self) -> Iterator[str]:
        yield from at_least(self, 0, "warmup", "final")
        if not 0 < self.decay_share <= 1:
            yield f"decay_share must lie in (0, 1], not {self.decay_share}"


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Checked):
    """AdamW; norms, biases and embeddings are never decayed.

    Args:
        lr: the learning rate after warm-up.
        betas: decay of the first and second moment.
        eps: added to the root of the second moment.
        weight_decay: decoupled, of the matrices only.
        clip: bound on the global gradient norm; 0 turns clipping off.
    """

    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: float = 1.0
    schedule: ScheduleConfig = ScheduleConfig()

    def _check_values(self) -> Iterator[str]:
        yield from at_least(self, 0, "lr", "eps", "weight_decay", "clip")

    def _check_betas(self) -> Iterator[str]:
        if not all(0 <= beta < 1 for beta in self.betas):
            yield f"betas must lie in [0, 1), not {list(self.betas)}"


@dataclass(frozen=True, kw_only=True)
class EmaConfig(Checked):
    """Exponential moving average of the weights, which is validated, sampled and exported.

    Args:
        decay: share of the average that stays at each step; after n steps at most
            (1 + n) / (10 + n), so that it reaches back over a tenth of a short run; 0 is off.
    """

    decay: float = 0.9999

    def _check_decay(self) -> Iterator[str]:
        if not 0 <= self.decay < 1:
            yield f"decay must lie in [0, 1), not {self.decay}"


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig(Checked):
    """How often a run is saved, and which of its checkpoints stay.

    Args:
        every: steps between saves; one is always made at the end.
        keep_last: how many of the newest stay.
        keep_every: those of every so many steps stay too; 0 for none.
        keep_best: so many with the best held-out bound stay too.
        asynchronous: write while training goes on, which waits only for a copy in memory.
    """

    every: int = 1000
    keep_last: int = 2
    keep_every: int = 0
    keep_best: int = 0
    asynchronous: bool = True

    def _check_values(self) -> Iterator[str]:
        yield from at_least(self, 1, "every", "keep_last")
        yield from at_least(self, 0, "keep_every", "keep_best")


@dataclass(frozen=True, kw_only=True)
class EvalConfig(Checked):
    """Validation while training.

    Args:
        every: steps between validations; 0 for none.
        samples: corruptions of each held-out window; more make the number less noisy.
        batch: windows per forward pass.
        windows: use only so many windows; by default all of the split.
    """

    every: int = 0
    samples: int = 1
    batch: int = 32
    windows: int | None = None

    def _check_values(self) -> Iterator[str]:
        yield from at_least(self, 0, "every")
        yield from at_least(self, 1, "samples", "batch", "windows")
        yield from at_most(self, MOST, "samples", "batch", "windows")


@dataclass(frozen=True, kw_only=True)
class LogConfig(Checked):
    """Where the numbers go, beside metrics.jsonl.

    Args:
        every: steps between rows.
        tensorboard: event files for TensorBoard, in the run directory's ``tensorboard``.
        csv: the rows as a table, metrics.csv.
    """

    every: int = 10
    tensorboard: bool = False
    csv: bool = False

    def _check_values(self) -> Iterator[str]:
        yield from at_least(self, 1, "every")


@dataclass(frozen=True, kw_only=True)
class WandbConfig:
    """Weights & Biases beside metrics.jsonl.

    Args:
        mode: ``online`` sends rows as they come; ``offline`` keeps them in the run directory,
            without an account and a network, until ``wandb sync``.
        project: under which it lists the run.
    """

    mode: Literal["disabled", "offline", "online"] = "disabled"
    project: str = "palimpsest"


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
    model: ModelConfig
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
        is_bert = self.model.seq2seq is not None and self.model.seq2seq.encoder == "bert"
        if not (is_bert and self.fork_optimizer == "fresh"):
            yield "fork_part=encoder goes with model.seq2seq.encoder=bert and fork_optimizer=fresh"

    def _check_fork_optimizer(self) -> Iterator[str]:
        if self.fork_optimizer == "kept" and self.fork_weights == "ema":
            yield (
                "fork_optimizer=kept goes with the weights it was made for: set fork_weights=raw"
            )

    def _check_objective(self) -> Iterator[str]:
        found = misfits(self.objective.needs, self.model, has_source=self.data.has_source)
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
            from pretrain.parallel import frozen_checks as frozen  # which reads this file

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
    """What makes ``new`` another run than ``old``: ``key: was ..., is ...`` for each."""
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
