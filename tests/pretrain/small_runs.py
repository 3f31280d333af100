"""Settings and records of the small runs of these tests."""

import json
from pathlib import Path

from pretrain.checkpoint import manifest, store
from pretrain.run.metrics import read_rows

GENIE = (
    "model.name=encoder_decoder model.num_encoder_layers=1 model.embedding_width=16 "
    "model.self_conditioning=true objective.name=genie objective.num_steps=4 "
    "objective.times=loss_second_moment objective.self_conditioning=0.5 "
    "data.packing=paragraphs data.source_length=48 data.sequence_length=16"
)


def curve(run: Path) -> list[dict[str, float]]:
    """The rows of a run without times and throughputs."""
    return [
        {key: value for key, value in row.items() if not key.startswith("perf/")}
        for row in read_rows(run / "metrics.jsonl")
    ]


def reseal(path: Path, **facts: object) -> None:
    """Other facts in a checkpoint's state, with the checksums that go with them."""
    file = path / "state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **facts}))
    files = dict(manifest.read(path)["files"])
    files[file.name] = {"bytes": file.stat().st_size, "sha256": store.sha256(file)}
    (path / store.MANIFEST).write_text(manifest.text_of(files))
