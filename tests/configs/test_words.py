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
        (["--optim.lr", "3e-4"], "--optim.lr: a setting has no dashes: write optim.lr=3e-4"),
        (["--optim.lr"], "--optim.lr: a setting has no dashes: write optim.lr=VALUE"),
        (["--steps", "3"], "--steps: a setting has no dashes: write steps=3"),
        (["--dryrun"], "--dryrun: did you mean --dry-run?"),
        (["--config", "configs/demo.yaml"], "files are named as they are: write configs/demo.yaml"),
        (["--config=configs/demo.yaml"], "files are named as they are: write configs/demo.yaml"),
        (["optim.lr", "="], "no spaces around '=': write optim.lr=VALUE"),
        (["optim.lr:3e-4"], "'optim.lr:3e-4': a setting has a '=': write optim.lr=3e-4"),
        (["optim.lr: 3e-4"], "'optim.lr: 3e-4': a setting has a '=': write optim.lr=3e-4"),
        (["optim.lr:", "3e-4"], "'optim.lr:': a setting has a '=': write optim.lr=3e-4"),
        (["optim.lr", "3e-4"], "a setting is one word: write optim.lr=3e-4"),
        (["steps", "-30"], "a setting is one word: write steps=-30"),
        (["optim/lr=3e-4"], "'optim/lr=3e-4': a key has dots: write optim.lr=3e-4"),
        (["--steps=3"], "--steps=3: a setting has no dashes: write steps=3"),
        (["-steps=3"], "-steps=3: a setting has no dashes: write steps=3"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
        (["configs/tiny.yml"], "cannot read configs/tiny.yml: .* you mean 'configs/tiny.yaml'?"),
        (["tiny.yaml"], "did you mean 'configs/tiny.yaml'?"),
        (["configs/tinny.yaml"], "did you mean 'configs/tiny.yaml'"),
        (["config/tiny.yaml"], "did you mean 'configs/tiny.yaml'?"),
        (["configs/owt.yaml"], "or 'configs/mdlm/owt.yaml'?"),
        (["configs/qqqqq.yaml"], "there are: configs/demo.yaml, configs/tiny.yaml"),
        (["steps"], "cannot read steps: .*; a setting is written steps=VALUE"),
        (["configs"], "^error: cannot read configs: it is a directory; there are: configs/demo"),
        (["/dev/null"], "^error: cannot read /dev/null: it is no regular file; name a YAML file"),
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


def test_a_setting_cut_by_spaces_is_one_problem(capsys) -> None:
    """The sign and the value behind it are no setting of their own."""
    assert main(["configs/tiny.yaml", "optim.lr", "=", "3e-4", "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert said == "error: no spaces around '=': write optim.lr=3e-4\n"


def test_what_looks_like_a_slip_may_be_a_file(tmp_path: Path, capsys) -> None:
    """Names that are there are read, whatever they look like."""
    for name in ("steps:3", "lr"):
        (tmp_path / name).write_text("steps: 7\n")
        assert main(["configs/tiny.yaml", name, "--dry-run"]) == 0
        assert "steps: 7" in capsys.readouterr().out


def test_a_run_that_is_named_as_a_file_goes_on_with_its_own(tmp_path: Path, capsys) -> None:
    shutil.copytree("configs", "runs/tiny/configs")
    shutil.copy("configs/tiny.yaml", "runs/tiny/config.yaml")
    assert main(["runs/tiny", "--dry-run"]) == 2
    assert "goes on with runs/tiny/config.yaml run_dir=runs/tiny" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--ranks", "2"], ["--json"]])
def test_options_of_a_dry_run_do_not_start_one_that_is_none(option: list[str], capsys) -> None:
    assert main(["configs/tiny.yaml", *option]) == 2
    assert "belong to --dry-run; the ranks of a run are parallel.data" in capsys.readouterr().err


def test_what_is_wrong_with_files_and_words_is_said_at_once(capsys) -> None:
    assert main(["configs/tiny.yml", "a..b=1", "optim.lr=[1", "--dry-run"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("error: cannot read configs/tiny.yml")
    assert lines[1].startswith("  'a..b=1'")
    assert lines[2].startswith("  'optim.lr=[1': the value is not valid YAML")
