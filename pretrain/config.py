"""The configuration of a training run: what YAML files and ``key=value`` words set.

Every default of the trainer stands here and nowhere else. What makes two runs the same
run (model, objective, data, optimizer, seed, global batch) is :func:`differences`.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from configs.load import Plugin, to_plain
from data_pipeline.paragraphs import ParagraphConfig
from model.config import ModelConfig
from pretrain.layout import misfits


def _at_least(owner: Any, least: float, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the text comes from and how it becomes samples.

    Args:
        corpus: a corpus directory made by ``python -m data_pipeline``, or ``demo``: the
            Python language reference, prepared on first use.
        demo_dir: where the demo corpus is kept.
        sequence_length: L, frame included.
        packing: ``wrap`` concatenates documents and cuts; ``pad`` keeps them apart;
            ``paragraphs`` masks spans of them, ``pairs`` reads sources and targets: both of
            these are for an encoder-decoder, whose target has ``sequence_length`` positions.
        source_length: S, positions of the source.
        paragraphs: how spans are masked (continuous paragraph denoise).
        train_split: name of the corpus's split to train on.
        valid_split: name of its held-out split.
    """

    corpus: str
    demo_dir: str = "runs/corpora"
    sequence_length: int
    packing: Literal["wrap", "pad", "paragraphs", "pairs"] = "wrap"
    source_length: int | None = None
    paragraphs: ParagraphConfig = ParagraphConfig()
    train_split: str = "train"
    valid_split: str = "valid"

    def __post_init__(self) -> None:
        _at_least(self, 3, "sequence_length", "source_length")
        if self.has_source and self.source_length is None:
            raise ValueError(f"packing {self.packing} needs source_length")
        if not self.has_source and self.source_length is not None:
            raise ValueError(f"packing {self.packing} has no source: leave source_length out")

    @property
    def has_source(self) -> bool:
        """Whether samples are a source and a target."""
        return self.packing in ("paragraphs", "pairs")


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
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

    def __post_init__(self) -> None:
        _at_least(self, 0, "warmup", "final")
        if not 0 < self.decay_share <= 1:
            raise ValueError(f"decay_share must lie in (0, 1], not {self.decay_share}")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
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

    def __post_init__(self) -> None:
        _at_least(self, 0, "lr", "eps", "weight_decay", "clip")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), not {list(self.betas)}")


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """Exponential moving average of the weights, which is validated, sampled and exported.

    Args:
        decay: share of the average that stays at each step; after n steps at most
            (1 + n) / (10 + n), so that it reaches back over a tenth of a short run; 0 is off.
    """

    decay: float = 0.9999

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must lie in [0, 1), not {self.decay}")


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """How a run is spread over D x T x P ranks; it changes its cost, never its numbers.

    Args:
        data: data-parallel size D; by default what the ranks leave over, or 1.
        tensor: tensor-parallel size T: every matrix is cut into T parts.
        pipeline: pipeline-parallel size P: the list of layers is cut into P stages.
        zero_stage: what DeepSpeed shards over D: 1 optimizer state, 2 also gradients, 3 also
            weights. 0 runs as 1; with a pipeline only 1 is possible.
        sequence_parallel: between its matrices, cut the activations along the sequence over
            the T ranks too (Korthikanti et al. 2022).
        micro_batch: samples of a rank per forward pass; by default all of its share, with a
            pipeline a 4 P-th of it.
        recompute_every: activation checkpointing of every n-th block: 1 is all of them, 0
            none; backward computes these blocks again instead of keeping their insides.
    """

    data: int | None = None
    tensor: int = 1
    pipeline: int = 1
    zero_stage: int = 1
    sequence_parallel: bool = False
    micro_batch: int | None = None
    recompute_every: int = 0

    def __post_init__(self) -> None:
        _at_least(self, 1, "data", "tensor", "pipeline", "micro_batch")
        _at_least(self, 0, "recompute_every")
        if self.zero_stage not in (0, 1, 2, 3):
            raise ValueError(f"zero_stage must be 0, 1, 2 or 3, not {self.zero_stage}")
        if self.pipeline > 1 and self.zero_stage > 1:
            raise ValueError(
                f"zero_stage {self.zero_stage} cannot run with a pipeline, whose stages keep "
                "their gradients over all micro-batches: set zero_stage to 1, or pipeline to 1"
            )
        if self.sequence_parallel and self.tensor == 1:
            raise ValueError("sequence_parallel needs tensor > 1: it shares out T's activations")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
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

    def __post_init__(self) -> None:
        _at_least(self, 1, "every", "keep_last")
        _at_least(self, 0, "keep_every", "keep_best")


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
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

    def __post_init__(self) -> None:
        _at_least(self, 0, "every")
        _at_least(self, 1, "samples", "batch", "windows")


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """The metrics of a run.

    Args:
        every: steps between rows of metrics.jsonl.
    """

    every: int = 10

    def __post_init__(self) -> None:
        _at_least(self, 1, "every")


@dataclass(frozen=True, kw_only=True)
class WandbConfig:
    """Weights & Biases beside metrics.jsonl.

    Args:
        mode: ``offline`` keeps its files in the run directory, without account and network.
        project: under which it lists the run.
    """

    mode: Literal["disabled", "offline", "online"] = "offline"
    project: str = "palimpsest"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
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
        stop_after: end cleanly after this step, saved, to be resumed later.
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
    stop_after: int | None = None
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

    def __post_init__(self) -> None:
        _at_least(self, 1, "steps", "global_batch", "stop_after", "max_skipped_steps")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must lie in [0, 2^63), not {self.seed}")
        _at_least(self, 0, "watchdog_s")
        is_bert = self.model.seq2seq is not None and self.model.seq2seq.encoder == "bert"
        if self.fork_part == "encoder" and not (is_bert and self.fork_optimizer == "fresh"):
            raise ValueError(
                "fork_part=encoder goes with model.seq2seq.encoder=bert and fork_optimizer=fresh"
            )
        if self.fork_optimizer == "kept" and self.fork_weights == "ema":
            raise ValueError(
                "fork_optimizer=kept goes with the weights it was made for: set fork_weights=raw"
            )
        self.objective.check(self.model)
        if self.data.has_source != (self.model.seq2seq is not None):
            raise ValueError(
                f"data.packing {self.data.packing} and model.seq2seq do not go together: an "
                "encoder-decoder reads paragraphs or pairs, a denoiser wrap or pad"
            )
        problems = misfits(self.model, self.data.sequence_length, self.parallel)
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def last_step(self) -> int:
        """Where this start of the run ends: ``steps``, or ``stop_after`` if that is sooner."""
        return self.steps if self.stop_after is None else min(self.steps, self.stop_after)


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
