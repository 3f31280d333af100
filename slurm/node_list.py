"""SLURM's compact node lists, read without scontrol, which a container may lack."""

import itertools
import re
from collections.abc import Iterator


def expand(nodes: str) -> list[str]:
    """Hosts of a node list such as ``a[1-2,05-07],b3``.

    Raises:
        ValueError: the brackets do not match.
    """
    return [host for item in _items(nodes) for host in _hosts(item)]


def _items(nodes: str) -> Iterator[str]:
    """Split at the commas outside brackets."""
    if nodes.count("[") != nodes.count("]"):
        raise ValueError(f"'{nodes}' is no list of nodes")
    yield from re.findall(r"(?:[^,\[\]]|\[[^\[\]]*\])+", nodes)


def _hosts(item: str) -> Iterator[str]:
    """Expand the brackets of one item; several are multiplied out."""
    pieces = re.split(r"\[([^\]]*)\]", item)
    choices = [
        [piece] if index % 2 == 0 else list(_numbers(piece)) for index, piece in enumerate(pieces)
    ]
    for parts in itertools.product(*choices):
        yield "".join(parts)


def _numbers(text: str) -> Iterator[str]:
    """Expand the inside of a bracket: ``1-2,05-07`` to 1, 2, 05, 06, 07."""
    for part in text.split(","):
        first, _, last = part.partition("-")
        for number in range(int(first), int(last or first) + 1):
            yield f"{number:0{len(first)}}"
