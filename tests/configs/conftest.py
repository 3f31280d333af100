"""What several tests of configurations need."""

from pathlib import Path

import pytest
from schemas import Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(text: str, name: str = "a.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_file
