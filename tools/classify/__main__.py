"""``python -m tools.classify MODEL ... --train FILE --test FILE``: fine-tuned classifiers compared.

    python -m tools.classify --make-task order
    python -m tools.classify bert exports/mdlm --train order/train.jsonl --test order/test.jsonl \\
        --trust-remote-code --out found.json

Each MODEL is a Hugging Face directory: an export of ours, or a plain one such as BERT's. It gets
a new classification head and is fine-tuned under transformers' Trainer, once for each seed. Rows
are JSON lines {"text": ..., "label": ...}. Nothing is downloaded. The table has the mean
accuracy on the test rows with its 95% interval over seeds, the share of the majority class, and
the seconds that one training took. Needs `pip install transformers accelerate`.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from configs.errors import UserError, exit_code, log_to_stderr
from configs.json_files import write_json
from tools import command
from tools.classify.finetune import Settings, check_model, encode, finetune
from tools.classify.order import make_order
from tools.classify.result import row_of, table
from tools.classify.rows import Task, read_task


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("classify", __doc__)
    parser.add_argument(
        "models", type=Path, nargs="*", metavar="MODEL", help="Hugging Face directories"
    )
    parser.add_argument("--train", type=Path, metavar="FILE", help="rows to train on")
    parser.add_argument("--test", type=Path, metavar="FILE", help="rows to test on")
    parser.add_argument(
        "--seeds",
        type=command.number(1, 1000),
        default=5,
        help="trainings of each model, by the seeds 0, 1, ... (default 5)",
    )
    parser.add_argument(
        "--epochs", type=command.positive, default=3, help="passes over the rows (default 3)"
    )
    parser.add_argument(
        "--lr", type=_rate, default=5e-5, help="learning rate after warm-up (default 5e-5)"
    )
    parser.add_argument(
        "--batch", type=command.positive, default=32, help="texts per step (default 32)"
    )
    parser.add_argument(
        "--length",
        type=command.number(3),
        help="tokens of a text at most (default: what the model takes); longer ones are cut",
    )
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run the modelling code that lies beside the weights, as in exports of ours",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all numbers as JSON")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument(
        "--make-task",
        type=Path,
        metavar="DIR",
        help="write a small task that needs no download (is a text of the demo corpus as it was "
        "written, or are neighbouring words exchanged?), and its text to pretrain on",
    )
    return parser


def _rate(text: str) -> float:
    found = command.finite(text)
    if found <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    return exit_code(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    if arguments.make_task:
        for name, num in make_order(arguments.make_task, seed=0).items():
            print(f"{arguments.make_task / name}: {num:,} rows")
        return 0
    task = _checked(arguments)
    label, majority = task.majority
    names = ("epochs", "lr", "batch", "length", "trust_remote_code")
    settings = Settings(**{name: getattr(arguments, name) for name in names})
    rows = [_of_model(path, task, settings, arguments.seeds) for path in arguments.models]
    print(table(rows, majority, as_markdown=arguments.markdown))
    if arguments.out:
        summary = {
            "task": "classify",
            "train": {"file": str(arguments.train), "rows": len(task.train)},
            "test": {"file": str(arguments.test), "rows": len(task.test)},
            "classes": task.classes,
            "majority": {"label": label, "accuracy": majority},
            "seeds": arguments.seeds,
            "settings": asdict(settings),
            "models": rows,
        }
        write_json(arguments.out, summary)
    return 0


def _checked(arguments: argparse.Namespace) -> Task:
    """The task, once everything that is named is known to be there."""
    if not arguments.models:
        raise UserError("name a model: a Hugging Face directory, or several; see --help")
    for option in ("train", "test"):
        if getattr(arguments, option) is None:
            raise UserError(f"--{option} FILE is missing; `--make-task DIR` writes a small task")
    command.check_output("--out", arguments.out)
    for path in arguments.models:
        check_model(path, trust_remote_code=arguments.trust_remote_code)
    return read_task(arguments.train, arguments.test)


def _of_model(path: Path, task: Task, settings: Settings, seeds: int) -> dict[str, Any]:
    try:
        import accelerate  # noqa: F401
        from transformers.utils import logging
    except ImportError as error:
        raise UserError(f"{error}: `pip install transformers accelerate`") from error
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    encoded = encode(path, task, settings)
    if any(encoded.truncated):
        train, test = encoded.truncated
        log_to_stderr(
            f"note: {path}: {train:,} texts of training and {test:,} of the test are longer than "
            f"{encoded.length:,} tokens, and are cut"
        )
    outcomes = []
    for seed in range(seeds):
        outcomes.append(finetune(path, encoded, task.classes, settings, seed=seed))
        found = outcomes[-1]
        log_to_stderr(f"{path}: seed {seed}, accuracy {found.accuracy:.3f}, {found.seconds:.1f} s")
    return row_of(path, encoded, outcomes)


if __name__ == "__main__":
    sys.exit(main())
