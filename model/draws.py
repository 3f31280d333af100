"""Counter-based randomness: every draw is a pure function of what it is for.

A draw depends on (seed, split, kind, stream position, coordinate) and on nothing else:
no generator is stepped, so there is none to save, and neither the number of ranks nor
accumulation can change the noise. The generator is Philox4x32-10 (Salmon et al. 2011),
in torch integer operations, so that a CPU and a GPU draw the same bits.
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
    """Philox4x32-10.

    Args:
        counter: four int64 tensors of one shape, each value in [0, 2^32).
        key: two integers in [0, 2^32).

    Returns:
        Four int64 tensors of that shape, each value in [0, 2^32).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # The 64-bit products wrap in int64; their bits are right all the same.
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
    """The randomness of one run.

    Args:
        seed: of the run.
        split: what it is for ("train", "valid", "sample"): splits share no draw.
        batch: N, samples of the global batch, over which times are stratified.
    """

    seed: int
    split: str
    batch: int

    def key(self, kind: str) -> int:
        """A 64-bit key for a use of its own (the permutation of the corpus)."""
        low, high = _key(self.seed, self.split, kind)
        return high << 32 | low

    def uniform_at(self, kind: str, position: Tensor, coordinate: Tensor) -> Tensor:
        """Uniforms in (0, 1), float64 with 52 random bits, never 0 or 1.

        Args:
            kind: what the draw decides.
            position: int64, position in the stream; broadcast against
            coordinate: int64, which draw of that position.
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

        The four words of a block make four of them (Box & Muller 1958), in float64, so that
        a CPU and a GPU differ at most where that rounds to float32.
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
        """Stratified times ``[B, num]`` in (0, 1): exactly one in each (N num)-th per global batch.

        The bin of a sample follows from its stream position by bit reversal, so that the
        samples of every micro-batch have spread-out times (Kingma et al. 2021, appendix I.1,
        draw them over the local batch; here the batch is the global one). Of several times of
        one sample there is one in each num-th as well, in an order that is drawn.
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
    """A permutation of 0 .. num-1: bit reversal within the next power of two, skipping."""
    width = max(num - 1, 0).bit_length()
    index = torch.arange(1 << width, device="cpu")
    reverse = torch.zeros_like(index)
    for bit in range(width):
        reverse |= ((index >> bit) & 1) << (width - 1 - bit)
    return reverse[reverse < num]
