"""Writing collections of tensors: safetensors in shards of bounded size, float32.

Which tensor goes into which shard follows from the shapes, so that one shard at a time
stands in memory.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from configs.load import to_plain
from model.objectives import NO_STATE, State
from pretrain.checkpoint import manifest, objective_tensors, store
from pretrain.checkpoint.reader import crc32, key
from pretrain.config import RunConfig
from tools.convert.tensors import Shape, Tensors

ELEMENT_BYTES = 4
SHARD_BYTES = 2**30
"""The most that a shard holds by default, but for a single larger tensor."""


def num_bytes(shapes: Mapping[str, Shape]) -> int:
    """Bytes of all tensors, in float32."""
    return sum(ELEMENT_BYTES * math.prod(shape) for shape in shapes.values())


def shards(shapes: Mapping[str, Shape], shard_bytes: int) -> list[list[str]]:
    """Names by shard, in order, each shard as full as it may be."""
    found: list[list[str]] = []
    held = shard_bytes + 1
    for name, shape in shapes.items():
        size = ELEMENT_BYTES * math.prod(shape)
        if held + size > shard_bytes or not found:
            found.append([])
            held = 0
        found[-1].append(name)
        held += size
    return found


def write_shards(
    folder: Path,
    tensors: Tensors,
    shard_bytes: int,
    *,
    file_name: Callable[[int, int], str],
    tensor_name: Callable[[str], str] = str,
) -> dict[str, str]:
    """Write all tensors; the file of each.

    Args:
        file_name: of shard ``number`` (from 0) of ``total``.
        tensor_name: the name of a tensor within its file.
    """
    where: dict[str, str] = {}
    plan = shards(tensors.shapes, shard_bytes)
    for number, names in enumerate(plan):
        file = file_name(number, len(plan))
        held: dict[str, Tensor] = {tensor_name(n): tensors.read(n).contiguous() for n in names}
        save_file(held, folder / file, metadata={"format": "pt"})
        store.flush(folder / file)
        where |= dict.fromkeys(names, file)
    return where


def write_huggingface(folder: Path, tensors: Tensors, shard_bytes: int) -> None:
    """``model.safetensors``, or shards with an index, as transformers reads them."""
    folder.mkdir()

    def file_name(number: int, total: int) -> str:
        if total == 1:
            return "model.safetensors"
        return f"model-{number + 1:05d}-of-{total:05d}.safetensors"

    where = write_shards(folder, tensors, shard_bytes, file_name=file_name)
    if len(set(where.values())) > 1:
        index = {"metadata": {"total_size": num_bytes(tensors.shapes)}, "weight_map": where}
        write_json(folder / "model.safetensors.index.json", index)


def write_checkpoint(
    folder: Path,
    tensors: Tensors,
    state: Mapping[str, Any],
    shard_bytes: int,
    objective_state: State = NO_STATE,
) -> None:
    """A checkpoint of ours that holds weights only, once: neither moments nor an average.

    Args:
        objective_state: of the run that the weights are of.
    """
    folder.mkdir()
    sums: dict[str, int] = {}

    def read(name: str) -> Tensor:
        value = tensors.read(name)
        sums[name] = crc32(value)
        return value

    where = write_shards(
        folder,
        Tensors(tensors.shapes, read, tensors.origin),
        shard_bytes,
        file_name=lambda number, total: f"rank-{number:05d}.safetensors",
        tensor_name=lambda name: key(f"master/{name}", (0,) * len(tensors.shapes[name])),
    )
    index = {
        f"master/{name}": {
            "shape": list(shape),
            "boxes": [
                {
                    "offsets": [0] * len(shape),
                    "sizes": list(shape),
                    "file": where[name],
                    "crc32": sums[name],
                }
            ],
        }
        for name, shape in tensors.shapes.items()
    }
    write_json(folder / "index.json", index)
    write_json(folder / "state.json", state)
    names = [*sorted(set(where.values())), "index.json", "state.json"]
    files: dict[str, manifest.File] = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": store.sha256(folder / name)}
        for name in names
    }
    files |= objective_tensors.write(folder, objective_state)
    store.write(folder / store.MANIFEST, manifest.text_of(files))


def state_of(
    config: RunConfig, *, step: int, tokens_seen: int, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """The plain data of a checkpoint of weights.

    Args:
        facts: how long it took (``elapsed_s``), its bound (``score``), ``code`` and its
            tokenizer (``tokenizer_sha256``), if known.
    """
    return {
        "step": step,
        "tokens_seen": tokens_seen,
        "optimizer_step": 0,
        "elapsed_s": facts.get("elapsed_s", 0.0),
        "score": facts.get("score"),
        "code": facts.get("code", {}),
        "tokenizer_sha256": facts.get("tokenizer_sha256"),
        "config": to_plain(config),
        "layout": {"data": 1, "tensor": 1, "pipeline": 1, "zero_stage": 1},
        "loss_scaler": {},
    }


def write_json(file: Path, value: Any) -> None:
    """A JSON file, down to the disk."""
    store.write(file, json.dumps(value, indent=2) + "\n")
