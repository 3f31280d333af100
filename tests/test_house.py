"""The house keeps its order: imports run one way, and only our packages are installed."""

import ast
import graphlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ALLOWED = {
    "configs": set(),
    "model": {"configs"},
    "data_pipeline": {"configs"},
    "pretrain": {"configs", "model", "data_pipeline"},
    "tools": {"configs", "model", "data_pipeline", "pretrain"},
    "slurm": {"configs"},
}
MOST_LINES = 350
ENGINES = {"deepspeed", "megatron"}
ENGINE_ROOMS = {"pretrain/parallel", "data_pipeline/indexed.py"}


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports, wherever in the file the import stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_run_one_way(root: Path, package: str) -> None:
    forbidden = set(ALLOWED) - ALLOWED[package] - {package}
    found = {
        (str(path.relative_to(root)), name)
        for path in (root / package).rglob("*.py")
        for name in imported(path) & forbidden
    }
    assert not found


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """All statements in this one but those of ``if TYPE_CHECKING``, which no run executes."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, (ast.stmt, ast.excepthandler, ast.match_case)):
            yield from executed(child)


def import_graph(root: Path) -> dict[str, set[str]]:
    """For each file of the packages, by its module's name: which of them it imports, anywhere."""
    files = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for package in ALLOWED
        for path in (root / package).rglob("*.py")
    }
    graph: dict[str, set[str]] = {}
    for name, path in files.items():
        found: set[str] = set()
        for node in executed(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                whole = str(node.module)
                parts = {f"{whole}.{alias.name}" for alias in node.names}
                found |= {part if part in files else whole for part in parts}
        # A __main__ imports itself by its importable name, for processes that it starts.
        graph[name] = found & files.keys() - {name}
    return graph


def test_no_files_import_one_another_in_a_circle(root: Path) -> None:
    graph = import_graph(root)
    assert len(graph) > 200
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of files: {' <- '.join(error.args[1])}")


def test_no_file_is_longer_than_a_reader_likes(root: Path) -> None:
    lengths = {
        str(path.relative_to(root)): len(path.read_text(encoding="utf-8").splitlines())
        for package in (*ALLOWED, "tests")
        for path in (root / package).rglob("*.py")
    }
    long = {name: lines for name, lines in lengths.items() if lines > MOST_LINES}
    assert not long, f"split these files, one idea each: {long}"


def test_only_the_engine_rooms_import_an_engine(root: Path) -> None:
    found = [
        str(path.relative_to(root))
        for package in ALLOWED
        for path in (root / package).rglob("*.py")
        if imported(path) & ENGINES
    ]
    outside = [p for p in found if not any(p.startswith(room) for room in ENGINE_ROOMS)]
    assert found
    assert not outside


def test_the_model_needs_no_distributed_torch(root: Path) -> None:
    for path in (root / "model").rglob("*.py"):
        assert "torch.distributed" not in path.read_text(encoding="utf-8"), path


def test_nothing_loads_a_pickle(root: Path) -> None:
    for package in ALLOWED:
        for path in (root / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert "weights_only=False" not in text, path
            assert "torch.load(" not in text or "weights_only=True" in text, path
            assert "pickle" not in imported(path), path
            assert "allow_pickle=True" not in text, path


def test_only_our_packages_are_installed(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(tmp_path), str(root)], check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("palimpsest-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert top == set(ALLOWED)
    assert "configs/tiny.yaml" in names
    assert "configs/mdlm/owt.yaml" in names
    assert "tools/report/page.html" in names
