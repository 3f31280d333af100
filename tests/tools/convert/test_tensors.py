"""Reading weights: every form, and one line for whatever is not whole or not weights."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from configs.errors import UserError
from tools.convert.tensors import of_path

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}


def sharded(folder: Path, suffix: str) -> Path:
    folder.mkdir()
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    where = {}
    for number, (name, value) in enumerate(STATE.items()):
        file = f"{stem}-{number}.{suffix}"
        if suffix == "safetensors":
            save_file({name: value}, folder / file)
        else:
            torch.save({name: value}, folder / file)
        where[name] = file
    index = {"metadata": {}, "weight_map": where}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize(
    ("form", "whole"),
    [
        ("model.safetensors", True),
        ("model.safetensors", False),
        ("pytorch_model.bin", True),
        ("pytorch_model.bin", False),
        ("weights.pt", True),
    ],
)
def test_files_and_directories_hold_the_same(tmp_path: Path, form: str, whole: bool) -> None:
    file = tmp_path / form
    save_file(STATE, file) if form.endswith("safetensors") else torch.save(STATE, file)
    found = of_path(file if whole else tmp_path)
    assert found.shapes == {"a.weight": (2, 3), "b": (4,)}
    for name, value in found:
        assert value.dtype == torch.float32
        assert torch.equal(value, STATE[name].float())


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards_are_one_collection(tmp_path: Path, suffix: str) -> None:
    found = of_path(sharded(tmp_path / "hf", suffix))
    assert {name: value.tolist() for name, value in found} == {
        name: value.float().tolist() for name, value in STATE.items()
    }


def test_a_file_of_the_old_form_is_read(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    assert torch.equal(of_path(tmp_path / "old.bin").read("a.weight"), STATE["a.weight"])


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_missing_shard_is_named(tmp_path: Path, suffix: str) -> None:
    folder = sharded(tmp_path / "hf", suffix)
    victim = next(path for path in folder.iterdir() if path.name.endswith(f"-1.{suffix}"))
    victim.unlink()
    with pytest.raises(UserError, match=f"is not whole: missing {victim.name}"):
        of_path(folder)


def test_a_tensor_that_the_index_promises_is_named(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "hf", "safetensors")
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    index["weight_map"]["c"] = "model-0.safetensors"
    file.write_text(json.dumps(index))
    with pytest.raises(UserError, match="is not whole: no tensor c"):
        of_path(folder)


@pytest.mark.parametrize("suffix", ["safetensors", "bin", "ckpt"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_half_written_files_are_one_line(tmp_path: Path, suffix: str, share: float) -> None:
    file = tmp_path / f"weights.{suffix}"
    big = {"a": torch.randn(200, 200)}
    save_file(big, file) if suffix == "safetensors" else torch.save(big, file)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"cannot be read.* half-written") as caught:
        of_path(file)
    assert "\n" not in str(caught.value)


def test_what_holds_no_weights_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or directory"):
        of_path(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no weights: neither"):
        of_path(tmp_path)
    torch.save({"epoch": 3}, tmp_path / "none.bin")
    with pytest.raises(UserError, match="holds no weights: expected a dictionary"):
        of_path(tmp_path / "none.bin")
