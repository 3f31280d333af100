"""The training loop. It knows no objective by name, no SLURM and no launcher.

A step takes samples ``[(step - 1) N, step N)`` of the stream: which rank holds which of
them, and in how many micro-batches, is cost only. Sums and counts are reduced over all
ranks and divided once, and every random number names the sample it is for.
"""

import math
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from configs.errors import RunError, UserError
from configs.load import to_plain
from configs.run_files import score
from model.draws import Draws
from model.objectives import Batch
from pretrain.checkpoint.training import Checkpoints, SaveError
from pretrain.checkpoint.weights import find
from pretrain.config import RunConfig
from pretrain.data import open_corpus, other_tokenizer
from pretrain.ema import Ema
from pretrain.evaluation.validation import held_out_numbers
from pretrain.launch import preemption
from pretrain.launch.cautions import introduction, weights_of
from pretrain.launch.watchdog import Watchdog
from pretrain.nonfinite import NonFiniteGuard
from pretrain.optim import learning_rate
from pretrain.parallel import engine
from pretrain.parallel.mesh import Mesh
from pretrain.run import banner
from pretrain.run.directory import RunDirectory, provenance
from pretrain.run.loggers import Loggers
from pretrain.run.metrics import Metrics, Row, read_rows
from pretrain.run.progress import Progress
from pretrain.run.throughput import Throughput, peak_memory
from pretrain.step import Losses, TrainingStep


def asked_to_stop(mesh: Mesh) -> bool:
    """Whether any rank has a request to stop, alike on all of them."""
    return mesh.count(int(preemption.reason() is not None))[0] > 0


class StopRequest(Exception):  # noqa: N818 - no error
    """Leave what can be done again, in order to save; raised on all ranks alike."""


