"""Tables of text: columns in alignment for a terminal, and Markdown."""

from collections.abc import Collection, Sequence

Rows = Sequence[Sequence[str]]


def column_widths(rows: Rows) -> list[int]:
    """The longest cell of each column."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def aligned(rows: Rows, right: Collection[int] = ()) -> list[str]:
    """A line for each row, two spaces between columns.

    Args:
        right: numbers of the columns that are justified to the right.
    """
    widths = column_widths(rows)
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def markdown(head: Sequence[str], rows: Rows) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
