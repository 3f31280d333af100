"""Schemas of ``state.json`` and ``index.json``, validated before anything is used.

Checksums find files that have changed since they were written; this finds files that no save of
ours wrote.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired

from pydantic import ConfigDict, NonNegativeInt, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from configs.errors import UserError
from pretrain.checkpoint.manifest import INDEX, STATE, File

_MORE = ConfigDict(extra="allow", strict=True)


class Layout(TypedDict):
    """The layout under which a checkpoint was saved."""

    data: NonNegativeInt
    tensor: NonNegativeInt
    pipeline: NonNegativeInt
    zero_stage: NonNegativeInt


class ModelFacts(TypedDict):
    """Required keys of a model's configuration."""

    __pydantic_config__ = _MORE  # type: ignore[misc]

    num_layers: int
    width: int
    vocab_size: int


class ObjectiveFacts(TypedDict):
    """Required keys of an objective's configuration."""

    __pydantic_config__ = _MORE  # type: ignore[misc]

    name: str


class ConfigFacts(TypedDict):
    """The same of a run's; all of it is for :func:`pretrain.checkpoint.weights.config_of`."""

    __pydantic_config__ = _MORE  # type: ignore[misc]

    model: ModelFacts
    objective: ObjectiveFacts
    precision: str


class CodeFacts(TypedDict, total=False):
    """Commit, Python and packages that made a checkpoint."""

    __pydantic_config__ = _MORE  # type: ignore[misc]

    git_commit: str | None
    python: str
    packages: dict[str, str]


class NetworkFacts(TypedDict):
    """Origin and configuration of a frozen network that a checkpoint holds."""

    __pydantic_config__ = _MORE  # type: ignore[misc]

    checkpoint: str
    step: NonNegativeInt
    tokenizer_sha256: str | None
    model: dict[str, Any]


class StateShape(TypedDict):
    """Plain data of a run; conversions and older versions leave some keys out."""

    __pydantic_config__ = _MORE  # type: ignore[misc]

    step: NonNegativeInt
    tokens_seen: NotRequired[NonNegativeInt]
    optimizer_step: NotRequired[NonNegativeInt]
    skipped_in_a_row: NotRequired[NonNegativeInt]
    elapsed_s: NotRequired[float]
    metric_rows: NotRequired[NonNegativeInt]
    score: NotRequired[float | None]
    owes_validation: NotRequired[bool]
    tokenizer_sha256: NotRequired[str | None]
    objective: NotRequired[dict[str, Any]]
    loss_scaler: NotRequired[dict[str, bool | int | float]]
    layout: NotRequired[Layout]
    code: NotRequired[CodeFacts]
    networks: NotRequired[dict[str, NetworkFacts]]
    config: NotRequired[ConfigFacts]


class Slice(TypedDict):
    """A box of a tensor: its position, the file that holds it, and the CRC-32 of its values."""

    offsets: list[NonNegativeInt]
    sizes: list[NonNegativeInt]
    file: str
    crc32: NotRequired[int]


class Entry(TypedDict):
    """A tensor: its shape, and the boxes that make it up."""

    shape: list[NonNegativeInt]
    boxes: list[Slice]


Index = dict[str, Entry]

_STATE = TypeAdapter(StateShape)
_INDEX = TypeAdapter(Index)


class State(dict[str, Any]):
    """Contents of ``state.json``; a missing key is a UserError that names file and key."""

    def __init__(self, values: Mapping[str, Any], file: Path) -> None:
        super().__init__(values)
        self._file = file

    def __missing__(self, key: str) -> Any:
        raise UserError(f"{self._file} holds no {key}: it was not saved by a run")


def state(found: Any, path: Path) -> State:
    """Validate the contents of state.json; raises UserError."""
    return State(_shaped(_STATE, found, path / STATE), path / STATE)


def index(found: Any, path: Path, files: Mapping[str, File]) -> Index:
    """Validate index.json, and that its boxes fit tensors and files; raises UserError."""
    tensors: Index = _shaped(_INDEX, found, path / INDEX)
    room = {name: facts["bytes"] for name, facts in files.items()}
    for name, entry in tensors.items():
        shape = entry["shape"]
        for box in entry["boxes"]:
            offsets, sizes = box["offsets"], box["sizes"]
            if len(offsets) != len(shape) or len(sizes) != len(shape):
                raise _odd(path, f"{name} has a box of other dimensions")
            if any(a + n > m for a, n, m in zip(offsets, sizes, shape, strict=True)):
                raise _odd(path, f"{name} has a box that reaches beyond it")
            if box["file"] not in room:
                raise _odd(path, f"{name} lies in {box['file']}, which is no file of it")
            room[box["file"]] -= 4 * math.prod(sizes)
    crowded = sorted(name for name, left in room.items() if left < 0)
    if crowded:
        raise _odd(path, f"{crowded[0]} is too small for what lies in it")
    return tensors


def _shaped(schema: TypeAdapter[Any], found: Any, file: Path) -> Any:
    try:
        return schema.validate_python(found, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = f"{where}: {first['msg']}" if where else first["msg"]
        raise UserError(f"{file} is not what a save writes: {message}") from error


def _odd(path: Path, what: str) -> UserError:
    return UserError(f"{path / INDEX} is not what a save writes: {what}")
