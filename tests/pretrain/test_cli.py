"""What a user gets wrong, and what ``python -m pretrain`` says: one clear error, status 2."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from pretrain.__main__ import main

BAD = {
    "optim.lrr=3": "optim.lrr: unknown key; did you mean 'lr'?",
    "seed=true": "seed: input should be a valid integer, not True",
    "objective.name=mdml": "did you mean 'mdlm'?",
    "objective.schedule=cosin": "did you mean 'cosine'?",
    "model.num_heads=5": "width 64 is not divisible by 5 heads",
    "model.vocab_size=1000": None,
    "parallel.data=3": "does not divide by the data-parallel size 3; choose a multiple of 3",
    "parallel.micro_batch=3": "does not divide by parallel.micro_batch 3",
    "parallel.tensor=3": "model.num_heads (4) does not divide by parallel.tensor 3",
    "parallel.pipeline=5": "parallel.pipeline 5 is more than the 4 layers",
    "parallel={pipeline: 2, zero_stage: 2}": "zero_stage 2 cannot run with a pipeline",
    "parallel={tensor: 4, sequence_parallel: true} data.sequence_length=62": (
        "data.sequence_length (62) does not divide by parallel.tensor 4"
    ),
    "parallel={tensor: 2, sequence_parallel: true} model.dropout=0.1": "model.dropout acts on",
    "parallel.sequence_parallel=true": "sequence_parallel needs tensor > 1",
    "parallel.zero_stage=4": "zero_stage must be 0, 1, 2 or 3",
    "data.sequence_length=2": "sequence_length must be at least 3",
    "data.sequence_length=200000": "longest",
    "data.corpus=nowhere": "nowhere",
    "steps=0": "steps must be at least 1",
    "steps": "cannot read steps",
    "=3": "expected key=value",
}


@pytest.mark.parametrize(("word", "message"), [(k, v) for k, v in BAD.items() if v])
def test_a_wrong_word_is_one_error(tiny, capsys, word: str, message: str) -> None:
    assert main(tiny(*re.split(r" (?=\w+\.)", word))) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert "Traceback" not in error


def test_all_problems_are_listed_at_once(tiny, capsys) -> None:
    assert main(tiny("optim.lrr=1", "seed=x", "objective.epps=1", "global_batch=0.5")) == 2
    error = capsys.readouterr().err
    assert "4 problems" in error
    for key in ("optim.lrr", "seed", "objective.epps", "global_batch"):
        assert f"\n  {key}: " in error


def test_nothing_is_made_before_an_error(tiny, tmp_path: Path) -> None:
    main(tiny("data.sequence_length=200000"))
    assert not (tmp_path / "run").exists()


def test_fp16_needs_a_gpu(tiny, capsys, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(tiny("precision=fp16")) == 2
    assert "fp16 needs a GPU; use bf16 or fp32" in capsys.readouterr().err


def test_the_vocabulary_must_be_that_of_the_corpus(tiny, corpus: Path, capsys) -> None:
    assert main(tiny(f"data.corpus={corpus}", "model.vocab_size=2048")) == 2
    assert "set model.vocab_size=1024" in capsys.readouterr().err


def test_truncated_shards_are_refused(tiny, corpus: Path, tmp_path: Path, capsys) -> None:
    damaged = shutil.copytree(corpus, tmp_path / "damaged")
    shard = damaged / "train" / "00000.bin"
    shard.write_bytes(shard.read_bytes()[:-2])
    assert main(tiny(f"data.corpus={damaged}")) == 2
    assert "00000.bin" in capsys.readouterr().err


def test_a_corpus_without_a_held_out_split_trains_only_without_validation(
    tiny, corpus: Path, tmp_path: Path, capsys
) -> None:
    alone = shutil.copytree(corpus, tmp_path / "alone")
    shutil.rmtree(alone / "valid")
    assert main(tiny(f"data.corpus={alone}")) == 2
    assert "set eval.every=0" in capsys.readouterr().err


def test_a_directory_with_something_else_in_it_is_not_taken(tiny, tmp_path: Path, capsys) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("precious")
    assert main(tiny()) == 2
    error = capsys.readouterr().err
    assert "holds no run (thesis.tex is in it); choose another run_dir" in error


def test_rank_without_world_is_explained(tiny, capsys, monkeypatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert main(tiny()) == 2
    assert "start with torchrun" in capsys.readouterr().err


def test_dry_run_prints_the_plan_and_makes_nothing(tiny, tmp_path: Path, capsys) -> None:
    assert main([*tiny("parallel.data=2"), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "name: mdlm" in text
    assert "2 ranks: data 2 x tensor 1 x pipeline 1" in text
    assert "tokens per step  512" in text
    assert not (tmp_path / "run").exists()


def test_dry_run_as_json_is_for_programs(tiny, capsys) -> None:
    assert main([*tiny("parallel.data=2", "parallel.micro_batch=2"), "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["plan"]["accumulation"] == 2
    assert plan["plan"]["ranks"] == 2
    assert plan["config"]["model"]["width"] == 64


def test_the_planned_parameters_are_those_of_the_model(tiny_config) -> None:
    from model.networks.build import build
    from pretrain.planner.plan import count_parameters

    real = sum(p.numel() for p in build(tiny_config.model).parameters())
    assert count_parameters(tiny_config.model) == real


def test_words_may_follow_options(tiny, capsys) -> None:
    file, *overrides = tiny()
    words = ["parallel.tensor=2", "parallel.pipeline=2"]
    assert main([file, "--dry-run", *overrides, "--json", *words]) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["ranks"] == 4
