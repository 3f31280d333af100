"""Exported weights are loaded and fine-tuned where nothing of ours is installed."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from pydoc_data import topics
from typing import Any

import pytest
from environments import make_environment
from small_models import save_weights, small_genie
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from pretrain.__main__ import main as pretrain
from tools.convert.to_hf import to_hf

TOPICS = ("specialnames", "string-methods")
"""Two long chapters of the Python language reference, to be told apart."""


@pytest.fixture(scope="module")
def export(demo_dir: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny configuration, trained for a moment, exported."""
    folder = tmp_path_factory.mktemp("finetune")
    words = [
        str(root / "configs" / "tiny.yaml"),
        f"run_dir={folder / 'run'}",
        f"data.demo_dir={demo_dir}",
        "steps=60",
        "eval.every=0",
    ]
    assert pretrain(words) == 0
    to_hf(folder / "run", folder / "export")
    return folder / "export"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Pieces of 30 words: the first four fifths of each chapter to train, the rest to test."""
    folder = tmp_path_factory.mktemp("data")
    train: list[dict[str, Any]] = []
    valid: list[dict[str, Any]] = []
    for label, topic in enumerate(TOPICS):
        words = topics.topics[topic].split()
        pieces = [" ".join(words[i : i + 30]) for i in range(0, len(words) - 30, 30)]
        rows = [{"text": piece, "label": label} for piece in pieces]
        cut = 4 * len(rows) // 5
        train += rows[:cut]
        valid += rows[cut:]
    for name, rows in (("train", train), ("valid", valid)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
    return folder / "train.jsonl", folder / "valid.jsonl"


TASKS = {
    "classify": ["--task", "classify", "--steps", "120", "--lr", "3e-3"],
    "classify-lora": ["--task", "classify", "--lora", "--steps", "120", "--lr", "1e-2"],
    "masked-lm": ["--task", "masked-lm", "--steps", "200", "--lr", "3e-3"],
    "masked-lm-lora": ["--task", "masked-lm", "--lora", "--steps", "30", "--lr", "1e-2"],
}
MAJORITY = 0.73
"""Share of the larger chapter among the pieces that are tested."""


def check(found: dict[str, Any], name: str) -> None:
    before, after = found["before"], found["after"]
    assert found["reloaded_difference"] == 0
    assert (found["trained"] < found["parameters"] / 2) == name.endswith("lora")
    if name.startswith("classify"):
        assert before["eval_accuracy"] <= MAJORITY
        assert after["eval_accuracy"] > MAJORITY + 0.1
        assert after["eval_loss"] < 0.75 * before["eval_loss"]
    elif name == "masked-lm":
        assert after["eval_loss"] < before["eval_loss"] - 0.1
    else:
        assert after["eval_loss"] != before["eval_loss"]


PACKAGES = (
    "torch>=2.8,<=2.13.0",
    "transformers>=5.23,<6",
    "accelerate>=1.15,<2",
    "peft>=0.21,<0.22",
)
ALONE = """
import importlib.util, sys
for name in ("model", "tools", "pretrain", "palimpsest", "deepspeed", "megatron", "configs"):
    assert importlib.util.find_spec(name) is None, name
"""
Bare = Callable[..., str]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    """Python with torch, transformers, accelerate and peft, and nothing of ours; its output."""
    folder = tmp_path_factory.mktemp("bare")
    python = str(make_environment(folder / "venv", *PACKAGES))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("VIRTUAL", "PYTHON"))}
    environment |= {"HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}

    def run(*words: str) -> str:
        done = subprocess.run(
            [python, *words], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("-c", ALONE)
    return run


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", TASKS)
def test_fine_tuning_with_the_trainer(
    bare: Bare, export: Path, data: tuple[Path, Path], root: Path, tmp_path: Path, name: str
) -> None:
    """By the script and the weights alone, away from the checkout."""
    script = shutil.copy(root / "tools" / "convert" / "huggingface" / "finetune.py", tmp_path)
    moved = shutil.copytree(export, tmp_path / "export")
    words = [str(moved), *map(str, data), str(tmp_path / name), *TASKS[name], "--length", "64"]
    check(json.loads(bare(str(script), *words).splitlines()[-1]), name)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_exports_load_where_nothing_of_ours_is_installed(
    bare: Bare, export: Path, tmp_path: Path, corpus: Path
) -> None:
    moved = shutil.copytree(export, tmp_path / "export")
    predicted = (
        "import sys, torch; from transformers import AutoModelForMaskedLM, AutoTokenizer; "
        "m = AutoModelForMaskedLM.from_pretrained(sys.argv[1], trust_remote_code=True); "
        "t = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True); "
        "b = t(['a text', 'another, longer text'], padding=True, return_tensors='pt'); "
        "print(m(**b).logits.isnan().any().item())"
    )
    assert bare("-c", predicted, str(moved)).split()[-1] == "False"
    genie = tmp_path / "genie"
    save_weights(tmp_path / "ckpt", *small_genie(corpus), 2**20)
    to_hf(tmp_path / "ckpt", genie)
    sampled = (
        "import sys; from transformers import AutoModelForSeq2SeqLM, AutoTokenizer; "
        "m = AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1], trust_remote_code=True); "
        "t = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True); "
        "b = t(['a text', 'another, longer text'], padding=True, return_tensors='pt'); "
        "print(m.eval().generate(**b, seed=0).tolist())"
    )
    found = json.loads(bare("-c", sampled, str(genie)).splitlines()[-1])
    tokenizer = AutoTokenizer.from_pretrained(genie, trust_remote_code=True)
    batch = tokenizer(["a text", "another, longer text"], padding=True, return_tensors="pt")
    model = AutoModelForSeq2SeqLM.from_pretrained(genie, trust_remote_code=True).eval()
    assert model.generate(**batch, seed=0).tolist() == found
