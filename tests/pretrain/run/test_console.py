"""Nobody reads what a run prints: it goes on."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pretrain.run import console
from pretrain.run.directory import RunDirectory
from pretrain.run.progress import Progress

CODE = """
import contextlib, os, sys
from pretrain.run import console
console.survive()
for round in range(3):
    print("to standard output", flush=True)
    print("to standard error \\u2713", file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):  # its own affair where the disk is full
        os.write(2, b"as a library does")
assert not sys.stderr.isatty()
file = open(sys.argv[1], "w")
assert file.fileno() > 2, "a library's words would go into it"
os.set_inheritable(2, True) if os.get_inheritable(2) else sys.exit("lost by a child")
sys.exit(7)
"""


@pytest.mark.parametrize("how", ["1>&- 2>&-", "2>&-", "0<&- 1>&- 2>&-", "> /dev/full 2>&1", ""])
def test_no_print_ends_a_process(tmp_path: Path, how: str) -> None:
    command = ["sh", "-c", f'"$0" -c "$1" "$2" {how}', sys.executable, CODE, str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 7, done.stderr


def test_a_reader_that_has_seen_enough_ends_nothing(tmp_path: Path) -> None:
    """As ``2>&1 | head -1`` does; the status is the run's own to the end."""
    command = [sys.executable, "-c", CODE, str(tmp_path / "file")]
    ends = os.pipe()
    process = subprocess.Popen(command, stdout=ends[1], stderr=ends[1])
    os.close(ends[0])
    os.close(ends[1])
    assert process.wait(60) == 7


def test_a_stream_with_few_letters_spells_the_others() -> None:
    raw = io.BytesIO()
    stream = console.Undying(io.TextIOWrapper(raw, encoding="ascii"))
    print("3 \u2713", file=stream, flush=True)
    assert raw.getvalue() == b"3 \\u2713\n"


class BrokenTerminal(io.StringIO):
    """It was there when the run began."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("kind", ["none", "closed", "broken"])
def test_progress_goes_on_without_a_stream(monkeypatch, kind: str) -> None:
    closed = io.StringIO()
    closed.close()
    stream = {"none": None, "closed": closed, "broken": BrokenTerminal()}[kind]
    monkeypatch.setattr(sys, "stderr", stream)
    progress = Progress(shown=True, every=0.0)
    console.log("a word before the first step")
    progress.start(3, 0)
    for step in range(3):
        progress.show_loss(1.0 / (step + 1))
        progress.advance(100, 0.1)
        console.log("a word")
    progress.close()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["2>&-", "2>&1 | head -1", "1>&- 2>&-"])
def test_a_run_that_nobody_listens_to_is_done(tiny, tmp_path: Path, how: str) -> None:
    words = tiny("steps=3", "eval.every=0", "parallel.data=2")
    script = f'"$0" -m pretrain "$@" {how}'
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script, sys.executable, *words], capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert RunDirectory(tmp_path / "run").read_status()["state"] == "done"
