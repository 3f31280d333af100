"""The architecture picture shows the packages and imports that there are."""

import ast
from pathlib import Path

import matplotlib.image

from tools.pictures import architecture


def imports(root: Path, package: str) -> set[str]:
    """The packages of ours that a package's files import."""
    found: set[str] = set()
    for path in (root / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
    return found & set(architecture.IMPORTS) - {package}


def test_the_arrows_are_the_imports(root: Path) -> None:
    assert {name: set(others) for name, others in architecture.IMPORTS.items()} == {
        name: imports(root, name) for name in architecture.IMPORTS
    }
    drawn = {(name, other) for name, others in architecture.IMPORTS.items() for other in others}
    assert set(architecture.ENDS) == drawn
    assert set(architecture.PACKAGES) == set(architecture.IMPORTS) == set(architecture.COLORS)


def test_every_part_of_the_step_is_in_a_package() -> None:
    assert {package for package, _, _ in architecture.STEP} <= set(architecture.IMPORTS)


def test_the_command_draws_what_is_committed(root: Path, tmp_path: Path) -> None:
    """Of the same size; fonts and versions of matplotlib may differ in pixels."""
    assert architecture.main(["--out", str(tmp_path / "drawn.png")]) == 0
    drawn = matplotlib.image.imread(tmp_path / "drawn.png")
    committed = matplotlib.image.imread(root / architecture.FILE)
    assert drawn.shape == committed.shape
    assert drawn.std() > 0.1