class Trainer:
    """A run on one rank: built from its configuration, resumed, then run."""

    def __init__(
        self,
        config: RunConfig,
        directory: RunDirectory,
        mesh: Mesh,
        attempt: int,
        watchdog: Watchdog,
    ) -> None:
        self.watchdog = watchdog
        self.progress = Progress(shown=mesh.is_first)
        self.config, self.directory, self.mesh, self.attempt = config, directory, mesh, attempt
        draws = Draws(seed=config.seed, split="train", batch=config.global_batch)
        self.corpus = open_corpus(config, draws)
        for line in introduction(config, self.corpus, mesh, directory.path):
            self.progress.log(line)
        self.engine = engine.build(config, mesh)
        self.ema = Ema(config.ema, self.engine.shards.masters)
        self.training = TrainingStep(config, self.engine, mesh, self._read, self.corpus.facts)
        self.step = 0
        self.tokens_seen = 0
        self.optimizer_step = 0
        self.guard = NonFiniteGuard(config.max_skipped_steps, config.global_batch)
        self.saved_step = -1
        self.saved_rows: int | None = None
        self.elapsed_before = 0.0
        self.code = provenance() if mesh.is_first else {}
        self.score: float | None = None
        self.validated_step = -1
        self.owes_validation = False
        self.checkpoints = Checkpoints(
            directory.checkpoints, config, self.engine, self.ema, mesh, attempt
        )
        notes = self._resume()
        if config.compile:
            self.engine.compile()
        for note in notes:
            self.progress.log(note)
        if mesh.is_first:
            self._fence()
            self.metrics = Metrics(directory.metrics, self.step, self.saved_rows)
            for note in self.metrics.notes:
                self.progress.log(note)
            self.checkpoints.before_commit = self.metrics.to_disk
            self.loggers = Loggers(
                config,
                directory.path,
                self.step,
                lambda: read_rows(directory.metrics),
                self.progress.log,
            )

    # -- the loop -------------------------------------------------------------------------

    def run(self) -> int:
        """Train to the last step, or to a request to stop; returns the exit status."""
        config = self.config
        self._status("running", "")
        self._began = time.perf_counter()
        stopping = self.owes_validation and not self._validate()
        throughput, first_step = Throughput(self.tokens_seen), self.step + 1
        self.progress.start(config.last_step, self.step)
        while self.step < config.last_step and not stopping:
            self.step += 1
            self._fence()
            first = "its first step", self.step == first_step  # which compiles, on cold data
            throughput.step_begins()
            with self.watchdog.during(*first):
                batches = self.training.read(self.step)
                throughput.data_is_there()
                micro_batches = self.training.corrupt(self.step, batches)
                asked, reported = int(preemption.reason() is not None), self.checkpoints.report()
                counts, (askers, *saved) = self.training.all_reduce_counts(
                    micro_batches, asked, *reported
                )
            stopping = askers > 0
            self._log(self.checkpoints.settle(*saved))
            with self._profiler(), self.watchdog.during(*first):
                sums = self.training.run(self.step, micro_batches, counts)
            self.tokens_seen += counts.tokens
            skipped = self.engine.skipped
            has_loss = not skipped or math.isfinite(self.training.losses(sums, counts).total)
            self._log(self.guard.check(self.step, skipped, has_loss))
            if not skipped:
                self.optimizer_step += 1
                self.ema.update(self.engine.shards.masters, self.optimizer_step)
            due = self._due(config.log.every)
            if due or self.step == first_step:
                row = self._training_row(self.training.losses(sums, counts))
                self.progress.note(row["loss"])
                if due:
                    row |= throughput.measured(self.tokens_seen)
                    row["perf/elapsed_s"] = self._elapsed()
                    row["perf/peak_memory_bytes"] = peak_memory(self.mesh.device)
                    self._write(row)
            self.progress.advance(counts.tokens, throughput.step_seconds)
            if config.eval.every and self._due(config.eval.every):
                self.owes_validation = stopping
                stopping = stopping or not self._validate()
                throughput.restart(self.tokens_seen)
            if self.step % config.checkpoint.every == 0 and not self.guard.loss_is_lost:
                self._save()
        return self._finish(stopping)

    def _read(self, positions: range) -> Batch:
        """Samples of the training stream, on the device."""
        batch = self.corpus.stream.batch(np.array(positions))
        return {key: value.to(self.mesh.device) for key, value in batch.items()}

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.steps

    def _profiler(self) -> AbstractContextManager[Any]:
        if self.step != self.config.profile_step or not self.mesh.is_first:
            return nullcontext()
        trace = self.directory.path / f"profile-{self.step}.json"
        self.progress.log(f"profiling step {self.step} into {trace}")
        return torch.profiler.profile(
            on_trace_ready=lambda profile: profile.export_chrome_trace(str(trace))
        )

    # -- what is written ------------------------------------------------------------------

    def _training_row(self, losses: Losses) -> Row:
        row: Row = {
            "step": self.step,
            "tokens_seen": self.tokens_seen,
            "loss": losses.total,
            "grad_norm": self.engine.grad_norm,
            "train/loss": losses.total,
            "train/grad_norm": self.engine.grad_norm,
            "train/lr": learning_rate(self.config.optim, self.step, self.config.steps),
        }
        if len(losses.terms) > 1:
            row |= {f"train/loss_{name}": value for name, value in losses.terms.items()}
        return row | {f"train/loss_level_{low:.1f}": loss for low, loss in losses.levels.items()}

    def _validate(self) -> bool:
        """Held-out numbers with averaged weights, as a row of their own.

        Returns:
            False where a request to stop came first: the next start validates instead.
        """
        self.owes_validation = True
        patience = self.watchdog.during("its first validation", self.validated_step < 0)
        try:
            with patience, self.ema.applied(self.engine.shards):
                numbers = held_out_numbers(
                    self.engine,
                    self.corpus,
                    self.config,
                    self.mesh,
                    self.training.state,
                    self._go_on_validating,
                )
        except StopRequest:
            return False
        row: Row = {"step": self.step, "tokens_seen": self.tokens_seen}
        row |= {f"val/{name}": value for name, value in numbers.items()}
        found = score([row])
        self.score = None if found is None else found[1]
        self.validated_step = self.step
        self.owes_validation = False
        self._write(row)
        told = ", ".join(f"{name} {value:.4f}" for name, value in numbers.items())
        which = weights_of(self.config, self.step)
        self.progress.log(f"step {self.step}: held-out {told} ({which})")
        return True

    def _go_on_validating(self) -> None:
        self.watchdog.beat()
        if asked_to_stop(self.mesh):
            raise StopRequest

    def _write(self, row: Row) -> None:
        if self.mesh.is_first:
            self.metrics.write(row)
            self.loggers.write(row)

    def _fence(self) -> None:
        """RunError once a newer attempt has begun: what follows is its to write."""
        if self.mesh.is_first and self.directory.superseded(self.attempt):
            raise RunError(f"a newer attempt than {self.attempt} has begun; this one leaves")

    def _elapsed(self) -> float:
        """Seconds in the training loop, over all starts of the run."""
        return self.elapsed_before + time.perf_counter() - self._began

    def _status(self, state: Any, reason: str) -> None:
        if self.mesh.is_first:
            self.directory.write_status(state, self.step, self.attempt, reason)

    # -- beginning and end ----------------------------------------------------------------

    def _resume(self) -> list[str]:
        """Go on from the newest sound checkpoint, or begin; what to tell the user."""
        reader, notes = self.checkpoints.resume()
        if reader is None:
            if self.config.fork_from:
                path = find(Path(self.config.fork_from))
                self.optimizer_step, objective_state, note = self.checkpoints.fork(path)
                self.training.state = objective_state or self.training.state
                return [*notes, note]
            return [*notes, *self.checkpoints.begin()]
        state = reader.state
        trained = state.get("tokenizer_sha256")
        if problem := other_tokenizer(self.corpus.tokenizer, self.corpus.path, trained):
            raise UserError(f"{problem}; restore it, or begin a new run: fork_tokenizer=other")
        self.saved_rows = state.get("metric_rows")
        self.step = self.saved_step = state["step"]
        self.tokens_seen = state["tokens_seen"]
        self.optimizer_step = state["optimizer_step"]
        self.guard.skipped_in_a_row = state["skipped_in_a_row"]
        self.elapsed_before = state["elapsed_s"]
        self.owes_validation = state.get("owes_validation", False)
        self.training.state = reader.objective_state()
        return notes

    def _save(self) -> None:
        self.guard.require_loss(self.step)
        state = {
            "step": self.step,
            "tokens_seen": self.tokens_seen,
            "optimizer_step": self.optimizer_step,
            "skipped_in_a_row": self.guard.skipped_in_a_row,
            "elapsed_s": self._elapsed(),
            "score": self.score if self.validated_step == self.step else None,
            "owes_validation": self.owes_validation,
            "metric_rows": self.metrics.num_rows if self.mesh.is_first else None,
            "tokenizer_sha256": self.corpus.tokenizer.sha256,
            "code": self.code,
            "config": to_plain(self.config),
        }
        with self.watchdog.during("a save"):
            self._log(self.checkpoints.save(state, self.training.state))
        self.saved_step = self.step

    def _log(self, note: str | None) -> None:
        if note:
            self.progress.log(note)

    def _finish(self, stopping: bool) -> int:
        if self.saved_step != self.step:
            self._save()
        with self.watchdog.during("its last save"):
            self._log(self.checkpoints.finish())
        failures = [text for text in self.mesh.all_gather_object(self.checkpoints.failure) if text]
        if failures:
            raise SaveError(failures[0])
        self.checkpoints.close()
        done = self.step >= self.config.steps and not self.owes_validation
        if done:
            self._status("done", "")
        elif stopping:
            self._status("stopped", preemption.reason() or "another rank was asked to stop")
        else:
            self._status("stopped", "stop_after")
        self.progress.close()
        counts = (self.step, self.tokens_seen, self._elapsed())
        if stopping and not done:
            lines = [f"saved at step {self.step} in {self.directory.path}; {preemption.GOES_ON}"]
        else:
            lines = banner.closing(self.config, self.directory.path, *counts)
        for line in lines:
            self.progress.log(line)
        with self.watchdog.during("its end"):
            if self.mesh.is_first:
                self.metrics.close()
                self.loggers.close()
            self.mesh.barrier()
            self.mesh.close()
        return preemption.STOPPED if stopping and not done else 0
