import json
from dataclasses import replace
from pathlib import Path

import pytest

from configs.errors import UserError
from data_pipeline.manifest import Manifest, read_manifest, write_manifest


@pytest.fixture
def manifest(corpus: Path) -> Manifest:
    return read_manifest(corpus / "train")


def test_written_and_read(manifest: Manifest, tmp_path: Path) -> None:
    for mask_id in (None, 3):
        changed = replace(manifest, mask_id=mask_id)
        write_manifest(changed, tmp_path)
        assert read_manifest(tmp_path) == changed


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"format": 2}, "format 2 is not known"),
        ({"tokens": 1}, r"says 1 tokens, its shards \["),
        ({"documents": True}, "documents: Input should be a valid integer"),
        ({"vocab_size": "500"}, "vocab_size: Input should be a valid integer"),
        ({"extra": 1}, "extra: "),
        ({"shards": []}, r"says 40 documents, its shards \[\]"),
    ],
)
def test_refused(corpus: Path, tmp_path: Path, edit: dict[str, object], message: str) -> None:
    written = json.loads((corpus / "train/manifest.json").read_text()) | edit
    (tmp_path / "manifest.json").write_text(json.dumps(written))
    with pytest.raises(UserError, match=f"manifest.json: .*{message}"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"{}"])
def test_unreadable(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UserError, match=r"manifest\.json: missing"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=r"manifest\.json: (unreadable|format None)"):
        read_manifest(tmp_path)
