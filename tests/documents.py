"""The Markdown documents of the project: their blocks of code, and the commands in these.

A block that cannot run on any machine has a comment on the line before it, which a reader of the
source sees: ``<!-- not run: needs a GPU -->``.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>.*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block.

    Args:
        file: its document, relative to the project.
        line: of its first line of text, from 1.
        not_run: why it is not run; None where it is.
    """

    file: str
    line: int
    language: str
    text: str
    not_run: str | None

    @property
    def name(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of a console block, and the output that the document shows for it."""

    text: str
    shown: str


@cache
def documents() -> tuple[str, ...]:
    """All Markdown files that belong to the project."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return tuple(name for name in listed.stdout.splitlines() if (ROOT / name).is_file())


def text_of(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


def blocks(file: str, *languages: str) -> Iterator[Block]:
    """The blocks of a document in these languages; without any, all of them."""
    text = text_of(file)
    for match in _BLOCK.finditer(text):
        if not languages or match["language"] in languages:
            yield Block(
                file=file,
                line=text.count("\n", 0, match.start("text")) + 1,
                language=match["language"],
                text=match["text"],
                not_run=match["reason"],
            )


def commands(block: Block) -> list[Command]:
    """The commands of a console block: lines after ``$``, continued by a backslash at their end."""
    assert block.language == "console", block.name
    found: list[tuple[str, list[str]]] = []
    goes_on = False
    for line in block.text.splitlines():
        if goes_on:
            found[-1] = (f"{found[-1][0]} {line.strip()}", [])
        elif line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        else:
            assert found, f"{block.name}: output before the first command"
            found[-1][1].append(line)
            continue
        goes_on = line.endswith("\\")
        if goes_on:
            found[-1] = (found[-1][0].removesuffix("\\").rstrip(), [])
    return [Command(text=text, shown="\n".join(lines)) for text, lines in found]


def shows(expected: str, printed: str) -> bool:
    """Whether lines of an output are among what was printed; ``...`` stands for any text."""
    parts = (re.escape(part) for part in expected.strip().split("..."))
    return re.search(".*?".join(parts), printed, re.DOTALL) is not None


def copy_project(copy: Path, demo_dir: Path, *parts: str) -> None:
    """Copy the project as it is committed or about to be, and the demo corpus where runs have it.

    Args:
        parts: files and folders of the project; all of it by default.
    """
    listed = ["git", "ls-files", "-co", "--exclude-standard", *parts]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in names.stdout.splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    shutil.copytree(demo_dir, copy / "runs" / "corpora")
