"""Keeping a tokenizer from reading names of special tokens out of texts.

A text is cut within such a name, between two characters that no other piece holds side by
side: it then comes out as if the name were no piece. Where there is no such place, a Unigram
model's score for the name goes below that of its characters, or an unknown character of it
becomes another unknown one.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from configs.errors import UserError

PLACES = range(0xF0000, 0xFFFFE)
"""Private characters that stand for what no rule may touch."""
UNKNOWN_CHARACTER = chr(PLACES[-1])


@dataclass
class Hidden:
    """Changes to a tokenizer so that names are not read.

    Args:
        pairs: of characters between which a text is cut. replaced: texts by others, before
            that. problems: why it cannot be done.
    """

    pairs: set[tuple[str, str]] = field(default_factory=set)
    replaced: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def pattern(self) -> str:
        """A pattern of the places where a text is cut."""
        return "|".join(f"(?<={re.escape(a)})(?={re.escape(b)})" for a, b in sorted(self.pairs))


class Unread:
    """Ways to hide names from a model.

    Args:
        matched: ids of the pieces that are found in texts. has_bytes: bytes spell what is
            unknown.
    """

    def __init__(self, matched: Mapping[str, int], *, has_bytes: bool) -> None:
        self._matched, self._has_bytes = matched, has_bytes
        self._known: dict[str, bool] = {}

    def occurs(self, part: str) -> bool:
        """Whether some piece that is found in texts holds ``part``."""
        if part not in self._known:
            self._known[part] = any(part in piece for piece in self._matched)
        return self._known[part]

    def cut(self, names: Collection[str]) -> Hidden:
        """Hide names by cuts alone."""
        found = Hidden()
        for name in names:
            pair = self._boundary(name)
            if pair is None:
                found.problems.append(problem_of(name))
            else:
                found.pairs.add(pair)
        return found

    def unigram(self, names: Mapping[str, int], scores: list[float]) -> Hidden:
        """Hide names by cuts, by scores of a Unigram model, or by replacement.

        Args:
            names: their ids. scores: of all pieces, by id; changed in place.
        """
        found = Hidden()
        for name, index in names.items():
            known = [self._matched.get(character) for character in name]
            unknown = next((c for c in name if not self.occurs(c)), None)
            pair = self._boundary(name)
            if pair is not None:
                found.pairs.add(pair)
            elif None not in known:
                # Below its own characters, one by one, which are always there.
                scores[index] = sum(scores[i] for i in known if i is not None) - 1.0
            elif unknown is not None and not self._has_bytes:
                # One character that is unknown is as good as another.
                found.replaced.append((name, name.replace(unknown, UNKNOWN_CHARACTER, 1)))
            else:
                found.problems.append(problem_of(name))
        return found

    def _boundary(self, name: str) -> tuple[str, str] | None:
        """Two neighbours of a name that no piece holds side by side.

        Without bytes not two unknown characters, which together are one <unk>.
        """
        for a, b in pairwise(name):
            both_unknown = a not in self._matched and b not in self._matched
            if not self.occurs(a + b) and (self._has_bytes or not both_unknown):
                return (a, b)
        return None


def problem_of(name: str) -> str:
    """Why a name that is read out of texts is a problem."""
    return f"a text that mentions {name!r} would hold that piece, which no text of a corpus does"


def refuse(file: Path, reasons: list[str]) -> None:
    """UserError with all the reasons why a tokenizer cannot be exported, if there are any."""
    if reasons:
        raise UserError(
            f"{file} cannot be exported as a tokenizer of the same ids "
            "(--no-tokenizer exports the weights without one):\n  " + "\n  ".join(reasons)
        )
