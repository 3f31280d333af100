"""A run that goes on is told from one whose processes were killed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from configs import run_files
from configs.run_files import SILENT_S, read_status, this_process


def write(run: Path, state: str = "running", silent_s: float = 0, **facts: Any) -> None:
    file = run / "status.json"
    file.write_text(json.dumps({"state": state, "step": 3, "attempt": 1, "reason": "", **facts}))
    then = time.time() - silent_s
    os.utime(file, (then, then))


def ended_process() -> dict[str, Any]:
    code = (
        "import json; from configs.run_files import this_process; print(json.dumps(this_process()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_a_process_of_this_machine_is_looked_at(tmp_path: Path) -> None:
    write(tmp_path, process=this_process(), silent_s=10 * SILENT_S)
    assert read_status(tmp_path)["state"] == "running"
    write(tmp_path, process=ended_process())
    found = read_status(tmp_path)
    assert found["state"] == "died"
    assert "has ended without a word" in found["reason"]


def test_a_number_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    write(tmp_path, process={**this_process(), "started": "1"})
    assert read_status(tmp_path)["state"] == "died"


@pytest.mark.parametrize(
    "elsewhere", [{"host": "another"}, {"processes": "another boot"}, {"processes": None}]
)
def test_elsewhere_the_heartbeat_tells(tmp_path: Path, elsewhere: dict[str, Any]) -> None:
    process = {**ended_process(), **elsewhere}
    write(tmp_path, process=process, silent_s=SILENT_S / 2)
    assert read_status(tmp_path)["state"] == "running"
    write(tmp_path, process=process, silent_s=SILENT_S + 5)
    assert "has been silent for" in read_status(tmp_path)["reason"]
    write(tmp_path, process=process, silent_s=-1000)  # a clock that is ahead
    assert read_status(tmp_path)["state"] == "running"


@pytest.mark.parametrize("state", ["done", "stopped", "failed"])
def test_what_has_ended_in_order_stays_so(tmp_path: Path, state: str) -> None:
    write(tmp_path, state, process=ended_process(), silent_s=10 * SILENT_S)
    assert read_status(tmp_path)["state"] == state


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "\0\0", "[" * 100_000])
def test_what_cannot_be_read_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "status.json").write_text(text)
    assert read_status(tmp_path) == {}


@pytest.mark.parametrize("process", [None, 3, [], {}, {"pid": "x"}, {"host": 3, "pid": -1}])
def test_odd_processes_are_judged_by_the_heartbeat(tmp_path: Path, process: Any) -> None:
    write(tmp_path, process=process)
    assert read_status(tmp_path)["state"] == "running"
    write(tmp_path, process=process, silent_s=SILENT_S + 5)
    assert read_status(tmp_path)["state"] == "died"


def test_a_zombie_has_ended(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = run_files._started(child.pid)
    write(tmp_path, process={**this_process(), "pid": child.pid, "started": started})
    assert read_status(tmp_path)["state"] == "running"
    child.kill()
    while run_files._started(child.pid) is not None:
        time.sleep(0.01)
    assert read_status(tmp_path)["state"] == "died"
    child.communicate()
