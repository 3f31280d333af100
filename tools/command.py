"""What every command here has in common: how errors reach the user."""

import sys
from collections.abc import Callable

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


def best_device() -> torch.device:
    """The first GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
