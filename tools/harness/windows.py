"""Texts as the network reads them: what is given, what is to be scored or written, and the frame.

A text stands between BOS and EOS, as a window of a held-out split does. What does not fit is cut
from the left of what is given.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from configs.errors import UserError
from data_pipeline.packing import FRAME
from data_pipeline.tokenizer import Tokenizer

_NUMBER_BYTES = 5
"""A number of 40 bits, so that numbers times corruptions are stream positions."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """Ids, frame included, and which of them are free: to be scored, or to be written.

    Args:
        number: of the text in the stream of random draws.
    """

    ids: tuple[int, ...]
    free: tuple[bool, ...]
    number: int = 0

    @property
    def num_free(self) -> int:
        """The number of free positions."""
        return sum(self.free)


def split_pair(
    tokenizer: Tokenizer, context: str, continuation: str
) -> tuple[list[int], list[int]]:
    """Ids of a context and of its continuation, tokenized as one text.

    Spaces that end the context belong to the continuation, as everywhere in the harness. So does
    the end of the context where it shares a token with the continuation.
    """
    kept = context.rstrip()
    whole, alone = tokenizer.encode([context + continuation, kept])
    shared = sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(whole, alone, strict=False))
    )
    return whole[:shared], whole[shared:]


def pieces(ids: Sequence[int], room: int) -> list[tuple[list[int], list[int]]]:
    """A long text as contexts and continuations of ``room`` tokens together: each scored once.

    The last one has as much context as fits.
    """
    found = []
    for start in range(0, len(ids), room):
        stop = min(start + room, len(ids))
        first = max(0, stop - room)
        found.append((list(ids[first:start]), list(ids[start:stop])))
    return found


def framed(
    tokenizer: Tokenizer,
    context: Sequence[int],
    free: Sequence[int],
    length: int,
    *,
    open_end: bool = False,
) -> Window:
    """The window of a context and what follows it, of at most ``length`` positions.

    Args:
        free: what is scored, or [MASK]s where it is to be written.
        open_end: leave the last position free as well, for a model that writes where a text ends.

    Raises:
        UserError: what is scored is longer than the window.
    """
    room = length - FRAME
    if len(free) > room:
        raise UserError(
            f"a continuation has {len(free)} tokens, and the model was trained on {length} "
            f"positions, which hold {room}: leave this task out"
        )
    given = list(context)[max(0, len(context) + len(free) - room) :]
    end = free[-1] if open_end else tokenizer.eos_id
    ids = (tokenizer.bos_id, *given, *free, end)
    return Window(ids=ids, free=(*[False] * (1 + len(given)), *[True] * len(free), open_end))


def numbered(windows: Sequence[Window]) -> list[Window]:
    """The windows with numbers that follow from their text and from how often it came before.

    So the random draws of a text do not depend on what else is evaluated.
    """
    times: Counter[Window] = Counter()
    found = []
    for window in windows:
        name = repr((window.ids, window.free, times[window])).encode()
        times[window] += 1
        digest = hashlib.blake2b(name, digest_size=_NUMBER_BYTES).digest()
        found.append(Window(ids=window.ids, free=window.free, number=int.from_bytes(digest, "big")))
    return found
