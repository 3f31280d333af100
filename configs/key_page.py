"""The key reference as a page: every key of a configuration in tables, one for each block.

``python -m pretrain --keys --markdown`` prints it; ``configs/keys.md`` is that output, and a test
fails where the two differ.
"""

from itertools import groupby

from configs.documentation import Key, keys

TOP = "Top level"
_HEAD = ("| key | type | default | meaning |", "| --- | --- | --- | --- |")


def page(schema: type, title: str, introduction: str) -> str:
    """Markdown with a section for each block of ``schema`` and a table for each choice in it.

    Args:
        schema: a configuration dataclass.
        title: heading of the page.
        introduction: the paragraph below it.
    """
    lines = [f"# {title}", "", introduction]
    by_block = sorted(keys(schema), key=lambda key: _block(key) != TOP)
    for block, found in groupby(by_block, key=_block):
        lines += ["", f"## {block if block == TOP else f'`{block}`'}"]
        for when, rows in groupby(found, key=lambda key: key.when):
            if when:
                lines += ["", f"### with `{when}`"]
            lines += ["", *_HEAD, *map(_row, rows)]
    return "\n".join(lines) + "\n"


def _block(key: Key) -> str:
    """The block that a key stands in."""
    return key.name.partition(".")[0] if "." in key.name else TOP


def _row(key: Key) -> str:
    default = "needed" if key.default is None else f"`{key.default}`"
    cells = (f"`{key.name}`", key.type, default, key.meaning)
    return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"


def _escaped(cell: str) -> str:
    """Text of a cell, of which Markdown takes nothing for a mark."""
    return cell.replace("|", "\\|").replace("<", "&lt;")
