"""A lossless SentencePiece tokenizer: `decode(encode(text)) == text` for every text.

SentencePiece's defaults normalise, merge runs of spaces, drop newlines and prepend a space,
so that bits per byte would be those of another text. All of that is off here: identity
normalisation, byte fallback, newline as a symbol of its own. What is left is U+2581, the
sign SentencePiece writes for a space; in a text it is spelt by its three UTF-8 bytes.

The model is BPE (Sennrich et al. 2016, arXiv:1508.07909; Kudo & Richardson 2018,
arXiv:1808.06226): its training counts integers, while the unigram model's sums floats in an
order that depends on the number of threads.
"""

import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import sentencepiece
from google.protobuf.message import DecodeError

from configs.errors import UserError
from data_pipeline.special_tokens import check_encoded, find_special_ids
from data_pipeline.unspellable import unspellable_sentencepiece

_SPACE_SIGN = "\u2581"
# The thread count is written into the model file: a constant keeps its hash the same anywhere.
_TRAINING_THREADS = 16
# The BPE trainer counts positions within a word in 16 bits, and takes a line for a word where
# it has no spaces. Longer lines are cut for training; encoding knows no such limit.
_LONGEST_TRAINING_LINE = 16_384


class SentencePieceTokenizer:
    """A SentencePiece model file; see `tokenizer.Tokenizer` for what each member means.

    Raises:
        UserError: the file is no SentencePiece model, or it has no BOS or no EOS.
    """

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        self._path = path
        self._model = _loaded(path, content)
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.vocab_size: int = self._model.vocab_size()
        self.unk_id: int | None = self._model.unk_id()
        declared = {
            "bos_token": self._model.bos_id(),
            "eos_token": self._model.eos_id(),
            "pad_token": self._model.pad_id(),
        }
        self._special = find_special_ids(
            path,
            id_of=self._id_of,
            customary_id_of=self._control_id_of,
            own={role: index for role, index in declared.items() if index >= 0},
        )
        self.bos_id, self.eos_id = self._special.bos, self._special.eos
        self.pad_id, self.mask_id = self._special.pad, self._special.mask
        self._dropped = self._special.ids
        spelt = [i for i in self._dropped if i != self.unk_id and not self._model.is_control(i)]
        if spelt:
            self._model = _without(path, content, spelt)
        spelling = [self._id_of(f"<0x{byte:02X}>") for byte in _SPACE_SIGN.encode()]
        # An adopted model without byte pieces cannot spell the sign: there it reads as a space.
        self._space_sign = [index for index in spelling if index is not None]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer.encode`."""
        if not self._space_sign or not any(_SPACE_SIGN in text for text in texts):
            encoded = self._model.encode(list(texts))
        else:
            encoded = [self._encode_around_space_signs(text) for text in texts]
        check_encoded(self._path, encoded, self._special)
        return encoded

    def decode(self, ids: Sequence[int]) -> str:
        """See `Tokenizer.decode`."""
        kept = [i for i in map(int, ids) if i < self.vocab_size and i not in self._dropped]
        return self._model.decode(kept)

    def id_to_piece(self, index: int) -> str:
        """See `Tokenizer.id_to_piece`."""
        return self._model.id_to_piece(int(index))

    def _encode_around_space_signs(self, text: str) -> list[int]:
        first, *rest = self._model.encode(text.split(_SPACE_SIGN))
        for part in rest:
            first += self._space_sign + part
        return first

    def _id_of(self, piece: str) -> int | None:
        index = self._model.piece_to_id(piece)
        return index if self._model.id_to_piece(index) == piece else None

    def _control_id_of(self, piece: str) -> int | None:
        index = self._id_of(piece)
        return index if index is not None and self._model.is_control(index) else None


def _loaded(path: Path, content: bytes) -> sentencepiece.SentencePieceProcessor:
    """Load a model; UserError if it is none, or one of its pieces is not UTF-8."""
    try:
        model = sentencepiece.SentencePieceProcessor(model_proto=content)
        model.id_to_piece(list(range(model.vocab_size())))
    except (RuntimeError, UnicodeDecodeError, IndexError) as error:
        raise UserError(f"{path}: not a SentencePiece model ({error})") from error
    return model


def _without(path: Path, content: bytes, ids: list[int]) -> sentencepiece.SentencePieceProcessor:
    """The model with `ids` changed so that no text encodes to them."""
    try:
        changed = unspellable_sentencepiece(content, ids)
    except DecodeError as error:
        raise UserError(f"{path}: not a SentencePiece model ({error})") from error
    return _loaded(path, changed)


def train_sentencepiece(
    documents: Iterable[str],
    path: Path,
    vocab_size: int,
    *,
    character_coverage: float = 0.9995,
) -> None:
    """Train a lossless BPE tokenizer of exactly `vocab_size` ids and write it to `path`.

    The ids begin with unk=0, bos=1, eos=2, pad=3, newline=4 and the 256 bytes. Training holds
    the documents in memory; characters rarer than `character_coverage` are spelt in bytes.

    Raises:
        UserError: no text, or a vocabulary size that does not suit it; names one that does.
    """
    model = io.BytesIO()
    lines = _Lines(documents)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=character_coverage,
            normalization_rule_name="identity",
            byte_fallback=True,
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            user_defined_symbols=["\n"],
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=3,
            unk_surface="\N{REPLACEMENT CHARACTER}",
            max_sentence_length=4 * _LONGEST_TRAINING_LINE,  # in bytes
            num_threads=_TRAINING_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        if lines.error is not None:
            raise lines.error from None
        raise _explained(error, vocab_size, lines.number) from error
    path.write_bytes(model.getvalue())


class _Lines:
    """Training lines of the documents: newline is a symbol, so no piece spans one.

    SentencePiece reports an exception of the iterator as its own: `error` keeps the real one.
    """

    def __init__(self, documents: Iterable[str]) -> None:
        self._documents = documents
        self.number = 0
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[str]:
        try:
            for document in self._documents:
                for line in document.split("\n"):
                    for start in range(0, len(line), _LONGEST_TRAINING_LINE):
                        self.number += 1
                        yield line[start : start + _LONGEST_TRAINING_LINE]
        except BaseException as error:
            self.error = error
            raise


def _explained(error: RuntimeError, vocab_size: int, num_lines: int) -> Exception:
    """Translate SentencePiece's error message for the user where it is known."""
    if found := re.search(r"too high.*<= (\d+)", str(error)):
        return UserError(
            f"a vocabulary of {vocab_size} is too large for this text, which supports at most "
            f"{found[1]}; ask for {found[1]} or fewer, or train on more text"
        )
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error)):
        return UserError(
            f"a vocabulary of {vocab_size} is too small for this text: its characters, the 256 "
            f"bytes and the special tokens take {found[1]} already; ask for at least {found[1]}"
        )
    if not num_lines:
        return UserError("the training files hold no text to train a tokenizer on")
    return error
