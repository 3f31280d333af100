"""A checkpoint's weights as one plain .safetensors, under their own names."""

import json
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save_file

from configs.errors import UserError
from configs.load import to_plain
from pretrain.checkpoint import store
from pretrain.checkpoint.reader import Reader
from pretrain.checkpoint.weights import config_of, find
from tools.convert import parity, tensors, write
from tools.convert.staging import staged


def to_safetensors(
    checkpoint: Path, out: Path, *, weights: Literal["ema", "raw"] = "ema"
) -> dict[str, Any]:
    """Write the file, with the architecture in its metadata; the report beside it.

    One file is written at once: its tensors stand in memory together.
    """
    if out.suffix != ".safetensors":
        raise UserError(f"{out}: call the file {out}.safetensors")
    reader = Reader(find(checkpoint))
    config = config_of(reader)
    ours = tensors.of_checkpoint(reader, reader.weights(weights))
    metadata = {
        "format": "pt",
        "model": json.dumps(to_plain(config.model)),
        "step": str(reader.state["step"]),
        "weights": weights,
    }
    with staged(out, write.num_bytes(ours.shapes)) as aside:
        save_file(dict(ours), aside, metadata=metadata)
        store.flush(aside)
        written = aside.with_name(aside.name + ".safetensors")
        aside.rename(written)
        try:
            given = parity.inputs(config.model, config.model.num_ids)
            report = parity.compare(
                parity.logits(config.model, ours, given),
                parity.logits(config.model, tensors.of_path(written), given),
                (reader.path.name, out.name),
                given,
            ).as_json()
        finally:
            written.rename(aside)
    write.write_json(out.with_suffix(".parity.json"), report)
    return report
