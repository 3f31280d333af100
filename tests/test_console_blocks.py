"""Every console block of every document is run, in a copy of the project with a demo corpus.

A block's commands run one after the other and each must exit with status 0; where the document
shows output, that is in what was printed. Commands of our packages run in this process, all others
in a shell. What takes long on a small machine is cut down by :data:`SMALLER`, a table that is all
there is to it; blocks that no machine can run alone have their reason beside them in the document.
"""

import argparse
import importlib
import json
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from documents import ROOT, Block, Command, blocks, commands, copy_project, documents, shows

from data_pipeline import __main__ as data_pipeline
from pretrain import __main__ as pretrain

NETWORK = "model.width=32 model.num_layers=2 model.num_heads=2"
STEPS = "steps=4 global_batch=4 precision=fp32 checkpoint.every=2 log.every=1"

SMALLER = {
    r"(pretrain configs/demo\.yaml)(?!.*--)": rf"\1 {NETWORK} {STEPS} eval.every=0",
    r"(pretrain configs/mdlm/owt\.yaml)(?!.*--)": rf"\1 {NETWORK} {STEPS} "
    "data.sequence_length=32 eval.every=0",
    r"(pretrain configs/genie/\w+\.yaml)": rf"\1 {NETWORK} {STEPS} "
    "model.num_encoder_layers=1",
    r"--vocab-size (32000|1024)": "--vocab-size 400",
    r"model\.vocab_size=32000": "model.vocab_size=400",
    r"(configs/genie/\w+\.yaml)": r"\1 model.vocab_size=400",
    r"--length (64|128)": "--length 32",
    r"(tools\.evaluate runs/[\w-]+)(?=\s*(?:#|$))": r"\1 --samples 1",
    r"tools\.evaluate runs/demo --(samples-out|estimator|convention|text)": r"tools.evaluate "
    r"runs/demo --samples 1 --\1",
    r"--text held-out\.jsonl --field text": "--text test.jsonl --field target",
    r"--most-samples 16": "--most-samples 8",
    r"tools\.bench train": "tools.bench train --case fp32 --steps 1 --repeats 1 "
    "--width 64 --layers 2 --heads 2 --batch 2 --length 32",
    r"tools\.bench sample": "tools.bench sample --case default --steps 4 --repeats 1 "
    "--width 64 --layers 2 --heads 2 --batch 2 --length 32",
    r"tools\.bench parallel": "tools.bench parallel --case dp2 --precisions fp32 --steps 1 "
    "--repeats 1",
    r"(tools\.compare configs/compare/characters\.yaml)(?!.*--)": r"\1 base.steps=2 "
    "base.model.width=16 base.model.num_layers=1 base.data.sequence_length=32 base.eval.every=0 "
    "evaluation.samples=1 samples.num=2 samples.steps=[2]",
    r"--num 16": "--num 2",
    r"--kills 2": "--kills 1",
    r"-m mypy": "-m mypy --package configs",
    r"tools\.verify --ranks \d": "tools.verify --only oracles",
}
"""What a command is replaced by: patterns in its text, all that match, in this order."""

SLOW = (
    "configs/genie/", "tools.verify", "tools.bench", "tools.compare", "tools.crash",
    "tools.convert", "--local",
    "make ", "pytest",
)  # fmt: skip
"""A block with one of these in it is marked slow."""

NEEDS = re.compile(r"needs (a|an|the|8|weights)\b.{3,}")
"""Reasons why a block is not run."""


def all_blocks() -> Iterator[Block]:
    for file in documents():
        yield from blocks(file, "console")


RUN = [block for block in all_blocks() if block.not_run is None]
NOT_RUN = [block for block in all_blocks() if block.not_run is not None]


def marked(block: Block) -> object:
    slow = any(word in block.text for word in SLOW)
    marks = [pytest.mark.slow, pytest.mark.timeout(900)] if slow else []
    return pytest.param(block, id=block.name, marks=marks)


