"""Whatever the arguments of a command are, it ends with a status and a word.

What a command does when its arguments are right is left out: models are not loaded, ranks not
started, nothing is measured.
"""

import random
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from mutations import tame, word
from test_configurations import FOLDER, KEYS, status_of, survive

from configs.load import load
from model.verification.check import Check, Comparison
from pretrain.checkpoint import weights
from pretrain.config import RunConfig
from pretrain.launch import local as launch
from tools import inspect
from tools.bench import __main__ as bench
from tools.convert import __main__ as convert
from tools.crash import __main__ as crash
from tools.crash import print_result
from tools.demo import __main__ as demo
from tools.evaluate import __main__ as evaluate
from tools.plan import __main__ as plan
from tools.report import __main__ as report
from tools.sample import __main__ as sample
from tools.sample import print_samples
from tools.verify import __main__ as verify
from tools.verify import print_checks

Main = Callable[[Sequence[str]], int]

OPTIONS: dict[str, tuple[Main, list[str]]] = {
    "sample": (
        sample.main,
        ["--num", "--length", "--seed", "--prompt", "--batch", "--json", "--source", "--sampler",
         "--candidates", "--choose", "--weights"],
    ),
    "evaluate": (
        evaluate.main,
        ["--task", "--split", "--samples", "--batch", "--seed", "--data", "--train-data", "--pairs",
         "--sampler", "--sources", "--must-say", "--out", "--candidates", "--weights"],
    ),
    "plan": (plan.main, ["--gpu", "--nodes", "--gpus-per-node", "--mfu", "--all", "--json"]),
    "report": (report.main, ["--json", "--out"]),
    "inspect": (inspect.main, ["--verify", "--json"]),
    "demo": (demo.main, ["--steps", "--json"]),
    "verify": (verify.main, ["--ranks", "--steps", "--only", "--json"]),
    "bench": (bench.main, ["--case", "--steps", "--repeats", "--json", "--device", "--width"]),
    "crash": (crash.main, ["--kills", "--seed", "--faults", "--no-faults", "--out"]),
    "convert": (
        convert.main,
        ["--format", "--weights", "--shard-mib", "--tokenizer", "--mask-id", "--heads", "--shares",
         "--annealing-steps", "--out"],
    ),
}  # fmt: skip
FIRST = {
    "bench": ["train", "parallel", "checkpoint", "gpu", "x"],
    "convert": ["to-hf", "from-hf", "average", "to-safetensors", "strip", "x"],
    "demo": [str(FOLDER / "tiny.yaml")],
    "plan": [str(FOLDER / "tiny.yaml"), str(FOLDER / "mdlm" / "owt.yaml")],
}
VALUES = [
    "0", "1", "2", "-1", "3", "8", "1e3", "x", "nan", "inf", "-inf", "9" * 30, "9" * 5000, "", " ",
    "ema", "raw", "seq2seq", "cpu", "cuda:99", "h100-80g", "train", "layouts", "oracles", "\udcff",
    "0.5", "[", "(", "a/b", "/proc/x", "x" * 300, "file", "folder", "run", "full", "--", "-h", "=",
    "a=1", "parallel.tensor=2", "parallel.tensor=x", "parallel.data=0", "parallel=3", "steps=3",
    "ancestral", "help",
]  # fmt: skip

slow = pytest.mark.slow
FAST_AND_SLOW = [pytest.param(range(25)), pytest.param(range(25, 1000), marks=slow)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Path:
    """A directory with things in it, and commands whose work is left out."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("no checkpoint")
    (tmp_path / "folder").mkdir()
    (tmp_path / "run" / "checkpoints" / "step-1").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "step-1" / "manifest.json").write_text("{}")
    shutil.copy(FOLDER / "tiny.yaml", tmp_path / "run" / "config.yaml")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "metrics.jsonl").mkdir()
    config = load(RunConfig, [FOLDER / "tiny.yaml"])
    nothing = SimpleNamespace(close=lambda: None)
    monkeypatch.setattr(weights, "configuration", lambda run: config)
    monkeypatch.setattr(weights, "check_layout", lambda run, layout: None)
    monkeypatch.setattr(weights, "load_denoiser", lambda *a, **k: nothing)
    monkeypatch.setattr(launch, "run_local", lambda *a, **k: 0)
    monkeypatch.setattr(launch, "preload", lambda **k: None)
    monkeypatch.setattr(print_samples, "print_samples", lambda loaded, arguments: 0)
    monkeypatch.setattr(evaluate, "print_summary", lambda loaded, arguments: 0)
    monkeypatch.setattr(print_checks, "_checks", _one_check)
    monkeypatch.setattr(print_result, "_survive", lambda *a: None)
    monkeypatch.setattr(demo, "pretrain", lambda words: 2)
    for one in (bench.train, bench.parallel, bench.checkpoint, bench.gpu):
        monkeypatch.setattr(one, "run", lambda arguments: 0)
    return tmp_path


def _one_check(only: str | None, ranks: int, steps: int):
    yield Check(name="one", compare=lambda: [Comparison(what="x", deviation=0)])


def arguments(name: str, rng: random.Random) -> list[str]:
    """Options in any order, most with a value; words between them."""
    options = OPTIONS[name][1]
    found = [rng.choice(FIRST[name])] if name in FIRST and rng.random() < 0.9 else []
    if rng.random() < 0.9 and name not in ("demo", "plan", "verify", "crash", "bench"):
        found.append(rng.choice(["run", "folder", "file", "nowhere", "full", ""]))
    for option in rng.choices(options, k=rng.randint(0, 4)):
        found.append(option if rng.random() < 0.9 else f"{option}={rng.choice(VALUES)}")
        if rng.random() < 0.8:
            found.append(rng.choice(VALUES))
    if rng.random() < 0.4:
        found += tame(KEYS, rng) if rng.random() < 0.5 else [word(KEYS, rng), rng.choice(VALUES)]
    return found


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seeds", FAST_AND_SLOW, ids=["some", "many"])
@pytest.mark.parametrize("name", OPTIONS)
def test_no_argument_is_a_traceback(name: str, seeds: range, place: Path, capsys) -> None:
    # As Python's own is, and pytest's is not; between set-up and test pytest changes it.
    sys.stderr.reconfigure(errors="backslashreplace")

    def case(rng: random.Random, path: Path) -> int:
        given = arguments(name, rng)
        return status_of(lambda: OPTIONS[name][0](given))

    survive(case, seeds, place, capsys)
