"""A keyed shuffle of {0..n-1} that needs no table: order k of n in O(1) time and memory.

A balanced Feistel network is a bijection whatever its round function is, and close to a
random one if that is good (Luby & Rackoff, "How to construct pseudorandom permutations from
pseudorandom functions", SIAM J. Comput. 17(2), 1988). It acts on 2^(2h) >= n numbers; those
that land outside are sent on until they are inside, which restricts the bijection to
{0..n-1} (cycle walking: Black & Rogaway, "Ciphers with arbitrary finite domains", CT-RSA
2002, section 3). As 2^(2h) < 4n, that takes four turns at most on average.

A shuffled list would cost 8 bytes a sample on every rank and would have to be built, saved
and resharded; this has nothing to save. It shuffles, it does not encrypt.
"""

import numpy as np

MAX_SIZE = 2**62
_ROUNDS = 8
_MASK64 = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15


def shuffled(index: np.ndarray | int, size: int, key: int) -> np.ndarray:
    """Where the shuffle named `key` sends each index: int64, of the shape of `index`.

    Args:
        index: numbers in 0..size-1, of any shape.
        size: n, from 1 to 2**62.
        key: any integer; its low 64 bits count.
    """
    indices = np.asarray(index)
    assert 1 <= size <= MAX_SIZE, size
    assert not indices.size or (indices.min() >= 0 and indices.max() < size), (index, size)
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    round_keys = [derive_key(key, number) for number in range(_ROUNDS)]

    image = _feistel(indices.ravel().astype(np.uint64), half_bits, round_keys)
    while (outside := np.flatnonzero(image >= size)).size:
        image[outside] = _feistel(image[outside], half_bits, round_keys)
    return image.astype(np.int64).reshape(indices.shape)


def derive_key(key: int, number: int) -> int:
    """A 64-bit key for each (key, number), unlike those of other keys and other numbers."""
    start = np.array([key & _MASK64], dtype=np.uint64)
    hashed_key = int(_mix(start + np.uint64(_GOLDEN))[0])
    return int(_mix(np.array([(hashed_key + number * _GOLDEN) & _MASK64], dtype=np.uint64))[0])


def _feistel(value: np.ndarray, half_bits: int, round_keys: list[int]) -> np.ndarray:
    """A bijection of uint64 numbers below 2**(2 * half_bits)."""
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = value >> shift, value & mask
    for round_key in round_keys:
        left, right = right, left ^ (_mix(right ^ np.uint64(round_key)) & mask)
    return (left << shift) | right


def _mix(x: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser on uint64 arrays, which wrap at 2**64 (Steele et al., OOPSLA 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
