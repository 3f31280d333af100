"""``python -m tools.demo``: every step once, from text to samples, in minutes.

Prepares the demo corpus, trains on it, evaluates on the held-out documents, draws samples
and pictures, and prints what was made. Every step is one of the ordinary commands. Started
again, it goes on where it was, or prints the result of a finished run.
"""

from pretrain.launch import preemption

if __name__ == "__main__":
    preemption.install()

import importlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from string import Formatter
from types import ModuleType
from typing import TYPE_CHECKING, Any

from configs.errors import exit_code
from configs.json_files import write_json
from configs.load import is_override, load
from configs.words import parse, split
from model.naming import method_name
from pretrain.__main__ import main as pretrain
from pretrain.run.directory import RunDirectory, run_path
from pretrain.run.metrics import read_rows

if TYPE_CHECKING:
    from pretrain.config import RunConfig

MADE = """\
  training          {tokens_seen:,} tokens in {seconds_training:.0f} s; {seconds_total:.0f} s in all

  run directory     {run}  (config.yaml, metrics.jsonl, checkpoints/)
  corpus            {corpus}
  samples           {run}/samples/
  pictures          {pictures}
  all numbers       {run}/summary.json

Try next:
"""
"""The text between the numbers of an objective's module (``TEXT``) and its advice (``NEXT``)."""


def demo(words: Sequence[str]) -> int:
    """Run the demo with these configuration words; returns the exit status."""
    from pretrain.config import RunConfig

    started = time.monotonic()
    files, overrides = split(words)
    config = load(RunConfig, files, overrides)
    run = run_path(config, files)
    part = _part(config)
    summary_file = run / "summary.json"
    status = RunDirectory(run).read_status()
    found = json.loads(summary_file.read_text(encoding="utf-8")) if summary_file.exists() else {}
    if status.get("state") == "done" and _is_complete(found, part):
        print(f"{run} is done already; remove it to run the demo again.")
        print(_describe(found, run, files[-1], part))
        return 0

    trained_before = _seconds_training(run)
    _log(f"1/4  training ({config.steps} steps; Ctrl-C saves, the same command goes on)")
    code = pretrain(list(words))
    if code or RunDirectory(run).read_status().get("state") != "done":
        return code
    preemption.restore()
    summary = _finish(run, config, part)
    summary["seconds_total"] = trained_before + time.monotonic() - started
    write_json(summary_file, summary)
    print(_describe(summary, run, files[-1], part))
    return 0


def _part(config: "RunConfig") -> ModuleType:
    """The module beside this one that evaluates and describes the objective."""
    return importlib.import_module(f"tools.demo.{method_name(config.objective)}")


def _finish(run: Path, config: "RunConfig", part: ModuleType) -> dict[str, Any]:
    """Evaluate, sample and draw; the summary."""
    from pretrain.checkpoint.weights import load_denoiser
    from pretrain.data import corpus_path
    from tools.report.pictures import report

    loaded = load_denoiser(run, "ema")
    _log("2/4  evaluating on the held-out documents")
    summary: dict[str, Any] = part.evaluated(loaded)
    _log("3/4  sampling")
    texts: dict[str, list[str]] = part.samples(loaded)
    for name, drawn in texts.items():
        body = "".join(f"--- {number}\n{text}\n" for number, text in enumerate(drawn, 1))
        (run / "samples" / f"{name}.txt").write_text(body, encoding="utf-8")
    _log("4/4  drawing pictures")
    pictures = report([run], unigram=summary.get("unigram"))
    return {
        **summary,
        "tokens_seen": loaded.tokens_seen,
        "seconds_training": _seconds_training(run),
        "samples": next(iter(texts.values())),
        "infilled": texts.get("infilled", []),
        "pictures": [str(path) for path in pictures],
        "corpus": str(corpus_path(config)),
    }


def _seconds_training(run: Path) -> float:
    """Seconds in the training loop so far, over all starts."""
    rows = read_rows(RunDirectory(run).metrics)
    return max((row.get("perf/elapsed_s", 0.0) for row in rows), default=0.0)


def _is_complete(summary: dict[str, Any], part: ModuleType) -> bool:
    """Whether a summary has all that is shown; one of a former version may not."""
    parsed = Formatter().parse(_template(part))
    fields = {str(name).partition("[")[0] for _, name, _, _ in parsed if name}
    return fields - {"run", "config", "python"} <= summary.keys()


def _template(part: ModuleType) -> str:
    return str(part.TEXT + MADE + part.NEXT)


def _describe(summary: dict[str, Any], run: Path, config_file: Path, part: ModuleType) -> str:
    filled = _template(part).format(
        **{**summary, "pictures": ", ".join(summary["pictures"])},
        run=run,
        config=config_file,
        python=_python(),
    )
    return f"\nA sample:\n{summary['samples'][0]}\n{filled}"


def _python() -> str:
    """How to call this interpreter from here."""
    path = Path(sys.executable)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    from tools import command

    parser = command.parser("demo", __doc__)
    parser.add_argument(
        "words",
        nargs="*",
        default=[],
        metavar="CONFIG.yaml | key.sub=value",
        help="as python -m pretrain takes them (default: configs/demo.yaml)",
    )
    words = parse(parser, argv).words
    if all(is_override(word) for word in words):
        words = ["configs/demo.yaml", *words]
    return exit_code(lambda: demo(words))


if __name__ == "__main__":
    sys.exit(main())
