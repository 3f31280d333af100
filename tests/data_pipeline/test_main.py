from pathlib import Path

import pytest

from data_pipeline import __main__ as program
from data_pipeline.__main__ import main
from data_pipeline.shards import open_split

LINES = "".join(
    f'{{"text": "line {n} of a small text, with words and spaces"}}\n' for n in range(60)
)


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    path = tmp_path / "a.jsonl"
    path.write_text(LINES)
    return path


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_from_files_to_a_verified_corpus(
    jsonl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "corpus"
    assert run("tokenizer", "--train", jsonl, "--vocab-size", 300, "--out", corpus) == 0
    assert "300 ids" in capsys.readouterr().out
    jsonl.write_text(LINES + "broken\n\n")
    tokenize = ("tokenize", jsonl, "--corpus", corpus, "--split", "train")
    assert run(*tokenize) == 2
    assert run(*tokenize, "--skip-bad") == 0
    output = capsys.readouterr()
    assert "left out: 1 empty documents, 1 bad lines" in output.out
    assert "60 documents" in output.out
    assert f"next: python -m data_pipeline verify {corpus}" in output.out
    assert output.err.startswith(f"error: {jsonl}:61: not a JSON object")
    assert output.err.count("\n") == 1
    assert run(*tokenize, "--skip-bad") == 2
    assert "exists already" in capsys.readouterr().err
    assert run(*tokenize, "--skip-bad", "--overwrite") == 0
    capsys.readouterr()
    assert run("verify", corpus) == run("verify", corpus, "--split", "train") == 0
    assert capsys.readouterr().out.count("intact") == 2
    assert run("info", corpus) == 0
    assert "60 documents" in capsys.readouterr().out
    manifest = open_split(corpus, "train").manifest
    assert (manifest.documents, manifest.skipped_empty, manifest.skipped_bad) == (60, 1, 1)


ERRORS = {
    "tokenizer --train {jsonl} --out {tmp}/c": "--vocab-size",
    "tokenizer --train {jsonl} --vocab-size 9999 --out {tmp}/c": "too large",
    "tokenizer --train {jsonl} --vocab-size 10 --out {tmp}/c": "too small",
    "tokenizer --train {tmp}/no --vocab-size 300 --out {tmp}/c": "no such file",
    "tokenizer --train {jsonl} --vocab-size 300 --out {corpus}": "exists already",
    "tokenizer --train {jsonl} --vocab-size 300 --field body --out {tmp}/c": "no field 'body'",
    "tokenizer --train {jsonl} --vocab-size 300 --bos-token x --out {tmp}/c": "--adopt",
    "tokenizer --adopt {tmp}/no.json --out {tmp}/c": "no such file",
    "tokenizer --adopt {jsonl} --out {tmp}/c": "not a SentencePiece model",
    "tokenizer --adopt {jsonl} --vocab-size 3 --out {tmp}/c": "--train",
    "tokenizer --train {jsonl} --vocab-size 300 --out {jsonl}/c": "Not a directory",
    "tokenize {jsonl} --corpus {tmp} --split train": "no tokenizer here",
    "tokenize {tmp}/*.txt --corpus {corpus} --split new": "no file matches",
    "tokenize {jsonl} --corpus {corpus} --split a/b": "a name such as train",
    "tokenize {jsonl} --corpus {corpus}/tokenizer.model --split new": "directory is expected",
    "tokenize {empty} --corpus {corpus} --split new": "no document",
    "tokenize {jsonl} --corpus {corpus} --split train": "exists already",
    "demo --out {corpus} --vocab-size 500": "holds another corpus",
    "demo --out {tmp}/demo --vocab-size 9999999": "too large",
    "verify {tmp}": "has no split",
    "verify {corpus} --split test": "no split 'test'",
    "info {tmp}": "no tokenizer here",
}


@pytest.mark.parametrize("command", ERRORS)
def test_an_error_is_one_line_and_status_2(
    command: str, jsonl: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    before = sorted([*tmp_path.rglob("*"), *corpus.rglob("*")])
    names = {"jsonl": jsonl, "corpus": corpus, "tmp": tmp_path, "empty": tmp_path / "empty.jsonl"}
    assert main(command.format_map(names).split()) == 2
    output = capsys.readouterr()
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1, output.err
    assert ERRORS[command] in output.err
    assert output.out == ""
    assert sorted([*tmp_path.rglob("*"), *corpus.rglob("*")]) == before, "nothing is left behind"


def test_interrupted(
    jsonl: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self):
        yield "some text"
        raise KeyboardInterrupt

    monkeypatch.setattr(program.Documents, "__iter__", interrupted)
    before = sorted(corpus.rglob("*"))
    assert run("tokenize", jsonl, "--corpus", corpus, "--split", "new") == 130
    out = corpus.parent / "interrupted"
    assert run("tokenizer", "--train", jsonl, "--vocab-size", 300, "--out", out) == 130
    assert not out.exists()
    assert sorted(corpus.rglob("*")) == before
    assert "nothing was left half-written" in capsys.readouterr().err


def test_a_killed_run_is_pointed_out(
    jsonl: Path, own_corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = own_corpus / ".new.partial-12345678"
    left.mkdir()
    assert run("tokenize", jsonl, "--corpus", own_corpus, "--split", "new") == 0
    assert str(left) in capsys.readouterr().err


@pytest.mark.parametrize("command", ["", "tokenizer", "tokenize", "demo", "verify", "info"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*command.split(), "--help"])
    assert stopped.value.code == 0
    assert "usage: python -m data_pipeline" in capsys.readouterr().out
