from dataclasses import replace
from pathlib import Path

import pytest

from configs.errors import UserError
from data_pipeline.tokenizer import Tokenizer, load_tokenizer
from model.architectures.transformer import Transformer
from pretrain.config import RunConfig
from tools.sample.prompt import hints, length_hints, parse

MASK = 1024


@pytest.fixture(scope="module")
def tokenizer(corpus: Path) -> Tokenizer:
    return load_tokenizer(corpus)


def blanks(flags: list[bool]) -> list[int]:
    """Lengths of the runs of blanks."""
    runs = "".join("x" if flag else " " for flag in flags).split()
    return [len(run) for run in runs]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", [30]),
        ("___", [30]),
        ("___{4}", None),
        ("a___b", [28]),
        ("a___b___c", [14, 13]),
        ("a___{5}b___", [5, 23]),
    ],
)
def test_blanks_share_the_free_length(tokenizer, prompt: str, expected: list[int] | None) -> None:
    length = 32 if expected else 6
    template = parse(prompt, tokenizer, length, MASK)
    assert len(template.ids) == len(template.blank) == length
    assert (template.ids[0], template.ids[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
    assert blanks(template.blank) == (expected or [4])
    assert [i == MASK for i in template.ids] == template.blank


def test_fixed_text_stands_where_it_was_written(tokenizer) -> None:
    template = parse('The "if" statement___{3} is used___', tokenizer, 40, MASK)
    fixed = [i for i, blank in zip(template.ids, template.blank, strict=True) if not blank]
    assert tokenizer.decode(fixed) == 'The "if" statement is used'


def test_text_without_a_blank_is_a_beginning(tokenizer) -> None:
    template = parse("The statement", tokenizer, 40, MASK)
    first = template.blank.index(True)
    assert tokenizer.decode(template.ids[:first]) == "The statement"
    assert all(template.blank[first:-1])


@pytest.mark.parametrize("prompt", ["a long text that does not fit at all ___", "___{30}___"])
def test_a_prompt_that_does_not_fit_names_the_length_it_needs(tokenizer, prompt: str) -> None:
    with pytest.raises(UserError, match=r"needs --length (\d+) or more, not 8") as caught:
        parse(prompt, tokenizer, 8, MASK)
    needed = int(str(caught.value).split("--length ")[1].split()[0])
    assert any(parse(prompt, tokenizer, needed, MASK).blank)
    with pytest.raises(UserError):
        parse(prompt, tokenizer, needed - 1, MASK)


def test_a_prompt_of_no_free_length_is_refused(tokenizer) -> None:
    with pytest.raises(UserError, match="no blank to fill"):
        parse("___{0}", tokenizer, 2, MASK)


def test_an_open_end_is_the_models_to_say(tokenizer) -> None:
    for prompt, blank in (("", 31), ("a", 30), ("a___", 30), ("___a___", 15)):
        template = parse(prompt, tokenizer, 32, MASK, open_end=True)
        assert len(template.ids) == len(template.blank) == 32
        assert template.ids[-1] == MASK
        assert blanks(template.blank)[-1] == blank
        assert [i == MASK for i in template.ids] == template.blank
    for prompt in ("___a", "a___{4}"):
        closed = parse(prompt, tokenizer, 32 if prompt == "___a" else 7, MASK, open_end=True)
        assert closed == parse(prompt, tokenizer, len(closed.ids), MASK)


def test_a_text_ends_at_its_first_end_after_what_was_given(tokenizer) -> None:
    eos = tokenizer.eos_id
    template = parse("a___", tokenizer, 8, MASK, open_end=True)
    start = template.ids[:2]
    assert template.text([*start, 9, eos, 8, eos, 7, 7], eos) == [*start, 9]
    assert template.text([*start, 9, 9, 8, 8, 7, 7], eos) == [*start, 9, 9, 8, 8, 7, 7]
    around = parse("___a___", tokenizer, 8, MASK, open_end=True)
    place = around.blank.index(False, 1)
    ids = [eos if blank else i for i, blank in zip(around.ids, around.blank, strict=True)]
    assert around.text(ids, eos) == ids[: place + 1]


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("the [MASK] of", "[MASK] in a prompt is text like any other; write ___"),
        ("the <mask> of", "<mask> in a prompt is text"),
        ("a [mask] b ___ c", "[mask] in a prompt is text"),
        ("<|mdm_mask|>", "<|mdm_mask|> in a prompt is text"),
        ("fill ____ in", "____ is the blank ___ and text after it"),
        ("fill ___{} in", "___{} is the blank ___ and text after it"),
        ("fill ___{ 7 } in", "___{ 7 } is the blank"),
        ("fill ___{n", "___{n is the blank"),
    ],
)
def test_what_looks_like_a_blank_and_is_none_is_said(prompt: str, said: str) -> None:
    (hint,) = hints(prompt)
    assert hint.startswith(said)


@pytest.mark.parametrize("prompt", ["", "a ___ b ___{7}", "def __init__(self): mask", "___{7}}"])
def test_an_ordinary_prompt_needs_no_word(prompt: str) -> None:
    assert hints(prompt) == []


def test_more_positions_than_were_trained_are_said(tiny_config: RunConfig) -> None:
    assert length_hints(64, tiny_config) == []
    (hint,) = length_hints(4096, tiny_config)
    assert "was trained on 64 positions, and --length is 4,096" in hint
    model = Transformer(vocab_size=1024, num_positions=100)
    learned = replace(tiny_config, model=model)
    assert len(length_hints(100, learned)) == 1
    with pytest.raises(UserError, match="--length 101: this model has positions for 100"):
        length_hints(101, learned)
