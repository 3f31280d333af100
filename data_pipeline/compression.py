"""Compressed files, recognised by their first bytes and read as streams.

One reader for gzip, zstd, xz and bzip2, since Python's own take damage for an end: bz2 and xz
stop in silence where a later part of the file is damaged, and zstandard where the file is cut.
"""

import bz2
import io
import lzma
import zlib
from pathlib import Path
from typing import Any

import zstandard

from configs.errors import UserError

_READ_AT_ONCE = 2**16
HEAD = 2**16
"""Bytes at the start of a file from which its form is recognised."""

_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bzip2",
    # A frame that zstd skips: parallel compressors begin with one.
    **{bytes([0x50 + number, 0x2A, 0x4D, 0x18]): "zstd" for number in range(16)},
}
SUFFIXES = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd", ".xz": "xz",
            ".bz2": "bzip2"}  # fmt: skip


def compression_of(head: bytes) -> str | None:
    """The compression that a file begins with."""
    found = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
    # Three letters may begin a text; the marks of a block, or of the end, follow the level.
    is_block = head[4:10] in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")
    return None if found == "bzip2" and not is_block else found


def opened(path: Path) -> io.BufferedReader:
    """The bytes of a file, decompressed if need be; the first `HEAD` of them can be peeked at.

    Raises:
        UserError: its name says that it is compressed, and it is not.
        OSError: it cannot be opened; while reading, it is damaged or cut.
    """
    file: io.BufferedReader = io.BufferedReader(_Whole(path), HEAD)
    compression = compression_of(file.peek(HEAD))
    named = SUFFIXES.get(path.suffix.lower())
    if compression is not None:
        return io.BufferedReader(_Decompressed(file, compression), HEAD)
    if named is not None:
        empty = not file.peek(HEAD)
        file.close()
        if empty:
            raise UserError(f"{path}: cannot be read: is empty, without even {named}'s own bytes")
        raise UserError(
            f"{path}: cannot be read: named as {named}, but it does not begin like that; give it "
            "its right name"
        )
    return file


class _Whole(io.FileIO):
    """A raw file whose reads are complete; a pipe returns what has been written so far."""

    def readinto(self, buffer: Any) -> int:
        view, filled = memoryview(buffer), 0
        while filled < len(view) and (number := super().readinto(view[filled:])):
            filled += number
        return filled


class _Decompressed(io.RawIOBase):
    """The contents of one compressed part after the other, to the end of the file."""

    def __init__(self, file: io.BufferedReader, compression: str) -> None:
        self._file, self._compression = file, compression
        self._part: Any = None  # what decompresses the part begun, if one is
        self._rest, self._ready = b"", memoryview(b"")

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        filled = 0
        while filled < len(buffer) and (self._ready or self._fill()):
            part = self._ready[: len(buffer) - filled]
            buffer[filled : filled + len(part)] = part
            filled += len(part)
            self._ready = self._ready[len(part) :]
        return filled

    def _fill(self) -> bool:
        """Decompress until there is output; False at the end of the file."""
        while not self._ready:
            data = self._rest or self._file.read(_READ_AT_ONCE)
            self._rest = b""
            if not data:
                if self._part is not None:
                    raise EOFError(f"the {self._compression} data is cut")
                return False
            if self._part is None:
                if self._compression in ("gzip", "xz"):
                    data = data.lstrip(b"\0")  # padding between parts, or at the end
                if not data:
                    continue
                self._part = _decompressor(self._compression)
            part = self._part
            try:
                self._ready = memoryview(part.decompress(data))
            except (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, ValueError) as error:
                raise OSError(f"damaged {self._compression} data: {error}") from error
            if part.eof:
                self._rest, self._part = part.unused_data, None
        return True


def _decompressor(compression: str) -> Any:
    if compression == "gzip":
        return zlib.decompressobj(wbits=31)
    if compression == "bzip2":
        return bz2.BZ2Decompressor()
    if compression == "xz":
        return lzma.LZMADecompressor()
    # Archives are made with windows of up to 2 GiB (`--long=31`).
    return zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj()
