"""Documents name files, modules and keys that are there, and links that lead somewhere."""

import importlib.util
import re
from pathlib import Path

import pytest
from documents import ROOT, Block, blocks, commands, documents, shows, text_of

from tools.demo import __main__ as demo
from tools.demo import mdlm

PACKAGES = ("configs", "model", "data_pipeline", "pretrain", "slurm", "tools")
TOLD = "CHANGELOG.md"
"""Tells of what was, too."""
TO_BE_WRITTEN = {
    "model/objectives/fill_in.py",
    "model/samplers/fill_in.py",
    "model/verification/oracles/fill_in.py",
}
"""The method that the documents add; `tests/test_readme.py` adds it."""

_PATH = re.compile(
    r"(?<![\w/.-])(?:configs|model|data_pipeline|pretrain|slurm|tools|tests)/[\w./-]*\w/?"
)
_FILE = re.compile(r"\.(?:py|yaml|md|png|sbatch)$")
_MODULE = re.compile(rf"python -m ((?:{'|'.join(PACKAGES)})(?:\.[a-z_]+)*)(?![\w.]*NAME)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")

current = pytest.mark.parametrize("file", [name for name in documents() if name != TOLD])


def anchors(file: str) -> set[str]:
    """What a link may name within a document."""
    heads = re.findall(r"^#+ (.*)$", text_of(file), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", head.lower()) for head in heads)
    return {text.replace(" ", "-") for text in plain}


def named_paths(text: str) -> set[str]:
    return {
        path
        for path in _PATH.findall(text)
        if _FILE.search(path) and not re.search(r"NAME|[*<>{}]", path)
    }


@current
def test_files_that_are_named_are_there(file: str) -> None:
    missing = [
        path
        for path in sorted(named_paths(text_of(file)) - TO_BE_WRITTEN)
        if not (ROOT / path).exists() and not (ROOT / file).parent.joinpath(path).exists()
    ]
    assert missing == []


@current
def test_modules_that_are_started_are_there(file: str) -> None:
    for name in set(_MODULE.findall(text_of(file))):
        assert importlib.util.find_spec(name), name


@current
def test_links_lead_somewhere(file: str) -> None:
    for link in _LINK.findall(text_of(file)):
        if link.startswith(("http:", "https:")):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / file).parent / path if path else ROOT / file
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(str(target.resolve().relative_to(ROOT))), link


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_has_a_page_and_its_map_is_of_what_is_there(package: str) -> None:
    file = f"{package}/README.md"
    first = next(blocks(file, "text"))
    here = ROOT / package
    listed = set(re.findall(r"(?<![\w/*.<>-])[\w/*-]+(?:\.py|\.yaml|/)(?![\w>*-])", first.text))
    missing = [name for name in sorted(listed) if not list(here.glob(name.rstrip("/")))]
    assert missing == []
    shown = {path for name in listed for path in here.glob(name.rstrip("/"))}
    kinds = [p for p in here.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()]
    absent = [
        p.name for p in kinds if p not in shown and p.name not in ("__init__.py", "command.py")
    ]
    assert sorted(absent) == [], f"{file} does not list them"


def test_the_top_page_keeps_short() -> None:
    assert len(text_of("README.md").splitlines()) <= 150


def test_the_end_of_the_demo_is_shown_as_it_is_printed() -> None:
    """Line by line what its template gives, whatever the numbers."""
    template = mdlm.TEXT + demo.MADE + mdlm.NEXT
    fields = re.compile(r"\\{[^{}]*\\}")
    printed = [fields.sub(".+", re.escape(line)) for line in template.splitlines() if line.strip()]
    shown = next(blocks("README.md", "text")).text.splitlines()
    assert len(shown) >= 5
    assert [line for line in shown if not any(re.fullmatch(p, line) for p in printed)] == []


def test_every_method_has_its_row_and_every_package_its_link() -> None:
    text = text_of("README.md")
    methods = {path.stem for path in (ROOT / "model/objectives").glob("[a-z]*.py")}
    assert {name for name in methods if f"| `{name}` |" not in text} == set()
    samplers = {path.stem for path in (ROOT / "model/samplers").glob("[a-z]*.py")}
    assert {name for name in samplers if f"`{name}`" not in text} == set()
    assert {name for name in PACKAGES if f"({name}/README.md)" not in text} == set()


@pytest.mark.parametrize("file", documents())
def test_every_fence_is_closed_and_says_its_language(file: str) -> None:
    assert text_of(file).count("\n```") == 2 * len(list(blocks(file)))
    known = {"console", "python", "text", "yaml"}
    assert {block.language for block in blocks(file)} <= known


def test_blocks_and_commands_are_read_as_they_stand() -> None:
    text = "$ one a \\\n      b   # why\nshown\n  more\n$ two\n"
    block = Block(file="x.md", line=1, language="console", text=text, not_run=None)
    assert [(c.text, c.shown) for c in commands(block)] == [
        ("one a b   # why", "shown\n  more"),
        ("two", ""),
    ]
    assert shows("a ... c", "x\na bb c\ny")
    assert not shows("a ... c", "a bb d")
    assert not shows("a.c", "abc")


def test_a_file_that_is_gone_is_found() -> None:
    text = "see `pretrain/gone.py`, configs/*/demo.yaml and (tools/away/README.md)"
    assert named_paths(text) == {"pretrain/gone.py", "tools/away/README.md"}
    assert Path(ROOT / "pretrain/trainer.py").exists()
