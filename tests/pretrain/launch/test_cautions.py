"""What a run may meet is said before its first step, in one line each."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from configs.load import load
from data_pipeline.__main__ import main as prepare
from model.draws import Draws
from pretrain.config import RunConfig
from pretrain.data import open_corpus
from pretrain.launch.available_memory import available_bytes
from pretrain.launch.cautions import cautions, weights_of
from pretrain.launch.device import cpu_has_bf16
from pretrain.planner.plan import plan
from pretrain.run.banner import closing, opening, size

GIB = 2**30


def of(
    config: RunConfig, available: int | None = None, sharing: int = 1, *, slow_bf16: bool = False
) -> list[str]:
    draws = Draws(seed=config.seed, split="train", batch=config.global_batch)
    corpus, numbers = open_corpus(config, draws), plan(config, None)
    return cautions(config, numbers, corpus, available, sharing, slow_bf16=slow_bf16)


@pytest.fixture
def calm(tiny, root: Path) -> RunConfig:
    """A run of which nothing is to be said."""
    file, *words = tiny("steps=1000", "ema.decay=0.9")
    return load(RunConfig, [Path(file)], words)


def with_length(config: RunConfig, length: int) -> RunConfig:
    return replace(config, data=replace(config.data, sequence_length=length))


def test_an_ordinary_run_is_not_warned_of(calm: RunConfig) -> None:
    assert of(calm, available=GIB) == []


def test_bf16_where_the_cpu_has_none_is_said(calm: RunConfig) -> None:
    assert of(calm, slow_bf16=True) == []
    low = replace(calm, precision="bf16")
    assert of(low) == []
    (line,) = of(low, slow_bf16=True)
    assert line.startswith("warning: this CPU computes bf16 in software")
    assert "set precision=fp32" in line
    assert cpu_has_bf16() == torch.ops.mkldnn._is_mkldnn_bf16_supported()


def test_one_window_of_a_corpus_is_said(calm: RunConfig) -> None:
    (line,) = of(with_length(calm, 100_000))
    assert line.startswith("warning: the 118,395 tokens of ")
    assert "make only 1 sample of data.sequence_length 100,000" in line
    assert "each step sees it 8 times" in line
    assert "18,397 tokens that fill no window are never seen" in line


def test_fewer_windows_than_a_step_takes_are_said(calm: RunConfig) -> None:
    (line,) = of(replace(with_length(calm, 10_000), global_batch=32))
    assert "make only 11 samples" in line
    assert "each step of 32 sees every one 2.91 times" in line
    assert of(with_length(calm, 10_000)) == []


def test_memory_that_is_not_there_is_said_with_what_helps(calm: RunConfig) -> None:
    big = with_length(calm, 8000)
    needed = plan(big, None).memory.total
    assert of(big, available=needed) == []
    assert of(big, available=None) == []
    (line,) = of(big, available=needed - 1)
    assert f"will need about {size(needed)} of memory, and" in line
    assert "a smaller parallel.micro_batch or parallel.recompute_every=1" in line
    (line,) = of(big, available=3 * needed, sharing=4)
    assert f"(4 ranks of {size(needed)})" in line


def test_memory_that_weights_fill_wants_more_ranks(calm: RunConfig) -> None:
    wide = replace(calm, model=replace(calm.model, width=4096, num_layers=8), global_batch=1)
    (line,) = of(wide, available=GIB)
    assert "spread the model over more ranks" in line


def test_a_run_shorter_than_its_average_is_said_once(calm: RunConfig) -> None:
    short = replace(calm, steps=30, ema=replace(calm.ema, decay=0.9999))
    (line,) = of(short)
    assert "averages the weights of 10,000 steps, and the run has 30" in line
    assert "of about the last 4" in line


@pytest.mark.parametrize(
    ("decay", "step", "text"),
    [
        (0.0, 1, "raw weights: ema.decay is 0"),
        (0.9999, 30, "averaged weights, of about the last 4 steps"),
        (0.9999, 10_000, "averaged weights"),
        (0.98, 300, "averaged weights"),
    ],
)
def test_the_held_out_line_says_which_weights(
    calm: RunConfig, decay: float, step: int, text: str
) -> None:
    assert weights_of(replace(calm, ema=replace(calm.ema, decay=decay)), step) == text


def test_pairs_that_are_cut_are_said_by_the_run_and_by_nobody_else(
    tiny, corpus: Path, tmp_path: Path, capsys, caplog
) -> None:
    own = tmp_path / "pairs"
    own.mkdir()
    (own / "tokenizer.model").write_bytes((corpus / "tokenizer.model").read_bytes())
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(f'{{"q": "a long source {n}", "a": "b"}}\n' for n in range(20)))
    for split in ("train", "valid"):
        words = ["tokenize", str(file), "--pairs", "q", "a", "--corpus", str(own)]
        assert prepare([*words, "--split", split]) == 0
    first, *words = tiny(
        "steps=1000", "ema.decay=0.9", f"data.corpus={own}", "data.packing=pairs",
        "data.source_length=3", "data.sequence_length=16", "objective.name=genie",
        "model.name=encoder_decoder", "model.num_encoder_layers=1",
    )  # fmt: skip
    config = load(RunConfig, [Path(first)], words)
    capsys.readouterr()
    lines = of(config)
    assert [line for line in lines if "are cut" in line] == [
        f"warning: {own / split}: 20 of 20 sources are longer than 3 tokens and are cut"
        for split in ("train", "valid")
    ]
    assert capsys.readouterr().err == ""
    assert caplog.text == ""


@pytest.mark.slow
def test_a_run_says_what_it_is_its_first_loss_and_its_end(tiny, tmp_path: Path) -> None:
    """All of it once, from the first of two ranks; --fresh moves what was there aside."""
    run = tmp_path / "run"
    (run / "attempts").mkdir(parents=True)
    (run / "config.yaml").write_text("not: a run of this version")
    (run / "status.json").write_text('{"state": "done"}')
    words = tiny("log.every=10", "eval.every=0", "steps=3", "parallel.data=2")
    command = [sys.executable, "-m", "pretrain", *words, "--fresh"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run.1" / "config.yaml").read_text() == "not: a run of this version"
    lines = [line for line in done.stderr.splitlines() if not line.startswith("step 2/3")]
    starts = (
        f"--fresh: the run that was in {run} is in {run}.1 now",
        "model      286,720 parameters, objective mdlm",
        "corpus     ",
        "batch      8 x 64 = 512 tokens a step",
        "layout     2 ranks: data 2",
        "device     ",
        f"run        {run}",
        "warning: ema.decay 0.99 averages",
        "step 1/3, loss 7.28",
        "step 3/3, loss ",
        "done: 3 steps, 1,536 tokens in 0:0",
        f"next: python -m tools.evaluate {run}",
        f"      python -m tools.sample {run}",
        f"      python -m tools.report {run}",
    )
    assert len(lines) == len(starts), done.stderr
    for line, start in zip(lines, starts, strict=True):
        assert line.startswith(start)


# -- memory that is free ------------------------------------------------------------------


def machine(tmp_path: Path, files: dict[str, str]) -> Path:
    files = {"proc/meminfo": "MemTotal: 1000 kB\nMemAvailable:    900 kB\n", **files}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


CPU = torch.device("cpu")


def test_the_machine_says_what_is_free(tmp_path: Path) -> None:
    assert available_bytes(CPU, machine(tmp_path, {})) == 900 * 1024
    assert available_bytes(CPU, tmp_path / "nowhere") is None


@pytest.mark.parametrize("limited", ["job", "job/step", ""])
def test_a_limit_of_cgroup_2_counts_wherever_it_is_set(tmp_path: Path, limited: str) -> None:
    group = f"sys/fs/cgroup/{limited}"
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/job/step\n",
            "sys/fs/cgroup/job/step/memory.max": "max\n",
            f"{group}/memory.max": "100000\n",
            f"{group}/memory.current": "70000\n",
            f"{group}/memory.stat": "anon 1\ninactive_file 5000\n",
        },
    )
    assert available_bytes(CPU, root) == 35_000


def test_a_limit_of_cgroup_1_counts_too(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/memory/slurm/job_7"
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu,memory:/slurm/job_7\n4:devices:/\n0::/\n",
            f"{group}/memory.limit_in_bytes": "50000\n",
            f"{group}/memory.usage_in_bytes": "60000\n",
            f"{group}/memory.stat": "total_inactive_file 0\n",
        },
    )
    assert available_bytes(CPU, root) == 0


def test_this_machine_has_some() -> None:
    assert (available_bytes(CPU) or 0) > 2**20


# -- the banner ---------------------------------------------------------------------------


def test_the_banner_names_what_a_run_is(calm: RunConfig) -> None:
    draws = Draws(seed=0, split="train", batch=8)
    corpus = open_corpus(calm, draws)
    text = "\n".join(opening(calm, plan(calm, None), corpus, CPU, Path("runs/x")))
    for part in (
        "286,720 parameters, objective mdlm",
        "demo-1024: 118,395 tokens, 1,909 windows of 64",
        "8 x 64 = 512 tokens a step; 1,000 steps are 4.2 passes",
        "1 rank: data 1 x tensor 1 x pipeline 1, ZeRO 1",
        "CPU, 1 thread a rank; fp32, about",
        "run        runs/x",
    ):
        assert part in text


def test_the_end_says_where_the_run_lies_and_what_is_next(calm: RunConfig) -> None:
    done = closing(calm, Path("runs/x"), 1000, 512_000, 4000.0)
    assert done[0] == "done: 1,000 steps, 512,000 tokens in 1:06:40; the run is in runs/x"
    for tool in ("evaluate", "sample", "report"):
        assert any(line.endswith(f"python -m tools.{tool} runs/x") for line in done)
    early = closing(calm, Path("runs/x"), 10, 5120, 4.0)
    assert early[0].startswith("ended by stop_after: 10 steps")
    assert size(500) == "0 KiB"
    assert size(12 * GIB) == "12 GiB"
    assert size(1.5 * GIB) == "1.5 GiB"
