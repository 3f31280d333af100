"""Prompts: fixed text with blanks for the model to fill.

``___`` is an equal share of the free length, ``___{7}`` exactly seven tokens. A prompt
without a blank is a beginning: a blank follows it.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from configs.errors import UserError

if TYPE_CHECKING:
    from data_pipeline.tokenizer import Tokenizer
    from pretrain.config import RunConfig

_BLANK = re.compile(r"___(?:\{(\d+)\})?")

_MASK = re.compile(r"\[mask\]|<mask>|<\|(?:mdm_)?mask\|>", re.IGNORECASE)
_ODD_BLANK = re.compile(r"_{4,}|___\{(?!\d+\})[^}]{0,12}\}?")


@dataclass(frozen=True, kw_only=True)
class Template:
    """Ids of a window, BOS and EOS included, and which of them are blanks."""

    ids: list[int]
    blank: list[bool]

    def text(self, ids: list[int], eos: int) -> list[int]:
        """Filled ids up to the EOS by which the text ends, after all that was given."""
        given = max(place for place, blank in enumerate(self.blank) if not blank)
        ends = (place for place in range(given + 1, len(ids)) if ids[place] == eos)
        return ids[: next(ends, len(ids))]


def parse(
    prompt: str, tokenizer: "Tokenizer", length: int, mask: int, *, open_end: bool = False
) -> Template:
    """The template of ``length`` positions that a prompt stands for.

    Args:
        open_end: a blank that ends the prompt goes to the last position; the model then
            decides where the text ends.

    Raises:
        UserError: where the prompt does not fit, or leaves no blank to fill.
    """
    if not _BLANK.search(prompt):
        prompt += "___"
    parts = _BLANK.split(prompt)
    texts, sizes = parts[0::2], parts[1::2]
    pieces = tokenizer.encode(texts)
    exact = sum(int(size) for size in sizes if size is not None)
    free = length - 2 - sum(len(piece) for piece in pieces) - exact
    open_blanks = sum(size is None for size in sizes)
    if free < 0 or (open_blanks and free < open_blanks):
        needed = length - free + open_blanks
        raise UserError(f"the prompt needs --length {needed} or more, not {length}")
    shares = iter(_shares(free, open_blanks))
    ids, blank = [tokenizer.bos_id, *pieces[0]], [False] * (1 + len(pieces[0]))
    for size, piece in zip(sizes, pieces[1:], strict=True):
        num = next(shares) if size is None else int(size)
        ids += [mask] * num + piece
        blank += [True] * num + [False] * len(piece)
    if not any(blank):
        raise UserError("the prompt has no blank to fill; write ___ where text is wanted")
    if open_end and sizes[-1] is None and not pieces[-1]:
        return Template(ids=[*ids, mask], blank=[*blank, True])
    return Template(ids=[*ids, tokenizer.eos_id], blank=[*blank, False])


def hints(prompt: str) -> list[str]:
    """Hints on parts of a prompt that are read as text but look like a mask or a blank."""
    found = []
    if mask := _MASK.search(prompt):
        found.append(
            f"{mask[0]} in a prompt is text like any other; write ___ where the model is to write, "
            "___{1} for one token"
        )
    if odd := _ODD_BLANK.search(prompt):
        found.append(
            f"{odd[0]} is the blank ___ and text after it; a blank is ___, or ___{{7}} of 7 tokens"
        )
    return found


def length_hints(length: int, config: "RunConfig") -> list[str]:
    """A hint if more positions are asked for than the model was trained on.

    Raises:
        UserError: where it has no such positions.
    """
    trained, most = config.data.sequence_length, config.model.max_target_length
    if most is not None and length > most:
        raise UserError(f"--length {length}: this model has positions for {most}")
    if length <= trained:
        return []
    return [
        f"the model was trained on {trained:,} positions, and --length is {length:,}: what comes "
        "beyond is like nothing that it has seen; the sampler of any length of --sampler help "
        "shows it no more than it was trained on"
    ]


def _shares(total: int, num: int) -> list[int]:
    """``total`` in ``num`` parts that differ by one at most, the longer ones first."""
    return [total // num + (i < total % num) for i in range(num)] if num else []
