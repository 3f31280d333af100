"""Node lists and meeting points, from SLURM's own variables alone.

A container may hold no scontrol, so node lists are read here. The first host of the list is
where ranks meet: a name that every node resolves, never "localhost", and never the HOSTNAME
variable, which on every node is that of the batch host. The port follows from job and
restart, so that no attempt meets the ranks of another.
"""

import errno
import hashlib
import itertools
import re
import socket
from collections.abc import Iterator

FIRST_PORT, NUM_PORTS = 20000, 12000
"""Below the range from which Linux takes ports for outgoing connections."""


def expand(nodes: str) -> list[str]:
    """The hosts of a list such as ``a[1-2,05-07],b3``.

    Raises:
        ValueError: it is no such list.
    """
    return [host for item in _items(nodes) for host in _hosts(item)]


def _items(nodes: str) -> Iterator[str]:
    """The parts between the commas outside brackets."""
    if nodes.count("[") != nodes.count("]"):
        raise ValueError(f"'{nodes}' is no list of nodes")
    yield from re.findall(r"(?:[^,\[\]]|\[[^\[\]]*\])+", nodes)


def _hosts(item: str) -> Iterator[str]:
    """A part with its brackets, of which there may be several, multiplied out."""
    pieces = re.split(r"\[([^\]]*)\]", item)
    choices = [
        [piece] if index % 2 == 0 else list(_numbers(piece)) for index, piece in enumerate(pieces)
    ]
    for parts in itertools.product(*choices):
        yield "".join(parts)


def _numbers(text: str) -> Iterator[str]:
    """``1-2,05-07`` as 1, 2, 05, 06, 07."""
    for part in text.split(","):
        first, _, last = part.partition("-")
        for number in range(int(first), int(last or first) + 1):
            yield f"{number:0{len(first)}}"


def ports(job: str, restart: int, start: int) -> Iterator[int]:
    """Ports to try, in order: the same on every rank, others for another attempt."""
    for attempt in itertools.count():
        key = f"{job}/{restart}/{start}/{attempt}".encode()
        digest = int.from_bytes(hashlib.sha256(key).digest()[:8], "big")
        yield FIRST_PORT + digest % NUM_PORTS


def free_port(job: str, restart: int, start: int = 0, tries: int = 64) -> int:
    """The first of the ports that nobody on this machine listens at.

    Raises:
        OSError: all of them are taken.
    """
    for port in itertools.islice(ports(job, restart, start), tries):
        with socket.socket(socket.AF_INET) as trial:
            try:
                trial.bind(("", port))
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise
            else:
                return port
    raise OSError(errno.EADDRINUSE, f"{tries} ports are taken")
