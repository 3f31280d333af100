"""One page of a run that needs nothing beside it: facts, curves, a text being written, samples."""

import re
from collections.abc import Iterator
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from configs.errors import UserError
from pretrain.checkpoint import store
from pretrain.run.directory import RunDirectory
from tools.report.curves import Run
from tools.report.facts import facts, summary
from tools.report.inline_svg import SIZE, inline_svg
from tools.report.plots import draw_levels, draw_loss, draw_training
from tools.report.sweeps import cells, draw_sweep, read_sweeps

MOST_SAMPLES, MOST_CHARACTERS = 8, 3000
"""Most files of ``samples/`` that are shown, and of each the first characters."""


def write_page(run: Run, path: Path, *, draw_text: bool = True) -> Path:
    """Write the page.

    Args:
        draw_text: load the newest checkpoint, if there is one, and draw a text step by step.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    template = environment.from_string(
        files("tools.report").joinpath("page.html").read_text(encoding="utf-8")
    )
    writing, no_writing = _writing(run.path, draw_text)
    config = RunDirectory(run.path).config
    text = template.render(
        name=run.name,
        summary=summary(run),
        facts=list(facts(run)),
        figures=list(_figures(run)),
        writing=writing,
        no_writing=no_writing,
        sweeps=list(_sweeps(run.path)),
        samples=list(_samples(run.path)),
        config=config.read_text(encoding="utf-8") if config.exists() else "",
    )
    path.write_text(text, encoding="utf-8")
    return path


def _figures(run: Run) -> Iterator[tuple[str, str]]:
    """Captions and pictures."""
    loss = partial(draw_loss, [run], size=SIZE)
    yield "Training loss and held-out numbers", inline_svg(loss, "loss")
    if any(key.startswith("train/loss_level_") for row in run.training for key in row):
        levels = partial(draw_levels, [run], size=SIZE)
        yield "Training loss by noise level", inline_svg(levels, "levels")
    training = partial(draw_training, [run], size=(SIZE[0], 1.6 * SIZE[1]))
    yield "Gradient norm, learning rate and speed", inline_svg(training, "training")


def _writing(run: Path, draw_text: bool) -> tuple[Any, str]:
    """A text that is written step by step, or why there is none."""
    if not draw_text:
        return None, "Left out, as was asked for."
    if not store.committed(run / "checkpoints"):
        return None, "The run has no checkpoint to draw a text with."
    from tools.report.unmasking import written

    try:
        return written(run), "An encoder-decoder writes about a source: see tools.sample --source."
    except UserError as error:
        return None, f"No text could be drawn: {error}"


def _sweeps(run: Path) -> Iterator[dict[str, Any]]:
    for number, sweep in enumerate(read_sweeps(run)):
        head, *lines = cells(sweep)
        svg = inline_svg(partial(draw_sweep, sweep, size=SIZE), f"sweep{number}")
        yield {**vars(sweep), "svg": svg, "head": head, "lines": lines}


def _samples(run: Path) -> Iterator[tuple[str, str]]:
    """The newest files of ``samples/``, in the order of the numbers in their names."""

    def order(path: Path) -> list[Any]:
        parts = re.split(r"(\d+)", path.name)
        return [(part.isdigit(), int(part) if part.isdigit() else part) for part in parts]

    for path in sorted((run / "samples").glob("*.txt"), key=order)[-MOST_SAMPLES:]:
        text = path.read_text(encoding="utf-8", errors="replace")
        cut = "\n[...]" if len(text) > MOST_CHARACTERS else ""
        yield path.stem, text[:MOST_CHARACTERS] + cut
