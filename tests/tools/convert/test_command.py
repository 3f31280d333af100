"""The command line: its words, its exit status, its errors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from tools.convert import write
from tools.convert.__main__ import main


def test_there_and_back_by_command(saved, tmp_path: Path, capsys) -> None:
    checkpoint, _ = saved()
    out, back = tmp_path / "out", tmp_path / "back"
    assert main(["to-hf", str(checkpoint), str(out), "--weights", "raw"]) == 0
    said = capsys.readouterr().out
    assert "logits agree to 0 (limit 1e-09 of the largest;" in said
    assert "no tokenizer is here: name one with --tokenizer" in said
    assert main(["from-hf", str(out), str(back), "--shard-mib", "1"]) == 0
    assert "logits agree to 0 (limit 1e-09 of the largest;" in capsys.readouterr().out
    assert json.loads((back / "parity.json").read_text())["source"] == "out (palimpsest)"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "no such file or directory"),
        (["EMPTY"], "holds no weights"),
        (["OTHER"], "no architecture that is known here; weights come in from bert, llada"),
        (["OTHER", "--format", "mdlm"], "is no MDLM"),
        (["OTHER", "--format", "llama"], "its config.json names none of"),
        (["OTHER", "--format", "llada"], "its config.json lacks d_model, n_layers"),
        (["OTHER", "--format", "bert"], "its config.json lacks vocab_size"),
        (["OTHER", "--format", "palimpsest"], "its config.json lacks 'denoiser'"),
    ],
)
def test_wrong_sources_are_one_error(
    tmp_path: Path, capsys, words: list[str], message: str
) -> None:
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "OTHER").mkdir()
    save_file({"a": torch.ones(2)}, tmp_path / "OTHER" / "model.safetensors")
    source, *rest = words
    assert main(["from-hf", str(tmp_path / source), str(tmp_path / "in"), *rest]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "in").exists()


def test_a_tokenizer_of_other_ids_is_refused(saved, tmp_path: Path, corpus: Path, capsys) -> None:
    checkpoint, _ = saved()
    assert main(["to-hf", str(checkpoint), str(tmp_path / "out")]) == 0
    words = ["from-hf", str(tmp_path / "out"), str(tmp_path / "in"), "--tokenizer", str(corpus)]
    assert main(words) == 2
    assert "vocabulary mismatch: the model has 90 ids" in capsys.readouterr().err


def test_a_disk_that_cannot_be_written_is_one_error(saved, tmp_path: Path, capsys) -> None:
    checkpoint, _ = saved()
    (tmp_path / "file").touch()
    assert main(["to-hf", str(checkpoint), str(tmp_path / "file" / "out")]) == 2
    assert "cannot be made: " in capsys.readouterr().err


def test_a_disk_that_fills_up_leaves_nothing(saved, tmp_path: Path, capsys, monkeypatch) -> None:
    checkpoint, _ = saved()
    whole = write.save_file

    def second_fails(values, path, **rest) -> None:
        if "00002-of" in path.name:
            raise SafetensorError("No space left on device")
        whole(values, path, **rest)

    monkeypatch.setattr(write, "save_file", second_fails)
    monkeypatch.setattr("tools.convert.commands._shard_bytes", lambda arguments: 20_000)
    assert main(["to-hf", str(checkpoint), str(tmp_path / "out")]) == 2
    assert "could not be written: No space left on device" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_neither_transformers_nor_an_engine_is_imported(saved, tmp_path: Path, root: Path) -> None:
    checkpoint, _ = saved()
    code = (
        "import sys; from tools.convert.__main__ import main; assert main(sys.argv[1:]) == 0; "
        "assert not {'deepspeed', 'megatron', 'transformers', 'peft'} & set(sys.modules)"
    )
    words = ["to-hf", str(checkpoint), str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr


def test_rows_that_are_left_out_are_said(saved, tmp_path: Path, corpus: Path, capsys) -> None:
    checkpoint, _ = saved(vocab_size=1100)
    assert main(["to-hf", str(checkpoint), str(tmp_path / "out")]) == 0
    words = ["from-hf", str(tmp_path / "out"), str(tmp_path / "in"), "--tokenizer", str(corpus)]
    assert main(words) == 0
    assert "left out 76 rows that the tokenizer has no ids for" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["to-hf", "nowhere", "OUT"], "neither a checkpoint nor a run with one"),
        (["to-hf", "CKPT", "CKPT"], "is there already; choose another OUT"),
        (["to-hf", "CKPT", "OUT", "--format", "bert"], "format bert comes in only"),
        (["to-hf", "CKPT", "OUT", "--tokenizer", "CORPUS"], "vocabulary mismatch"),
        (["to-hf", "CKPT", "OUT", "--format", "llada"], "name is dit, and LLaDA is a transformer"),
    ],
)
def test_wrong_words_are_one_error(
    saved, corpus: Path, tmp_path: Path, capsys, words: list[str], message: str
) -> None:
    places = {"CKPT": str(saved()[0]), "OUT": str(tmp_path / "out"), "CORPUS": str(corpus)}
    assert main([places.get(word, word) for word in words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["to-hf", "--shard-mib", "0"], "argument --shard-mib: 0 is not at least 1"),
        (["from-hf", "--length", "0"], "argument --length: 0 is not at least 3"),
        (["from-hf", "--mask-id", "-1"], "argument --mask-id: -1 is not at least 0"),
        (["to-hf", "--tokenizer", "x", "--no-tokenizer"], "not allowed with argument --tokenizer"),
        (
            ["to-hf", "--layout", "mdlm"],
            "argument --layout: it is called --format now: --format mdlm",
        ),
        (
            ["from-hf", "--layout=mdlm"],
            "argument --layout: it is called --format now: --format mdlm",
        ),
    ],
)
def test_options_have_bounds(tmp_path: Path, capsys, words: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([words[0], "somewhere", str(tmp_path / "out"), *words[1:]])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
