"""Asynchronous saves: files are written in threads while training goes on.

Training waits for a copy to host memory. A thread of every rank then writes the rank's
own file; its success or failure is summed over ranks by the all-reduce that every step makes
anyway (:meth:`Mesh.all_reduce_counts`), so that no thread communicates and no rank polls a file
system. Once all ranks have written, a thread of the first rank commits. At most one save is in
flight.
"""

import json
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from configs.disk import flush
from model.objectives import NO_STATE, State
from pretrain.checkpoint import objective_tensors, store
from pretrain.checkpoint.dcp import DcpShard, pieces_of, to_write
from pretrain.checkpoint.reader import crc32, key
from pretrain.nonfinite import NonFiniteError, non_finite
from pretrain.parallel.ranges import Flats, OwnedRange


class Job:
    """A function run in a thread of its own; ``error`` is what it raised."""

    def __init__(self, work: Callable[[], None], name: str) -> None:
        self.error: Exception | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:
            self.error = error

    @property
    def done(self) -> bool:
        """Whether the function has returned or raised."""
        return not self._thread.is_alive()

    def wait(self) -> None:
        """Block until the thread has ended."""
        self._thread.join()


@dataclass(frozen=True)
class Note:
    """A line for the user about a save.

    Args:
        lost: the checkpoint was not saved.
        fatal: its weights are not finite, so that later ones cannot be saved either.
    """

    text: str
    lost: bool
    fatal: bool = False


