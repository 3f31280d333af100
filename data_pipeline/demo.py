"""The demo corpus: the Python language reference, which ships with CPython.

Real English with code in it, a few hundred kilobytes, on every machine without a download:
`pydoc_data.topics`, the text behind `help("yield")`. Paragraphs that several topics share
are kept once, or they would stand in training and validation both.
"""

import re
from collections.abc import Callable
from pathlib import Path

from configs.errors import UserError
from data_pipeline.atomic_directory import atomic_directory
from data_pipeline.characters import ALPHABETS, SPECIAL, write_character_tokenizer
from data_pipeline.manifest import read_manifest
from data_pipeline.tokenizer import load_tokenizer, train_sentencepiece
from data_pipeline.writer import write_split

_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")
_NO_LETTERS = re.compile(r"[^a-z]+")
_HELD_OUT_EVERY, _HELD_OUT_FIRST = 8, 4


def demo_documents() -> dict[str, list[str]]:
    """The documents of "train" and "valid", one a topic, in the order of the topics' names.

    Raises:
        UserError: this Python was built without `pydoc_data`.
    """
    try:
        from pydoc_data.topics import topics  # absent from some trimmed-down Pythons
    except ImportError as error:
        raise UserError(
            "this Python lacks pydoc_data.topics, the text of the demo corpus; "
            "use a full build, or a corpus of your own"
        ) from error
    seen: set[str] = set()
    documents = []
    for name in sorted(topics):
        kept = []
        for paragraph in _BLANK_LINES.split(topics[name].strip("\n")):
            if paragraph.strip() and paragraph not in seen:
                seen.add(paragraph)
                kept.append(paragraph)
        if kept:
            documents.append("\n\n".join(kept))
    held_out = slice(_HELD_OUT_FIRST, None, _HELD_OUT_EVERY)
    valid = documents[held_out]
    del documents[held_out]
    return {"train": documents, "valid": valid}


def in_letters(text: str) -> str:
    """The text in the alphabet `text8`: in small letters, one space for all between two words."""
    return _NO_LETTERS.sub(" ", text.lower()).strip()


def prepare_letters(directory: Path) -> Path:
    """As `prepare_demo`, of the documents `in_letters`, with the characters' tokenizer."""
    documents = {
        split: [letters for text in texts if (letters := in_letters(text))]
        for split, texts in demo_documents().items()
    }
    alphabet = ALPHABETS["text8"]

    def write_tokenizer(staging: Path) -> None:
        write_character_tokenizer(staging / "tokenizer.json", alphabet)

    return _prepare(directory, documents, len(SPECIAL) + len(alphabet), write_tokenizer)


def prepare_demo(directory: Path, vocab_size: int) -> Path:
    """Make the demo corpus in `directory`, unless it is there; returns `directory`.

    It appears whole: two processes may race, and one that is killed leaves nothing that opens.

    Raises:
        UserError: `directory` holds something else, or the vocabulary does not fit the text.
    """
    documents = demo_documents()

    def write_tokenizer(staging: Path) -> None:
        train_sentencepiece(documents["train"], staging / "tokenizer.model", vocab_size)

    return _prepare(directory, documents, vocab_size, write_tokenizer)


def _prepare(
    directory: Path,
    documents: dict[str, list[str]],
    vocab_size: int,
    write_tokenizer: Callable[[Path], None],
) -> Path:
    if _is_demo(directory, documents, vocab_size):
        return directory
    try:
        with atomic_directory(directory) as staging:
            write_tokenizer(staging)
            tokenizer = load_tokenizer(staging)
            for split, texts in documents.items():
                write_split(texts, tokenizer, staging / split, progress=False)
    except UserError:
        # Another process may have been faster: then what is there is what was asked for.
        if not _is_demo(directory, documents, vocab_size):
            raise
    return directory


def _is_demo(directory: Path, documents: dict[str, list[str]], vocab_size: int) -> bool:
    """Whether the demo corpus of this vocabulary is there.

    Raises:
        UserError: another corpus is, or one that cannot be read.
    """
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return False
    for split, texts in documents.items():
        if not (directory / split).is_dir():
            raise UserError(f"{directory}: exists and is not the demo corpus; choose another --out")
        manifest = read_manifest(directory / split)
        there = (manifest.vocab_size, manifest.documents, manifest.bytes)
        wanted = (vocab_size, len(texts), sum(len(text.encode("utf-8")) for text in texts))
        if there != wanted:
            raise UserError(
                f"{directory}: holds another corpus ({split}: vocabulary {there[0]}, {there[1]} "
                f"documents, {there[2]} bytes) than this demo ({wanted[0]}, {wanted[1]}, "
                f"{wanted[2]}); choose another --out or remove it"
            )
    load_tokenizer(directory)  # raises where it is missing
    return True
