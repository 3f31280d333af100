"""``python -m tools.compare FILE.yaml``: runs on equal terms, and one table of them.

Trains a list of configurations on one corpus, with equal tokens and the same seeds, scores
all of them on the same held-out text, beside baselines that need no training, and judges
samples of each. Every run lives in a directory of its own under OUT and goes on where it was
when the command is started again; what is trained and scored already is not done again.

OUT/NAME-seedN/    a run, as python -m tools.sample and the like take it; held-out.json
                   and samples.json in it hold its numbers (remove them to score it again)
OUT/NAME-seedN.yaml    its complete configuration, as python -m pretrain takes it
OUT/table.md, table.json, comparison.png    the result

A file says what is compared:

    corpus: corpora/books              # made by python -m data_pipeline
    base:                              # settings of all runs, as in a file of python -m pretrain
      config: configs/demo.yaml        # over this file
      steps: 2000
    runs:                              # what each has of its own
      narrow: {model: {width: 128}}
      wide: {model: {width: 192}}
    seeds: [0, 1]
    samples: {num: 32, steps: [16, 64]}
"""

from pretrain.launch import preemption
from pretrain.run import console

if __name__ == "__main__":
    console.survive()
    preemption.install()

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from configs import words
from configs.documentation import listing
from configs.errors import UserError, exit_code, log_to_stderr
from configs.exit_codes import STOPPED
from configs.load import load
from tools import command
from tools.compare.config import CompareConfig

if TYPE_CHECKING:
    from tools.compare.members import Member

EXAMPLES = """\
examples:
  python -m tools.compare configs/compare/characters.yaml
  python -m tools.compare configs/compare/characters.yaml --dry-run
  python -m tools.compare my.yaml base.steps=100 seeds=[0,1] out=runs/compare/short

exit status: 0 done, 1 a run failed, 2 wrong input, 75 stopped by a signal: the same command
goes on

keys of a file:
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = command.parser("compare", __doc__, EXAMPLES + listing(CompareConfig))
    parser.add_argument(
        "words",
        nargs="+",
        metavar="FILE.yaml | key.sub=value",
        help="comparisons, merged left to right, then single settings",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="list the runs with their parameters, tokens and state, and stop",
    )
    arguments = words.parse(parser, argv)
    return exit_code(lambda: _compare(arguments.words, dry_run=arguments.dry_run))


def _compare(given: Sequence[str], *, dry_run: bool) -> int:
    files, overrides = words.split(given)
    if not files:
        raise UserError("name a comparison, such as configs/compare/characters.yaml")
    compare = load(CompareConfig, files, overrides)
    out = Path(compare.out) if compare.out else Path("runs/compare") / files[-1].stem

    from tools.compare.members import members

    found = members(compare, out)
    if dry_run:
        print(_plan(found, out))
        return 0

    from tools.compare.checks import check
    from tools.compare.train import train

    check(compare, found)

    status = train(found)
    if status:
        return status
    if short := [member.title for member in found if not member.is_done]:
        log_to_stderr(f"no table yet, stop_after ended {short[0]}; {preemption.GOES_ON} without it")
        return 0
    try:
        with _signals_interrupt():
            _result(compare, found, out, given)
    except KeyboardInterrupt:
        log_to_stderr(f"stopped while evaluating; {preemption.GOES_ON}")
        return STOPPED
    return 0


def _result(
    compare: CompareConfig, found: Sequence["Member"], out: Path, given: Sequence[str]
) -> None:
    """Evaluate, and write the table and the picture."""
    from configs.json_files import write_json
    from tools.compare import table
    from tools.compare.baselines import baselines
    from tools.compare.evaluate import Evaluation, finite
    from tools.compare.picture import draw

    results = []
    for place, member in enumerate(found, 1):
        log_to_stderr(f"scoring run {place} of {len(found)}: {member.title}")
        numbers = Evaluation(compare, member)
        results.append(table.result(member, numbers.held_out(), numbers.samples()))
    file = out / "baselines.json"
    rows = baselines(compare.baselines, compare.evaluation, found[0].config, file)
    commands = table.commands(compare.prepare, given)
    picture = draw(results, rows, out / "comparison.png")
    text = table.page(out.name, results, rows, commands, picture.name)
    whole = {
        "commands": commands,
        "runs": [vars(one) for one in results],
        "baselines": rows,
    }
    write_json(out / "table.json", finite(whole))
    (out / "table.md").write_text(text, encoding="utf-8")
    print(text)
    print(f"written: {out}/table.md, {out}/table.json, {picture}", file=sys.stderr)


def _plan(found: Sequence["Member"], out: Path) -> str:
    """The runs as a table, and how long training may take where that is known."""
    from pretrain.planner.plan import plan
    from pretrain.run.progress import clock
    from tools.compare.members import seconds_left
    from tools.text_table import aligned

    head = ["run", "seed", "parameters", "ranks", "steps", "tokens", "done"]
    rows = [
        [
            member.name,
            str(member.seed),
            f"{(numbers := plan(member.config, None)).parameters:,}",
            str(numbers.ranks),
            f"{member.config.steps:,}",
            f"{member.tokens:,}",
            f"{member.step / member.config.steps:.0%}",
        ]
        for member in found
    ]
    left = seconds_left(found)
    about = "known once the first run has begun" if left is None else f"about {clock(left)}"
    lines = aligned([head, *rows], right=range(1, len(head)))
    return "\n".join([*lines, f"training left: {about}", f"directory: {out}"])


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Let every request to stop raise KeyboardInterrupt: an evaluation leaves nothing to save."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in preemption.SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    status = main()
    preemption.ignore()
    sys.exit(status)
