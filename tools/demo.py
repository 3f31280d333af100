"""``python -m tools.demo``: the whole road once, from text to samples, in minutes.

Prepares the demo corpus, trains an MDLM on it, evaluates it on the held-out documents,
draws samples and pictures, and says what was made. Every step is one of the ordinary
commands. Started again, it goes on where it was, or says that it is done.
"""

from pretrain import preemption

if __name__ == "__main__":
    preemption.install()

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.load import load
from pretrain.__main__ import main as pretrain
from pretrain.config import RunConfig
from pretrain.metrics import read_rows
from pretrain.run_directory import RunDirectory, run_path, write_json

PROMPT = 'The "___" statement is used to ___.'

SUMMARY = """
Palimpsest trained a text diffusion model on the Python language reference.

  held-out NELBO    {nelbo:.3f} nats per token (95% interval {low:.3f} to {high:.3f})
                    = perplexity {perplexity:.1f} per token, {bits_per_byte:.3f} bits per byte
  unigram           {unigram:.3f} nats per token on the same documents
  ratio             {ratio:.3f} (1 is no better than counting words; lower is better)
  training          {tokens_seen:,} tokens in {seconds_training:.0f} s; {seconds_total:.0f} s in all

  run directory     {run}  (config.yaml, metrics.jsonl, checkpoints/)
  corpus            {corpus}
  samples           {run}/samples/
  pictures          {pictures}
  all numbers       {run}/summary.json

Try next:
  {python} -m tools.sample {run} --prompt 'if ___{{12}}: return ___' --length 64
  {python} -m tools.evaluate {run} --samples 8
  {python} -m pretrain {config} model.time_conditioning=true run_dir=runs/with-time
"""


def demo(words: Sequence[str]) -> int:
    """Run the demo with these configuration words; returns the exit status."""
    started = time.monotonic()
    files = [Path(word) for word in words if "=" not in word]
    config = load(RunConfig, files, [word for word in words if "=" in word])
    run = run_path(config, files)
    summary_file = run / "summary.json"
    status = RunDirectory(run).read_status()
    if summary_file.exists() and status.get("state") == "done":
        print(f"{run} is done already; remove it to run the demo again.")
        print(_describe(json.loads(summary_file.read_text(encoding="utf-8")), run, files[-1]))
        return 0

    trained_before = _seconds_training(run)
    _say(f"1/4  training ({config.steps} steps; Ctrl-C saves, the same command goes on)")
    code = pretrain(list(words))
    if code == preemption.STOPPED:
        _say("stopped; nothing is lost, and the same command goes on where this one was")
    if code or RunDirectory(run).read_status().get("state") != "done":
        return code
    preemption.restore()
    summary = _finish(run, config)
    summary["seconds_total"] = trained_before + time.monotonic() - started
    write_json(summary_file, summary)
    print(_describe(summary, run, files[-1]))
    return 0


def _finish(run: Path, config: RunConfig) -> dict[str, Any]:
    """Evaluate, sample and draw; the summary."""
    from data_pipeline.tokenizer import load_tokenizer
    from model.samplers.ancestral import Ancestral
    from pretrain.checkpoint.weights import load_denoiser
    from pretrain.data import corpus_path
    from tools.evaluate import evaluate
    from tools.report import report
    from tools.sample import sample

    _say("2/4  evaluating on the held-out documents")
    loaded = load_denoiser(run, "ema")
    summary = evaluate(
        loaded, config.data.valid_split, which="ema", samples=4, batch=32, seed=config.seed
    )
    _say("3/4  sampling")
    corpus = corpus_path(config)
    tokenizer = load_tokenizer(corpus)
    texts = {}
    for name, prompt in (("free", ""), ("infilled", PROMPT)):
        drawn = sample(
            loaded,
            tokenizer,
            prompt=prompt,
            num=4,
            length=config.data.sequence_length,
            sampler=Ancestral(steps=64),
            seed=config.seed,
            batch=4,
        )
        texts[name] = drawn.texts
        body = "".join(f"--- {number}\n{text}\n" for number, text in enumerate(drawn.texts, 1))
        (run / "samples" / f"{name}.txt").write_text(body, encoding="utf-8")
    _say("4/4  drawing pictures")
    pictures = report(run, summary["unigram"])
    return {
        **summary,
        "tokens_seen": loaded.tokens_seen,
        "seconds_training": _seconds_training(run),
        "samples": texts["free"],
        "infilled": texts["infilled"],
        "pictures": [str(path) for path in pictures],
        "corpus": str(corpus),
    }


def _seconds_training(run: Path) -> float:
    """Seconds in the training loop so far, over all starts."""
    rows = read_rows(RunDirectory(run).metrics)
    return max((row.get("perf/elapsed_s", 0.0) for row in rows), default=0.0)


def _describe(summary: dict[str, Any], run: Path, config: Path) -> str:
    low, high = summary["nelbo_ci95"]
    text = SUMMARY.format(
        **{**summary, "pictures": ", ".join(summary["pictures"])},
        low=low,
        high=high,
        run=run,
        config=config,
        python=_python(),
    )
    return f"\nA sample:\n{summary['samples'][0]}\n{text}"


def _python() -> str:
    """How to call this interpreter from here."""
    path = Path(sys.executable)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    from tools import command

    parser = argparse.ArgumentParser(
        prog="python -m tools.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "words",
        nargs="*",
        default=[],
        metavar="CONFIG.yaml | key.sub=value",
        help="as python -m pretrain takes them (default: configs/demo.yaml)",
    )
    words = parser.parse_intermixed_args(argv).words
    if not any("=" not in word for word in words):
        words = ["configs/demo.yaml", *words]
    return command.run(lambda: demo(words))


if __name__ == "__main__":
    sys.exit(main())
