"""The scripts in configs/slurm/examples are what ``--print`` prints.

Each names its own command in its second line; to write one anew, run that.
"""

import shlex
from pathlib import Path

import pytest

from slurm.__main__ import main

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "configs" / "slurm" / "examples").glob("*.sbatch"))


def test_there_are_examples() -> None:
    assert {"cpu", "gpu", "gpu-elastic"} <= {path.stem for path in EXAMPLES}


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_what_print_prints(file: Path, capsys, monkeypatch) -> None:
    text = file.read_text(encoding="utf-8")
    words = shlex.split(text.splitlines()[1].removeprefix("# "))
    assert words[:3] == ["python", "-m", "slurm"]
    monkeypatch.chdir(ROOT)
    assert main(words[3:]) == 0
    assert capsys.readouterr().out == text


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_holds_no_path_of_a_machine(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()[1:]
    assert not [word for line in lines for word in line.split() if word.startswith("/")]
    assert not [line for line in lines if str(ROOT) in line]
