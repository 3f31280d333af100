import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from configs.errors import UserError
from data_pipeline import demo
from data_pipeline.demo import demo_documents, in_letters, prepare_demo, prepare_letters
from data_pipeline.shards import open_split, verify_split
from data_pipeline.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_demo(tmp_path_factory.mktemp("demo") / "corpus", 1024)


def snapshot(directory: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*")}


def test_documents_share_no_paragraph() -> None:
    documents = demo_documents()
    assert len(documents["train"]) > 6 * len(documents["valid"]) > 0
    paragraphs = [
        paragraph
        for texts in documents.values()
        for text in texts
        for paragraph in text.split("\n\n")
    ]
    assert len(paragraphs) == len(set(paragraphs)) > 1000
    assert all(text.strip() for texts in documents.values() for text in texts)


def test_every_eighth_document_is_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    topics = {f"{number:02d}": f"text {number}\n\nshared\n" for number in range(30)}
    monkeypatch.setattr("pydoc_data.topics.topics", dict(reversed(topics.items())))
    documents = demo_documents()
    assert documents["valid"] == [f"text {number}" for number in (4, 12, 20, 28)]
    assert documents["train"][:2] == ["text 0\n\nshared", "text 1"]


def test_is_a_whole_corpus(made: Path) -> None:
    tokenizer = load_tokenizer(made)
    assert tokenizer.vocab_size == 1024
    for name, texts in demo_documents().items():
        verify_split(made, name)
        split = open_split(made, name, tokenizer=tokenizer)
        starts = split.document_starts().tolist()
        assert tokenizer.decode(split.tokens(starts[2], starts[3])) == texts[2]


def test_is_idempotent_and_refuses_another(made: Path, tmp_path: Path) -> None:
    before = snapshot(made)
    assert prepare_demo(made, 1024) == made
    assert snapshot(made) == before
    with pytest.raises(UserError, match="holds another corpus"):
        prepare_demo(made, 2048)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is not the demo corpus"):
        prepare_demo(tmp_path, 1024)
    with pytest.raises(UserError, match="too large"):
        prepare_demo(tmp_path / "huge", 1_000_000)
    assert not (tmp_path / "huge").exists()


def test_in_letters_it_is_text_of_27_characters(tmp_path: Path, made: Path) -> None:
    assert in_letters("  The *if* statement,\n\n    x = 3 + y_2\n") == "the if statement x y"
    directory = tmp_path / "letters"
    assert prepare_letters(directory) == directory
    before = snapshot(directory)
    assert prepare_letters(directory) == directory
    assert snapshot(directory) == before
    tokenizer = load_tokenizer(directory)
    for name, texts in demo_documents().items():
        manifest = verify_split(directory, name)
        assert (manifest.lossless, manifest.documents) == (True, len(texts))
        split = open_split(directory, name, tokenizer=tokenizer)
        assert not split.counts()[tokenizer.unk_id]
        starts = split.document_starts().tolist()
        assert tokenizer.decode(split.tokens(starts[2], starts[3])) == in_letters(texts[2])
    with pytest.raises(UserError, match="holds another corpus"):
        prepare_letters(made)


def test_two_at_once(tmp_path: Path, made: Path) -> None:
    directory = tmp_path / "corpus"
    with ThreadPoolExecutor(2) as pool:
        results = [pool.submit(prepare_demo, directory, 1024) for _ in range(2)]
    assert [result.result() for result in results] == [directory, directory]
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]
    for path in made.rglob("*.*"):
        assert path.read_bytes() == (directory / path.relative_to(made)).read_bytes()


def test_the_slower_accepts_what_the_faster_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "corpus"
    train = demo.train_sentencepiece

    def train_slowly(*arguments):
        monkeypatch.setattr(demo, "train_sentencepiece", train)
        prepare_demo(directory, 1024)
        before.update(snapshot(directory))
        train(*arguments)

    before: dict[Path, int] = {}
    monkeypatch.setattr(demo, "train_sentencepiece", train_slowly)
    assert prepare_demo(directory, 1024) == directory
    assert before
    assert snapshot(directory) == before


KILLED = """
import os, signal, sys
from pathlib import Path
from data_pipeline import demo

def killed(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

demo.write_split = killed
demo.prepare_demo(Path(sys.argv[1]), 1024)
"""


def test_killed_half_way_leaves_nothing_that_opens(tmp_path: Path) -> None:
    directory = tmp_path / "corpus"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", KILLED, str(directory)], cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path), "the staging directory shows that work had begun"
    assert not directory.exists()
    assert prepare_demo(directory, 1024) == directory
    verify_split(directory, "train")
