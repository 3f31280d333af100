"""Save and resume the state of training: masters, moments, averages and counters.

Every rank saves and reads the ranges of the flat tensors that it owns; counters and other plain
data are one file for all ranks. Learning rate, noise and order of the data are not saved: they
follow from the configuration and the step.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from configs.errors import RunError, UserError
from model.objectives import NO_STATE, State
from pretrain import train_state
from pretrain.checkpoint import frozen_networks, networks, retention, store
from pretrain.checkpoint.dcp import DcpShard
from pretrain.checkpoint.networks import Source
from pretrain.checkpoint.reader import Reader
from pretrain.checkpoint.saver import Saver
from pretrain.checkpoint.weights import config_of
from pretrain.config import RunConfig
from pretrain.ema import Ema
from pretrain.nonfinite import NonFiniteError, non_finite
from pretrain.parallel.engine import Engine
from pretrain.parallel.mesh import Mesh

Names = Callable[[str], str | None]

_REQUIRED = (*train_state.REQUIRED, "loss_scaler")
"""Keys of ``state.json`` without which a run cannot be resumed."""


class SaveError(RunError):
    """The last checkpoint of a run could not be written."""


class Checkpoints:
    """Saves, resumes and forks of one run; every method is a collective of all ranks.

    Attributes:
        failure: why the last save failed, on at least one rank, once :meth:`finish` has returned.
        before_commit: called on the first rank before a commit; see :class:`Saver`.
    """

    def __init__(
        self, directory: Path, config: RunConfig, engine: Engine, ema: Ema, mesh: Mesh, attempt: int
    ) -> None:
        self._directory, self._config, self._mesh = directory, config, mesh
        self._attempt = attempt
        self.failure: str | None = None
        self.before_commit: Callable[[], None] = lambda: None
        self._logged: set[str] = set()
        self._engine, self._shards, self._ema = engine, engine.shards, ema
        self._saver = Saver(
            directory,
            rank=mesh.rank,
            size=mesh.size,
            attempt=attempt,
            before_commit=lambda: self.before_commit(),
            after_commit=self._prune,
        )
        if mesh.is_first:
            store.fence(directory, attempt)
        mesh.barrier()

    def _prune(self) -> list[str]:
        """Remove old checkpoints; returns the problems that were not logged before."""
        problems = retention.prune(self._directory, self._config.checkpoint)
        news = [text for text in problems if text not in self._logged]
        self._logged.update(news)
        return news

    def _kinds(self) -> dict[str, list[Tensor]]:
        """This rank's flat tensors; frozen values are among the masters only."""
        return {
            "master": self._shards.weights,
            "exp_avg": self._shards.moments("exp_avg"),
            "exp_avg_sq": self._shards.moments("exp_avg_sq"),
            "ema": self._ema.shadows,
        }

    # -- save -----------------------------------------------------------------------------

    def save(self, state: dict[str, Any], objective_state: State = NO_STATE) -> str | None:
        """Finish the save before, and begin one; returns a line for the user about the former."""
        note = self.finish()
        layout = {"data": self._mesh.data_size, "tensor": self._mesh.tensor_size}
        layout |= {"pipeline": self._mesh.pipe_size, "zero_stage": self._config.parallel.zero_stage}
        full = {**state, "layout": layout, "loss_scaler": self._engine.loss_scaler}
        self.failure = None
        # A frozen parameter's average is itself.
        kinds = self._kinds() | {"ema": [*self._ema.shadows, *self._shards.frozen.flats]}
        asked = self._engine.networks
        if asked:
            full[networks.STATE] = {name: network.facts for name, network in asked.items()}
        others = [network.flats for network in asked.values()]
        self._saver.begin(full, kinds, self._shards.owned_ranges, objective_state, others)
        if not self._config.checkpoint.asynchronous:
            note = self.finish() or note
        return note

    def report(self) -> tuple[int, int]:
        """See :meth:`Saver.report`."""
        return self._saver.report()

    def settle(self, written: int, failed: int) -> str | None:
        """:meth:`Saver.settle`, and where a rank could not write, every rank returns its error.

        Raises:
            NonFiniteError: a tensor to be saved is not finite, on some rank.
        """
        note = self._saver.settle(written, failed)
        lost = note.text if note and note.lost else None
        if failed and written + failed == self._mesh.size:
            notes = [one for one in self._mesh.all_gather_object(note) if one and one.lost]
            self._require_finite([one.text for one in notes if one.fatal])
            lost = notes[0].text
        self.failure = lost or self.failure
        return lost or (note.text if note else None)

    def _require_finite(self, problems: list[str]) -> None:
        if not problems:
            return
        kept, _ = store.newest(self._directory)
        newest = (
            f"the newest checkpoint is {kept}: begin a new run with fork_from={kept}"
            if kept
            else "there is no checkpoint yet: begin anew with --fresh"
        )
        raise NonFiniteError(
            f"{problems[0]}, and were not saved; {newest} and a lower optim.lr, or look at "
            "optim.eps, optim.clip and the weights it began with"
        )

    def finish(self) -> str | None:
        """Wait until no save is in flight; returns a line for the user if one failed."""
        self._saver.wait()
        note = self.settle(*self._mesh.count(*self._saver.report()))
        self._saver.wait()
        note = self.settle(0, 0) or note
        self._mesh.barrier()
        return note

    def close(self) -> None:
        """Release the attempt's staging directory, after :meth:`finish`."""
        if self._mesh.is_first:
            store.leave(self._directory, self._attempt)

    # -- load -----------------------------------------------------------------------------

    def resume(self) -> tuple[Reader | None, list[str]]:
        """Load the newest checkpoint that is sound in every byte.

        Returns:
            Its reader, or None where there is none; and lines for the user.

        Raises:
            UserError: it was saved by an older version, or its networks cannot be divided as the
                layout asks.
            RunError: none is sound, and the present weights have been overwritten by one.
        """
        notes, unfit = [], None
        for path in reversed(store.committed(self._directory)):
            reader, problem = self._opened(path, in_place=True)
            if reader is not None:
                reader.objective_state()
                sources = networks.sources(self._config, reader, self._config.parallel, is_own=True)
                problem = unfit = self._loaded(reader, sources)
            if problem or reader is None:
                notes.append(f"{problem}; passed over")
                continue
            self._shards.set_optimizer_step(reader.state["optimizer_step"])
            self._engine.loss_scaler = reader.state["loss_scaler"]
            self._shards.refresh()
            frozen_networks.refresh(self._engine.networks.values())
            return reader, [*notes, f"resuming from {path}"]
        if unfit:
            raise RunError(
                f"{unfit}; {self._directory} holds no checkpoint that is finite and sound; begin "
                "a new run"
            )
        if notes:
            notes.append(f"{self._directory} holds no sound checkpoint: beginning at step 0 again")
        return None, notes

    def _loaded(self, reader: Reader, sources: Mapping[str, Source]) -> str | None:
        """Read a checkpoint of this run; returns its problem, if any, the same on all ranks.

        With a problem the present weights are undefined, and another checkpoint has to be read.
        """
        try:
            for name in _REQUIRED:
                reader.state[name]
            self._read(reader, {kind: kind for kind in self._kinds()})
            self._engine.networks = frozen_networks.read(sources, self._config, self._mesh)
            problem = None
        except UserError as error:
            problem = str(error)
        problems = [text for text in self._mesh.all_gather_object(problem) if text]
        return problems[0] if problems else self._not_finite(reader.path)

    def begin(self) -> list[str]:
        """Load the frozen networks that the objective names; returns lines for the user."""
        self._engine.networks = frozen_networks.load(self._config, self._mesh)
        return [
            f"the objective's network {name} is that of {network.facts['checkpoint']}"
            for name, network in self._engine.networks.items()
        ]

    def fork(self, path: Path) -> tuple[int, State, str]:
        """Begin with the weights of another run, and its frozen networks where they are the same.

        Returns:
            Optimizer steps so far; the state of the objective, empty where that run has another
            objective; a line for the user.
        """
        config = self._config
        reader, problem = self._opened(path)
        if reader is None:
            raise UserError(f"{problem}")
        steps = 0
        if config.fork_optimizer == "kept":
            steps = reader.state["optimizer_step"]
            self._read(reader, {kind: kind for kind in self._kinds()})
            self._shards.set_optimizer_step(steps)
        else:
            weights = reader.weights(config.fork_weights)
            self._read(reader, {"master": weights, "ema": weights}, fork_names(config))
        if problem := self._not_finite(path):
            raise UserError(f"{problem}; begin with another checkpoint")
        self._shards.refresh()
        self._engine.networks = frozen_networks.load(config, self._mesh, reader)
        note = f"beginning with the {config.fork_weights} weights of {path}"
        if reader.state.get("tokenizer_sha256") is None:
            note += "; their tokenizer is not recorded there: make sure that it is the corpus's"
        theirs = config_of(reader).objective
        objective_state = reader.objective_state() if theirs == config.objective else NO_STATE
        return steps, objective_state, note

    def _opened(self, path: Path, *, in_place: bool = False) -> tuple[Reader | None, str | None]:
        """Open a checkpoint, its bytes checked by the ranks in shares; else its problem.

        Args:
            in_place: it is a checkpoint of this run, whose name has to be that of its step.
        """
        problem, reader = None, None
        try:
            found = store.check(path)
            store.require_sound(found, self._mesh.rank, self._mesh.size)
            if in_place:
                store.require_own_step(path, found.state)
            reader = Reader(found, verified=True)
        except (UserError, OSError) as error:
            problem = str(error)
        problems = [text for text in self._mesh.all_gather_object(problem) if text]
        return (None, problems[0]) if problems else (reader, None)

    def _not_finite(self, path: Path) -> str | None:
        """A problem where a present tensor is not finite on some rank; the same on all ranks."""
        found = self._mesh.all_gather_object(non_finite(self._kinds(), self._shards.owned_ranges))
        culprit = next((text for text in found if text), None)
        return f"{path} is not finite ({culprit})" if culprit else None

    @torch.no_grad()
    def _read(
        self, reader: Reader, sources: dict[str, str], names: Names = lambda name: name
    ) -> None:
        """Fill this rank's flat tensors from a checkpoint.

        Args:
            sources: by kind of the tensors to fill, the kind to read.
            names: maps a parameter's name to its name in the checkpoint; None skips it.
        """
        kinds = self._kinds()
        for kind, source in sources.items():
            reader.read_into(
                {
                    f"{source}/{name}": DcpShard(owned_range.range, owned_range.of(kinds[kind]))
                    for owned_range in self._shards.owned_ranges
                    if owned_range.is_in(kinds[kind])
                    and (name := names(owned_range.range.name)) is not None
                }
            )


def fork_names(config: RunConfig) -> Names:
    """Maps the names of parameters to those in the checkpoint that a run forks."""
    if config.fork_part == "all":
        return lambda name: name
    return lambda name: config.model.name_in_encoder(name)
