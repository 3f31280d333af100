"""The tests of a package need what the package needs, and no more."""

import subprocess
import sys
from pathlib import Path

COLLECT = """
import sys
import pytest

assert pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", "tests/model"]) == 0
roots = ("deepspeed", "megatron", "pretrain.launch.local", "pretrain.parallel.engine")
print([name for name in sys.modules if name.startswith(roots)])
"""


def test_the_models_tests_import_no_engine(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COLLECT], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
