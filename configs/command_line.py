"""Argument parsers of the project's commands: one look for every ``--help``."""

import argparse
from typing import Any


class Parser(argparse.ArgumentParser):
    """argparse's parser, which up to Python 3.12 takes ``--option=--`` for an empty list."""

    def _get_values(self, action: argparse.Action, words: list[str]) -> Any:
        if action.option_strings and action.nargs is None and words == ["--"]:
            raise argparse.ArgumentError(action, "expected one argument")
        return super()._get_values(action, words)


def make_parser(
    module: str, description: str | None, epilog: str | None = None, *, add_help: bool = True
) -> Parser:
    """The parser of ``python -m MODULE``, which prints its texts with their own line breaks.

    Args:
        add_help: give it a plain ``--help``; a command with one of its own leaves this out.
    """
    return Parser(
        prog=f"python -m {module}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=add_help,
    )


def describe_commands(commands: "argparse._SubParsersAction[Any]") -> None:
    """Give each subcommand its line of the list of commands as the description of its own help."""
    for name, parser in commands.choices.items():
        parser.description = next(a.help for a in commands._choices_actions if a.dest == name)
