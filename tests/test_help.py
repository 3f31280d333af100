"""``--help`` of every command: readable on a terminal, and every option explained."""

import argparse
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("data_pipeline", "pretrain", "slurm", "tools")
NO_COMMANDS = {"slurm.job.supervisor", "slurm.job.bootstrap", "slurm.job.task"}
"""What only a job starts."""


def commands() -> list[str]:
    """The modules that can be started with ``python -m``."""
    found = []
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if '__name__ == "__main__"' not in text:
                continue
            names = path.relative_to(ROOT).with_suffix("").parts
            if "huggingface" not in names:
                found.append(".".join(names).removesuffix(".__main__"))
    return sorted(set(found) - NO_COMMANDS)


COMMANDS = commands()


class ParserFound(BaseException):
    """Carries the parser that a command has made."""


@pytest.fixture
def parser(request: pytest.FixtureRequest, monkeypatch) -> argparse.ArgumentParser:
    def found(self: argparse.ArgumentParser, *arguments: object, **more: object) -> None:
        raise ParserFound(self)

    for name in ("parse_args", "parse_intermixed_args", "parse_known_args"):
        monkeypatch.setattr(argparse.ArgumentParser, name, found)
    package = ROOT.joinpath(*request.param.split(".")).is_dir()
    module = importlib.import_module(request.param + (".__main__" if package else ""))
    with pytest.raises(ParserFound) as caught:
        module.main(["--help"])
    return caught.value.args[0]


def subparsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser, and those of its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from subparsers(inner)


def test_the_commands_are_found() -> None:
    assert {"pretrain", "slurm", "data_pipeline", "tools.sample", "tools.bench"} <= set(COMMANDS)
    assert len(COMMANDS) >= 13


@pytest.mark.parametrize("parser", COMMANDS, indirect=True)
def test_help_is_plain_text(parser: argparse.ArgumentParser) -> None:
    for one in subparsers(parser):
        text = one.format_help()
        assert "``" not in text, one.prog
        assert not re.search(r":\w+:`", text), one.prog


@pytest.mark.parametrize("parser", COMMANDS, indirect=True)
def test_every_option_is_explained(parser: argparse.ArgumentParser) -> None:
    silent = [
        (one.prog, action.option_strings or action.dest)
        for one in subparsers(parser)
        for action in one._actions
        if not action.help and not isinstance(action, argparse._SubParsersAction)
    ]
    assert silent == []


@pytest.mark.parametrize("parser", COMMANDS, indirect=True)
def test_every_command_says_what_it_does(parser: argparse.ArgumentParser) -> None:
    assert [one.prog for one in subparsers(parser) if not one.description] == []


@pytest.mark.parametrize("parser", COMMANDS, indirect=True)
def test_defaults_that_matter_are_named(parser: argparse.ArgumentParser) -> None:
    """A number or a choice that is taken unasked stands in the help."""
    unnamed = [
        (one.prog, action.option_strings)
        for one in subparsers(parser)
        for action in one._actions
        if action.option_strings
        and isinstance(action.default, (int, float, str))
        and not isinstance(action.default, bool)
        and action.default not in ("", argparse.SUPPRESS)
        and "default" not in (action.help or "")
    ]
    assert unnamed == []
