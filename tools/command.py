"""What the commands here have in common: how they are called, and how errors reach the user."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from configs.errors import UserError


def run(command: Callable[[], int]) -> int:
    """The command's exit status; 2 with one line for an error that the user can mend."""
    try:
        return command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of ``python -m tools.NAME RUN``, for a command that loads a model."""
    made = argparse.ArgumentParser(
        prog=f"python -m tools.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("run", type=Path, help="run directory or checkpoint")
    made.add_argument("--weights", choices=("ema", "raw"), default="ema")
    return made


def best_device() -> torch.device:
    """The first GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
