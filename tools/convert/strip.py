"""Weights only: a checkpoint without its moments, a pickled file without its objects."""

from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save_file

from configs.errors import UserError
from pretrain.checkpoint import store
from pretrain.checkpoint.reader import Reader
from pretrain.checkpoint.weights import config_of, find
from tools.convert import parity, pickled, tensors, write
from tools.convert.staging import staged
from tools.convert.write import ELEMENT_BYTES


def strip_checkpoint(
    checkpoint: Path,
    out: Path,
    *,
    weights: Literal["ema", "raw"] = "ema",
    shard_bytes: int = write.SHARD_BYTES,
) -> dict[str, Any]:
    """A checkpoint of the averaged or raw weights alone; the parity report."""
    reader = Reader(find(checkpoint))
    config = config_of(reader)
    ours = tensors.of_checkpoint(reader, reader.weights(weights))
    facts = reader.state
    state = write.state_of(
        config, step=facts["step"], tokens_seen=facts["tokens_seen"], facts=facts
    )
    with staged(out, write.num_bytes(ours.shapes)) as aside:
        write.write_checkpoint(aside, ours, state, shard_bytes, reader.objective_state())
        given = parity.inputs(config.model, config.model.num_ids)
        report = parity.compare(
            parity.logits(config.model, ours, given),
            parity.logits(config.model, tensors.of_checkpoint(Reader(aside), "master"), given),
            (reader.path.name, "the checkpoint"),
            given,
        ).as_json()
        write.write_json(aside / parity.FILE_NAME, report)
    return report


def strip_file(source: Path, out: Path, *, ema: bool = False) -> list[str]:
    """The tensors of a pickled file as one .safetensors; the names of what was left behind.

    Raises:
        UserError: it holds no weights, or cannot be read.
    """
    if out.suffix != ".safetensors":
        raise UserError(f"{out}: the weights of a file become a file; call it {out}.safetensors")
    found, names = pickled.read_without(source)
    values = pickled.weights_of(found, source, ema=ema)
    size = sum(ELEMENT_BYTES * value.numel() for value in values.values())
    with staged(out, size) as aside:
        # Copies, since tensors may share memory, which safetensors refuses.
        save_file({name: value.clone() for name, value in values.items()}, aside)
        store.flush(aside)
    return names