def smaller(command: str) -> str:
    for pattern, replacement in SMALLER.items():
        command = re.sub(pattern, replacement, command)
    return command


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, demo_dir: Path) -> Path:
    """A copy of the project as it is committed or about to be, with what its documents name.

    That is the demo corpus; a run of it, under the names that the documents use; texts and
    pairs; and a configuration of the reader's own.
    """
    copy = tmp_path_factory.mktemp("copy") / "palimpsest"
    copy_project(copy, demo_dir)
    (copy / ".venv").symlink_to(sys.prefix)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(copy)
        train = smaller("pretrain configs/demo.yaml").split()
        assert pretrain.main([*train[1:], "stop_after=2"]) == 0
    for name in ("a", "b"):
        shutil.copytree(copy / "runs" / "demo", copy / "runs" / name)
    own = (copy / "runs" / "demo" / "config.yaml").read_text(encoding="utf-8")
    own = re.sub(r"^(run_dir|stop_after):.*", r"\1: null", own, flags=re.MULTILINE)
    (copy / "my.yaml").write_text(own, encoding="utf-8")
    texts = list((copy / "configs").rglob("*.py")) + list((copy / "model").rglob("*.py"))
    for name in ("books.jsonl", "held-out.jsonl"):
        lines = (json.dumps({"text": path.read_text(encoding="utf-8")}) for path in texts)
        (copy / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    for seed, name in enumerate(("genome.fa", "held-out.fa")):
        bases = "".join(random.Random(seed).choices("ACGTacgtN", k=2000))
        (copy / name).write_text(f">{name}\n{bases}\n", encoding="utf-8")
    for name in ("train.jsonl", "test.jsonl"):
        pairs = (
            {"source": f"name : {place} | area : riverside", "target": f"{place} {said}"}
            for place in ("Blue Spice", "The Mill", "Aromi", "Zizzi")
            for said in ("lies at the riverside .", "is near the river .", "can be found there .")
        )
        (copy / name).write_text("\n".join(map(json.dumps, pairs)) + "\n", encoding="utf-8")
    return copy


@pytest.fixture(scope="module")
def pairs(project: Path) -> None:
    """The corpus of pairs and the run that the documents make of it elsewhere."""
    (block,) = [b for b in blocks("data_pipeline/README.md", "console") if "--pairs" in b.text]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        if not (project / "corpora" / "pairs").exists():
            for command in commands(block):
                assert data_pipeline.main(words_of(smaller(command.text))[2:]) == 0
        if not (project / "runs" / "genie-finetune").exists():
            train = smaller("pretrain configs/genie/finetune.yaml").split()
            assert pretrain.main(train[1:]) == 0


def words_of(command: str) -> list[str]:
    """The words of ``[.venv/bin/]python -m MODULE ...`` after the interpreter: -m is the first."""
    return shlex.split(command, comments=True)[1:]


def run(command: str, cwd: Path, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Status and output of a command, in this process where it is one of ours."""
    words = shlex.split(command, comments=True)
    file = None
    if ">" in words:
        words, file = words[: words.index(">")], words[-1]
    module = words[2] if re.fullmatch(r"(\.venv/bin/)?python", words[0]) else ""
    capfd.readouterr()
    if not is_ours(module):
        done = subprocess.run(["bash", "-c", command], cwd=cwd, check=False)
        return done.returncode, "".join(capfd.readouterr())
    try:
        status = main_of(module)(words[3:])
    except SystemExit as left:
        status = int(left.code or 0)
    printed = capfd.readouterr()
    if file is not None:
        (cwd / file).write_text(printed.out, encoding="utf-8")
    return status, printed.out + printed.err


def is_ours(module: str) -> bool:
    return (ROOT / module.partition(".")[0]).is_dir() and bool(module)


def main_of(module: str) -> Callable[[Sequence[str]], int]:
    package = ROOT.joinpath(*module.split(".")).is_dir()
    main: Callable[[Sequence[str]], int] = importlib.import_module(
        module + (".__main__" if package else "")
    ).main
    return main


@pytest.mark.parametrize("block", [marked(block) for block in RUN])
def test_the_block_runs(
    block: Block,
    project: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(project)
    if "genie" in block.text:
        request.getfixturevalue("pairs")
    for command in commands(block):
        text = smaller(command.text)
        status, printed = run(text, project, capfd)
        assert status == 0, f"{block.name}: {text}\n{printed}"
        assert shows(command.shown, printed), f"{block.name}: {text}\nprinted: {printed}"


@pytest.mark.parametrize("block", NOT_RUN, ids=lambda block: block.name)
def test_what_is_not_run_says_why(block: Block) -> None:
    assert block.not_run is not None
    assert NEEDS.match(block.not_run), block.not_run


class UnderstoodError(Exception):
    """The words of a command were accepted by its parser."""


@pytest.mark.parametrize("block", NOT_RUN, ids=lambda block: block.name)
def test_what_is_not_run_is_understood(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser of each command takes its words, and configurations that it names are there."""
    for name in ("parse_args", "parse_known_intermixed_args"):
        patched = accepting(getattr(argparse.ArgumentParser, name))
        monkeypatch.setattr(argparse.ArgumentParser, name, patched)
    for command in commands(block):
        words = shlex.split(command.text, comments=True)
        at = words.index("-m") + 1 if "-m" in words else 0
        if at and is_ours(words[at]):
            with pytest.raises(UnderstoodError):
                main_of(words[at])(words[at + 1 :])
        missing = [w for w in words if w.startswith("configs/") and not (ROOT / w).exists()]
        assert missing == []


def accepting(parse: Callable[..., Any]) -> Callable[..., None]:
    """A method of a parser that leaves once it has accepted a command's words."""

    def accept(parser: argparse.ArgumentParser, words: Sequence[str], *rest: Any) -> None:
        found = parse(parser, words, *rest)
        assert not isinstance(found, tuple) or found[1] == [], found[1]
        raise UnderstoodError

    return accept


def test_every_document_has_blocks_that_run() -> None:
    pages = {block.file for block in RUN}
    assert {"README.md", "CONTRIBUTING.md", "pretrain/README.md", "tools/README.md"} <= pages
    assert all(commands(block) for block in RUN)


def test_every_replacement_is_used() -> None:
    texts = [command.text for block in RUN for command in commands(block)]
    unused = [p for p in SMALLER if not any(re.search(p, text) for text in texts)]
    assert unused == []


def test_a_block_that_fails_or_shows_what_is_not_printed_is_found(
    project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    assert run("python -m pretrain configs/gone.yaml", project, capfd)[0] == 2
    assert run("python -m pretrain --no-such-option", project, capfd)[0] == 2
    assert run("false", project, capfd)[0] == 1
    status, printed = run("python -m pretrain --help optim.lr", project, capfd)
    assert status == 0
    assert not shows(Command(text="", shown="default 0.0004").shown, printed)
