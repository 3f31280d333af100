"""What a split of a corpus is: `manifest.json`, the small file that makes shards checkable.

It says which tokenizer made the shards, what their special ids are, how much there is, and
the size and SHA-256 of every file, so that damage and mix-ups are found when a split is
opened and not in a loss curve.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from configs.errors import UserError

FORMAT = 1
FILE_NAME = "manifest.json"

_STRICT = {"extra": "forbid", "strict": True}


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One pair of `.bin` (the tokens) and `.idx` (where documents begin)."""

    __pydantic_config__ = _STRICT

    name: str
    documents: int
    tokens: int
    bin_bytes: int
    idx_bytes: int
    sha256_bin: str
    sha256_idx: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A split: its tokenizer, its contents, its files.

    `tokens` counts one EOS for each document, `bytes` the UTF-8 of the documents' text.
    `mask_id` is None where the tokenizer has no mask token: then it is V. `lossless` tells
    whether the first documents survived encoding and decoding. `pairs` says that documents
    come in twos, a source and its target.
    """

    __pydantic_config__ = _STRICT

    format: int = FORMAT
    tokenizer_sha256: str
    vocab_size: int
    bos_id: int
    eos_id: int
    pad_id: int
    mask_id: int | None
    lossless: bool
    documents: int
    tokens: int
    bytes: int
    skipped_empty: int
    skipped_bad: int
    shards: tuple[Shard, ...]
    counts_sha256: str
    pairs: bool = False


def write_manifest(manifest: Manifest, directory: Path) -> None:
    """Write `manifest.json` into a split's directory."""
    text = json.dumps(asdict(manifest), indent=2) + "\n"
    (directory / FILE_NAME).write_text(text, encoding="utf-8")


def read_manifest(directory: Path) -> Manifest:
    """Read `manifest.json` of a split's directory.

    Raises:
        UserError: it is missing, unreadable, of another format, or contradicts itself.
    """
    path = directory / FILE_NAME
    try:
        content = path.read_bytes()
        written = json.loads(content)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; make the split again with --overwrite") from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: unreadable ({error}); restore it, or make the split again with --overwrite"
        ) from error
    number = written.get("format") if isinstance(written, dict) else None
    if number != FORMAT:
        raise UserError(
            f"{path}: format {number!r} is not known (this version reads {FORMAT}); tokenize the "
            "corpus again, or use the version of Palimpsest that wrote it"
        )
    try:
        # From JSON, not from `written`: only there may a list stand for a tuple.
        manifest = TypeAdapter(Manifest).validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path}: {where}: {first['msg']}; restore it, or make the split again with --overwrite"
        ) from error
    for what in ("documents", "tokens"):
        amounts = [getattr(shard, what) for shard in manifest.shards]
        if min(amounts, default=0) <= 0 or sum(amounts) != getattr(manifest, what):
            raise UserError(
                f"{path}: says {getattr(manifest, what)} {what}, its shards {amounts}; "
                "restore it, or make the split again with --overwrite"
            )
    return manifest


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
