from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

from configs.load import load
from data_pipeline import __main__ as data_pipeline
from pretrain.planner.plan import count_parameters
from tools.compare import __main__ as command
from tools.compare.config import CompareConfig
from tools.compare.members import members

PRESETS = sorted((ROOT / "configs/compare").glob("*.yaml"))

REFUSED = {
    "runs.causal.steps=5": "diffusion 4 x 4 x 24 = 384, causal 5 x 4 x 24 = 480; change",
    "runs.causal.config=configs/gone.yaml": "runs.causal.config: cannot read configs/gone.yaml",
    "base.config=3": "base.config: the path of a configuration file is expected",
    "corpus=corpora/gone": "corpus corpora/gone: there is none; make it: python -m data_pipeline",
    "evaluation.split=test": "test/manifest.json: missing",
    "base.optim.lrr=1": "runs.diffusion:\n  optim.lrr: unknown key; did you mean 'lr'?",
    "base.seed=1": "base.seed: all runs share it: set seeds",
    "runs.causal.data.corpus=demo": "runs.causal.data.corpus: all runs share it: set corpus",
    "seeds=[]": "seeds must name at least one seed",
    "seeds=[1,1]": "seeds must differ, not [1, 1]",
    "samples.samplers.other.steps=2": "there is no run 'other'; runs: diffusion, causal",
    "samples.samplers.causal.steps=2": "causal, seed 0: --sampler: steps: unknown key",
    "evaluation.estimator=none-such": "diffusion, seed 0: --estimator none-such",
    "baselines.kneser_ney=0": "baselines.kneser_ney must be at least 1",
    "base.model.vocab_size=40": "set model.vocab_size=31",
    "evaluaton.samples=1": "did you mean 'evaluation'?",
}


@pytest.mark.parametrize("word", REFUSED)
def test_what_cannot_be_compared_is_refused(
    word: str, file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = file()
    assert command.main([str(path), word]) == 2
    assert REFUSED[word] in capsys.readouterr().err
    assert not (path.parent / "out").exists(), "nothing is begun"


def test_the_commands_that_make_a_missing_corpus_are_shown(
    file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = file(corpus="corpora/gone", prepare=["make one", "make two"])
    assert command.main([str(path)]) == 2
    assert "there is none; make it: make one && make two\n" in capsys.readouterr().err


def test_names_of_runs_are_those_of_directories(
    file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([str(file(runs={"a/b": {}, "c": {}}))]) == 2
    assert "runs: 'a/b' is no name" in capsys.readouterr().err


def test_settings_of_a_run_go_over_the_base_and_its_file(
    file: Callable[..., Path], letters: Path, tmp_path: Path
) -> None:
    below, own = tmp_path / "below.yaml", tmp_path / "own.yaml"
    below.write_text("{steps: 9, global_batch: 2, optim: {lr: 0.5, clip: 3}}\n")
    own.write_text("{optim: {clip: 4}}\n")
    base = {
        "config": str(below),
        "steps": 4,
        "model": {"vocab_size": 31, "width": 8, "num_heads": 2, "conditioning_width": 8},
        "data": {"sequence_length": 8},
        "objective": {"name": "mdlm", "t_min": 0.2, "schedule": {"name": "loglinear"}},
    }
    runs = {
        "a": {},
        "b": {"config": str(own), "model": {"name": "transformer"}, "ema": {"decay": 0}},
    }
    path = file(base=base, runs=runs, seeds=[1, 2])
    a, _, b, last = members(load(CompareConfig, [path]), tmp_path / "out")
    assert (a.config.steps, a.config.global_batch) == (4, 2)
    assert (a.config.optim.lr, a.config.optim.clip) == (0.5, 3)
    assert (b.config.optim.lr, b.config.optim.clip) == (0.5, 4)
    assert a.config.objective == b.config.objective
    assert (a.config.ema.decay, b.config.ema.decay) == (0.9999, 0)
    assert {one.config.data.corpus for one in (a, b)} == {str(letters)}
    assert (last.name, last.seed, last.path) == ("b", 2, tmp_path / "out" / "b-seed2")


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_compares_runs_of_one_size(path: Path) -> None:
    compare = load(CompareConfig, [path])
    found = members(compare, Path("out"))
    assert len({count_parameters(one.config.model) for one in found}) == 1 < len(found)
    for text in compare.prepare:
        python, _, module, *words = text.split()
        assert (python, module) == ("python", "data_pipeline")
        assert data_pipeline._parser().parse_args(words).run
