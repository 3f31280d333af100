"""A command imports no heavy package that it does not use, and its help imports none.

One process runs several commands, lightest first: what each of them imports is what is new in
``sys.modules`` after it.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from test_help import COMMANDS

HEAVY = (
    "torch",
    "deepspeed",
    "megatron",
    "transformers",
    "datasets",
    "wandb",
    "tensorboard",
    "matplotlib",
    "submitit",
    "sacrebleu",
    "rouge_score",
    "nltk",
    "lm_eval",
    "accelerate",
    "peft",
    "pandas",
    "scipy",
)

LIGHT: dict[str, set[str]] = {
    "pretrain --help": set(),
    "tools.crash --help": set(),
    "tools.verify --help": set(),
    "tools.convert --help": set(),
    "tools.convert to-hf --help": set(),
    "tools.plan --help": set(),
    "tools.sample --help": set(),
    "tools.harness --help": set(),
    "slurm --help": set(),
    "slurm submit --help": set(),
    "data_pipeline --help": set(),
    "data_pipeline tokenize --help": set(),
    "tools.runs --help": set(),
    "tools.runs RUNS": set(),
    "tools.inspect --help": set(),
    "tools.demo --help": set(),
    "tools.report --help": set(),
    "tools.classify --help": set(),
    "tools.compare --help": set(),
    "tools.report RUN": {"matplotlib"},
    "tools.pictures.architecture --help": {"matplotlib"},
}
"""Commands, and the heavy packages that each may import."""

WITH_TORCH: dict[str, set[str]] = {
    "tools.bench --help": {"torch"},
    "tools.evaluate --help": {"torch"},
    "pretrain --help optim.lr": {"torch"},
    "pretrain --keys": {"torch"},
    "pretrain configs/tiny.yaml --dry-run": {"torch"},
    "tools.plan configs/tiny.yaml --nodes 1": {"torch"},
}
"""Commands that compute with tensors or list the fields of their classes, and two whose options
stand in files that do."""

RUNNER = """
import contextlib, importlib, io, json, os, sys

heavy, commands = json.loads(sys.argv[1])
found = []
for name, *words in commands:
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            package = os.path.isdir(name.replace(".", "/"))
            status = importlib.import_module(name + (".__main__" if package else "")).main(words)
        except SystemExit as ended:
            status = ended.code
    loaded = [one for one in heavy if one in sys.modules]
    found.append([status or 0, loaded, output.getvalue()])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What stands for the capitals in the tables."""
    run = tmp_path_factory.mktemp("runs") / "run"
    run.mkdir()
    (run / "config.yaml").write_text("steps: 2\n")
    (run / "status.json").write_text(json.dumps({"state": "done", "step": 2}))
    rows = [{"step": step, "train/loss": 2.0 / step, "tokens_seen": 64 * step} for step in (1, 2)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"RUN": str(run), "RUNS": str(run.parent)}


@pytest.mark.parametrize("table", [LIGHT, WITH_TORCH], ids=["light", "torch"])
def test_a_command_imports_what_it_uses(
    root: Path, places: dict[str, str], table: dict[str, set[str]]
) -> None:
    commands = [[places.get(word, word) for word in line.split()] for line in table]
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, json.dumps([HEAVY, commands])],
        capture_output=True,
        text=True,
        cwd=root,
        check=True,
    )
    before: set[str] = set()
    for (line, allowed), (status, loaded, output) in zip(
        table.items(), json.loads(done.stdout), strict=True
    ):
        assert status == 0, f"{line}: {output}"
        assert before <= allowed, f"{line} stands after a command that may import more"
        assert set(loaded) - before <= allowed, f"{line} imports what it does not use"
        before |= set(loaded)


def test_every_command_is_in_a_table() -> None:
    assert {line.split()[0] for line in (*LIGHT, *WITH_TORCH)} == set(COMMANDS)
