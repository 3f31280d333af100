"""Argument parsers of the project's commands: one look for every ``--help``."""

import argparse
from typing import Any


def make_parser(
    module: str, description: str | None, epilog: str | None = None
) -> argparse.ArgumentParser:
    """The parser of ``python -m MODULE``, which prints its texts with their own line breaks."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def describe_commands(commands: "argparse._SubParsersAction[Any]") -> None:
    """Give each subcommand its line of the list of commands as the description of its own help."""
    for name, parser in commands.choices.items():
        parser.description = next(a.help for a in commands._choices_actions if a.dest == name)
