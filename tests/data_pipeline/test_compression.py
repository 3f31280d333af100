"""Compressed files: damage, windows and speed."""

import bz2
import gzip
import json
import lzma
import time
from pathlib import Path

import pytest
import zstandard

from configs.errors import UserError
from data_pipeline.sources import Documents

TEXTS = ['hello, "world"', "two\nlines", "caf\u00e9"]

JSONL = "".join(json.dumps({"id": 1, "text": text}) + "\n" for text in TEXTS).encode()

COMPRESSED = {
    "gz": gzip.compress,
    "zst": zstandard.ZstdCompressor().compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
}


def write(tmp_path: Path, name: str, content: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("suffix", COMPRESSED)
@pytest.mark.parametrize("damage", [lambda c: c[:-5], lambda c: c + b"junk", lambda c: c[:40]])
def test_damaged_compressed_files_are_no_shorter_corpora(
    suffix: str, damage, tmp_path: Path
) -> None:
    lines = JSONL * 3
    path = write(tmp_path, f"a.jsonl.{suffix}", damage(COMPRESSED[suffix](lines)))
    with pytest.raises(UserError, match=r"cannot be read .*(cut|damaged)"):
        list(Documents([path], skip_bad=True))


def test_long_cells_and_large_windows(tmp_path: Path) -> None:
    text = "word " * 100_000
    assert list(Documents([write(tmp_path, "a.csv", f'text\n"{text}"\n'.encode())])) == [text]
    options = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    stream = zstandard.ZstdCompressor(compression_params=options).compressobj()
    content = stream.compress(text.encode()) + stream.flush()
    assert list(Documents([write(tmp_path, "a.txt.zst", content)])) == [text]


def test_what_is_well_compressed_is_read_in_linear_time(tmp_path: Path) -> None:
    """64 KiB may hold 100 MB: copying the rest for every read took minutes."""
    line = b"a" * 9_999 + b"\n"
    path = write(tmp_path, "a.txt.zst", COMPRESSED["zst"](line * 8_000))
    start = time.process_time()
    assert sum(1 for _ in Documents([path])) == 8_000
    assert time.process_time() - start < 5
