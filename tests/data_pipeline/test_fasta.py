import gzip
from pathlib import Path

import pytest

from configs.errors import UserError
from data_pipeline.__main__ import main
from data_pipeline.adopt import make_character_tokenizer
from data_pipeline.fasta import NUCLEOTIDES
from data_pipeline.shards import open_split
from data_pipeline.sources import Documents

GENOME = b">chr1 of a genome > so\nACGT\nacgtnn\r\n\n  TT \n>chr2\n>chr3\nRyk"
SEQUENCES = ["ACGTACGTNNTT", "RYK"]


def written(tmp_path: Path, content: bytes, name: str = "a.fa") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["a.fa", "a.fasta", "A.FNA", "a.fa.gz", "a.fna.GZ"])
def test_records_are_documents(name: str, tmp_path: Path) -> None:
    packed = gzip.compress(GENOME) if name.lower().endswith(".gz") else GENOME
    documents = Documents([written(tmp_path, packed, name)])
    assert list(documents) == SEQUENCES
    assert documents.skipped == {"empty": 1, "bad": 0}, "chr2 has no sequence"


def test_a_name_of_another_kind_takes_the_option(tmp_path: Path) -> None:
    path = written(tmp_path, GENOME, "genome.txt")
    assert list(Documents([path], form="fasta")) == SEQUENCES
    assert next(iter(Documents([path]))).startswith(">chr1"), "mail may be quoted so"


def test_long_records_are_cut(tmp_path: Path) -> None:
    path = written(tmp_path, GENOME)
    assert list(Documents([path], longest=5)) == ["ACGTA", "CGTNN", "TT", "RYK"]
    assert list(Documents([path], longest=12)) == SEQUENCES
    with pytest.raises(UserError, match="is text; only FASTA records are cut"):
        list(Documents([written(tmp_path, b"text\n", "a.txt")], longest=5))


def test_all_letters_of_iupac_and_no_others(tmp_path: Path) -> None:
    letters = NUCLEOTIDES.decode()
    assert sorted(letters) == sorted("ACGTU" + "RYSWKM" + "BDHV" + "N")
    text = f">a\n{letters}\n{letters.lower()}\n".encode()
    assert list(Documents([written(tmp_path, text)])) == [letters * 2]
    for other in set(map(chr, range(33, 127))) - set(letters + letters.lower()) - {">"}:
        path = written(tmp_path, f">a\nACGT\nAC{other}T\n".encode())
        with pytest.raises(UserError, match=r"a\.fa:3: .* is no IUPAC letter"):
            list(Documents([path]))


BAD = b"ACGT\nAC\n>a\nAC\nEEP\nFFF\n>b\nGG\n"


def test_what_is_wrong_is_named_or_counted(tmp_path: Path) -> None:
    path = written(tmp_path, BAD)
    with pytest.raises(UserError, match=r"a\.fa:1: a sequence before the first header"):
        list(Documents([path]))
    documents = Documents([path], skip_bad=True)
    assert list(documents) == ["GG"]
    assert documents.skipped == {"empty": 0, "bad": 2}, "one a record, whole or not at all"
    with pytest.raises(UserError, match=r"no field 'source' \(fields: text\)"):
        list(Documents([written(tmp_path, GENOME)], fields=["source", "target"]))


@pytest.mark.parametrize("name", ["a.faa", "a.fastq", "a.2bit"])
def test_its_relatives_are_not_taken_for_text(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="files are not known here"):
        list(Documents([written(tmp_path, b">a\nACGT\n", name)]))


def test_a_genome_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_character_tokenizer("dna", tmp_path / "corpus")
    path = written(tmp_path, b">a\nacgt\nACGTN\n>b\nTTTT\n")
    words = ["tokenize", str(path), "--corpus", str(tmp_path / "corpus"), "--split"]
    assert main([*words, "train"]) == 0
    split = open_split(tmp_path / "corpus", "train")
    assert split.tokens(0, 15).tolist() == [4, 5, 6, 7, 4, 5, 6, 7, 8, 2, 7, 7, 7, 7, 2]
    assert main([*words, "cut", "--longest", "3"]) == 0
    assert open_split(tmp_path / "corpus", "cut").num_documents == 5
    assert main([*words, "none", "--longest", "0"]) == 2
    assert "--longest must be at least 1, not 0" in capsys.readouterr().err
