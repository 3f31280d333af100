"""Pictures of matplotlib as SVG within a page: they take its fonts and its colour of text."""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

SIZE = (3.7, 2.9)
"""Inches: about as wide as a telephone, so that nothing there is shrunk."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "savefig.transparent": True,
    "legend.facecolor": "none",
    "legend.edgecolor": "none",
    "font.size": 9,
    "axes.titlesize": 9,
    "lines.markersize": 4,
}

_BLACK = re.compile(r"(?<![\w&])#000000\b")
_ID = re.compile(r'(\bid="|url\(#|href="#)')


def inline_svg(draw: Callable[[Path], object], name: str) -> str:
    """The ``<svg>`` element of a picture.

    What is black is drawn in the colour of the text around it.

    Args:
        draw: writes the picture to a path.
        name: put before the ids in it, which are then unlike those of other pictures on a page.
    """
    style = STYLE | {"svg.hashsalt": name}
    with tempfile.TemporaryDirectory() as directory, plt.rc_context(style):
        path = Path(directory) / f"{name}.svg"
        draw(path)
        text = path.read_text(encoding="utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return _ID.sub(rf"\g<1>{name}-", _BLACK.sub("currentColor", text))
