"""A SentencePiece model as a tokenizer of Hugging Face's: the same ids, without SentencePiece.

BPE (Sennrich et al. 2016): the pieces are the vocabulary, and each pair of pieces that makes a
third is a merge, in the order of the third's score. Unigram (Kudo 2018) keeps its scores.
User-defined pieces are cut out whole. Control pieces, <unk> and bytes are never read out of a
text; there, the vocabulary would offer them as pieces like any other, so the text is cut
within their names, where no piece lies across. What cannot be expressed is refused by name.

Where bytes spell what the vocabulary does not hold, a space is written as a space: U+2581,
SentencePiece's sign for it, is then a character like any other, and spelt by its own bytes.
"""

import re
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from configs.errors import UserError
from tools.convert.sentencepiece_normaliser import SPACE, Spelling, normaliser, problems
from tools.convert.unread import Unread, refuse

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
UNIGRAM, BPE, WORD, CHAR = range(1, 5)


def from_sentencepiece(file: Path, never_read: Collection[int] = ()) -> Tokenizer:
    """The same tokenizer.

    Args:
        never_read: ids that no text gives, besides those of control pieces.

    Raises:
        UserError: it is none, or it cannot be the same; every reason is given.
    """
    messages: Any = sentencepiece_model_pb2  # made at run time
    proto = messages.ModelProto()
    try:
        proto.ParseFromString(file.read_bytes())
    except Exception as error:  # the parser's own kind
        raise UserError(f"{file}: not a SentencePiece model ({error})") from error
    for index in never_read:
        if proto.pieces[index].type in (NORMAL, USER_DEFINED):
            proto.pieces[index].type = CONTROL
    return _Conversion(proto, file).tokenizer()


class _Conversion:
    def __init__(self, proto: Any, file: Path) -> None:
        self.proto, self.file = proto, file
        self.kinds = [piece.type for piece in proto.pieces]
        self.has_bytes = BYTE in self.kinds
        self.spelling = Spelling(space=" " if self.has_bytes else SPACE, signs_apart=self.has_bytes)
        refuse(file, self._problems())
        self.pieces = [p.piece.replace(SPACE, self.spelling.space) for p in proto.pieces]
        self.is_unigram = proto.trainer_spec.model_type == UNIGRAM

    def _problems(self) -> list[str]:
        found = problems(self.proto)
        if self.proto.trainer_spec.model_type == WORD:
            found.append("its pieces are whole words (model_type word)")
        if UNUSED in self.kinds:
            found.append("it has pieces that are marked as unused")
        if self.has_bytes:
            found += [
                f"piece {p.piece!r} holds a space" for p in self.proto.pieces if " " in p.piece
            ]
        return found

    def of_kind(self, *kinds: int) -> dict[str, int]:
        """Ids of pieces; not of one with a space as such, which no text has after its rules."""
        return {
            self.pieces[i]: i
            for i, kind in enumerate(self.kinds)
            if kind in kinds and (self.has_bytes or " " not in self.pieces[i])
        }

    @cached_property
    def matched(self) -> dict[str, int]:
        """Pieces that are found in texts."""
        return self.of_kind(NORMAL, USER_DEFINED)

    def tokenizer(self) -> Tokenizer:
        """All parts."""
        kept = list(self.of_kind(USER_DEFINED))
        untouched = [p.piece for p in self.proto.pieces if p.type == USER_DEFINED]
        steps = [normaliser(self.proto, self.spelling, untouched)]
        cuts = [_alternatives(kept)] if kept and not self.is_unigram else []
        made = Tokenizer(self._unigram(cuts, steps) if self.is_unigram else self._bpe(kept, cuts))
        made.normalizer = normalizers.Sequence(steps) if len(steps) > 1 else steps[0]
        if cuts:
            made.pre_tokenizer = pre_tokenizers.Sequence(
                [pre_tokenizers.Split(Regex(cut), "isolated") for cut in cuts]
            )
        made.decoder = self._decoder()
        special = [AddedToken(n, special=True, normalized=False) for n in self._special]
        made.add_special_tokens(special)
        return made

    @cached_property
    def _special(self) -> list[str]:
        return list(self.of_kind(CONTROL, UNKNOWN))

    def _decoder(self) -> decoders.Sequence:
        steps: list[Any] = [decoders.Replace(SPACE, " ")] if not self.has_bytes else []
        steps += [decoders.ByteFallback(), decoders.Fuse()]
        if self.proto.normalizer_spec.add_dummy_prefix:
            steps.append(decoders.Strip(" ", 1, 0))
        return decoders.Sequence(steps)

    def _bpe(self, kept: Collection[str], cuts: list[str]) -> models.BPE:
        normal = self.of_kind(NORMAL)
        merges = []
        for piece, index in normal.items():
            for cut in range(1, len(piece)):
                left, right = piece[:cut], piece[cut:]
                if left in normal and right in normal:
                    rank = (-self.proto.pieces[index].score, normal[left], normal[right])
                    merges.append((*rank, left, right))
        merges.sort(key=lambda merge: merge[:3])
        # A user-defined piece of several characters is no merge: it is looked up whole.
        whole = any(len(piece) > 1 for piece in kept)
        names = [name for name in self.of_kind(CONTROL, UNKNOWN, BYTE) if whole or len(name) == 1]
        hidden = Unread(self.matched, has_bytes=self.has_bytes).cut(names)
        refuse(self.file, hidden.problems)
        if hidden.pairs:
            cuts.append(hidden.pattern())
        return models.BPE(
            vocab={piece: index for index, piece in enumerate(self.pieces)},
            merges=[merge[3:] for merge in merges],
            unk_token=next(iter(self.of_kind(UNKNOWN)), None),
            fuse_unk=True,
            byte_fallback=self.has_bytes,
            ignore_merges=whole,
        )

    def _unigram(self, cuts: list[str], steps: list[Any]) -> models.Unigram:
        scores = [piece.score for piece in self.proto.pieces]
        normal = self.of_kind(NORMAL)
        highest = max((scores[index] for index in normal.values()), default=0.0)
        for piece, index in self.of_kind(USER_DEFINED).items():
            # As SentencePiece scores them, by their length in bytes.
            length = len(piece.replace(self.spelling.space, SPACE).encode())
            scores[index] = length * highest - 0.1
        names = self.of_kind(CONTROL, UNKNOWN, BYTE)
        hidden = Unread(self.matched, has_bytes=self.has_bytes).unigram(names, scores)
        refuse(self.file, hidden.problems)
        steps += [normalizers.Replace(name, other) for name, other in hidden.replaced]
        if hidden.pairs:
            cuts.append(hidden.pattern())
        return models.Unigram(
            vocab=list(zip(self.pieces, scores, strict=True)),
            unk_id=next(iter(self.of_kind(UNKNOWN).values()), None),
            byte_fallback=self.has_bytes,
        )


def _alternatives(pieces: Collection[str]) -> str:
    """A pattern of any of these, the longest first."""
    return "|".join(re.escape(piece) for piece in sorted(pieces, key=len, reverse=True))
