"""What is in a checkpoint, and which of its files are damaged."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pretrain.__main__ import main as pretrain
from pretrain.checkpoint import manifest, store
from pretrain.checkpoint.reader import Reader
from pretrain.checkpoint.weights import load_denoiser
from tools.convert.__main__ import main as convert
from tools.evaluate import __main__ as evaluate
from tools.inspect import PARTS, main, verify
from tools.sample import __main__ as sample


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


def rewrite(path: Path, name: str, value: object) -> None:
    """Other contents of a file, with the checksums that go with them."""
    (path / name).write_text(json.dumps(value))
    files = json.loads((path / store.MANIFEST).read_text())["files"]
    file = path / name
    files[name] = {"bytes": file.stat().st_size, "sha256": store.sha256(file)}
    (path / store.MANIFEST).write_text(manifest.text_of(files))


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
    assert "whole" not in text  # which nobody has looked at
    assert text.count("tensors not checked") == 3


def test_what_is_sound_verifies(trained: Path, capsys) -> None:
    assert main([str(trained), "--verify"]) == 0
    text = capsys.readouterr().out
    assert "every byte is as it was written" in text
    assert text.count("sound, every byte checked") == 3


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
    for name in manifest.read(path)["files"]:
        kept = (path / name).read_bytes()
        flip(path / name)
        (problem,) = verify(path, lambda num: None)
        assert str(path / name) in problem
        (path / name).write_bytes(kept)


def test_an_index_with_a_gap_is_found_though_its_checksum_is_right(run: Path) -> None:
    path = step(run, 4)
    index = json.loads((path / "index.json").read_text())
    index["master/layers.0.tokens.weight"]["boxes"].pop()
    rewrite(path, "index.json", index)
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


# -- what the other tools read ------------------------------------------------------------


def flip_exponents(file: Path) -> None:
    """A high bit of the exponent of ten weights of each tensor, as a bad disk might."""
    data = bytearray(file.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    for name, facts in header.items():
        if name != "__metadata__":
            begin, end = (start + at for at in facts["data_offsets"])
            for at in range(begin + 3, end, max(4, (end - begin) // 40 * 4)):
                data[at] ^= 0x40
    file.write_bytes(data)


def test_weights_that_are_not_what_was_written_are_refused(run: Path, capsys) -> None:
    file = step(run, 4) / "rank-00000.safetensors"
    flip_exponents(file)
    out = str(run.with_name("out"))
    for tool, words in (
        (sample.main, [str(run), "--num=1", "--length=8", "--sampler", "steps=1"]),
        (sample.main, [str(run), "--num=1", "--length=8", "--sampler", "steps=1", "--weights=raw"]),
        (evaluate.main, [str(run), "--samples=1"]),
        (convert, ["to-hf", str(run), out]),
        (convert, ["strip", str(step(run, 4)), out]),
        (convert, ["to-safetensors", str(run), f"{out}.safetensors"]),
    ):
        assert tool(words) == 2, words
        error = capsys.readouterr().err
        assert "is damaged: rank-00000.safetensors does not have the checksum" in error, words
    assert not Path(out).exists()


def test_damage_is_seen_in_what_is_read_and_only_there(run: Path) -> None:
    """Sampling reads the average; a bit of a moment beside it is for resuming to find."""
    file = step(run, 4) / "rank-00000.safetensors"
    data = bytearray(file.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    moment = next(facts for name, facts in header.items() if name.startswith("exp_avg/"))
    data[start + moment["data_offsets"][0]] ^= 1
    file.write_bytes(data)
    assert load_denoiser(run, "ema").step == 4
    assert store.damage(step(run, 4)) is not None


def test_a_checkpoint_of_the_former_format_is_read_and_its_damage_seen(run: Path, capsys) -> None:
    path = step(run, 4)
    index = json.loads((path / "index.json").read_text())
    for entry in index.values():
        for box in entry["boxes"]:
            del box["crc32"]
    rewrite(path, "index.json", index)
    files = manifest.read(path)["files"]
    (path / store.MANIFEST).write_text(json.dumps({"format": 4, "files": files}, indent=2))
    assert load_denoiser(run, "ema").step == 4
    flip(path / "rank-00001.safetensors")
    assert sample.main([str(run), "--num=1", "--length=8", "--sampler", "steps=1"]) == 2
    assert "rank-00001.safetensors does not have the checksum" in capsys.readouterr().err


def test_a_newer_one_that_is_passed_over_is_named(run: Path, capsys) -> None:
    flip(step(run, 4) / "state.json")
    assert sample.main([str(run), "--num=1", "--length=8", "--sampler", "steps=1"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "state.json does not have the checksum it was written with; passed over" in line


def test_another_tokenizer_of_the_same_size_is_refused(run: Path, capsys) -> None:
    path = step(run, 4)
    state = Reader(path).state
    assert len(state["tokenizer_sha256"]) == 64
    rewrite(path, "state.json", {**state, "tokenizer_sha256": "0" * 64})
    for tool, words in (
        (sample.main, [str(run), "--num=1", "--length=8", "--sampler", "steps=1"]),
        (evaluate.main, [str(run), "--samples=1"]),
    ):
        assert tool(words) == 2
        assert "is not the one that the weights were trained with" in capsys.readouterr().err
    assert convert(["to-hf", str(run), str(run / "hf")]) == 2
    assert "or name the right one by --tokenizer" in capsys.readouterr().err
    assert not (run / "hf").exists()


SHAPES = [[], 3, None, {"step": []}, {"step": -1}, {"step": 1.5}, {"step": float("nan")}, {}]


@pytest.mark.parametrize("name", ["state.json", "index.json"])
@pytest.mark.parametrize("value", [*SHAPES, {"master/w": {"shape": [2**60], "boxes": []}}], ids=str)
def test_contents_of_another_shape_are_one_line(run: Path, capsys, name: str, value) -> None:
    rewrite(step(run, 4), name, value)
    for words in ([str(step(run, 4))], [str(run)], [str(run), "--verify"], [str(run), "--json"]):
        status = main(words)
        lines = capsys.readouterr().err.splitlines()
        if words[0] == str(run) and status == 0 and lines:  # the one before is shown
            assert len(lines) == 1, words
            assert lines.pop().endswith("; passed over"), words
        assert (status, len(lines)) in ((0, 0), (1, 0), (2, 1)), words
