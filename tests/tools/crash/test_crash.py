"""A sample of kills and all faults; and what looks at the evidence does find what is wrong."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pretrain.checkpoint import store
from pretrain.launch.pool import Pool
from tools.crash.__main__ import main
from tools.crash.disk import SmallDisk
from tools.crash.evidence import Evidence, compare_bits, compare_near
from tools.crash.kills import chains
from tools.crash.setting import Setting
from tools.crash.start import Start, Violation


def commit(run: Path, step: int) -> Path:
    """A checkpoint that is no more than whole."""
    staging = store.staging_of(run / "checkpoints", 1, step)
    staging.mkdir(parents=True)
    contents = {
        "rank-00000.safetensors": b"some bytes",
        "state.json": json.dumps({"step": step}).encode(),
        "index.json": b"{}",
    }
    files = {}
    for name, held in contents.items():
        (staging / name).write_bytes(held)
        files[name] = {"bytes": len(held), "sha256": store.sha256(staging / name)}
    return store.commit(staging, run / "checkpoints", files)


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    """Of a run that has committed steps 8 to 12, and keeps every fifth."""
    rows = [json.dumps({"step": step, "loss": 1.0}) + "\n" for step in range(1, 13)]
    (tmp_path / "metrics.jsonl").write_text("".join(rows))
    found = Evidence(tmp_path, keep_every=5)
    for step in range(8, 13):
        commit(tmp_path, step)
        found.look()
    return found


def test_what_is_rightly_pruned_is_not_missed(evidence: Evidence, tmp_path: Path) -> None:
    evidence.check()
    for step in (8, 9):
        shutil.rmtree(store.path_of(tmp_path / "checkpoints", step))
    evidence.check()
    assert evidence.newest == 12


@pytest.mark.parametrize("step", [10, 11, 12])
def test_a_lost_checkpoint_is_noticed(evidence: Evidence, tmp_path: Path, step: int) -> None:
    shutil.rmtree(store.path_of(tmp_path / "checkpoints", step))
    with pytest.raises(Violation, match=rf"are lost: steps \[{step}\]"):
        evidence.check()


def test_a_damaged_checkpoint_is_noticed(evidence: Evidence, tmp_path: Path) -> None:
    path = store.path_of(tmp_path / "checkpoints", 11)
    (path / "rank-00000.safetensors").write_bytes(b"Some bytes")
    with pytest.raises(Violation, match=r"not sound: .*step-00000011 is damaged"):
        evidence.check()


def test_one_shown_half_written_is_noticed(evidence: Evidence, tmp_path: Path) -> None:
    (commit(tmp_path, 13) / "rank-00000.safetensors").write_bytes(b"some")
    with pytest.raises(Violation, match="shown half-written"):
        evidence.look()


def test_metrics_that_skip_a_step_are_noticed(evidence: Evidence, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-2]))
    with pytest.raises(Violation, match="a checkpoint of step 12, but metrics to 10 only"):
        evidence.check()
    file.write_text(file.read_text() + json.dumps({"step": 12}) + "\n")
    with pytest.raises(Violation, match="skip or repeat"):
        evidence.check()


def test_one_other_bit_is_noticed() -> None:
    rows = [{"step": 1, "loss": 1.0, "grad_norm": 1.0}, {"step": 2, "loss": 1.0, "grad_norm": 1.0}]
    other = [rows[0], {**rows[1], "loss": 1.0 + 2**-52}]
    compare_bits(rows, rows, "it")
    with pytest.raises(Violation, match="it differs at step 2"):
        compare_bits(rows, other, "it")
    with pytest.raises(Violation, match="it has 1 rows, not 2"):
        compare_bits(rows[:1], rows, "it")
    assert compare_near(other[1:], rows, "it") < 1e-15
    with pytest.raises(Violation, match=r"loss of step 2 is 1\.1, not 1\.0"):
        compare_near([{**rows[1], "loss": 1.1}], rows, "it")


@pytest.mark.parametrize("num", [0, 1, 2, 3, 10, 40, 77])
def test_kills_are_shared_out(tmp_path: Path, num: int) -> None:
    setting = Setting(scratch=tmp_path, pool=Pool(1))
    found = chains(setting, num, random.Random(0))
    kills = dict.fromkeys((False, True), 0)
    for chain in found:
        kills[chain.is_mixed] += len(chain._layouts) - 1
    assert kills == {False: num - num // 2, True: num // 2}


def test_processes_are_found_whoever_their_parent_is(tmp_path: Path) -> None:
    start = Start(["no-such-file.yaml"], tmp_path / "log")
    assert start.wait(120) == 2
    assert "no-such-file.yaml" in start.output
    assert start.processes() == []


@pytest.mark.parametrize("words", [["oops"], ["--out=/nowhere/at/all.md"]])
def test_wrong_input_is_one_line(capsys, words: list[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1


def mountable(path: Path) -> bool:
    try:
        with SmallDisk(path, 2**20):
            return True
    except ValueError:
        return False


@pytest.mark.alone
@pytest.mark.timeout(1200)
def test_nothing_committed_is_lost(demo_dir: Path, tmp_path: Path) -> None:
    words = ["--kills=3", f"--out={tmp_path / 'result.md'}", f"data.demo_dir={demo_dir}"]
    words += [] if mountable(tmp_path / "disk") else ["--no-faults"]
    command = [sys.executable, "-m", "tools.crash", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing committed was lost in 3 kills" in (tmp_path / "result.md").read_text()
