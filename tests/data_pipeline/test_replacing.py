"""`tokenize --overwrite` replaces a split of ours, and touches nothing else."""

import shutil
from pathlib import Path

import pytest

from configs.errors import UserError
from data_pipeline import writer
from data_pipeline.__main__ import main
from data_pipeline.shards import open_split, verify_split


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text("one line\nanother\n")
    return path


def state(*directories: Path) -> dict[Path, bytes | str]:
    return {
        path: path.read_bytes() if path.is_file() else str(path.is_symlink())
        for directory in directories
        for path in directory.rglob("*")
    }


def overwrite(text: Path, corpus: Path, split: str) -> int:
    return main(["tokenize", str(text), "--corpus", str(corpus), f"--split={split}", "--overwrite"])


def precious(corpus: Path) -> None:
    (corpus / "mine").mkdir()
    (corpus / "mine/notes.txt").write_text("precious")


def megatron(corpus: Path) -> None:
    shutil.copytree(corpus / "train", corpus / "mine")
    (corpus / "mine/manifest.json").unlink()


def file(corpus: Path) -> None:
    (corpus / "mine").write_text("precious")


def link(corpus: Path) -> None:
    shutil.copytree(corpus / "train", corpus.parent / "elsewhere")
    (corpus / "mine").symlink_to(corpus.parent / "elsewhere")


def dangling(corpus: Path) -> None:
    (corpus / "mine").symlink_to(corpus.parent / "nowhere")


def with_notes(corpus: Path) -> None:
    shutil.copytree(corpus / "train", corpus / "mine")
    (corpus / "mine/notes.txt").write_text("precious")


def with_hidden_notes(corpus: Path) -> None:
    shutil.copytree(corpus / "train", corpus / "mine")
    (corpus / "mine/.git").mkdir()


def another_manifest(corpus: Path) -> None:
    (corpus / "mine").mkdir()
    (corpus / "mine/manifest.json").write_text('{"name": "my web page"}')


def counts_directory(corpus: Path) -> None:
    shutil.copytree(corpus / "train", corpus / "mine")
    (corpus / "mine/counts.npy").unlink()
    (corpus / "mine/counts.npy").mkdir()


FOREIGN = {
    precious: "no split of ours",
    megatron: "no split of ours",
    file: "is not a directory",
    link: "is a link",
    dangling: "is a link",
    with_notes: "notes.txt",
    with_hidden_notes: ".git",
    another_manifest: "format None",
    counts_directory: "counts.npy",
}


@pytest.mark.parametrize("made", FOREIGN)
def test_what_is_not_ours_stays(
    made, own_corpus: Path, text: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def not_yet(*arguments):
        raise AssertionError("decided before any work")

    monkeypatch.setattr(writer, "_ShardWriter", not_yet)
    made(own_corpus)
    before = state(own_corpus.parent)
    assert overwrite(text, own_corpus, "mine") == 2
    output = capsys.readouterr().err
    assert FOREIGN[made] in output
    assert "remove" not in output or made in (link, dangling, another_manifest)
    assert state(own_corpus.parent) == before


@pytest.mark.parametrize(
    "split",
    [
        "", ".", "..", "../corpus", "a/b", "/", "/tmp/x", ".hidden", " ", "a\n", "a\\b", "train/",
        "tokenizer.model", "tokenizer.json", "tokenizer_config.json", "\udcff",
    ],
)  # fmt: skip
def test_names_that_are_no_splits(
    split: str, own_corpus: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = state(own_corpus.parent)
    assert overwrite(text, own_corpus, split) == 2
    assert "--split" in capsys.readouterr().err
    assert state(own_corpus.parent) == before


def test_a_split_of_ours_is_replaced(own_corpus: Path, text: Path) -> None:
    (own_corpus / "train/00001.bin").unlink()  # a damaged one too
    (own_corpus / "train/counts.npy").write_bytes(b"")
    assert overwrite(text, own_corpus, "train") == 0
    assert verify_split(own_corpus, "train").documents == 2
    assert {path.name for path in (own_corpus / "train").iterdir()} == {
        "manifest.json", "counts.npy", "00000.bin", "00000.idx",
    }  # fmt: skip
    assert not list(own_corpus.glob(".*"))


def test_the_old_split_stays_until_the_new_one_is_complete(
    own_corpus: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(own_corpus)

    def stopped(*arguments) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "write_manifest", stopped)
    assert overwrite(text, own_corpus, "train") == 130
    assert state(own_corpus) == before


def test_a_split_that_a_killed_run_left_whole_is_offered(own_corpus: Path) -> None:
    """Where names cannot be exchanged, one killed between two renames left no split."""
    (own_corpus / "train").rename(own_corpus / ".train.old-12345678")
    (own_corpus / ".train.partial-12345678").mkdir()
    with pytest.raises(UserError, match="has no split 'train'") as caught:
        open_split(own_corpus, "train")
    assert f"{own_corpus}/.train.old-12345678, a whole split: rename it" in str(caught.value)
    assert str(caught.value).count("a whole split") == 1
    (own_corpus / ".train.old-12345678").rename(own_corpus / "train")
    verify_split(own_corpus, "train")


def test_a_corpus_directory_keeps_the_files_in_it(
    corpus: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tokenizer_config.json of somebody else is neither replaced nor believed."""
    out = tmp_path / "model"
    out.mkdir()
    (out / "tokenizer_config.json").write_text('{"mine": true}')
    (out / "link").mkdir()
    (out / "link/tokenizer.model").symlink_to(tmp_path / "nowhere")
    before = state(out)
    for directory in (out, out / "link"):
        adopt = ["--adopt", str(corpus / "tokenizer.model"), "--out", str(directory)]
        train = ["--train", str(text), "--vocab-size", "290", "--out", str(directory)]
        assert main(["tokenizer", *adopt]) == main(["tokenizer", *train]) == 2
        assert "exists already" in capsys.readouterr().err
    assert state(out) == before
