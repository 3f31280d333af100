"""The training loop. It knows no objective by name, no SLURM and no launcher.

A step takes samples ``[(step - 1) N, step N)`` of the stream: which rank holds which of
them, and in how many micro-batches, is cost only. Sums and counts are reduced over all
ranks and divided once, and every random number names the sample it is for.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from configs.errors import RunError, UserError
from configs.load import to_plain
from model.draws import Draws
from model.objectives import LEVEL_BUCKETS, LossSums, Noisy
from pretrain import banner, preemption
from pretrain.cautions import introduction, weights_of
from pretrain.checkpoint.training import Checkpoints, SaveError
from pretrain.checkpoint.weights import find
from pretrain.config import RunConfig
from pretrain.data import open_corpus, other_tokenizer
from pretrain.ema import Ema
from pretrain.guard import Guard
from pretrain.layout import positions
from pretrain.loggers import Loggers
from pretrain.metrics import Metrics, Row, read_rows
from pretrain.optim import learning_rate
from pretrain.pace import Pace, peak_memory
from pretrain.parallel import engine
from pretrain.parallel.mesh import Mesh
from pretrain.progress import Progress
from pretrain.run_directory import RunDirectory, facts
from pretrain.validation import held_out_numbers
from pretrain.watchdog import Watchdog


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
        self.draws = Draws(seed=config.seed, split="train", batch=config.global_batch)
        self.corpus = open_corpus(config, self.draws)
        for line in introduction(config, self.corpus, mesh, directory.path):
            self.progress.say(line)
        self.engine = engine.build(config, mesh)
        self.ema = Ema(config.ema, self.engine.owned.masters)
        self.learnt = config.objective.begin()
        self.step = 0
        self.tokens_seen = 0
        self.optimizer_step = 0
        self.guard = Guard(config.max_skipped_steps, config.global_batch)
        self.saved_step = -1
        self.saved_rows: int | None = None
        self.elapsed_before = 0.0
        self.code = facts() if mesh.is_first else {}
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
            self.progress.say(note)
        if mesh.is_first:
            self._fence()
            self.metrics = Metrics(directory.metrics, self.step, self.saved_rows)
            for note in self.metrics.notes:
                self.progress.say(note)
            self.checkpoints.before_commit = self.metrics.to_disk
            self.loggers = Loggers(
                config,
                directory.path,
                self.step,
                lambda: read_rows(directory.metrics),
                self.progress.say,
            )

    # -- the loop -------------------------------------------------------------------------

    def run(self) -> int:
        """Train to the last step, or to a request to stop; returns the exit status."""
        config = self.config
        self._status("running", "")
        self._began = time.perf_counter()
        stopping = self.owes_validation and not self._validate()
        pace, first_step = Pace(self.tokens_seen), self.step + 1
        self.progress.start(config.last_step, self.step)
        while self.step < config.last_step and not stopping:
            self.step += 1
            self._fence()
            first = "its first step", self.step == first_step  # which compiles, on cold data
            pace.step_begins()
            with self.watchdog.during(*first):
                batches = list(self._read()) if self.mesh.reads or config.objective.drafts else []
                pace.data_is_there()
                micro_batches, own_count = self._corrupt(batches)
                asked, reported = int(preemption.reason() is not None), self.checkpoints.report()
                count, askers, *saved = self.mesh.agree(own_count, asked, *reported)
            stopping = askers > 0
            self._say(self.checkpoints.settle(*saved))
            rate = learning_rate(config.optim, self.step, config.steps)
            # Dropout is the one draw that torch makes: seeded by step, a resume repeats it.
            torch.manual_seed(self.draws.key(f"dropout/{self.step}/{self.mesh.data_rank}"))
            self.engine.open_attention(self.draws, self.step)
            with self._profiler(), self.watchdog.during(*first):
                sums = self.engine.train_step(micro_batches, count, rate)
            self.tokens_seen += count
            self._learn(sums)
            skipped = self.engine.skipped
            has_loss = not skipped or bool(self.mesh.total(sums.loss).isfinite())
            self._say(self.guard.check(self.step, skipped, has_loss))
            if not skipped:
                self.optimizer_step += 1
                self.ema.update(self.engine.owned.masters, self.optimizer_step)
            due = self._due(config.log.every)
            if due or self.step == first_step:
                row = self._training_row(sums, count, rate)
                self.progress.note(row["loss"])
                if due:
                    row |= pace.measured(self.tokens_seen)
                    row["perf/elapsed_s"] = self._elapsed()
                    row["perf/peak_memory_bytes"] = peak_memory(self.mesh.device)
                    self._write(row)
            self.progress.advance(count, pace.step_seconds)
            if config.eval.every and self._due(config.eval.every):
                self.owes_validation = stopping
                stopping = stopping or not self._validate()
                pace.restart(self.tokens_seen)
            if self.step % config.checkpoint.every == 0 and not self.guard.loss_is_lost:
                self._save()
        return self._finish(stopping)

    def _read(self) -> Iterator[dict[str, Tensor]]:
        """This rank's micro-batches of the step, on its device."""
        mesh = self.mesh
        for mine in positions(self.config, self.step, mesh.data_rank, mesh.data_size):
            batch = self.corpus.stream.batch(np.array(mine))
            yield {key: value.to(mesh.device) for key, value in batch.items()}

    def _corrupt(self, batches: list[dict[str, Tensor]]) -> tuple[list[Noisy], Tensor]:
        """The noisy micro-batches, and this rank's count of tokens."""
        config = self.config
        micro_batches = [
            config.objective.corrupt(batch, self.draws, config.model, self.learnt)
            for batch in batches
        ]
        counts = [noisy.count for noisy in micro_batches]
        none = torch.zeros((), dtype=torch.int64, device=self.mesh.device)
        return micro_batches, torch.stack([none, *counts]).sum()

    def _learn(self, sums: LossSums) -> None:
        """What the objective keeps of its losses, alike on all ranks."""
        if self.learnt:
            config = self.config
            first = (self.step - 1) * config.global_batch
            position_N = torch.arange(first, first + config.global_batch, device=self.mesh.device)
            losses_N = self.engine.sample_losses(config, self.step, sums)
            self.learnt = config.objective.learn(self.learnt, losses_N, position_N, self.draws)

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.steps

    def _profiler(self) -> AbstractContextManager[Any]:
        if self.step != self.config.profile_step or not self.mesh.is_first:
            return nullcontext()
        trace = self.directory.path / f"profile-{self.step}.json"
        self.progress.say(f"profiling step {self.step} into {trace}")
        return torch.profiler.profile(
            on_trace_ready=lambda profile: profile.export_chrome_trace(str(trace))
        )

    # -- what is written ------------------------------------------------------------------

    def _training_row(self, sums: LossSums, count: int, rate: float) -> Row:
        packed = torch.cat([sums.loss[None], sums.level_loss, sums.level_count]).double()
        loss, *levels = self.mesh.total(packed).tolist()
        level_loss, level_count = levels[:LEVEL_BUCKETS], levels[LEVEL_BUCKETS:]
        row: Row = {
            "step": self.step,
            "tokens_seen": self.tokens_seen,
            "loss": loss / count,
            "grad_norm": self.engine.grad_norm,
            "train/loss": loss / count,
            "train/grad_norm": self.engine.grad_norm,
            "train/lr": rate,
        }
        for bucket, (part, tokens) in enumerate(zip(level_loss, level_count, strict=True)):
            if tokens:
                row[f"train/loss_level_{bucket / LEVEL_BUCKETS:.1f}"] = part / tokens
        return row

    def _validate(self) -> bool:
        """Held-out numbers with averaged weights, as a row of their own.

        Returns:
            False where a request to stop came first: the next start validates instead.
        """
        self.owes_validation = True
        patience = self.watchdog.during("its first validation", self.validated_step < 0)
        try:
            with patience, self.ema.applied(self.engine.owned):
                numbers = held_out_numbers(
                    self.engine, self.corpus, self.config, self.mesh, self._go_on_validating
                )
        except StopRequest:
            return False
        self.score, self.validated_step = next(iter(numbers.values())), self.step
        self.owes_validation = False
        row: Row = {"step": self.step, "tokens_seen": self.tokens_seen}
        self._write(row | {f"val/{name}": value for name, value in numbers.items()})
        told = ", ".join(f"{name} {value:.4f}" for name, value in numbers.items())
        which = weights_of(self.config, self.step)
        self.progress.say(f"step {self.step}: held-out {told} ({which})")
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
        state, notes = self.checkpoints.resume()
        if state is None:
            if self.config.fork_from:
                path = find(Path(self.config.fork_from))
                self.optimizer_step, note = self.checkpoints.fork(path)
                notes.append(note)
            return notes
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
        self.learnt = {
            name: torch.tensor(state["objective"][name], dtype=value.dtype)
            for name, value in self.learnt.items()
        }
        return notes

    def _save(self) -> None:
        self.guard.require_loss(self.step)
        state = {
            "step": self.step,
            "tokens_seen": self.tokens_seen,
            "optimizer_step": self.optimizer_step,
            "skipped_in_a_row": self.guard.skipped_in_a_row,
            "elapsed_s": self._elapsed(),
            "objective": {name: value.tolist() for name, value in self.learnt.items()},
            "score": self.score if self.validated_step == self.step else None,
            "owes_validation": self.owes_validation,
            "metric_rows": self.metrics.num_rows if self.mesh.is_first else None,
            "tokenizer_sha256": self.corpus.tokenizer.sha256,
            "code": self.code,
            "config": to_plain(self.config),
        }
        with self.watchdog.during("a save"):
            self._say(self.checkpoints.save(state))
        self.saved_step = self.step

    def _say(self, note: str | None) -> None:
        if note:
            self.progress.say(note)

    def _finish(self, stopping: bool) -> int:
        if self.saved_step != self.step:
            self._save()
        with self.watchdog.during("its last save"):
            self._say(self.checkpoints.finish())
        failures = [text for text in self.mesh.everyone(self.checkpoints.failure) if text]
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
            self.progress.say(line)
        with self.watchdog.during("its end"):
            if self.mesh.is_first:
                self.metrics.close()
                self.loggers.close()
            self.mesh.barrier()
            self.mesh.close()
        return preemption.STOPPED if stopping and not done else 0
