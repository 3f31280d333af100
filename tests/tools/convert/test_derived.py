"""Averages, stripped checkpoints and plain files."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from configs.errors import UserError
from model.networks.build import build
from pretrain.__main__ import main as pretrain
from pretrain.checkpoint import manifest, store
from pretrain.checkpoint.reader import Reader
from pretrain.run.stored_config import stored_model
from tools.convert.__main__ import main as convert
from tools.convert.average import average
from tools.convert.strip import strip_checkpoint
from tools.inspect import main as inspect


def weights(path: Path, kind: str = "master") -> dict[str, torch.Tensor]:
    return dict(Reader(path).whole(kind))


def test_the_average_is_the_mean(saved, tmp_path: Path, capsys) -> None:
    paths = [saved(f"c{seed}", seed=seed)[0] for seed in (1, 2, 3)]
    words = [*map(str, paths), "--out", str(tmp_path / "even"), "--shard-mib", "1"]
    assert convert(["average", *words]) == 0
    words = ["--out", str(tmp_path / "uneven"), "--shares", "1", "3", "0"]
    assert convert(["average", *map(str, paths), *words]) == 0
    assert "logits agree to" in capsys.readouterr().out
    held = [weights(path) for path in paths]
    even, uneven = weights(tmp_path / "even"), weights(tmp_path / "uneven")
    for name, value in even.items():
        torch.testing.assert_close(value, torch.stack([h[name] for h in held]).mean(0))
        torch.testing.assert_close(uneven[name], 0.25 * held[0][name] + 0.75 * held[1][name])
    assert json.loads((tmp_path / "even" / "parity.json").read_text())["equal"]


def test_averaging_what_cannot_be_averaged(saved, tmp_path: Path) -> None:
    one, other = saved("one")[0], saved("other", width=16, num_heads=2)[0]
    with pytest.raises(UserError, match="two checkpoints or more"):
        average([one], tmp_path / "out")
    with pytest.raises(UserError, match="differ in model:\n  width: 32 and 16\n  num_heads: 4"):
        average([one, other], tmp_path / "out")
    with pytest.raises(UserError, match="--shares needs one number"):
        average([one, one], tmp_path / "out", shares=[1.0])


def test_averaging_weights_of_different_tokenizers(saved, tmp_path: Path) -> None:
    one, other = saved("one")[0], saved("other")[0]
    for path, digest in ((one, "0" * 64), (other, "1" * 64)):
        file = path / "state.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"tokenizer_sha256": digest}))
        files = dict(manifest.read(path)["files"])
        files[file.name] = {"bytes": file.stat().st_size, "sha256": store.sha256(file)}
        (path / store.MANIFEST).write_text(manifest.text_of(files))
    with pytest.raises(UserError, match="were trained with different tokenizers"):
        average([one, other], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def trained(train, tmp_path: Path) -> Path:
    """A checkpoint of two ranks, in a layout of its own."""
    train("parallel.tensor=2", "stop_after=2", "checkpoint.every=2", run="run")
    return tmp_path / "run" / "checkpoints" / "step-00000002"


def test_strip_keeps_the_weights_of_any_layout(trained: Path, tmp_path: Path, capsys) -> None:
    before = sum(file.stat().st_size for file in trained.iterdir())
    for which, kind in (("ema", "ema"), ("raw", "master")):
        out = tmp_path / which
        assert convert(["strip", str(trained), str(out), "--weights", which]) == 0
        assert Reader(out).kinds() == ["master"]
        for name, value in weights(out).items():
            assert torch.equal(value, weights(trained, kind)[name])
        assert sum(file.stat().st_size for file in out.iterdir()) < before / 3
    assert inspect([str(tmp_path / "ema"), "--verify"]) == 0
    assert "every byte is as it was written" in capsys.readouterr().out


def test_a_run_begins_from_stripped_weights(trained: Path, tmp_path: Path, tiny) -> None:
    strip_checkpoint(trained, tmp_path / "weights")
    words = tiny(f"fork_from={tmp_path / 'weights'}", "stop_after=1", "optim.lr=0", run="fork")
    assert pretrain(words) == 0
    after = weights(tmp_path / "fork" / "checkpoints" / "step-00000001")
    assert all(torch.equal(value, after[name]) for name, value in weights(trained, "ema").items())


def test_a_plain_file_holds_everything(saved, tmp_path: Path, capsys) -> None:
    checkpoint, denoiser = saved(tied_head=True)
    out = tmp_path / "plain.safetensors"
    assert convert(["to-safetensors", str(checkpoint), str(out)]) == 0
    assert "logits agree to 0" in capsys.readouterr().out
    with safe_open(out, framework="pt") as opened:
        facts = opened.metadata()
        found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    model = stored_model(json.loads(facts["model"]), where="the metadata")
    assert model == denoiser.config
    again = build(model)
    for parameter, name in again.parameter_names().items():
        assert torch.equal(dict(weights(checkpoint))[name], found.pop(name))
        assert parameter.shape
    assert not found
    assert json.loads((tmp_path / "plain.parity.json").read_text())["equal"]
    assert convert(["to-safetensors", str(checkpoint), str(tmp_path / "plain")]) == 2
    assert convert(["to-safetensors", str(checkpoint), str(out)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_a_broken_checkpoint_is_one_error(saved, tmp_path: Path, capsys) -> None:
    checkpoint, _ = saved()
    (checkpoint / "rank-00001.safetensors").unlink()
    for words in (["strip", "CKPT", "OUT"], ["to-hf", "CKPT", "OUT"]):
        places = {"CKPT": str(checkpoint), "OUT": str(tmp_path / "out")}
        assert convert([places.get(word, word) for word in words]) == 2
        error = capsys.readouterr().err
        assert "rank-00001.safetensors is missing" in error
        assert error.count("\n") == 1
