import json
from pathlib import Path

import pytest

from configs.load import load
from pretrain.config import RunConfig
from pretrain.parallel.config import ParallelConfig
from pretrain.planner.plan import plan
from tools.plan.__main__ import main
from tools.plan.recommendation import words

OWT = "configs/mdlm/owt.yaml"
SEVENTY = [
    *("model.width=8192", "model.num_layers=80", "model.num_heads=64", "model.mlp_width=28672"),
    *("model.mlp=swiglu", "model.vocab_size=128256", "model.dropout=0"),
    *("data.sequence_length=4096", "global_batch=1024"),
]


@pytest.fixture
def owt(root: Path) -> str:
    return str(root / OWT)


def test_the_plan_of_the_published_run(owt: str, capsys) -> None:
    assert main([owt, "--gpu", "h100-80g", "--nodes", "16", "--gpus-per-node", "8"]) == 0
    text = capsys.readouterr().out
    assert "parameters    169,697,920" in text
    assert "524,288 tokens per step" in text
    assert "128 x h100-80g in 16 nodes of 8" in text
    assert "40% MFU" in text
    assert "memory per GPU, MiB" in text
    assert "parallel.data=128 parallel.tensor=1 parallel.pipeline=1 parallel.zero_stage=1" in text
    assert text.count("recommended") == 1


def test_columns_stand_under_their_heads(owt: str, capsys) -> None:
    main([owt, "--all"])
    lines = capsys.readouterr().out.splitlines()
    head = next(line for line in lines if "micro-batches" in line and "tokens/s" in line)
    end = head.index("tokens/s") + len("tokens/s")
    rows = lines[lines.index(head) + 1 : lines.index(head) + 6]
    assert all(row[end - 1].isdigit() and row[end] == " " for row in rows)


def test_the_recommended_words_make_a_plan_that_runs(owt: str, capsys) -> None:
    assert main([owt, *SEVENTY, "--nodes", "128", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    config = load(RunConfig, [Path(owt)], [*SEVENTY, *found["words"]])
    numbers = plan(config, 1024)
    assert numbers.memory.total == found["recommended"]["memory_bytes"]["total"]
    assert numbers.parameters == found["parameters"] > 70e9
    assert found["problem"] is None
    assert any(not one["fits"] for one in found["layouts"])


def test_more_mfu_is_more_tokens(owt: str, capsys) -> None:
    rates = []
    for mfu in ("0.3", "0.6"):
        main([owt, "--json", "--mfu", mfu])
        rates.append(json.loads(capsys.readouterr().out)["recommended"]["tokens_per_s"])
    assert rates[0] < rates[1] < 2 * rates[0]


def test_a_layout_of_ones_own_is_shown_beside(owt: str, capsys) -> None:
    main([owt, "parallel.tensor=4", "parallel.pipeline=2"])
    assert "yours" in capsys.readouterr().out
    main([owt, "parallel.data=4"])
    assert "your layout: parallel.data is 4, but 8 ranks make it 8" in capsys.readouterr().out


def test_nothing_fits(owt: str, capsys) -> None:
    assert main([owt, "--gpu", "a100-40g", *SEVENTY]) == 1
    output = capsys.readouterr()
    assert "does not fit" in output.out
    assert output.err.startswith("error: nothing fits 8 x a100-40g")
    assert main([owt, "--gpu", "a100-40g", *SEVENTY, "--json"]) == 1
    assert "nothing fits" in json.loads(capsys.readouterr().out)["problem"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu", "h1000"], "unknown GPU 'h1000'; there are: "),
        (["--mfu", "40"], "--mfu must lie in (0, 1], not 40"),
        (["--nodes", "125"], "global_batch 512 cannot be shared by 1000 GPUs"),
        (["model.widht=3"], "did you mean 'width'?"),
    ],
)
def test_a_wrong_word_is_one_error(owt: str, capsys, arguments: list[str], message: str) -> None:
    assert main([owt, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


def test_a_configuration_must_be_named(capsys) -> None:
    assert main(["seed=1"]) == 2
    assert "name a configuration file" in capsys.readouterr().err


def test_words_undo_what_the_configuration_sets() -> None:
    configured = ParallelConfig(tensor=2, sequence_parallel=True, recompute_every=1)
    layout = ParallelConfig(data=8, micro_batch=4)
    assert words(layout, configured) == [
        *("parallel.data=8", "parallel.tensor=1", "parallel.pipeline=1", "parallel.zero_stage=1"),
        *("parallel.sequence_parallel=false", "parallel.micro_batch=4"),
        "parallel.recompute_every=0",
    ]
