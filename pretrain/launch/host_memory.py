"""Keeps freed memory in the process, on a CPU.

glibc maps every large tensor anew and unmaps it when it is freed; with several threads
each unmapping interrupts all cores, and the first steps of a run were seen to take a
second instead of 20 ms. With a higher threshold such tensors are reused from the heap.
"""

import contextlib
import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 32 * 2**20
"""The highest threshold for mapping that glibc accepts."""


def keep_freed_memory() -> None:
    """Set glibc's thresholds; without glibc nothing happens."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**30)
