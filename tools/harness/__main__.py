"""``python -m tools.harness RUN --tasks NAMES``: tasks of lm-evaluation-harness, as JSON.

    python -m tools.harness runs/owt --tasks lambada_openai,arc_easy
    python -m tools.harness runs/owt --tasks my_task --include-path my-tasks --samples 32

Likelihoods are the model's bound, averaged over corruptions of the continuation: accuracies by
them are comparable with those of exact likelihoods, perplexities are upper bounds. Tasks that
generate take the sampler, at temperature 0 unless the task samples. Needs
``pip install 'palimpsest[harness]'``; the tasks' data come from the Hugging Face hub.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.errors import UserError, exit_code
from configs.words import parse
from tools import command
from tools.sample.options import add_sampler_option, asks_for_help, listing, sampler_of


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("harness", __doc__)
    parser.add_argument("run", type=Path, help="run directory or checkpoint")
    parser.add_argument("--tasks", required=True, help="names of tasks or groups, with commas")
    parser.add_argument(
        "--include-path",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a directory with YAML files of your own tasks; may be given more than once",
    )
    parser.add_argument("--num-fewshot", type=command.number(0), help="examples in each context")
    parser.add_argument(
        "--limit", type=command.positive, help="only this many documents of each task"
    )
    command.add_weights_option(parser)
    parser.add_argument(
        "--samples",
        type=command.positive,
        default=128,
        help="corruptions of each continuation (default 128); one where the likelihood is exact",
    )
    command.add_batch_and_seed(parser, 32, of="texts", draws="the corruptions and texts")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write every answer as JSON too")
    add_sampler_option(parser)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from pretrain.checkpoint.weights import configuration

    config = configuration(arguments.run)
    if asks_for_help(arguments.sampler):
        print(listing(config))
        return 0
    command.check_output("--out", arguments.out)
    sampler_of(arguments.sampler, config)
    try:
        import lm_eval
        from lm_eval.utils import handle_non_serializable, make_table
    except ImportError as error:
        raise UserError(f"lm_eval: {error}; pip install 'palimpsest[harness]'") from error
    from tools.harness.model import Palimpsest

    tasks, manager = _tasks(arguments)
    model = Palimpsest(
        arguments.run,
        weights=arguments.weights,
        samples=arguments.samples,
        batch_size=arguments.batch,
        seed=arguments.seed,
        sampler=" ".join(arguments.sampler),
    )
    found = lm_eval.simple_evaluate(
        model,
        tasks=tasks,
        task_manager=manager,
        num_fewshot=arguments.num_fewshot,
        limit=arguments.limit,
        log_samples=arguments.out is not None,
    )
    print(make_table(found), file=sys.stderr)
    settings = {name: getattr(arguments, name) for name in ("weights", "samples", "seed")}
    summary = {"results": found["results"], "documents": found["n-samples"], **settings}
    if arguments.out is not None:
        answers = summary | {"answers": found["samples"]}
        arguments.out.write_text(
            json.dumps(answers, indent=2, default=handle_non_serializable) + "\n", encoding="utf-8"
        )
    print(json.dumps(summary, indent=2, default=handle_non_serializable))
    return 0


def _tasks(arguments: argparse.Namespace) -> tuple[list[str], Any]:
    """The tasks by their names, and the manager that has them.

    Raises:
        UserError: there is no task of a name.
    """
    from lm_eval.tasks import TaskManager

    names = [name for name in arguments.tasks.split(",") if name]
    paths = [str(path) for path in arguments.include_path]
    # To read the public ones takes many seconds, and is needed for groups, which may name them.
    own = TaskManager(include_path=paths, include_defaults=False)
    if names and set(names) <= set(own.all_subtasks):
        return names, own
    every = TaskManager(include_path=paths)
    for name in names:
        if not every.match_tasks([name]):
            raise UserError(
                f"--tasks {name}: there is no such task; `lm_eval ls tasks` lists them, "
                "--include-path DIR adds your own"
            )
    return every.match_tasks(names), every


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = parse(_parser(), argv)
    return exit_code(lambda: _run(arguments))


if __name__ == "__main__":
    sys.exit(main())
