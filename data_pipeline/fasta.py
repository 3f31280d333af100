"""Read sequences of nucleotides from FASTA files.

A record is a header line, which begins with `>`, and the lines of its sequence. Genome browsers
write repeats in lower case (soft masking), which is no part of the sequence. The letters are
those of IUPAC (Cornish-Bowden 1985, Nucleic Acids Research 13:3021).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from data_pipeline.records import BadRecordError, Record, numbered_lines

NUCLEOTIDES = b"ACGTURYSWKMBDHVN"


def fasta_records(path: Path, file: BinaryIO, longest: int | None = None) -> Iterator[Record]:
    """Sequences in upper case and without line breaks, as the field `text`.

    Args:
        longest: longer sequences are cut into records of this many letters.
    """
    place, lines = "", list[bytes]()
    bad = False
    for number, raw in numbered_lines(file):
        line = raw.strip()
        if line.startswith(b">"):
            if place and not bad:
                yield from _pieces(place, b"".join(lines), longest)
            place, lines, bad = f"{path}:{number}", [], False
        elif line and not bad:
            line = line.upper()
            if fault := _fault(line, begun=bool(place)):
                bad = True
                yield f"{path}:{number}", BadRecordError(fault)
            lines.append(line)
    if place and not bad:
        yield from _pieces(place, b"".join(lines), longest)


def _pieces(place: str, sequence: bytes, longest: int | None) -> Iterator[Record]:
    if not sequence:
        yield place, None
    size = longest or len(sequence)
    for start in range(0, len(sequence), size or 1):
        yield place, {"text": sequence[start : start + size].decode("ascii")}


def _fault(line: bytes, *, begun: bool) -> str:
    """Why a line is no part of a sequence; empty if it is one."""
    if not begun:
        return "a sequence before the first header; a FASTA record begins with a line '>name'"
    if others := line.translate(None, NUCLEOTIDES):
        return (
            f"{others[:1].decode('latin-1')!r} is no IUPAC letter of a nucleotide "
            f"({NUCLEOTIDES.decode()}); neither proteins nor alignments are read"
        )
    return ""
