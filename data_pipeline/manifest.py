"""`manifest.json`: the contents of a split, with sizes and checksums of its files.

It records the tokenizer, the special ids, the numbers of documents and tokens, and size and
SHA-256 of every file, its own included, so that damage and mix-ups are found when a split is
opened or verified and not in a loss curve.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from configs.errors import UserError

FORMAT = 1
FILE_NAME = "manifest.json"
COUNTS = "counts.npy"

_STRICT = {"extra": "forbid", "strict": True}
_OWN_SHA256 = "sha256"  # of all other fields: beside them in the file

Count = Annotated[int, Field(ge=0, lt=2**63)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One pair of `.bin` (the tokens) and `.idx` (where documents begin)."""

    __pydantic_config__ = _STRICT

    name: Annotated[str, Field(pattern="^[0-9]{5,9}$")]
    documents: Count
    tokens: Count
    bin_bytes: Count
    idx_bytes: Count
    sha256_bin: Sha256
    sha256_idx: Sha256


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Manifest of a split: tokenizer, contents, files.

    `tokens` counts one EOS for each document, `bytes` the UTF-8 of the documents' text,
    `characters` its code points (None in manifests of earlier versions).
    `mask_id` is None where the tokenizer has no mask token: then it is V. `lossless` is
    whether all documents that were tried survived encoding and decoding, `round_trips` how many
    were, `first_loss` which did not. `pairs`: documents come in twos, a source and its
    target. `sidecar_sha256` is that of `tokenizer_config.json`, None where there was none.
    """

    __pydantic_config__ = _STRICT

    format: int = FORMAT
    tokenizer_sha256: Sha256
    vocab_size: Count
    bos_id: Count
    eos_id: Count
    pad_id: Count
    mask_id: Count | None
    lossless: bool
    documents: Count
    tokens: Count
    bytes: Count
    skipped_empty: Count
    skipped_bad: Count
    shards: tuple[Shard, ...]
    counts_sha256: Sha256
    pairs: bool = False
    round_trips: Count = 0
    first_loss: Count | None = None
    sidecar_sha256: Sha256 | None = None
    characters: Count | None = None

    @property
    def files(self) -> set[str]:
        """The names of all files of the split."""
        shards = {f"{shard.name}{suffix}" for shard in self.shards for suffix in (".bin", ".idx")}
        return {FILE_NAME, COUNTS} | shards


def write_manifest(manifest: Manifest, directory: Path) -> None:
    """Write `manifest.json` into a split's directory."""
    (directory / FILE_NAME).write_text(_signed_text(asdict(manifest)), encoding="utf-8")


def read_manifest(directory: Path) -> Manifest:
    """Read `manifest.json` of a split's directory.

    Raises:
        UserError: it is missing, unreadable, of another format, contradicts itself, or was
            changed after it was written.
    """
    path = directory / FILE_NAME
    remedy = f"restore it, or remove {directory} and make the split again"
    _, written = _read(directory)
    number = written.get("format") if isinstance(written, dict) else None
    if number != FORMAT or isinstance(number, bool):
        raise UserError(
            f"{path}: format {number!r} is not known (this version reads {FORMAT}); remove "
            f"{directory} and tokenize again, or use the version of Palimpsest that wrote it"
        )
    fields = {name: value for name, value in written.items() if name != _OWN_SHA256}
    try:
        # As JSON: only there may a list stand for a tuple.
        manifest = TypeAdapter(Manifest).validate_json(json.dumps(fields))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {where}: {first['msg']}; {remedy}") from error
    if wrong := _contradiction(manifest):
        raise UserError(f"{path}: {wrong}; {remedy}")
    if _is_signed(written) and written.get(_OWN_SHA256) != _fields_sha256(fields):
        raise UserError(f"{path}: changed since it was written; {remedy}")
    return manifest


def verify_manifest(directory: Path) -> bool:
    """Verify that `manifest.json` is as it was written; False if it holds no checksum of its own.

    Manifests of earlier versions do not hold their own checksum.

    Raises:
        UserError: it was changed, or `read_manifest` refuses it.
    """
    read_manifest(directory)
    content, written = _read(directory)
    if not _is_signed(written):
        return False
    if content != _signed_text(written).encode():
        raise UserError(
            f"{directory / FILE_NAME}: changed since it was written; restore it, or remove "
            f"{directory} and make the split again"
        )
    return True


def miscounted(manifest: Manifest, counts: Sequence[int] | np.ndarray) -> str:
    """Describe wrong counts of the special ids; empty if they are right.

    EOS stands at the end of each document and nowhere else, the others nowhere.
    """
    expected = dict.fromkeys((manifest.bos_id, manifest.pad_id, manifest.mask_id), 0)
    expected[manifest.eos_id] = manifest.documents
    for index, number in expected.items():
        if index is not None and counts[index] != number:
            return (
                f"holds the special id {index} {counts[index]} times where {number} is right (BOS "
                f"{manifest.bos_id}, EOS {manifest.eos_id} after each of {manifest.documents} "
                f"documents, PAD {manifest.pad_id}, mask {manifest.mask_id}): it was read out of "
                "the text"
            )
    return ""


def _read(directory: Path) -> tuple[bytes, Any]:
    path = directory / FILE_NAME
    try:
        content = path.read_bytes()
        return content, json.loads(content)
    except FileNotFoundError:
        raise UserError(
            f"{path}: missing, so that {directory} is no split of ours; restore it, or tokenize "
            "into a split of another name"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: unreadable ({error}); restore it, or remove {directory} and make the split "
            "again"
        ) from error


def _is_signed(written: dict[str, Any]) -> bool:
    """Whether it must hold its own checksum, which came with the fields about round trips."""
    return not {_OWN_SHA256, "round_trips", "first_loss", "sidecar_sha256"}.isdisjoint(written)


def _contradiction(manifest: Manifest) -> str:
    """Describe a contradiction within a manifest; empty if there is none."""
    ids = [manifest.bos_id, manifest.eos_id, manifest.pad_id, manifest.mask_id or 0]
    if max(ids) >= manifest.vocab_size:
        return f"special ids {ids} beyond a vocabulary of {manifest.vocab_size}"
    for what in ("documents", "tokens"):
        amounts = [getattr(shard, what) for shard in manifest.shards]
        if min(amounts, default=0) <= 0 or sum(amounts) != getattr(manifest, what):
            return f"says {getattr(manifest, what)} {what}, its shards {amounts}"
    if len(manifest.files) != 2 + 2 * len(manifest.shards):
        return f"names a shard twice: {[shard.name for shard in manifest.shards]}"
    return ""


def _signed_text(fields: dict[str, Any]) -> str:
    """The file's text: the fields, then their own checksum."""
    others = {name: value for name, value in fields.items() if name != _OWN_SHA256}
    return json.dumps(others | {_OWN_SHA256: _fields_sha256(others)}, indent=2) + "\n"


def _fields_sha256(fields: dict[str, Any]) -> str:
    text = json.dumps(fields, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
