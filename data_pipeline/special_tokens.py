"""Special ids of a tokenizer: BOS, EOS, PAD and mask.

SentencePiece models declare them, `tokenizer.json` does not: there the customary names
decide. `tokenizer_config.json` beside the tokenizer, Hugging Face's own file, overrules
both; `python -m data_pipeline tokenizer --adopt` writes what it found into one.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.errors import UserError

SIDECAR = "tokenizer_config.json"

CUSTOMARY = {
    "bos_token": (
        "<s>", "<bos>", "[BOS]", "[CLS]", "<|begin_of_text|>", "<|startoftext|>", "<|endoftext|>",
    ),
    "eos_token": ("</s>", "<eos>", "[EOS]", "[SEP]", "<|end_of_text|>", "<|endoftext|>"),
    "pad_token": ("<pad>", "[PAD]", "<|pad|>", "<|padding|>"),
    "mask_token": ("<mask>", "[MASK]", "<|mask|>", "<|mdm_mask|>"),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SpecialIds:
    """Ids of the special tokens; `mask` is None where the tokenizer has no mask token."""

    bos: int
    eos: int
    pad: int
    mask: int | None

    @property
    def ids(self) -> set[int]:
        """All special ids."""
        return {self.bos, self.eos, self.pad} | ({self.mask} if self.mask is not None else set())


def find_special_ids(
    tokenizer: Path,
    *,
    id_of: Callable[[str], int | None],
    customary_id_of: Callable[[str], int | None],
    own: dict[str, int],
) -> SpecialIds:
    """Find the special ids: those the sidecar names, the model's own, the customary ones.

    Args:
        tokenizer: the tokenizer's file; the sidecar lies beside it.
        id_of: the id of any token of the vocabulary, by its name.
        customary_id_of: the same for tokens that may be taken for special by name alone.
        own: ids the model itself declares, by the keys of `CUSTOMARY`.

    A tokenizer without PAD pads with EOS: padding is not `valid`, so the id is never learnt.

    Raises:
        UserError: the sidecar is unreadable or names an unknown token, or there is no BOS or EOS.
    """
    named = read_sidecar(tokenizer.with_name(SIDECAR))

    def find(role: str) -> int | None:
        if role in named:
            if (found := id_of(named[role])) is None:
                raise UserError(f"{tokenizer}: has no token '{named[role]}' to serve as {role}")
            return found
        if role in own:
            return own[role]
        candidates = map(customary_id_of, CUSTOMARY[role])
        return next((found for found in candidates if found is not None), None)

    def require(role: str) -> int:
        if (found := find(role)) is None:
            option = f"--{role.replace('_', '-')}"
            raise UserError(
                f"{tokenizer}: no {role} found under a customary name "
                f"({', '.join(CUSTOMARY[role])}); adopt the tokenizer with {option} TOKEN"
            )
        return found

    bos, eos, pad = require("bos_token"), require("eos_token"), find("pad_token")
    return SpecialIds(bos=bos, eos=eos, pad=eos if pad is None else pad, mask=find("mask_token"))


def check_encoded(tokenizer: Path, encoded: Sequence[Sequence[int]], special: SpecialIds) -> None:
    """Whether text became text only.

    Raises:
        UserError: a special id is in it. No spelling gives one, but what the tokenizer does not
            know does, where its unknown token was made to serve as another.
    """
    forbidden = special.ids
    for ids in encoded:
        if not forbidden.isdisjoint(ids):
            raise UserError(
                f"{tokenizer}: text became the special id {next(i for i in ids if i in forbidden)}"
                ": its unknown token serves as BOS, EOS, PAD or mask too; name another token in "
                f"{SIDECAR} beside it"
            )


def write_sidecar(path: Path, tokens: dict[str, str]) -> None:
    """Write token names by role (keys of `CUSTOMARY`) in Hugging Face's form."""
    assert tokens.keys() <= CUSTOMARY.keys(), tokens
    path.write_text(json.dumps(tokens, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_sidecar(path: Path) -> dict[str, str]:
    """Token names by role; Hugging Face writes a name, or an object with its `content`.

    Raises:
        UserError: the file is there but is no such object.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        values = {role: entries[role] for role in CUSTOMARY if entries.get(role) is not None}
        named = {
            role: value if isinstance(value, str) else value["content"]
            for role, value in values.items()
        }
        for name in named.values():
            name.encode("utf-8")
        return named
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError, OSError) as error:
        raise UserError(
            f"{path}: not a tokenizer configuration ({error!r}); expected an object such as "
            '{"bos_token": "<s>", "eos_token": "</s>"}'
        ) from error
