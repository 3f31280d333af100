"""The training loop. It knows no objective by name, no SLURM and no launcher.

A step takes samples ``[(step - 1) N, step N)`` of the stream: which rank holds which of
them, and in how many micro-batches, changes cost only. Sums and counts are reduced over all
ranks and divided once, and every random draw is keyed by the sample that it is for.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from configs.errors import UserError
from configs.exit_codes import STOPPED
from configs.load import to_plain
from configs.run_files import score
from model.draws import Draws
from model.objectives import LossSums, Noisy
from pretrain.checkpoint.training import Checkpoints, SaveError
from pretrain.checkpoint.weights import find
from pretrain.config import RunConfig
from pretrain.data import Corpus, open_corpus, other_tokenizer
from pretrain.ema import Ema
from pretrain.evaluation.validation import Validator
from pretrain.hooks import Hooks
from pretrain.launch import preemption
from pretrain.launch.cautions import introduction, weights_of
from pretrain.launch.watchdog import Watchdog
from pretrain.nonfinite import NonFiniteGuard
from pretrain.optim import learning_rate
from pretrain.parallel.build import build
from pretrain.parallel.engine import Engine
from pretrain.parallel.mesh import Mesh
from pretrain.run import banner, console
from pretrain.run.attempt import Attempt
from pretrain.run.directory import provenance
from pretrain.run.metrics import Row
from pretrain.run.metrics_processor import MetricsProcessor
from pretrain.run.progress import Progress
from pretrain.run.throughput import Throughput, peak_memory
from pretrain.step import Counts, Losses, TrainingStep
from pretrain.train_state import TrainState


class Trainer:
    """A run on one rank: built from its configuration, resumed, then run.

    Args:
        attempt: this start of the run.
        hooks: called at the points that :class:`pretrain.hooks.Hook` names.

    Attributes:
        first_step: of this start.
        saved_step: of the newest checkpoint; None before the first save of a run.
        stopping: a request to stop has reached some rank.
        code: commit and packages, on the rank that writes.
    """

    config: RunConfig
    attempt: Attempt
    mesh: Mesh
    watchdog: Watchdog
    hooks: Hooks
    progress: Progress
    corpus: Corpus
    engine: Engine
    ema: Ema
    training: TrainingStep
    state: TrainState
    guard: NonFiniteGuard
    validator: Validator
    checkpoints: Checkpoints
    metrics: MetricsProcessor
    throughput: Throughput
    code: Mapping[str, Any]
    first_step: int
    saved_step: int | None
    stopping: bool

    def __init__(
        self,
        config: RunConfig,
        attempt: Attempt,
        mesh: Mesh,
        watchdog: Watchdog,
        hooks: Hooks = (),
    ) -> None:
        self.config, self.attempt, self.mesh = config, attempt, mesh
        self.watchdog, self.hooks = watchdog, hooks
        self.progress = Progress(shown=mesh.is_first)
        draws = Draws(seed=config.seed, split="train", batch=config.global_batch)
        self.corpus = open_corpus(config, draws)
        directory = attempt.directory
        self._log(*introduction(config, self.corpus, mesh, directory.path))
        self.engine = build(config, mesh)
        self.ema = Ema(config.ema, self.engine.shards.masters)
        read = partial(self.corpus.batch, device=mesh.device)
        self.training = TrainingStep(config, self.engine, mesh, read, self.corpus.facts)
        self.state = TrainState()
        self.guard = NonFiniteGuard(self.state, config.max_skipped_steps, config.global_batch)
        self.validator = Validator(config, self.corpus, self.engine, self.ema, mesh, watchdog)
        self.throughput = Throughput()
        self.code = provenance() if mesh.is_first else {}
        self.saved_step, self.stopping = None, False
        self.checkpoints = Checkpoints(
            directory.checkpoints, config, self.engine, self.ema, mesh, attempt.number
        )
        notes = self._resume()
        self.first_step = self.state.step + 1
        if config.compile:
            self.engine.compile()
        self._log(*notes)
        attempt.require_newest()
        self.metrics = MetricsProcessor(
            config,
            directory,
            self.state.step,
            self.state.metric_rows,
            writes=mesh.is_first,
        )
        self.checkpoints.before_commit = self._before_commit
        for hook in hooks:
            hook.on_init_end(self)

    # -- the loop -------------------------------------------------------------------------

    def run(self) -> int:
        """Train to the last step, or to a request to stop; returns the exit status."""
        self.attempt.write_status("running", self.state.step)
        self.throughput.start(self.state.tokens_seen, self.state.elapsed_s)
        if self.state.owes_validation:
            self._validate()
        self.progress.start(self.config.last_step, self.state.step)
        while self.state.step < self.config.last_step and not self.stopping:
            self.state.begin_step()
            self.attempt.require_newest()
            sums, counts = self._train_step()
            self._log_step(sums, counts)
            for hook in self.hooks:
                hook.on_step_end(self)
            if self._due(self.config.eval.every):
                self._validate()
            if self.state.step % self.config.checkpoint.every == 0 and not self.guard.loss_is_lost:
                self._save()
        return self._finish()

    def _train_step(self) -> tuple[LossSums, Counts]:
        """Take one step; its one reduction also polls requests to stop, and saves in flight."""
        number = self.state.step
        self.throughput.step_begins()
        # The first step compiles, and reads data that no cache holds yet.
        with self.watchdog.during("its first step", number == self.first_step):
            batches = self.training.read(number)
            self.throughput.data_is_there()
            micro_batches = self.training.corrupt(number, batches)
            counts = self._all_reduce_counts(micro_batches)
            self.watchdog.beat()
            with self._profiler():
                sums = self.training.run(number, micro_batches, counts)
        self.state.tokens_seen += counts.tokens
        skipped = self.engine.skipped
        has_loss = not skipped or math.isfinite(self.training.losses(sums, counts).total)
        self._log(self.guard.check(skipped, has_loss))
        if not skipped:
            self.state.optimizer_step += 1
            self.ema.update(self.engine.shards.masters, self.state.optimizer_step)
        return sums, counts

    def _all_reduce_counts(self, micro_batches: Sequence[Noisy]) -> Counts:
        asked, reported = int(preemption.reason() is not None), self.checkpoints.report()
        counts, (askers, *saved) = self.training.all_reduce_counts(micro_batches, asked, *reported)
        self.stopping = askers > 0
        self._log(self.checkpoints.settle(*saved))
        return counts

    def _due(self, every: int) -> bool:
        """Whether the step is a multiple of ``every`` (0: never), or the last one."""
        return every > 0 and (self.state.step % every == 0 or self.state.step == self.config.steps)

    def _profiler(self) -> AbstractContextManager[Any]:
        step = self.state.step
        if step != self.config.profile_step or not self.mesh.is_first:
            return nullcontext()
        trace = self.attempt.directory.path / f"profile-{step}.json"
        self._log(f"profiling step {step} into {trace}")
        return torch.profiler.profile(
            on_trace_ready=lambda profile: profile.export_chrome_trace(str(trace))
        )

    # -- what is written ------------------------------------------------------------------

    def _log(self, *lines: str | None) -> None:
        for line in lines:
            if line and self.mesh.is_first:
                console.log(line)

    def _log_step(self, sums: LossSums, counts: Counts) -> None:
        """Write the row of a step where one is due; show its progress."""
        due = self._due(self.config.log.every)
        if due or self.state.step == self.first_step:
            row = self._training_row(self.training.losses(sums, counts))
            self.progress.show_loss(row["loss"])
            if due:
                row |= self.throughput.measured(self.state.tokens_seen)
                row["perf/elapsed_s"] = self.throughput.elapsed_s
                row["perf/peak_memory_bytes"] = peak_memory(self.mesh.device)
                self.metrics.write(row)
        self.progress.advance(counts.tokens, self.throughput.step_seconds)

    def _training_row(self, losses: Losses) -> Row:
        row: Row = {
            "step": self.state.step,
            "tokens_seen": self.state.tokens_seen,
            "loss": losses.total,
            "grad_norm": self.engine.grad_norm,
            "train/loss": losses.total,
            "train/grad_norm": self.engine.grad_norm,
            "train/lr": learning_rate(self.config.optim, self.state.step, self.config.steps),
        }
        if len(losses.terms) > 1:
            row |= {f"train/loss_{name}": value for name, value in losses.terms.items()}
        return row | {f"train/loss_level_{low:.1f}": loss for low, loss in losses.levels.items()}

    def _validate(self) -> None:
        """Compute held-out numbers of the averaged weights, and write them as a row of their own.

        After a request to stop, or where one comes meanwhile, the next start validates instead.
        """
        state = self.state
        state.owes_validation = True
        numbers = None if self.stopping else self.validator.validate(self.training.state)
        if numbers is None:
            self.stopping = True
        else:
            row: Row = {"step": state.step, "tokens_seen": state.tokens_seen}
            row |= {f"val/{name}": value for name, value in numbers.items()}
            found = score([row])
            state.score = None if found is None else found[1]
            state.owes_validation = False
            self.metrics.write(row)
            listed = ", ".join(f"{name} {value:.4f}" for name, value in numbers.items())
            which = weights_of(self.config, state.step)
            self._log(f"step {state.step}: held-out {listed} ({which})")
        self.throughput.restart(state.tokens_seen)

    # -- checkpoints, begin and end -------------------------------------------------------

    def _resume(self) -> list[str]:
        """Load the newest sound checkpoint, or begin a run; returns lines for the user."""
        reader, notes = self.checkpoints.resume()
        if reader is None:
            if self.config.fork_from:
                path = find(Path(self.config.fork_from))
                self.state.optimizer_step, objective_state, note = self.checkpoints.fork(path)
                self.training.state = objective_state or self.training.state
                return [*notes, note]
            return [*notes, *self.checkpoints.begin()]
        trained = reader.state.get("tokenizer_sha256")
        if problem := other_tokenizer(self.corpus.tokenizer, self.corpus.path, trained):
            raise UserError(f"{problem}; restore it, or begin a new run: fork_tokenizer=other")
        self.state.load_state_dict(reader.state)
        self.saved_step = self.state.step
        self.training.state = reader.objective_state()
        return notes

    def _save(self) -> None:
        self.guard.require_loss()
        self.state.elapsed_s = self.throughput.elapsed_s
        self.state.metric_rows = self.metrics.num_rows
        saved = {
            **self.state.state_dict(),
            "tokenizer_sha256": self.corpus.tokenizer.sha256,
            "code": self.code,
            "config": to_plain(self.config),
        }
        with self.watchdog.during("a save"):
            self._log(self.checkpoints.save(saved, self.training.state))
        self.saved_step = self.state.step

    def _before_commit(self) -> None:
        self.metrics.to_disk()
        for hook in self.hooks:
            hook.on_commit(self)

    def _finish(self) -> int:
        """Save the last step, write how the run stands, and close everything; the exit status."""
        if self.saved_step != self.state.step:
            self._save()
        with self.watchdog.during("its last save"):
            self._log(self.checkpoints.finish())
        failures = [text for text in self.mesh.all_gather_object(self.checkpoints.failure) if text]
        if failures:
            raise SaveError(failures[0])
        self.checkpoints.close()
        step, path = self.state.step, self.attempt.directory.path
        done = step >= self.config.steps and not self.state.owes_validation
        stopped = self.stopping and not done
        reason = preemption.reason() or "another rank was asked to stop"
        self.attempt.write_status(
            "done" if done else "stopped", step, "" if done else reason if stopped else "stop_after"
        )
        self.progress.close()
        if stopped:
            self._log(f"saved at step {step} in {path}; {preemption.GOES_ON}")
        else:
            spent = self.state.tokens_seen, self.throughput.elapsed_s
            self._log(*banner.closing(self.config, path, step, *spent))
        with self.watchdog.during("its end"):
            for hook in self.hooks:
                hook.on_train_end(self)
            self.metrics.close()
            self.mesh.barrier()
            self.mesh.close()
        return STOPPED if stopped else 0
