"""Counter-based random numbers: every draw is a pure function of its purpose and position.

A draw depends only on (seed, split, kind, stream position, coordinate). There is no generator
state to save, and neither the number of ranks nor gradient accumulation changes the noise. The
generator is Philox4x32-10 (Salmon et al. 2011) in torch integer operations, so that CPU and GPU
draw the same bits.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> list[Tensor]:
    """The Philox4x32-10 counter-based generator.

    Args:
        counter: four int64 tensors of one shape, each value in [0, 2^32).
        key: two integers in [0, 2^32).

    Returns:
        Four int64 tensors of that shape, each value in [0, 2^32).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # The 64-bit products overflow int64; their bits are still right.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _WORD) ^ c1 ^ k0,
            p1 & _WORD,
            ((p0 >> 32) & _WORD) ^ c3 ^ k1,
            p0 & _WORD,
        )
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return [c0, c1, c2, c3]


@lru_cache(maxsize=256)
def _key(seed: int, split: str, kind: str) -> tuple[int, int]:
    digest = hashlib.blake2b(repr((seed, split, kind)).encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Random draws of one run.

    Args:
        seed: of the run.
        split: its use ("train", "valid", "sample"); different splits have independent draws.
        batch: N, samples in the global batch, over which times are stratified.
    """

    seed: int
    split: str
    batch: int

    def key(self, kind: str) -> int:
        """A 64-bit key for other uses (the permutation of the corpus)."""
        low, high = _key(self.seed, self.split, kind)
        return high << 32 | low

    def uniform_at(self, kind: str, position: Tensor, coordinate: Tensor) -> Tensor:
        """Uniforms in (0, 1), float64 with 52 random bits, never 0 or 1.

        Args:
            kind: the purpose of the draw.
            position: int64, position in the stream, broadcast against ``coordinate``.
            coordinate: int64, index of the draw at that position.
        """
        position, coordinate = torch.broadcast_tensors(position, coordinate)
        counter = (coordinate & _WORD, coordinate >> 32, position & _WORD, position >> 32)
        high, low, _, _ = philox(counter, _key(self.seed, self.split, kind))
        bits = (high << 20) | (low >> 12)
        return (bits.double() + 0.5) * 2.0**-52

    def uniform(self, kind: str, position_B: Tensor, num: int) -> Tensor:
        """Uniforms ``[B, num]``: coordinates 0 .. num-1 of each position."""
        coordinate = torch.arange(num, device=position_B.device)
        return self.uniform_at(kind, position_B[:, None], coordinate[None, :])

    def normal(self, kind: str, position_B: Tensor, num: int) -> Tensor:
        """Standard normals ``[B, num]``, float32: coordinates 0 .. num-1 of each position.

        Each block of four words gives four normals (Box & Muller 1958), computed in float64, so
        that CPU and GPU differ at most in rounding to float32.
        """
        block = torch.arange(-(-num // 4), device=position_B.device)[None, :]
        position_B1 = position_B[:, None]
        counter = torch.broadcast_tensors(
            block & _WORD, block >> 32, position_B1 & _WORD, position_B1 >> 32
        )
        words = philox(counter, _key(self.seed, self.split, kind))
        pairs = []
        for first, second in (words[:2], words[2:]):
            radius = torch.sqrt(-2 * torch.log((first.double() + 0.5) * 2.0**-32))
            angle = second.double() * (2 * math.pi * 2.0**-32)
            pairs += [radius * angle.cos(), radius * angle.sin()]
        return torch.stack(pairs, dim=-1).flatten(1)[:, :num].float()

    def times(self, position_B: Tensor, kind: str = "time", num: int = 1) -> Tensor:
        """Stratified times ``[B, num]`` in (0, 1): one per bin of N * num, per global batch.

        The bin of a sample follows from its stream position by bit reversal, so that the
        samples of every micro-batch have spread-out times (Kingma et al. 2021, appendix I.1,
        stratify over the local batch; here it is the global one). Several times of one sample
        are stratified too, one in each of num equal bins, in random order.
        """
        bins = _spread_bins(self.batch).to(position_B.device)[position_B % self.batch]
        share = (bins[:, None] + self.uniform(kind, position_B, num)) / self.batch
        if num == 1:
            return share
        order = self.uniform(f"{kind}/order", position_B, num).argsort(dim=1)
        return (order + share) / num


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _spread_bins(num: int) -> Tensor:
    """Permutation of 0 .. num-1: bit reversal in the next power of two, without larger values."""
    width = max(num - 1, 0).bit_length()
    index = torch.arange(1 << width, device="cpu")
    reverse = torch.zeros_like(index)
    for bit in range(width):
        reverse |= ((index >> bit) & 1) << (width - 1 - bit)
    return reverse[reverse < num]
