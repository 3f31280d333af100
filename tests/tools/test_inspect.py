"""What is in a checkpoint, and which of its files are damaged."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pretrain.__main__ import main as pretrain
from pretrain.checkpoint import store
from tools.inspect import PARTS, main, verify


@pytest.fixture(scope="module")
def trained(demo_dir: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of steps 2 (no bound), 3 and 4 of two ranks."""
    path = tmp_path_factory.mktemp("inspect") / "run"
    words = [
        str(root / "configs" / "tiny.yaml"),
        f"run_dir={path}",
        f"data.demo_dir={demo_dir}",
        "parallel.data=2",
        "stop_after=4",
        "checkpoint.every=1",
        "checkpoint.keep_last=3",
        "eval.every=3",
    ]
    assert pretrain(words) == 0
    return path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy, to be broken."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def step(run: Path, number: int) -> Path:
    return store.path_of(run / "checkpoints", number)


def shown(capsys, *words: str) -> dict:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_all_facts_of_a_checkpoint(trained: Path, capsys) -> None:
    found = shown(capsys, str(step(trained, 4)))
    assert "run" not in found
    assert (found["step"], found["tokens_seen"], found["score"]) == (4, 2048, None)
    assert found["layout"] == {"data": 2, "tensor": 1, "pipeline": 1, "zero_stage": 1}
    parameters = found["parameters"]
    assert parameters.pop("total") == sum(parameters.values()) == 286_720
    assert set(parameters) == set(PARTS.values())
    assert parameters["attention"] == 2 * 4 * 64 * 64
    assert set(found["tensors"]) == {"master", "exp_avg", "exp_avg_sq", "ema"}
    assert all(kind["bytes"] == 4 * 286_720 for kind in found["tensors"].values())
    assert len(found["files"]) == 4
    assert found["bytes"] == sum(file.stat().st_size for file in step(trained, 4).iterdir())
    assert found["bytes_per_parameter"] == pytest.approx(16, rel=0.05)
    assert found["code"]["packages"]["torch"]


def test_a_run_shows_its_newest_and_lists_all(trained: Path, capsys) -> None:
    found = shown(capsys, str(trained))
    assert found["checkpoint"] == str(step(trained, 4))
    assert [one["step"] for one in found["run"]] == [2, 3, 4]
    assert [one["problem"] for one in found["run"]] == [None] * 3
    assert [one["score"] is None for one in found["run"]] == [True, False, True]
    assert main([str(trained)]) == 0
    text = capsys.readouterr().out
    assert "saved by data 2 x tensor 1 x pipeline 1, ZeRO 1, fp32" in text
    assert text.count("whole") == 3


def test_what_is_sound_verifies(trained: Path, capsys) -> None:
    assert main([str(trained), "--verify"]) == 0
    assert "every byte is as it was written" in capsys.readouterr().out


def test_every_damaged_file_is_named(run: Path, capsys) -> None:
    flip(step(run, 4) / "rank-00001.safetensors")
    (step(run, 4) / "index.json").unlink()
    with (step(run, 3) / "rank-00000.safetensors").open("ab") as stream:
        stream.write(b"x")
    assert main([str(step(run, 4)), "--verify"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["DAMAGED"] * 2
    assert "index.json: cannot be read (No such file or directory)" in lines[0]
    assert "rank-00001.safetensors: not the checksum it was written with" in lines[1]
    assert main([str(run), "--verify"]) == 1
    assert capsys.readouterr().out.count("DAMAGED") == 3


def test_a_flipped_byte_is_found_in_whatever_file(run: Path) -> None:
    path = step(run, 4)
    assert verify(path, lambda num: None) == []
    for name in store.manifest(path)["files"]:
        kept = (path / name).read_bytes()
        flip(path / name)
        (problem,) = verify(path, lambda num: None)
        assert str(path / name) in problem
        (path / name).write_bytes(kept)


def test_an_index_with_a_gap_is_found_though_its_checksum_is_right(run: Path) -> None:
    path = step(run, 4)
    index = json.loads((path / "index.json").read_text())
    index["master/layers.0.tokens.weight"]["boxes"].pop()
    (path / "index.json").write_text(json.dumps(index))
    manifest = json.loads((path / store.MANIFEST).read_text())
    file = path / "index.json"
    facts = {"bytes": file.stat().st_size, "sha256": store.sha256(file)}
    manifest["files"]["index.json"] = facts
    (path / store.MANIFEST).write_text(json.dumps(manifest))
    (problem,) = verify(path, lambda num: None)
    assert "elements of master/layers.0.tokens.weight" in problem


def test_a_broken_newest_is_listed_as_such(run: Path, capsys) -> None:
    (step(run, 4) / "rank-00001.safetensors").unlink()
    found = shown(capsys, str(run))
    assert found["step"] == 3
    assert "rank-00001.safetensors is missing" in found["run"][-1]["problem"]


@pytest.mark.parametrize("name", ["nowhere", "empty", "file"])
def test_wrong_paths_are_one_line(tmp_path: Path, capsys, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for words in ([], ["--verify"], ["--json"]):
        assert main([str(tmp_path / name), *words]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "neither a checkpoint nor a run with one" in error


def test_a_checkpoint_that_is_not_whole_is_one_line(run: Path, capsys) -> None:
    (step(run, 4) / "rank-00001.safetensors").unlink()
    assert main([str(step(run, 4))]) == 2
    assert "rank-00001.safetensors is missing" in capsys.readouterr().err


def test_no_engine_is_imported(trained: Path) -> None:
    code = (
        "import sys; from tools.inspect import main; main(sys.argv[1:]); "
        "assert not {'deepspeed', 'megatron'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(trained)]
    assert subprocess.run(command, capture_output=True).returncode == 0
