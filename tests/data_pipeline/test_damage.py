"""Damaged corpora, tokenizers and text files: always seen by `verify`, never a traceback."""

import bz2
import gzip
import json
import lzma
import random
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import zstandard

from configs.errors import UserError
from data_pipeline.__main__ import main
from data_pipeline.manifest import read_manifest
from data_pipeline.packing import pack
from data_pipeline.shards import open_split, verify_split
from data_pipeline.sources import Documents
from data_pipeline.tokenizer import load_tokenizer, train_sentencepiece
from data_pipeline.windows import held_out
from data_pipeline.writer import write_split

SIGNED = ("sha256", "round_trips", "first_loss", "sidecar_sha256")  # not in earlier manifests
TEXTS = [f"line {number} of a text, with \u00e9 in it" for number in range(9)]


def adoptable() -> tokenizers.Tokenizer:
    """A small tokenizer.json, which gets a sidecar when it is adopted."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        special_tokens=["<s>", "</s>", "<mask>"], show_progress=False, initial_alphabet=alphabet
    )
    made.train_from_iterator(TEXTS, trainer)
    return made


def small_corpora(directory: Path) -> list[Path]:
    """One with a trained tokenizer, and one with an adopted one."""
    trained, adopted = directory / "trained", directory / "adopted"
    trained.mkdir()
    train_sentencepiece(TEXTS, trained / "tokenizer.model", 290)
    adoptable().save(str(directory / "tokenizer.json"))
    assert main(["tokenizer", "--adopt", f"{directory}/tokenizer.json", "--out", f"{adopted}"]) == 0
    for corpus in (trained, adopted):
        write_split(TEXTS, load_tokenizer(corpus), corpus / "train", progress=False)
    return [trained, adopted]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return small_corpora(tmp_path_factory.mktemp("small"))


def files_of(corpus: Path) -> list[Path]:
    return sorted(path for path in corpus.rglob("*") if path.is_file())


def assert_every_edit_is_seen(corpora: list[Path], tmp_path: Path, num: int, seed: int) -> None:
    """Of so many random bytes of each file."""
    places, rng = random.Random(seed), random.Random(0)
    missed = []
    for corpus in corpora:
        own = Path(shutil.copytree(corpus, tmp_path / corpus.name))
        for path in files_of(own):
            content = path.read_bytes()
            for place in places.sample(range(len(content)), min(num, len(content))):
                changed = bytearray(content)
                changed[place] = (changed[place] + rng.randrange(1, 256)) % 256
                path.write_bytes(bytes(changed))
                try:
                    verify_split(own, "train")
                    missed.append((path.name, place))
                except UserError:
                    pass
            path.write_bytes(content)
        verify_split(own, "train")
    assert missed == []


def test_verify_sees_edits(corpora: list[Path], tmp_path: Path) -> None:
    names = {path.name for corpus in corpora for path in files_of(corpus)}
    assert names == {
        "tokenizer.model", "tokenizer.json", "tokenizer_config.json", "manifest.json",
        "counts.npy", "00000.bin", "00000.idx",
    }  # fmt: skip
    assert_every_edit_is_seen(corpora, tmp_path, num=6, seed=1)


@pytest.mark.slow
def test_verify_sees_many_edits(corpora: list[Path], tmp_path: Path) -> None:
    assert_every_edit_is_seen(corpora, tmp_path, num=200, seed=2)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"pairs": false', b'"pairs": true'),
        (b'"lossless": true', b'"lossless": false'),
        (b'"skipped_bad": 0', b'"skipped_bad": 1'),
        (b'"bytes": ', b'"bytes": 1'),
        (b'"bytes": ', b'"bytes":  '),
        (b"\n}\n", b"}\n"),
    ],
)
def test_verify_sees_changed_fields(
    corpora: list[Path], tmp_path: Path, old: bytes, new: bytes
) -> None:
    own = Path(shutil.copytree(corpora[0], tmp_path / "corpus"))
    path = own / "train/manifest.json"
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    with pytest.raises(UserError, match=r"manifest\.json: changed since it was written"):
        verify_split(own, "train")


def test_a_manifest_that_lost_its_checksum(corpora: list[Path], tmp_path: Path) -> None:
    own = Path(shutil.copytree(corpora[0], tmp_path / "corpus"))
    path = own / "train/manifest.json"
    fields = json.loads(path.read_text())
    del fields["sha256"]
    path.write_text(json.dumps(fields | {"lossless": False}))
    with pytest.raises(UserError, match=r"manifest\.json: changed since it was written"):
        verify_split(own, "train")


def test_a_split_without_its_manifest_is_not_passed_over(
    corpora: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Path(shutil.copytree(corpora[0], tmp_path / "corpus"))
    shutil.copytree(own / "train", own / "valid")
    (own / "valid/manifest.json").unlink()
    assert main(["verify", str(own)]) == 2
    assert "valid/manifest.json: missing" in capsys.readouterr().err


def test_manifests_of_earlier_versions_open(
    corpora: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Path(shutil.copytree(corpora[0], tmp_path / "corpus"))
    path = own / "train/manifest.json"
    fields = json.loads(path.read_text())
    for name in (*SIGNED, "characters"):
        del fields[name]
    path.write_text(json.dumps(fields))
    assert main(["verify", str(own)]) == 0
    assert "manifest holds no checksum of its own" in capsys.readouterr().out
    assert read_manifest(own / "train").characters is None


# What a hand, a broken disk or another program may have made of a file.

ODD: list[Any] = [
    None, True, -1, 0, 10**9, 2**63, 10**400, 0.5, float("nan"), "", "\ud800", "\0", "../x",
    "x" * 300, [], {}, [None], {"content": 3}, [[[]]],
]  # fmt: skip


def mutated_bytes(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        place = rng.randrange(len(changed) + 1)
        end = min(len(changed), place + rng.choice([1, 1, 4, 8, 100]))
        how = rng.randrange(6)
        if how == 0 and changed:
            changed[place % len(changed)] ^= 1 << rng.randrange(8)
        elif how == 1:
            changed[place:end] = rng.randbytes(end - place)
        elif how == 2:
            del changed[place:end]
        elif how == 3:
            changed[place:place] = rng.randbytes(rng.choice([1, 4, 8]))
        elif how == 4:
            changed[place:end] = bytes([rng.choice([0, 0xFF])]) * (end - place)
        else:
            del changed[place:]
    return bytes(changed)


def mutated_json(rng: random.Random, content: bytes) -> bytes:
    """Another value somewhere, or a member less."""
    try:
        data = json.loads(content)
    except ValueError:
        return content
    if isinstance(data, dict):
        for name in SIGNED:  # or a manifest would not be read further
            data.pop(name, None)
    spots = [(holder, key) for holder in holders(data) for key in keys_of(holder)]
    for holder, key in rng.sample(spots, min(len(spots), rng.choice([1, 1, 2]))):
        if rng.random() < 0.2:
            holder.pop(key) if isinstance(holder, dict) else holder.clear()
            break
        holder[key] = rng.choice(ODD)
    return json.dumps(data).encode()


def holders(data: Any) -> list[Any]:
    """Every object and list; of a long one the first members, so that none is drowned."""
    if not isinstance(data, dict | list):
        return []
    return [data] + [found for key in keys_of(data) for found in holders(data[key])]


def keys_of(holder: Any) -> list[Any]:
    return list(holder)[:20] if isinstance(holder, dict) else list(range(min(len(holder), 5)))


def use_corpus(corpus: Path) -> None:
    """What training and the tools do with one."""
    tokenizer = load_tokenizer(corpus)
    for texts in (TEXTS[:2], ["a <mask> b\u2581 \0"]):
        tokenizer.decode(tokenizer.encode(texts)[0])
    split = open_split(corpus, "train", tokenizer=tokenizer)
    split.counts()
    for how in ("wrap", "pad"):
        packing = pack(split, 16, how)  # type: ignore[arg-type]
        packing.read(np.arange(len(packing)))
        windows = held_out(split, 16, how)  # type: ignore[arg-type]
        for _ in windows.read(0, len(windows)):
            pass


def attack_corpus(rng: random.Random, corpora: list[Path], work: Path) -> str:
    own = Path(shutil.copytree(rng.choice(corpora), work / "corpus"))
    path = rng.choice(files_of(own))
    how = mutated_json if path.suffix == ".json" and rng.random() < 0.6 else mutated_bytes
    path.write_bytes(how(rng, path.read_bytes()))
    with suppress(UserError):
        use_corpus(own)
    text = work / "more.txt"
    text.write_text("a line\n")
    new = ["tokenize", str(text), "--corpus", str(own), "--split", "train", "--overwrite"]
    for words in (["info", str(own)], ["verify", str(own)], new):
        assert main(words) in (0, 2), words
    return f"corpus {path.name} {how.__name__}"


def attack_adoption(rng: random.Random, corpora: list[Path], work: Path) -> str:
    source = rng.choice([path for corpus in corpora for path in corpus.glob("tokenizer*")])
    for beside in source.parent.glob("tokenizer*"):
        shutil.copy(beside, work / beside.name)
    path = work / source.name
    how = mutated_json if path.suffix == ".json" and rng.random() < 0.6 else mutated_bytes
    path.write_bytes(how(rng, path.read_bytes()))
    assert main(["tokenizer", "--adopt", str(work), "--out", str(work / "corpus")]) in (0, 2)
    return f"adoption {path.name} {how.__name__}"


def text_files() -> dict[str, bytes]:
    lines = "".join(json.dumps({"text": text, "n": 1}) + "\n" for text in TEXTS).encode()
    table = ("text,n\n" + "".join(f'"{text}",1\n' for text in TEXTS)).encode()
    return {
        "a.jsonl": lines,
        "a.txt": "\n".join(TEXTS).encode(),
        "a.csv": table,
        "a.tsv": table.replace(b",", b"\t"),
        "a.jsonl.gz": gzip.compress(lines),
        "a.jsonl.zst": zstandard.ZstdCompressor().compress(lines),
        "a.jsonl.xz": lzma.compress(lines),
        "a.jsonl.bz2": bz2.compress(lines),
    }


def attack_text(rng: random.Random, corpora: list[Path], work: Path) -> str:
    files = text_files()
    name = rng.choice(list(files))
    path = work / rng.choice([name, name, "part-00000"])
    path.write_bytes(mutated_bytes(rng, files[name]))
    words = ["tokenize", str(path), "--corpus", str(corpora[0])]
    words += rng.choice([[], ["--skip-bad"], ["--documents", "file"]])
    words += rng.choice([[], [], ["--format", rng.choice(["text", "jsonl", "csv"])]])
    words += rng.choice([[], [], ["--pairs", "text", "n"]])
    corpus = Path(shutil.copytree(corpora[0], work / "corpus"))
    words[3] = str(corpus)
    assert main([*words, "--split", "new"]) in (0, 2), words
    return f"text {name}"


def attack(number: int, corpora: list[Path], tmp_path: Path) -> None:
    work = tmp_path / str(number)
    work.mkdir()
    rng = random.Random(number)
    kind = [attack_corpus, attack_text, attack_adoption, attack_corpus][number % 4]
    try:
        kind(rng, corpora, work)
    except Exception as error:
        raise AssertionError(f"attack {number}") from error
    shutil.rmtree(work)


def test_damage_is_an_error_in_words(corpora: list[Path], tmp_path: Path) -> None:
    for number in range(60):
        attack(number, corpora, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_lot_of_damage_is_an_error_in_words(corpora: list[Path], tmp_path: Path) -> None:
    for number in range(600):
        attack(number, corpora, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_damaged_tables_are_errors_in_words(form: str, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"text": TEXTS})
    path = tmp_path / f"a.{form}"
    if form == "parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        with pyarrow.OSFile(str(path), "wb") as out, pyarrow.ipc.new_file(out, table.schema) as to:
            to.write_table(table)
    content = path.read_bytes()
    for number in range(200):
        path.write_bytes(mutated_bytes(random.Random(number), content))
        with suppress(UserError):
            list(Documents([path], skip_bad=True))
