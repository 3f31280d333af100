"""Pickled files: tensors only, nothing of a program is imported or run."""

import pathlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from configs.errors import UserError
from tools.convert import pickled
from tools.convert.__main__ import main
from tools.convert.tensors import of_path

TRAP: list[str] = []
STATE = {"a.weight": torch.arange(6.0).view(2, 3), "inv_freq": torch.ones(2)}


def spring(text: str) -> str:
    TRAP.append(text)
    return text


class Trap:
    """Runs :func:`spring` where it is unpickled."""

    def __reduce__(self):
        return spring, ("sprung",)


class Settings:
    """What a training framework leaves in its checkpoints."""

    def __init__(self, **values: object) -> None:
        self.values = values


class Odd(dict):
    """A subclass of dict."""


class Row(list):
    """A subclass of list, for which nothing can stand in."""


def framework_file(path: Path) -> None:
    torch.save(
        {
            "state_dict": STATE,
            "ema": {"decay": 0.9, "shadow_params": [2 * STATE["a.weight"]]},
            "hyper_parameters": Settings(width=3, nested=Settings(path=pathlib.PurePosixPath("x"))),
            "trap": Trap(),
            "odd": Odd(x=1, y=Odd(z=Settings(a=2))),
            "shared": STATE["a.weight"],
        },
        path,
    )


def test_a_file_that_holds_more_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    framework_file(tmp_path / "last.ckpt")
    with pytest.raises(UserError) as caught:
        of_path(tmp_path / "last.ckpt")
    message = str(caught.value)
    assert "holds more than tensors and plain data" in message
    for name in ("Settings", "pathlib.PurePosixPath", "spring"):
        assert name in message
    assert "python -m tools.convert strip" in message
    assert TRAP == []


@pytest.mark.parametrize("weights", ["raw", "ema"])
def test_strip_takes_the_weights_out_and_runs_nothing(tmp_path: Path, capsys, weights: str) -> None:
    framework_file(tmp_path / "last.ckpt")
    out = tmp_path / "out.safetensors"
    assert main(["strip", str(tmp_path / "last.ckpt"), str(out), "--weights", weights]) == 0
    assert "left behind: pathlib.PurePosixPath" in capsys.readouterr().out
    found = load_file(out)
    factor = 2 if weights == "ema" else 1
    assert torch.equal(found["a.weight"], factor * STATE["a.weight"])
    assert ("inv_freq" in found) == (weights == "raw")
    assert TRAP == []
    assert of_path(out).shapes["a.weight"] == (2, 3)


def test_plain_files_need_no_stand_in(tmp_path: Path, capsys) -> None:
    torch.save({"state_dict": STATE, "epoch": 3}, tmp_path / "plain.ckpt")
    assert pickled.foreign_names(tmp_path / "plain.ckpt") == []
    assert main(["strip", str(tmp_path / "plain.ckpt"), str(tmp_path / "o.safetensors")]) == 0
    assert "left behind: nothing but plain data" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["strip", "FILE", "out.bin"], "call it"),
        (["strip", "TEXT", "out.safetensors"], "cannot be read as tensors"),
        (["strip", "ODD", "out.safetensors"], "half-written: it is built of other objects"),
        (["strip", "NONE", "out.safetensors"], "holds no weights"),
        (["strip", "nowhere", "out.safetensors"], "neither a checkpoint nor a run"),
    ],
)
def test_wrong_words_are_one_error(tmp_path: Path, capsys, words: list[str], message: str) -> None:
    framework_file(tmp_path / "FILE")
    (tmp_path / "TEXT").write_text("not weights")
    torch.save({"state_dict": STATE, "row": Row([1])}, tmp_path / "ODD")
    torch.save({"state_dict": {"config": Odd(x=1)}}, tmp_path / "NONE")
    assert main([words[0], *(str(tmp_path / word) for word in words[1:])]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
