"""The state of training, to and from checkpoints.

Every rank saves the ranges it owns and reads the ranges it owns: masters, both moments
and the average; the step and plain data are one file for all. What a run needs besides
(learning rate, noise, order of the data) follows from its configuration and its step.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from configs.errors import RunError, UserError
from model.seq2seq import name_in_encoder
from pretrain.checkpoint import retention, store
from pretrain.checkpoint.pieces import Piece
from pretrain.checkpoint.reader import Reader
from pretrain.checkpoint.saver import Saver
from pretrain.config import RunConfig
from pretrain.ema import Ema
from pretrain.parallel.engine import Engine
from pretrain.parallel.mesh import Mesh

Names = Callable[[str], str | None]


class SaveError(RunError):
    """The last checkpoint of a run could not be written."""


class Checkpoints:
    """The checkpoints of one run, as its trainer sees them; all ranks call together.

    Attributes:
        failure: why the last save failed, if it did; on some rank, once it is finished.
    """

    def __init__(
        self, directory: Path, config: RunConfig, engine: Engine, ema: Ema, mesh: Mesh, attempt: int
    ) -> None:
        self._directory, self._config, self._mesh = directory, config, mesh
        self._attempt = attempt
        self.failure: str | None = None
        self._engine, self._owned, self._ema = engine, engine.owned, ema
        self._saver = Saver(
            directory,
            rank=mesh.rank,
            size=mesh.size,
            attempt=attempt,
            after_commit=lambda: retention.prune(directory, config.checkpoint),
        )
        if mesh.is_first:
            store.fence(directory, attempt)
        mesh.barrier()

    def _kinds(self) -> dict[str, list[Tensor]]:
        return {
            "master": self._owned.masters,
            "exp_avg": self._owned.moments("exp_avg"),
            "exp_avg_sq": self._owned.moments("exp_avg_sq"),
            "ema": self._ema.shadows,
        }

    # -- save -----------------------------------------------------------------------------

    def save(self, state: dict[str, Any]) -> str | None:
        """Begin to save; what to tell the user of the save before, which is finished first."""
        note = self.finish()
        layout = {"data": self._mesh.data_size, "tensor": self._mesh.tensor_size}
        layout |= {"pipeline": self._mesh.pipe_size, "zero_stage": self._config.parallel.zero_stage}
        full = {**state, "layout": layout, "loss_scaler": self._engine.loss_scaler}
        self.failure = None
        self._saver.begin(full, self._kinds(), self._owned.fragments)
        if not self._config.checkpoint.asynchronous:
            note = self.finish() or note
        return note

    def report(self) -> tuple[int, int]:
        """See :meth:`Saver.report`."""
        return self._saver.report()

    def settle(self, written: int, failed: int) -> str | None:
        """See :meth:`Saver.settle`; where ranks could not write, all are told why."""
        note = self._saver.settle(written, failed)
        lost = note.text if note and note.lost else None
        if failed and written + failed == self._mesh.size:
            lost = next(text for text in self._mesh.everyone(lost) if text)
        self.failure = lost or self.failure
        return lost or (note.text if note else None)

    def finish(self) -> str | None:
        """Wait until no save is in flight on any rank; what to tell the user if one failed."""
        self._saver.wait()
        note = self.settle(*self._mesh.count(*self._saver.report()))
        self._saver.wait()
        note = self.settle(0, 0) or note
        self._mesh.barrier()
        return note

    def close(self) -> None:
        """At the end of the run, after :meth:`finish`."""
        if self._mesh.is_first:
            store.leave(self._directory, self._attempt)

    # -- load -----------------------------------------------------------------------------

    def resume(self) -> tuple[dict[str, Any] | None, list[str]]:
        """Load the newest checkpoint that is sound in every byte; its state, and what to say."""
        notes = []
        for path in reversed(store.committed(self._directory)):
            problems = [text for text in self._mesh.everyone(self._damage(path)) if text]
            if problems:
                notes.append(f"{problems[0]}; passed over")
                continue
            reader = Reader(path)
            self._read(reader, {kind: kind for kind in self._kinds()})
            self._owned.set_optimizer_step(reader.state["optimizer_step"])
            self._engine.loss_scaler = reader.state["loss_scaler"]
            self._owned.refresh()
            return reader.state, [*notes, f"resuming from {path}"]
        return None, notes

    def fork(self, path: Path) -> tuple[int, str]:
        """Begin with the weights of another run; the optimizer's steps so far, and what to say."""
        config = self._config
        problems = [text for text in self._mesh.everyone(self._damage(path)) if text]
        if problems:
            raise UserError(problems[0])
        reader = Reader(path)
        steps = 0
        if config.fork_optimizer == "kept":
            steps = reader.state["optimizer_step"]
            self._read(reader, {kind: kind for kind in self._kinds()})
            self._owned.set_optimizer_step(steps)
        else:
            weights = reader.weights(config.fork_weights)
            self._read(reader, {"master": weights, "ema": weights}, fork_names(config))
        self._owned.refresh()
        return steps, f"beginning with the {config.fork_weights} weights of {path}"

    def _damage(self, path: Path) -> str | None:
        """What this rank finds wrong with its share of a checkpoint's files."""
        return store.damage(path, self._mesh.rank, self._mesh.size)

    @torch.no_grad()
    def _read(
        self, reader: Reader, sources: dict[str, str], names: Names = lambda name: name
    ) -> None:
        """Fill this rank's tensors of each kind from the checkpoint's of another, or the same.

        Args:
            names: what each parameter is called there; None leaves it as it is.
        """
        kinds = self._kinds()
        for kind, source in sources.items():
            reader.read_into(
                {
                    f"{source}/{name}": Piece(fragment.range, fragment.of(kinds[kind]))
                    for fragment in self._owned.fragments
                    if (name := names(fragment.range.name)) is not None
                }
            )


def fork_names(config: RunConfig) -> Names:
    """By which names a run reads the weights that it begins with."""
    if config.fork_part == "all":
        return lambda name: name
    return lambda name: name_in_encoder(name, config.model)
