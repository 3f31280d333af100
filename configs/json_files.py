"""JSON files that a reader finds complete or not at all."""

import json
import os
import time
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Replace a file atomically: write a temporary one beside it, then rename."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    aside.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    aside.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty if the file is missing, damaged, or holds something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
