"""A word that is neither a file nor a setting: the answer says what was meant."""

import re
import shutil
from pathlib import Path

import pytest

from pretrain.__main__ import main

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped files below the present directory, as in a checkout."""
    shutil.copytree(CONFIGS, tmp_path / "configs", ignore=shutil.ignore_patterns("*.py*"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optim.lr", "=", "3e-4"], "no spaces around '=': write optim.lr=3e-4"),
        (["optim.lr", "=3e-4"], "no spaces around '=': write optim.lr=3e-4"),
        (["optim.lr=", "3e-4"], "no spaces around '=': write optim.lr=3e-4"),
        (["--optim.lr=3e-4"], "--optim.lr=3e-4: a setting has no dashes: write optim.lr=3e-4"),
        (["--optim.lr", "3e-4"], "--optim.lr: a setting has no dashes: write optim.lr=VALUE"),
        (["--steps=3"], "--steps=3: a setting has no dashes: write steps=3"),
        (["-steps=3"], "-steps=3: a setting has no dashes: write steps=3"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
        (["configs/tiny.yml"], "cannot read configs/tiny.yml: .* you mean 'configs/tiny.yaml'?"),
        (["tiny.yaml"], "did you mean 'configs/tiny.yaml'?"),
        (["configs/tinny.yaml"], "did you mean 'configs/tiny.yaml'"),
        (["config/tiny.yaml"], "did you mean 'configs/tiny.yaml'?"),
        (["configs/owt.yaml"], "did you mean 'configs/mdlm/owt.yaml'?"),
        (["configs/qqqqq.yaml"], "there are: configs/demo.yaml, configs/tiny.yaml"),
        (["steps"], "cannot read steps: .*; a setting is written steps=VALUE"),
        (["configs"], "cannot read configs: it is a directory"),
        ([""], "one of the words is empty"),
        (["run_dir=\udcff"], "'run_dir=.*' is no UTF-8"),
        (["\udcff.yaml"], "is no UTF-8"),
        (["=3"], "expected key=value"),
        (["a..b=1"], "'a..b=1': expected key=value"),
        ([".a=1"], "'.a=1': expected key=value"),
    ],
)  # fmt: skip
def test_the_answer_says_what_was_meant(words: list[str], message: str, capsys) -> None:
    try:
        status = main(["configs/tiny.yaml", *words, "--dry-run"])
    except SystemExit as left:
        status = left.code
    said = capsys.readouterr()
    assert status == 2
    assert re.search(message.replace("?", r"\?"), said.err), said.err
    assert "Traceback" not in said.err
    assert said.out == ""


def test_what_is_wrong_with_files_and_words_is_said_at_once(capsys) -> None:
    assert main(["configs/tiny.yml", "a..b=1", "optim.lr=[1", "--dry-run"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("error: cannot read configs/tiny.yml")
    assert lines[1].startswith("  'a..b=1'")
    assert lines[2].startswith("  'optim.lr=[1': the value is not valid YAML")