class Saver:
    """Saves of one rank; all ranks call its methods at the same steps.

    Args:
        rank, size: of all ranks.
        attempt: the number of this start, which names its staging directory.
        before_commit: called on the first rank before a checkpoint is committed, to flush files
            that must not be older than it.
        after_commit: called on the first rank after a commit; returns lines for the user.
    """

    def __init__(
        self,
        directory: Path,
        *,
        rank: int,
        size: int,
        attempt: int,
        before_commit: Callable[[], None] = lambda: None,
        after_commit: Callable[[], Sequence[str]] = lambda: (),
    ) -> None:
        self._directory, self._rank, self._size, self._attempt = directory, rank, size, attempt
        self._before_commit, self._after_commit = before_commit, after_commit
        self._host: dict[str, list[Tensor]] = {}
        self._staging = directory
        self._state: Mapping[str, Any] = {}
        self._objective_state = NO_STATE
        self._writing: Job | None = None
        self._committing: Job | None = None
        self._committed = False
        self._notes: Sequence[str] = ()

    # -- begin ----------------------------------------------------------------------------

    def begin(
        self,
        state: Mapping[str, Any],
        kinds: Mapping[str, Sequence[Tensor]],
        owned_ranges: Sequence[OwnedRange],
        objective_state: State = NO_STATE,
        others: Sequence[Flats] = (),
    ) -> None:
        """Copy this rank's tensors to host memory, and write them in a thread.

        No save may be in flight.

        Args:
            state: plain data with a ``step``; the first rank's is saved.
            kinds: by kind (master, exp_avg, ...), this rank's flat tensors.
            owned_ranges: where each range of a parameter lies in them.
            objective_state: the first rank's is saved.
            others: tensors with kinds and ranges of their own (frozen networks).
        """
        assert not self.busy, "one save at a time"
        self._state = dict(state)
        if self._rank == 0:
            self._objective_state = objective_tensors.copied(objective_state)
        self._staging = store.staging_of(self._directory, self._attempt, state["step"])
        all_flats = [Flats(kinds=kinds, owned_ranges=owned_ranges), *others]
        copies = [
            Flats(
                kinds={kind: self._copied(kind, flats) for kind, flats in one.kinds.items()},
                owned_ranges=[
                    owned_range for owned_range in one.owned_ranges if not owned_range.is_copy
                ],
            )
            for one in all_flats
        ]
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._writing = Job(lambda: self._write(copies), "checkpoint")

    def _copied(self, kind: str, flats: Sequence[Tensor]) -> list[Tensor]:
        """Copies in (pinned) host memory, which is allocated once."""
        if kind not in self._host:
            pinned = torch.cuda.is_available()
            self._host[kind] = [
                torch.empty(flat.shape, dtype=flat.dtype, pin_memory=pinned) for flat in flats
            ]
        for copy, flat in zip(self._host[kind], flats, strict=True):
            copy.copy_(flat, non_blocking=True)
        return self._host[kind]

    def _write(self, held: Sequence[Flats]) -> None:
        """Write this rank's boxes, and beside them a JSON file that lists them for the first rank.

        Raises:
            NonFiniteError: a value is not finite; it must not replace an older checkpoint.
        """
        pieces: dict[str, DcpShard] = {}
        for one in held:
            if culprit := non_finite(one.kinds, one.owned_ranges):
                raise NonFiniteError(culprit)
            pieces |= pieces_of(one)
        self._staging.mkdir(exist_ok=True)
        file = self._staging / f"rank-{self._rank:05d}.safetensors"
        tensors: dict[str, Tensor] = {}
        boxes: list[dict[str, Any]] = []
        for name, chunk, value in to_write(pieces):
            offsets = tuple(chunk.offsets)
            tensors[key(name, offsets)] = value
            boxes.append(
                {
                    "name": name,
                    "shape": list(pieces[name].shards.shape),
                    "box": {"offsets": offsets, "sizes": tuple(chunk.sizes), "file": file.name},
                }
            )
        save_file(tensors, file)
        flushing = Job(lambda: flush(file), "flush")
        facts = {"bytes": file.stat().st_size, "sha256": store.sha256(file)}
        for each in boxes:
            offsets = each["box"]["offsets"]
            each["box"]["crc32"] = crc32(tensors[key(each["name"], offsets)])
        flushing.wait()
        if flushing.error:
            raise flushing.error
        note = json.dumps({"file": file.name, "facts": facts, "boxes": boxes})
        self._note(self._rank).write_text(note, encoding="utf-8")

    def _note(self, rank: int) -> Path:
        return self._staging / f"rank-{rank:05d}.json"

    # -- settle ---------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a save of this rank is in flight."""
        return self._writing is not None or self._committing is not None

    def report(self) -> tuple[int, int]:
        """(1 if this rank has written, 1 if it failed to), to be summed over all ranks."""
        if self._writing is None or not self._writing.done:
            return 0, 0
        return (0, 1) if self._writing.error else (1, 0)

    def settle(self, written: int, failed: int) -> Note | None:
        """Commit or give up by the sums of all reports; returns a line for the user, if any."""
        trouble = self._after_committing() if self._committing and self._committing.done else None
        if self._writing is None or written + failed < self._size:
            return trouble
        error, self._writing = self._writing.error, None
        if not failed:
            if self._rank == 0:
                self._committing = Job(self._commit, "commit")
            return trouble
        if self._rank == 0:
            shutil.rmtree(self._staging, ignore_errors=True)
        return self._lost(error) if error else None

    def wait(self) -> None:
        """Block until this rank has written, and on the first rank until a commit has ended."""
        for job in (self._writing, self._committing):
            if job is not None:
                job.wait()

    def _after_committing(self) -> Note | None:
        assert self._committing is not None
        error, self._committing = self._committing.error, None
        if error and self._committed:
            return Note(f"old checkpoints could not be removed: {error}", lost=False)
        if error:
            return self._lost(error)
        return Note("; ".join(self._notes), lost=False) if self._notes else None

    def _lost(self, error: object) -> Note:
        step = self._state["step"]
        if isinstance(error, NonFiniteError):
            return Note(f"the weights of step {step} are not finite ({error})", True, fatal=True)
        return Note(f"checkpoint of step {step} could not be saved: {error}", lost=True)

    def _commit(self) -> None:
        """Turn the staging directory into a checkpoint, or remove it; on the first rank."""
        self._committed, self._notes = False, ()
        try:
            self._before_commit()
            self._complete()
        except BaseException:
            # Its files would take the space of later saves.
            shutil.rmtree(self._staging, ignore_errors=True)
            raise
        self._committed = True
        self._notes = self._after_commit()

    def _complete(self) -> None:
        """Write index, states and manifest, and rename the directory."""
        index: dict[str, dict[str, Any]] = {}
        files = objective_tensors.write(self._staging, self._objective_state)
        for rank in range(self._size):
            note = json.loads(self._note(rank).read_text(encoding="utf-8"))
            files[note["file"]] = note["facts"]
            for held in note["boxes"]:
                entry = index.setdefault(held["name"], {"shape": held["shape"], "boxes": []})
                entry["boxes"].append(held["box"])
        for name, value in (("index.json", index), ("state.json", self._state)):
            file = self._staging / name
            store.write(file, json.dumps(value))
            files[name] = {"bytes": file.stat().st_size, "sha256": store.sha256(file)}
        for rank in range(self._size):
            self._note(rank).unlink()
        store.commit(self._staging, self._directory, files)
