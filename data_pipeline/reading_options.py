"""Options of commands that read documents out of files: what a file holds, where its text is."""

import argparse
from collections.abc import Sequence
from typing import get_args

from data_pipeline.forms import Form
from data_pipeline.sources import Documents, Unit


def add_reading_options(options: "argparse._ActionsContainer") -> None:
    """Add ``--field``, ``--format``, ``--documents`` and ``--skip-bad``."""
    options.add_argument(
        "--field", default="text", help="field or column of the text (default: text)"
    )
    options.add_argument(
        "--format",
        choices=get_args(Form),
        help="what the files hold, where names and first bytes leave it open",
    )
    options.add_argument(
        "--documents",
        choices=get_args(Unit),
        default="line",
        help="what a document is in a text file; paragraphs end at blank lines (default: line)",
    )
    options.add_argument("--skip-bad", action="store_true", help="count bad lines and go on")


def documents_of(
    arguments: argparse.Namespace,
    files: Sequence[str],
    *,
    fields: Sequence[str] = (),
    longest: int | None = None,
) -> Documents:
    """The documents of some files, read as the options say.

    Args:
        fields: in the place of the one of ``--field``.
        longest: letters of a document of a FASTA file.

    Raises:
        UserError: there is no such file, or it is none that can be read.
    """
    return Documents(
        files,
        fields=fields or [arguments.field],
        unit=arguments.documents,
        form=arguments.format,
        skip_bad=arguments.skip_bad,
        longest=longest,
    )
