"""The key reference lists every key and is what the command prints, as does ``--help KEY``."""

from pathlib import Path

import pytest

from configs.documentation import keys
from pretrain.__main__ import KEYS_PAGE, main
from pretrain.config import RunConfig


def test_the_page_is_fresh(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--keys", "--markdown"]) == 0
    printed = capsys.readouterr().out
    command = f"python -m pretrain --keys --markdown > {KEYS_PAGE}"
    assert printed == (root / KEYS_PAGE).read_text(encoding="utf-8"), f"run: {command}"


def test_every_key_has_a_row_of_four_cells(root: Path) -> None:
    rows = [
        line.replace("\\|", "/").strip("|").split("|")
        for line in (root / KEYS_PAGE).read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]
    assert {len(row) for row in rows} == {4}
    assert sorted(row[0].strip(" `") for row in rows) == sorted(key.name for key in keys(RunConfig))
    assert not any("<" in cell for row in rows for cell in row)


@pytest.mark.parametrize("names", [["optim.lr"], ["optim"], ["ema", "data.corpus"]])
def test_help_on_keys_is_their_listing(
    names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--keys", *names]) == 0
    listed = capsys.readouterr().out
    assert main(["--help", *names]) == 0
    assert capsys.readouterr().out == listed
    assert all(name in listed for name in names)


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["configs/tiny.yaml", "--help"]])
def test_help_alone_is_the_commands(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 0
    printed = capsys.readouterr().out
    assert "--help [KEY ...]" in printed
    assert "exit status:" in printed


def test_help_on_what_is_no_key_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help", "optim.lrr"]) == 2
    assert "did you mean 'optim.lr'?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--markdown"], ["--keys", "--markdown", "optim"]])
def test_the_page_is_of_all_keys(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "--markdown goes with --keys" in capsys.readouterr().err
