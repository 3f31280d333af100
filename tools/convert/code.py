"""The modelling code beside exported weights: the project's own files, laid flat.

transformers follows relative imports within one directory only. Which files are needed
follows from the imports of the files in ``huggingface/``; each import of ours is made
relative to the last part of its name, and anything else but torch, transformers and the
standard library is refused. In the place of all methods there are (``method.py``) comes the
one that the weights were trained by.
"""

import ast
import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from configs.build import Plugin

ROOT = Path(__file__).resolve().parents[2]
WRAPPERS = "tools.convert.huggingface"
METHOD = f"{WRAPPERS}.method"
NEEDED = {"torch", "transformers"}

_OURS = re.compile(rf"(?:model|{re.escape(WRAPPERS)})(?:\.\w+)*\.(\w+)")
_IMPORT = re.compile(rf"^(\s*)from {_OURS.pattern} import", re.M)


def flat_files(
    entry: str,
    architecture: str,
    objective: str | None = None,
    schedule: str | None = None,
    samplers: Sequence[str] = (),
) -> dict[str, str]:
    """The text of every file, by its flat name.

    Args:
        entry: name of a file in ``huggingface/``, with which the others come.
        architecture: of the weights, by name.
        objective, schedule: that the weights were trained by.
        samplers: those that suit the objective.
    """
    found: dict[str, str] = {}
    modules: dict[str, str] = {}
    waiting = [f"{WRAPPERS}.{entry}"]
    while waiting:
        module = waiting.pop()
        name = f"{module.rpartition('.')[2]}.py"
        if modules.setdefault(name, module) != module:
            raise AssertionError(f"{modules[name]} and {module} would both be {name}")
        if name in found:
            continue
        path = ROOT / module.replace(".", "/")
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        text = path.read_text(encoding="utf-8")
        if module == METHOD:
            text = _method(architecture, objective, schedule, samplers)
        found[name] = _IMPORT.sub(r"\1from .\2 import", text)
        waiting += _own_imports(text, path)
    return dict(sorted(found.items()))


def _method(
    architecture: str, objective: str | None, schedule: str | None, samplers: Sequence[str]
) -> str:
    """The text of ``method.py`` beside weights of one method."""
    imports, tables = [], [f"OBJECTIVE = {objective!r}"]
    named: dict[str, Sequence[str]] = {
        "architectures": [architecture],
        "objectives": [objective] if objective else [],
        "schedules": [schedule] if schedule else [],
        "samplers": samplers,
    }
    for folder, names in named.items():
        classes = {name: Plugin(f"model.{folder}").resolve(name).__name__ for name in names}
        imports += [f"from model.{folder}.{name} import {kind}" for name, kind in classes.items()]
        entries = ", ".join(f'"{name}": {kind}' for name, kind in classes.items())
        tables.append(f"{folder.upper()}: dict[str, Any] = {{{entries}}}")
    title = '"""The method that these weights were trained by, and the samplers that suit it."""'
    return "\n".join([title, "", "from typing import Any", "", *imports, "", *tables, ""])


@cache
def _own_imports(text: str, path: Path) -> tuple[str, ...]:
    """Modules of ours that a file imports; others must be at hand wherever the weights go."""
    nodes = list(ast.walk(ast.parse(text)))
    optional_lines = {
        node.lineno
        for guarded in nodes
        if isinstance(guarded, ast.Try)
        for node in ast.walk(guarded)
        if isinstance(node, ast.stmt)
    }
    found = []
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            top = name.partition(".")[0]
            if _OURS.fullmatch(name):
                found.append(name)
            elif top not in NEEDED | sys.stdlib_module_names and node.lineno not in optional_lines:
                raise AssertionError(f"{path} imports {name}, which an export cannot take along")
    return tuple(found)
