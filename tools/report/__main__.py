"""``python -m tools.report RUN [RUN ...]``: a page of a run, and pictures of runs.

loss.png         training loss, every point and a smoothed line, and the held-out numbers
levels.png       training loss by range of the noise level
training.png     gradient norm, learning rate, tokens per second
report.html      of one run: its facts, these pictures, one text as it is written step by step,
                 files of samples/, and RUN/*.json of `tools.evaluate --task samples`; the page
                 needs no other file and no network
differences.txt  of several runs: the keys in which their configurations differ

What is made of one run is in its own ``plots``; several runs are drawn over each other into
``--out``.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from configs.errors import exit_code
from tools import command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = command.parser("report", __doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directory")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write there (default, of one run: RUN/plots)"
    )
    parser.add_argument(
        "--no-text",
        action="store_true",
        help="load no checkpoint to show in the page how a text is written",
    )
    arguments = parser.parse_args(argv)

    def report_runs() -> int:
        from tools.report.curves import read_runs
        from tools.report.pictures import report, table

        pictures = report(arguments.runs, arguments.out)
        for path in pictures:
            print(path)
        if len(arguments.runs) == 1:
            from tools.report.page import write_page

            (run,) = read_runs(arguments.runs)
            file = pictures[0].parent / "report.html"
            print(write_page(run, file, draw_text=not arguments.no_text))
        else:
            text = table(read_runs(arguments.runs))
            file = pictures[0].parent / "differences.txt"
            file.write_text(text + "\n", encoding="utf-8")
            print(f"{file}\n\n{text}")
        return 0

    return exit_code(report_runs)


if __name__ == "__main__":
    sys.exit(main())
