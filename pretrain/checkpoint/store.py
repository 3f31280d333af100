"""Checkpoints on disk: written aside by all ranks, committed by one rename.

    step-00000020/
      manifest.json            format, sizes and checksums of all other files
      state.json               step and plain data of the run
      rank-00000.safetensors   the ranges of parameters whose masters rank 0 owned, as
      rank-00000.json          ``kind/name``: values, and what range of the whole they are
      ...

Tensors are flat fp32 ranges of parameters, or of boxes of them (:mod:`pretrain.ranges`),
so that a reader can put together any range from any number of ranks, under any layout. A
directory without its manifest is no checkpoint, and nothing here is a pickle.
"""

import dataclasses
import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from configs.errors import UserError
from pretrain.ranges import Range, copy_overlap, overlap

FORMAT = 2
MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d{8})")
_STAGING = ".staging-"


def path_of(directory: Path, step: int) -> Path:
    """The checkpoint of ``step`` in a directory of checkpoints."""
    return directory / f"step-{step:08d}"


def newest(directory: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that is whole, and why newer ones were passed over."""
    problems = []
    for path in reversed(committed(directory)):
        try:
            check(path)
        except UserError as error:
            problems.append(str(error))
        else:
            return path, problems
    return None, problems


def committed(directory: Path) -> list[Path]:
    """All committed checkpoints, oldest first."""
    if not directory.is_dir():
        return []
    return sorted(p for p in directory.iterdir() if _NAME.fullmatch(p.name) and p.is_dir())


def check(path: Path) -> None:
    """UserError unless the manifest is there and every file has the size it names."""
    for name, facts in _manifest(path)["files"].items():
        file = path / name
        if not file.exists():
            raise UserError(f"{path} is not whole: {name} is missing")
        if file.stat().st_size != facts["bytes"]:
            raise UserError(
                f"{path} is not whole: {name} has {file.stat().st_size} bytes, not {facts['bytes']}"
            )


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} is no checkpoint: it has no {MANIFEST}") from error
    except ValueError as error:
        raise UserError(f"{path} is not whole: {MANIFEST} is unreadable") from error
    if manifest.get("format") != FORMAT:
        raise UserError(
            f"{path} has checkpoint format {manifest.get('format')}; this version reads {FORMAT}"
        )
    return dict(manifest)


class Writer:
    """One save: every rank calls :meth:`write`, then (after a barrier) one calls commit."""

    def __init__(self, directory: Path, step: int) -> None:
        self._final = path_of(directory, step)
        self._staging = directory / f"{_STAGING}{step:08d}"

    def prepare(self) -> None:
        """On one rank, before all others write: an empty place aside."""
        shutil.rmtree(self._staging, ignore_errors=True)
        self._staging.mkdir(parents=True)

    def write(self, rank: int, pieces: Mapping[str, Sequence[tuple[Range, Tensor]]]) -> None:
        """This rank's ranges: for each kind (master, exp_avg, ...) the ranges it owns."""
        tensors, index = {}, {}
        for kind, owned in pieces.items():
            for part, value in owned:
                tensors[f"{kind}/{part.name}"] = value.detach().cpu().contiguous()
                index[part.name] = dataclasses.asdict(part)
        save_file(tensors, self._staging / f"rank-{rank:05d}.safetensors")
        text = json.dumps(index)
        (self._staging / f"rank-{rank:05d}.json").write_text(text, encoding="utf-8")

    def commit(self, state: Mapping[str, Any]) -> Path:
        """On one rank, after all have written: the manifest, then the rename."""
        (self._staging / "state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")
        files = {
            file.name: {"bytes": file.stat().st_size, "sha256": _sha256(file)}
            for file in sorted(self._staging.iterdir())
        }
        manifest = {"format": FORMAT, "files": files}
        (self._staging / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
        if self._final.exists():
            # Only a resume from an older step, its newer neighbour being broken, comes here.
            aside = f".replaced-{self._final.name}-{time.time_ns()}"
            self._final.rename(self._final.with_name(aside))
        self._staging.rename(self._final)
        return self._final


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def prune(directory: Path, keep_last: int) -> None:
    """Remove all but the newest ``keep_last`` checkpoints, each by one rename first."""
    for path in committed(directory)[:-keep_last]:
        doomed = path.with_name(f".pruned-{path.name}")
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def sweep(directory: Path) -> None:
    """Remove what an interrupted save or pruning left behind."""
    if directory.is_dir():
        for path in directory.iterdir():
            if path.name.startswith((_STAGING, ".pruned-")):
                shutil.rmtree(path, ignore_errors=True)


class Reader:
    """A checkpoint, opened for reading any range of any parameter."""

    def __init__(self, path: Path) -> None:
        check(path)
        self.path = path
        self.state: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
        self._pieces: dict[str, list[tuple[Path, Range]]] = {}
        for index in sorted(path.glob("rank-*.json")):
            owned = json.loads(index.read_text(encoding="utf-8"))
            for name, where in owned.items():
                part = Range(
                    name=name,
                    shape=tuple(where["shape"]),
                    corner=tuple(where["corner"]),
                    sizes=tuple(where["sizes"]),
                    start=where["start"],
                    num=where["num"],
                )
                self._pieces.setdefault(name, []).append((index.with_suffix(".safetensors"), part))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter."""
        return {name: pieces[0][1].shape for name, pieces in self._pieces.items()}

    def read(self, kind: str, wanted: Range) -> Tensor:
        """The elements of ``wanted``, flat ``[num]`` fp32, put together from all ranks' files.

        Raises:
            UserError: if the parameter is not there, has another shape, or is not covered.
        """
        pieces = self._pieces.get(wanted.name)
        if pieces is None:
            raise UserError(f"{self.path} holds no parameter {wanted.name}")
        shape = pieces[0][1].shape
        if shape != wanted.shape:
            raise UserError(
                f"{self.path}: {wanted.name} has shape {list(shape)}, not {list(wanted.shape)}"
            )
        value = torch.empty(wanted.num)
        filled = 0
        for file, part in pieces:
            for held in part.boxes():
                for box in wanted.boxes():
                    if overlap(box, held) is None:
                        continue
                    source = self._slice(file, f"{kind}/{wanted.name}", held.at, held.at + held.num)
                    filled += copy_overlap(value[box.at : box.at + box.num], box, source, held)
        if filled != wanted.num:
            raise UserError(f"{self.path} holds {filled} of {wanted.num} elements of {wanted.name}")
        return value

    def whole(self, kind: str) -> Iterator[tuple[str, Tensor]]:
        """Every parameter whole, one after the other, in its own shape."""
        for name, shape in self.shapes().items():
            yield name, self.read(kind, Range.whole(name, shape)).view(shape)

    @staticmethod
    def _slice(file: Path, key: str, start: int, stop: int) -> Tensor:
        try:
            with safe_open(file, framework="pt") as tensors:
                return tensors.get_slice(key)[start:stop]
        except SafetensorError as error:
            raise UserError(f"{file} cannot be read: {error}") from error
