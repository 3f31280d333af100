"""Rendezvous of a start's ranks: address and port of rank 0, as PyTorch's process group takes them.

The address is the first host of the node list: a name that every node resolves, never
"localhost", and never the HOSTNAME variable, which holds the batch host's name on every node. The
port follows from job, restart and start, so that no attempt meets the ranks of another.
"""

import errno
import hashlib
import itertools
import socket
import time
from collections.abc import Iterator

from configs.json_files import read_json, write_json
from slurm.job.rank_info import RankInfo
from slurm.records import Start

FIRST_PORT, NUM_PORTS = 20000, 12000
"""Below the range from which Linux takes ports for outgoing connections."""
POLL_S = 0.25
TIMEOUT_S = 600.0
"""Seconds that a rank waits for rank 0 to choose a port."""


def ports(job: str, restart: int, start: int) -> Iterator[int]:
    """Ports to try, in order: the same on every rank, others for another attempt."""
    for attempt in itertools.count():
        key = f"{job}/{restart}/{start}/{attempt}".encode()
        digest = int.from_bytes(hashlib.sha256(key).digest()[:8], "big")
        yield FIRST_PORT + digest % NUM_PORTS


def free_port(job: str, restart: int, start: int = 0, tries: int = 64) -> int:
    """The first of these ports that nobody on this machine listens at.

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


def meet(rank: RankInfo, start: Start) -> tuple[str, int]:
    """Address and port of rank 0, which chooses the port; the others read it from a file.

    Raises:
        TimeoutError: rank 0 has chosen none in time, or a newer start has begun.
    """
    if rank.rank == 0:
        port = free_port(rank.job, rank.restart, start.number)
        write_json(start.rendezvous, {"address": rank.first_host, "port": port})
        return rank.first_host, port
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end and not start.superseded:
        found = read_json(start.rendezvous)
        if found:
            return str(found["address"]), int(found["port"])
        time.sleep(POLL_S)
    raise TimeoutError(f"rank 0 has chosen no port within {TIMEOUT_S:.0f} s")
