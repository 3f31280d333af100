"""Runs that begin with the weights of another: which they take, and which are refused."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from small_runs import GENIE, reseal

from model.architectures.encoder_decoder import EncoderDecoder
from pretrain.__main__ import main
from pretrain.checkpoint import store
from pretrain.checkpoint.reader import Reader
from pretrain.launch.pool import RankError
from tools.convert import write
from tools.convert.tensors import Tensors

MODEL = EncoderDecoder(
    vocab_size=1024,
    width=64,
    num_heads=4,
    num_encoder_layers=2,
    encoder="bert",
    max_positions=64,
)


def pieces_of(run: Path, kind: str, step: int) -> dict[str, torch.Tensor]:
    return dict(Reader(store.path_of(run / "checkpoints", step)).whole(kind))


def test_a_fork_begins_with_the_weights_of_another_run(train, tmp_path: Path) -> None:
    train("eval.every=0", run="old")
    old = tmp_path / "old"
    words = (f"fork_from={old}", "seed=9", "optim.lr=0", "ema.decay=0.5", "eval.every=0")
    train(*words, "steps=1", "parallel.tensor=2", run="new")
    averaged = pieces_of(old, "ema", 20)
    for name, value in pieces_of(tmp_path / "new", "master", 1).items():
        assert torch.equal(value, averaged[name])
    assert all((m != 0).any() for m in pieces_of(tmp_path / "new", "exp_avg", 1).values())

    train(*words, "fork_weights=raw", "fork_optimizer=kept", "steps=1", run="kept")
    raw, moments = pieces_of(old, "master", 20), pieces_of(old, "exp_avg_sq", 20)
    beta = 0.99
    for name, value in pieces_of(tmp_path / "kept", "master", 1).items():
        assert torch.equal(value, raw[name])
        grown = pieces_of(tmp_path / "kept", "exp_avg_sq", 1)[name]
        assert (grown >= beta * moments[name] * 0.999).all()
    state = Reader(store.path_of(tmp_path / "kept" / "checkpoints", 1)).state
    assert (state["step"], state["optimizer_step"]) == (1, 21)


BERT = (
    "model.name=transformer model.norm_first=false model.norm_bias=true model.norm_eps=1e-12 "
    "model.qkv_bias=true model.attention_bias=true model.gelu=erf model.num_positions=64"
)


def test_weights_of_another_tokenizer_are_taken_only_where_that_is_meant(
    train, tiny, tmp_path: Path, capsys
) -> None:
    train("eval.every=0", "stop_after=1", run="old")
    old = store.path_of(tmp_path / "old" / "checkpoints", 1)
    fork = ("eval.every=0", "steps=1", f"fork_from={old}")
    train(*fork, run="same")
    reseal(old, tokenizer_sha256="0" * 64)
    assert main(tiny(*fork, run="new")) == 2
    error = capsys.readouterr().err
    assert "is not the one that the weights were trained with" in error
    assert "fork_tokenizer=other" in error
    assert not (tmp_path / "new").exists()
    train(*fork, "fork_tokenizer=other", run="other")
    with pytest.raises(RankError, match="is not the one that the weights were trained with"):
        train("eval.every=0", "stop_after=2", run="old")
    reseal(old, tokenizer_sha256=None)  # of a conversion that was not told
    train(*fork, run="unknown")
    shutil.rmtree(tmp_path / "old")
    assert main(tiny(*fork, run="same")) == 0  # it has begun, and needs them no more
    assert main(tiny(*fork, run="new")) == 2
    assert "neither a checkpoint nor a run with one" in capsys.readouterr().err


def test_weights_that_are_not_finite_are_no_beginning(train, tmp_path: Path) -> None:
    train("eval.every=0", "stop_after=1", run="old")
    old = store.path_of(tmp_path / "old" / "checkpoints", 1)
    reader = Reader(old)
    values = dict(reader.whole("master"))
    values["layers.1.mlp.up.weight"][3, 2] = torch.nan
    tensors = Tensors(reader.shapes(), values.__getitem__, "test")
    write.write_checkpoint(tmp_path / "bad", tensors, reader.state, 2**30)
    with pytest.raises(RankError, match=r"is not finite \(master of layers\.1\.mlp\.up\.weight"):
        train("eval.every=0", "steps=1", f"fork_from={tmp_path / 'bad'}", run="new")


@pytest.mark.parametrize("layout", ["", "parallel.pipeline=2", "parallel.tensor=2"])
def test_an_encoder_begins_with_the_first_blocks_of_a_denoiser(
    train, tmp_path: Path, layout: str
) -> None:
    train(*BERT.split(), "model.num_layers=3", "eval.every=0", "stop_after=2", run="old")
    words = (
        *GENIE.split(), "model.encoder=bert", "model.num_encoder_layers=2",
        "model.max_positions=64", f"fork_from={tmp_path / 'old'}", "fork_part=encoder",
        "optim.lr=0", "eval.every=0", "steps=1", *layout.split(),
    )  # fmt: skip
    train(*words, run="new")
    averaged = pieces_of(tmp_path / "old", "ema", 2)
    found = pieces_of(tmp_path / "new", "master", 1)
    taken = {name: source for name in found if (source := MODEL.name_in_encoder(name))}
    assert len(taken) == 4 + 2 * 16
    for name, source in taken.items():
        assert torch.equal(found[name], averaged[source]), name


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (
            ("model.width=32",),
            ["layers.0.tokens.weight has shape [1152, 64], not [1152, 32]", "layers.1.mlp.up.bias"],
        ),
        (("model.num_layers=3",), ["layers.3.attention.q.weight is missing"]),
    ],
)
def test_a_fork_that_does_not_fit_names_every_parameter(
    train, tiny, tmp_path: Path, capsys, words: Sequence[str], messages: list[str]
) -> None:
    train("eval.every=0", "stop_after=1", run="old")
    assert main(tiny(f"fork_from={tmp_path / 'old'}", *words, run="new")) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    for message in messages:
        assert message in error
    assert not (tmp_path / "new").exists()
    assert main(tiny(f"fork_from={tmp_path / 'nowhere'}", run="new")) == 2
    assert "neither a checkpoint nor a run with one" in capsys.readouterr().err
