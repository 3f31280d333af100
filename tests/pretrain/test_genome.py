"""A synthetic genome trains in seconds, and its held-out bound comes near the entropy."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.__main__ import main as prepare
from pretrain.run.metrics import read_rows

WEIGHTS = {"A": 0.46, "C": 0.04, "G": 0.04, "T": 0.46}
"""Independent bases; the composition is that of either strand."""

ENTROPY = -sum(p * math.log(p) for p in WEIGHTS.values())


def write_fasta(path: Path, seed: int, length: int) -> None:
    bases = np.random.default_rng(seed).choice([*WEIGHTS], size=length, p=[*WEIGHTS.values()])
    text = "".join(bases)
    lines = [text[start : start + 60].lower() for start in range(0, length, 60)]
    path.write_text("\n".join([">synthetic", *lines, ""]), encoding="utf-8")


def test_a_synthetic_genome_trains(train: Any, tmp_path: Path) -> None:
    corpus = str(tmp_path / "corpus")
    words = ["tokenizer", "--kind", "characters", "--alphabet", "dna", "--out", corpus]
    assert prepare(words) == 0
    for seed, (name, length) in enumerate({"train": 50_000, "valid": 5_000}.items()):
        file = tmp_path / f"{name}.fa"
        write_fasta(file, seed, length)
        assert prepare(["tokenize", str(file), "--corpus", corpus, "--split", name]) == 0
    train(
        f"data.corpus={corpus}",
        "data.reverse_complement=0.5",
        "model.vocab_size=9",
        "steps=30",
        "model.width=32",
        "optim.lr=1e-2",
        "checkpoint.every=30",
        "eval.every=30",
    )
    rows = [row for row in read_rows(tmp_path / "run" / "metrics.jsonl") if "val/nelbo" in row]
    assert ENTROPY - 0.1 < rows[-1]["val/nelbo"] < ENTROPY + 0.15
