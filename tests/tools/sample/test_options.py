"""``--sampler [NAME] [key=value ...]``."""

from dataclasses import replace
from pathlib import Path

import pytest

from configs.errors import UserError
from configs.load import load
from configs.words import parse
from model.architectures.transformer import Transformer
from model.samplers.ancestral import Ancestral
from model.samplers.ddim import Ddim
from model.samplers.ddpm import Ddpm
from model.samplers.semi_autoregressive import SemiAutoregressive
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
        (["top_p=0"], "--sampler: top_p must lie in (0, 1], not 0.0"),
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


def test_some_samplers_write_longer_texts_than_those_of_training(
    mdlm: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Transformer(vocab_size=1024, num_positions=mdlm.data.sequence_length)
    learned = replace(mdlm, model=model)
    words = ["runs/any", "--length", "4096"]
    plain = parse(sample._parser(), words)
    by_windows = parse(sample._parser(), [*words, "--sampler", "semi_autoregressive"])
    for config in (mdlm, learned):
        sample._check(by_windows, config)
        assert capsys.readouterr().err == ""
    sample._check(plain, mdlm)
    assert "the sampler of any length of --sampler help" in capsys.readouterr().err
    with pytest.raises(UserError, match="--length 4096: this model has positions for 64"):
        sample._check(plain, learned)
    assert sampler_of(["semi_autoregressive"], mdlm) == SemiAutoregressive(window=64)
    with pytest.raises(UserError, match="window must be at most 64"):
        sampler_of(["semi_autoregressive", "window=65"], learned)
    with pytest.raises(UserError, match="stride must be at most the window of 64, not 65"):
        sampler_of(["semi_autoregressive", "stride=65"], mdlm)


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
def test_the_help_ends_with_the_names_of_the_samplers(
    command: object, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])  # type: ignore[attr-defined]
    _, _, end = capsys.readouterr().out.partition("\nsamplers: ")
    assert " ".join(end.split()) == ", ".join(SAMPLERS.names())
