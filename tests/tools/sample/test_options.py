"""``--sampler [NAME] [key=value ...]``."""

from pathlib import Path

import pytest

from configs.errors import UserError
from configs.load import load
from model.samplers.ancestral import Ancestral
from model.samplers.ddim import Ddim
from model.samplers.ddpm import Ddpm
from pretrain.config import RunConfig
from tools.evaluate import __main__ as evaluate
from tools.sample import __main__ as sample
from tools.sample.options import SAMPLERS, asks_for_help, listing, sampler_of


@pytest.fixture(scope="module")
def mdlm(root: Path) -> RunConfig:
    return load(RunConfig, [root / "configs" / "tiny.yaml"])


@pytest.fixture(scope="module")
def genie(root: Path) -> RunConfig:
    return load(RunConfig, [root / "configs" / "genie" / "demo.yaml"], ["objective.num_steps=20"])


def test_without_words_it_is_the_objectives_own(mdlm: RunConfig, genie: RunConfig) -> None:
    assert sampler_of([], mdlm) == Ancestral()
    # Whose default of 50 steps is more than this process has.
    assert sampler_of([], genie) == Ddpm(steps=20)


def test_a_name_settings_or_both(mdlm: RunConfig, genie: RunConfig) -> None:
    assert sampler_of(["steps=16", "temperature=0.5"], mdlm) == Ancestral(steps=16, temperature=0.5)
    assert sampler_of(["variance=small"], genie) == Ddpm(steps=20, variance="small")
    assert sampler_of(["ddim"], genie) == Ddim(steps=20)
    assert sampler_of(["eta=0.5", "ddim", "steps=7"], genie) == Ddim(steps=7, eta=0.5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ancestrl"], "--sampler: unknown sampler 'ancestrl'; did you mean 'ancestral'?"),
        (["stps=3"], "--sampler: stps: unknown key; did you mean 'steps'?"),
        (["steps=x"], "--sampler: steps: input should be a valid integer, not 'x'"),
        (["steps=0"], "--sampler: steps must be at least 1, not 0"),
        (["steps=99999999"], "--sampler: steps must be at most 16,777,216, not 99999999"),
        (["temperature=.nan"], "--sampler: temperature: must be finite"),
        (["steps", "3"], "a setting is one word: write steps=3"),
        (["ancestral", "ddim"], "--sampler: one name, not ancestral, ddim"),
        (["steps=3", "parallel.tensor=2"], "parallel.tensor=2 is no setting of a sampler"),
        (
            ["ddim"],
            "--sampler: sampler ddim undoes noise of kind gaussian, and that of objective mdlm is "
            "mask: its own sampler is ancestral",
        ),
    ],
)
def test_what_does_not_fit_is_said(mdlm: RunConfig, words: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        sampler_of(words, mdlm)
    assert message in str(caught.value)


def test_steps_beyond_the_process_are_refused_where_they_are_asked_for(genie: RunConfig) -> None:
    with pytest.raises(UserError, match="steps must be at most 20"):
        sampler_of(["steps=21"], genie)


def test_the_list_tells_of_every_sampler_and_setting(mdlm: RunConfig) -> None:
    assert asks_for_help(["help"])
    assert not asks_for_help(["steps=3"])
    text = listing()
    for name in SAMPLERS.names():
        assert f"\n  {name} " in f"\n{text}"
    assert "temperature=1  (number) sampling temperature of tokens; 0 takes the likeliest" in text
    assert "variance=large  (small | large)" in text
    assert "suit" not in text
    assert "(suits this model, and is its default)" in listing(mdlm)


@pytest.mark.parametrize("command", [sample, evaluate])
def test_the_help_ends_with_the_samplers(
    command: object, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])  # type: ignore[attr-defined]
    assert listing() in capsys.readouterr().out
