"""Weights only: a checkpoint without its moments, one plain file, a pickled file without objects.

:func:`write_weights` is how every conversion writes a checkpoint that is derived from others.
"""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from configs.errors import UserError
from configs.load import named_plain
from pretrain.checkpoint import store
from pretrain.checkpoint.reader import Reader
from pretrain.checkpoint.weights import Which, config_of, find
from tools.convert import parity, pickled, tensors, write
from tools.convert.output import staged
from tools.convert.tensors import Tensors
from tools.convert.write import ELEMENT_BYTES


def write_weights(
    out: Path, weights: Tensors, origin: str, reader: Reader, shard_bytes: int, **facts: Any
) -> dict[str, Any]:
    """Write the checkpoint ``out`` of weights alone; the parity report, which lies in it too.

    Args:
        origin: of the weights, in the report.
        reader: of the checkpoint whose step, run and objective state it takes over.
        facts: that are other than that checkpoint's.
    """
    config, state = config_of(reader), reader.state
    stripped = write.state_of(
        config, step=state["step"], tokens_seen=state["tokens_seen"], facts={**state, **facts}
    )
    with staged(out, write.num_bytes(weights.shapes)) as aside:
        write.write_checkpoint(aside, weights, stripped, shard_bytes, reader.objective_state())
        report = parity.report(
            config.model,
            parity.of_network(config.model, weights),
            parity.of_network(config.model, tensors.of_checkpoint(Reader(aside), "master")),
            (origin, "the checkpoint"),
        )
        write.write_json(aside / parity.FILE_NAME, report)
    return report


def strip_checkpoint(
    checkpoint: Path,
    out: Path,
    *,
    weights: Which = "ema",
    shard_bytes: int = write.SHARD_BYTES,
) -> dict[str, Any]:
    """A checkpoint of the averaged or raw weights alone; the parity report."""
    reader = Reader(find(checkpoint))
    ours = tensors.of_checkpoint(reader, reader.weights(weights))
    return write_weights(out, ours, reader.path.name, reader, shard_bytes)


def to_safetensors(checkpoint: Path, out: Path, *, weights: Which = "ema") -> dict[str, Any]:
    """One .safetensors, with the architecture in its metadata; the parity report beside it.

    The file is written at once: its tensors stand in memory together.

    Raises:
        UserError: ``out`` is not called a .safetensors.
    """
    _require_suffix(out, "call the file")
    reader = Reader(find(checkpoint))
    config = config_of(reader)
    ours = tensors.of_checkpoint(reader, reader.weights(weights))
    metadata = {
        "format": "pt",
        "model": json.dumps(named_plain(config.model)),
        "step": str(reader.state["step"]),
        "weights": weights,
    }
    with staged(out, write.num_bytes(ours.shapes)) as aside:
        save_file(dict(ours), aside, metadata=metadata)
        store.flush(aside)
        written = aside.with_name(aside.name + ".safetensors")
        aside.rename(written)
        try:
            report = parity.report(
                config.model,
                parity.of_network(config.model, ours),
                parity.of_network(config.model, tensors.of_path(written)),
                (reader.path.name, out.name),
            )
        finally:
            written.rename(aside)
    write.write_json(out.with_suffix(".parity.json"), report)
    return report


def strip_file(source: Path, out: Path, *, ema: bool = False) -> list[str]:
    """The tensors of a pickled file as one .safetensors; the names of what was left behind.

    Raises:
        UserError: it holds no weights, or cannot be read.
    """
    _require_suffix(out, "the weights of a file become a file; call it")
    found, names = pickled.read_without(source)
    values = pickled.weights_of(found, source, ema=ema)
    size = sum(ELEMENT_BYTES * value.numel() for value in values.values())
    with staged(out, size) as aside:
        # Copies, since tensors may share memory, which safetensors refuses.
        save_file({name: value.clone() for name, value in values.items()}, aside)
        store.flush(aside)
    return names


def _require_suffix(out: Path, advice: str) -> None:
    if out.suffix != ".safetensors":
        raise UserError(f"{out}: {advice} {out}.safetensors")
