"""`tools.classify`: rows, errors, the table, the task, and one comparison from end to end."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from exports import export_denoiser
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from configs.errors import UserError
from tools.classify import __main__ as classify
from tools.classify.finetune import Encoded, Outcome, Settings, encode
from tools.classify.order import EXCHANGED, WORDS, WRITTEN, exchanged, make_order
from tools.classify.result import row_of, table
from tools.classify.rows import Labelled, Task, read_rows, read_task

LETTERS = "abcdefgh"


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of twelve positions over single letters."""
    path = tmp_path_factory.mktemp("bert")
    words = {word: number for number, word in enumerate(("[PAD]", "[UNK]", *LETTERS))}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", model_max_length=12
    )
    tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
    )
    BertForMaskedLM(config).save_pretrained(path)
    return path


def rows(path: Path, labels: str, repeats: int = 8) -> Path:
    """Texts that begin with their label."""
    texts = [f"{label}{LETTERS[k % 8]}{LETTERS[k % 3]}" for k in range(repeats) for label in labels]
    write(path, [{"text": text, "label": text[0]} for text in texts])
    return path


def write(path: Path, found: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    def call(*words: object) -> SimpleNamespace:
        status = classify.main([*map(str, words)])
        out, err = capsys.readouterr()
        return SimpleNamespace(status=status, out=out, err=err)

    return call


def test_rows_are_read(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a\u2028b", "label": 1, "more": 0}\n\n{"text": "", "label": "x"}\n')
    assert read_rows(file) == [Labelled(text="a\u2028b", label="1"), Labelled(text="", label="x")]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\n\n", 'is empty; write a line {"text": ..., "label": ...} for each text'),
        ('{"text": "a", "label": 1}\n{"text": ', ":2: no JSON"),
        ('{"text": "a"}', ':1: no row; it takes {"text": a string, "label": a string or whole'),
        ('{"text": 3, "label": 1}', ":1: no row"),
        ('{"text": "a", "label": 1.5}', ":1: no row"),
        ("[1]", ":1: no row"),
    ],
)
def test_lines_that_are_no_rows_are_refused(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(text)
    with pytest.raises(UserError) as found:
        read_rows(file)
    assert str(found.value).startswith(str(file))
    assert told in str(found.value)
    assert "\n" not in str(found.value)


def test_the_majority_is_that_of_training(tmp_path: Path) -> None:
    write(tmp_path / "train", [{"text": "", "label": label} for label in (2, 10, 10)])
    write(tmp_path / "test", [{"text": "", "label": label} for label in (2, 2, 2, 10)])
    task = read_task(tmp_path / "train", tmp_path / "test")
    assert task.classes == ["10", "2"]
    assert task.majority == ("10", 0.25)


def test_a_row_has_the_interval_of_its_seeds() -> None:
    encoded = Encoded(tokenizer=None, train=[], test=[], length=8, truncated=(3, 0))
    outcomes = [
        Outcome(accuracy=value, seconds=value * 10, kind="B", parameters=1234, new=["head"])
        for value in (0.6, 0.7, 0.8)
    ]
    row = row_of(Path("a/b"), encoded, outcomes)
    half = 4.30265 * 0.1 / 3**0.5
    assert row["accuracy"] == pytest.approx(0.7)
    assert row["accuracy_ci95"] == pytest.approx([0.7 - half, 0.7 + half], abs=1e-5)
    assert row["seconds"] == pytest.approx(7)
    assert row["truncated"] == {"train": 3, "test": 0}
    one = row_of(Path("c"), encoded, outcomes[:1])
    assert one["accuracy_ci95"] is None
    sure = row_of(Path("c"), encoded, [*outcomes[:1] * 2, *outcomes[2:]])
    assert 0 <= sure["accuracy_ci95"][0] <= sure["accuracy_ci95"][1] <= 1
    lines = table([row, one], 0.5).splitlines()
    assert lines[1].split() == ["a/b", "B", "1,234", "0.700", "0.452", "to", "0.948", "7.0"]
    assert lines[2].split() == ["c", "B", "1,234", "0.600", "-", "6.0"]
    assert lines[3].split() == ["majority", "class", "0.500"]
    marked = table([row], 0.5, as_markdown=True).splitlines()
    assert marked[2] == "| a/b | B | 1,234 | 0.700 | 0.452 to 0.948 | 7.0 |"


def test_texts_are_cut_where_positions_end_and_counted(bert: Path) -> None:
    texts = [Labelled(text="a" * 15, label="y"), Labelled(text="abc", label="x")]
    task = Task(train=texts, test=texts[1:], classes=["x", "y"])

    def encoded(length: int | None) -> Encoded:
        settings = Settings(epochs=1, lr=1e-3, batch=2, length=length, trust_remote_code=False)
        return encode(bert, task, settings)

    for length, most in ((None, 12), (2, 2), (50, 12)):
        found = encoded(length)
        assert found.length == most
        assert [len(row["input_ids"]) for row in found.train] == [most, min(3, most)]
        assert [row["labels"] for row in found.train] == [1, 0]
        assert found.truncated == ((2, 1) if most == 2 else (1, 0))


def test_plain_directories_are_compared(
    bert: Path, said: Callable[..., SimpleNamespace], tmp_path: Path
) -> None:
    """What a text begins with is learned, the same again by the same seeds."""
    train, test = rows(tmp_path / "train", "abc"), rows(tmp_path / "test", "abc", 4)
    write(test, [*map(json.loads, test.read_text().splitlines()), {"text": "c" * 20, "label": "c"}])
    words = (bert, "--train", train, "--test", test, "--epochs", 15, "--lr", 1e-2, "--batch", 8)
    found = said(*words, "--seeds", 2, "--out", tmp_path / "out.json")
    assert found.status == 0, found.err
    assert "note" in found.err
    assert "0 texts of training and 1 of the test are longer than 12 tokens" in found.err
    assert found.err.count("seed") == 2
    assert len(found.out.splitlines()) == 3
    summary = json.loads((tmp_path / "out.json").read_text())
    (row,) = summary["models"]
    assert row["class"] == "BertForSequenceClassification"
    assert "bert.pooler.dense.bias" in row["new"]
    assert row["accuracy"] > 0.9 > summary["majority"]["accuracy"] + 0.3
    again = said(*words, "--seeds", 1, "--out", tmp_path / "again.json")
    assert again.status == 0
    (first,) = json.loads((tmp_path / "again.json").read_text())["models"]
    assert first["accuracies"] == row["accuracies"][:1]
    assert first["accuracy_ci95"] is None


def test_what_cannot_be_done_is_said_in_one_line(
    bert: Path, said: Callable[..., SimpleNamespace], tmp_path: Path
) -> None:
    train, test = rows(tmp_path / "train", "ab"), rows(tmp_path / "test", "ab")
    one, other = rows(tmp_path / "one", "a"), rows(tmp_path / "other", "abh")
    (tmp_path / "empty").touch()
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    for name, held in (
        ("own", {"auto_map": {"AutoModelForSequenceClassification": "x.Y"}}),
        ("genie", {"auto_map": {"AutoModelForSeq2SeqLM": "x.Y"}}),
        ("odd", {"model_type": "bert"}),
        ("new", {"model_type": "of-next-year"}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(held))
    headless = shutil.copytree(bert, tmp_path / "headless")
    (headless / "model.safetensors").unlink()
    padless = shutil.copytree(bert, tmp_path / "padless")
    settings = json.loads((padless / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (padless / "tokenizer_config.json").write_text(json.dumps(settings))
    files = ("--train", train, "--test", test)
    for words, told in (
        (files, "name a model: a Hugging Face directory"),
        ((bert, "--train", train), "--test FILE is missing; `--make-task DIR` writes a small task"),
        ((bert, "--train", tmp_path / "gone", "--test", test), "gone: No such file"),
        ((bert, "--train", tmp_path / "empty", "--test", test), "empty: is empty; write a line"),
        ((bert, "--train", one, "--test", test), "every row has the label 'a'; it takes two"),
        ((bert, "--train", train, "--test", other), "row 3 has the label 'h', which no row of"),
        ((tmp_path, *files), "has no config.json; name a Hugging Face directory"),
        ((tmp_path / "run", *files), "export the run first: `python -m tools.convert to-hf"),
        ((bert, tmp_path / "own", *files), "is run only with --trust-remote-code"),
        ((tmp_path / "genie", *files, "--trust-remote-code"), "and so no classifier"),
        ((tmp_path / "odd", *files), "odd: holds no tokenizer; put"),
        ((tmp_path / "new", *files), "new: no tokenizer to load: "),
        ((headless, *files), "headless: no classifier to load: "),
        ((padless, *files), "its tokenizer has no padding token"),
        ((bert, *files, "--out", tmp_path), "--out"),
        (("--make-task", bert), "exists already; remove it, or choose"),
    ):
        found = said(*words)
        assert found.status == 2, told
        assert found.err.splitlines()[-1].startswith("error: "), found.err
        assert told in found.err.splitlines()[-1]


@pytest.mark.parametrize(
    "words", [("--lr", "0"), ("--lr", "nan"), ("--seeds", "0"), ("--epochs", "x")]
)
def test_numbers_that_are_none_are_refused(words: tuple[str, str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        classify.main(["model", *words])


def test_neighbours_change_places() -> None:
    assert exchanged("a b  c d") == "b a d c"
    assert exchanged("a b c") == "b a c"
    assert exchanged("") == ""


def test_the_task_is_balanced_and_its_documents_are_apart(
    said: Callable[..., SimpleNamespace], tmp_path: Path
) -> None:
    found = said("--make-task", tmp_path / "order")
    assert found.status == 0
    task = read_task(tmp_path / "order" / "train.jsonl", tmp_path / "order" / "test.jsonl")
    assert f"train.jsonl: {len(task.train):,} rows" in found.out
    assert task.classes == [EXCHANGED, WRITTEN]
    for part in (task.train, task.test):
        counts = Counter(row.label for row in part)
        assert abs(counts[WRITTEN] - counts[EXCHANGED]) <= 1
        for row in part:
            assert len(row.text.split()) == WORDS
    unlabelled, held_out = (
        " ".join(json.loads(line)["text"] for line in (tmp_path / "order" / name).open())
        for name in ("unlabelled.jsonl", "held-out.jsonl")
    )
    written = [row.text for row in task.test if row.label == WRITTEN]
    shown = sum(text in held_out for text in written)
    assert shown > 0.9 * len(written)
    assert sum(text in unlabelled for text in written) < 0.02 * len(written)
    assert (
        sum(exchanged(r.text) in held_out for r in task.test if r.label == EXCHANGED) > 0.9 * shown
    )
    make_order(tmp_path / "again", seed=0)
    for file in (tmp_path / "order").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()
    make_order(tmp_path / "other", seed=1)
    names = [tmp_path / place / "train.jsonl" for place in ("order", "other")]
    assert names[0].read_bytes() != names[1].read_bytes()


@pytest.mark.slow
def test_an_export_of_ours_beside_a_bert(
    bert: Path, corpus: Path, said: Callable[..., SimpleNamespace], tmp_path: Path
) -> None:
    """By its own code, asked for: both learn what a text begins with."""
    export = export_denoiser(tmp_path / "ours", corpus, vocab_size=1024)
    train, test = rows(tmp_path / "train", "abc"), rows(tmp_path / "test", "abc", 4)
    words = (bert, export, "--train", train, "--test", test, "--epochs", 25, "--lr", 1e-2)
    out = tmp_path / "out.json"
    found = said(*words, "--batch", 8, "--seeds", 2, "--trust-remote-code", "--out", out)
    assert found.status == 0, found.err
    plain, ours = json.loads(out.read_text())["models"]
    assert plain["class"] == "BertForSequenceClassification"
    assert ours["class"] == "PalimpsestForSequenceClassification"
    assert ours["new"] == ["classifier.bias", "classifier.weight"]
    assert min(plain["accuracy"], ours["accuracy"]) > 0.8
