"""No generic file names a method: adding one must touch no file but its own."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from configs.build import Plugin

ROOT = Path(__file__).parents[1]
PACKAGES = ("model", "data_pipeline", "pretrain", "slurm", "tools")
REGISTRIES = ("model.objectives", "model.samplers")
METHODS = frozenset(name for where in REGISTRIES for name in Plugin(where).names())
CLASSES = frozenset(
    Plugin(where).resolve(n).__name__ for where in REGISTRIES for n in Plugin(where).names()
)


def generic_files() -> Iterator[Path]:
    """All sources but the methods' own: those in the registries, and those named after one."""
    homes = [ROOT / where.replace(".", "/") for where in REGISTRIES]
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            own = any(home in path.parents for home in homes) and path.stem != "__init__"
            if not own and path.stem not in METHODS:
                yield path


def named(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name wherever code, and not a docstring, names a method."""
    documents = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    word = re.compile(rf"\b({'|'.join(sorted(METHODS))})\b", re.IGNORECASE)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            yield from ((node.lineno, part) for part in parts if part in METHODS)
            names = [alias.name for alias in node.names]
            yield from ((node.lineno, name) for name in names if name in METHODS | CLASSES)
        elif isinstance(node, ast.Name) and node.id in CLASSES:
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and node.attr in CLASSES:
            yield node.lineno, node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = re.sub(r"configs/\S+", "", node.value)  # a shipped file may be an example
            if id(node) not in documents and (found := word.search(text)):
                yield node.lineno, found[0]


def test_nothing_generic_names_a_method() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} names {name}"
        for path in generic_files()
        for line, name in named(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == [], "ask the objective or the sampler instead:\n" + "\n".join(found)


def test_a_name_is_found_wherever_it_stands() -> None:
    for text in (
        "from model.objectives.mdlm import Mdlm",
        "isinstance(objective, Mdlm)",
        "name = 'mdlm'",
        "help = 'as MDLM does it'",
        "import model.objectives as o\no.mdlm.Mdlm",
    ):
        assert list(named(ast.parse(text))), text
    for text in ('"""As MDLM has it."""', "def f():\n    '''MDLM's.'''", "x = 'mdlms'"):
        assert not list(named(ast.parse(text))), text
