"""`tools.evaluate RUN --text FILE`: another text, by the run's tokenizer, in any known form."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from data_pipeline.demo import demo_documents
from data_pipeline.shards import open_split
from data_pipeline.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [text[:90].replace("\n", " ") for text in demo_documents()["valid"][:11]]


def files(folder: Path, texts: list[str]) -> dict[str, list[str]]:
    """The same documents in several forms, with the options that read each."""
    plain, lines, table = (folder / name for name in ("a.txt", "a.jsonl", "a.parquet"))
    plain.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    rows = [{"id": k, "body": text} for k, text in enumerate(texts)]
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    Dataset.from_list(rows).to_parquet(table)
    return {
        "text": [str(plain)],
        "jsonl": [str(lines), "--field", "body"],
        "parquet": [str(table), "--field", "body"],
    }


def test_any_form_of_a_text_has_one_number(
    masked: Path, evaluated: Any, small_corpus: Path, tmp_path: Path, texts: list[str]
) -> None:
    found = {
        form: evaluated(masked, "--text", *words).summary
        for form, words in files(tmp_path, texts).items()
    }
    one = found["text"]
    ids = load_tokenizer(small_corpus).encode(texts)
    assert one["tokens"] == sum(map(len, ids)) + len(texts)
    assert one["documents"] == len(texts)
    assert (one["split"], one["text"]) == ("zero-shot", str(tmp_path / "a.txt"))
    total = sum(len(text.encode()) for text in texts)
    own = one["nelbo"] * one["tokens"] / 0.6931471805599453 / total
    assert one["bits_per_byte"] == pytest.approx(own)
    for other in found.values():
        assert other | {"text": one["text"]} == one


def test_a_split_and_its_text_have_one_number(
    masked: Path, evaluated: Any, small_corpus: Path, tmp_path: Path
) -> None:
    split, tokenizer = open_split(small_corpus, "valid"), load_tokenizer(small_corpus)
    starts = split.document_starts()
    file = tmp_path / "valid.jsonl"
    with file.open("w", encoding="utf-8") as out:
        for first, last in pairwise(starts):
            text = tokenizer.decode(split.tokens(int(first), int(last) - 1).tolist())
            out.write(json.dumps({"text": text}) + "\n")
    same = ("nelbo", "nelbo_ci95", "tokens", "bits_per_character", "unigram")
    mine = evaluated(masked, "--text", file).summary
    theirs = evaluated(masked).summary
    assert {key: mine[key] for key in same} == {key: theirs[key] for key in same}


def test_long_documents_are_cut_and_counted(
    checkpoint: Callable[..., Path], evaluated: Any, tmp_path: Path, texts: list[str]
) -> None:
    file = tmp_path / "long.txt"
    file.write_text(f"{' '.join(texts)}\nshort\n", encoding="utf-8")
    found = evaluated(checkpoint(data={"packing": "pad"}), "--text", file)
    assert found.summary["documents_cut"] == 1
    assert found.summary["windows"] > 2
    assert "1 documents are cut into windows of 30 tokens at most" in found.err


def test_objectives_without_a_bound_score_texts_too(
    checkpoint: Callable[..., Path], evaluated: Any, tmp_path: Path, texts: list[str]
) -> None:
    words = files(tmp_path, texts)["jsonl"]
    got = evaluated(checkpoint(objective={"name": "sundae"}), "--text", *words).summary
    assert got["bound_on"] is None
    assert got["loss"] > 0
    assert got["split"] == "zero-shot"


def test_tokenised_text_is_written_as_text(masked: Path, evaluated: Any, tmp_path: Path) -> None:
    raw, written = tmp_path / "raw.txt", tmp_path / "written.txt"
    raw.write_text(" = = Names = = \nIt rains , twelve @-@ fold .\n", encoding="utf-8")
    written.write_text(" == Names ==\x20\nIt rains, twelve-fold .\n", encoding="utf-8")
    one = evaluated(masked, "--text", raw, "--detokenize=wikitext").summary
    other = evaluated(masked, "--text", written).summary
    assert one["detokenized"] == "wikitext"
    assert (one["nelbo"], one["tokens"]) == (other["nelbo"], other["tokens"])


def test_nothing_is_left_behind(
    masked: Path, evaluated: Any, tmp_path: Path, texts: list[str], monkeypatch: Any
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    assert evaluated(masked, "--text", *files(tmp_path, texts)["text"]).status == 0
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        (None, [], "--text nothing.jsonl: no such file"),
        ("\n  \n", ["--format=text"], "no document in"),
        ('{"body": "x"}\n', [], "no field 'text' (fields: body); name the right one with --field"),
        ('{"text": 3}\n', [], "field 'text' is int, not a string"),
    ],
    ids=["missing", "empty", "field", "number"],
)
def test_what_is_no_text_is_one_line(
    masked: Path, evaluated: Any, tmp_path: Path, monkeypatch: Any, content: str | None,
    words: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("nothing.jsonl").write_text(content)
    found = evaluated(masked, "--text", "nothing.jsonl", *words)
    assert found.status == 2
    assert message in found.err
    assert found.err.count("\n") == 1
