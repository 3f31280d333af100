"""A configuration of a former version means what it meant, and no run changes in silence."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.errors import UserError
from configs.load import load, to_plain, to_yaml
from model.architectures.dit import DiT
from model.architectures.encoder_decoder import EncoderDecoder
from model.architectures.transformer import Transformer
from model.networks.config import ModelConfig
from pretrain.config import RunConfig, differences
from pretrain.run.directory import RunDirectory
from pretrain.run.stored_config import read_file, stored_config, stored_model
from pretrain.trial import run_config


def of_old(packing: str, **objective: Any) -> tuple[RunConfig, dict[str, Any]]:
    """A configuration of today, and how a version wrote it that knew no ``padding``."""
    config = run_config("mdlm", data={"packing": packing}, objective=objective)
    plain = to_plain(config)
    del plain["objective"]["padding"]
    return config, plain


def test_padding_was_visible() -> None:
    _, plain = of_old("pad")
    before = {**plain, "objective": dict(plain["objective"])}
    config = stored_config(plain, "a checkpoint")
    assert config.objective.padding == "visible"
    assert plain == before
    for written in ("masked", "generated"):
        plain["objective"]["padding"] = written
        assert stored_config(plain, "a checkpoint").objective.padding == written
    plain["objective"] = "mdlm"
    assert stored_config(plain, "a checkpoint").objective.padding == "visible"


def test_a_run_without_padding_is_the_run_that_it_was() -> None:
    config, plain = of_old("wrap")
    assert differences(stored_config(plain, "a checkpoint"), config) == []


def test_a_padded_run_is_told_and_may_go_on_as_it_was(tmp_path: Path) -> None:
    config, plain = of_old("pad")
    directory = RunDirectory(tmp_path / "run")
    directory.begin(config)
    directory.config.write_text(yaml.safe_dump(plain))
    with pytest.raises(UserError, match=r"objective\.padding: was visible, is masked"):
        directory.check(config)
    directory.check(run_config("mdlm", data={"packing": "pad"}, objective={"padding": "visible"}))
    directory.config.write_text(to_yaml(config))
    directory.check(config)


def test_what_is_damaged_is_still_an_error_of_its_own() -> None:
    for odd in ({"objective": 3, "data": 4}, {}, {"objective": {"name": "mdlm"}}):
        with pytest.raises(UserError, match="in a checkpoint"):
            stored_config(odd, "a checkpoint")


# -- before architectures had names -----------------------------------------------------------

FLAT: dict[str, Any] = {
    "vocab_size": 90, "mask_id": None, "width": 32, "num_layers": 4, "num_heads": 4, "mlp": "gelu",
    "mlp_width": None, "norm": "layernorm", "conditioning_width": 16, "time_conditioning": False,
    "tied_head": False, "embedding_std": None, "hide_padding": False, "rotary_base": 10000.0,
    "dropout": 0.0, "seq2seq": None, "time_input": "level", "block": "adaln", "num_kv_heads": None,
    "head_size": None, "qkv_bias": False, "attention_bias": False, "qk_norm": False,
    "norm_eps": 1e-05, "norm_bias": False, "gelu": "tanh", "num_positions": None,
    "head_bias": None, "attention": "full", "causal_annealing_steps": 0, "shifted_output": False,
    "frozen": [],
}  # fmt: skip
"""The block as every run wrote it, with one dataclass for all networks."""
SEQ2SEQ = {
    "num_encoder_layers": 2, "encoder": "bert", "embedding_width": 12, "projection": "tanh",
    "output": "vector", "time": "additive", "positions": "learned", "max_positions": 20,
    "ignore_source_padding": True, "self_conditioning": False,
}  # fmt: skip
SIZES: dict[str, Any] = {"vocab_size": 90, "width": 32, "num_layers": 4, "num_heads": 4}
FORMER: dict[str, tuple[dict[str, Any], ModelConfig]] = {
    "adaln": (
        {"time_conditioning": True, "time_input": "noise", "num_kv_heads": 2},
        DiT(
            **SIZES, conditioning_width=16, time_conditioning=True, time_input="noise",
            num_kv_heads=2,
        ),
    ),
    "pre_norm": (
        {"block": "pre_norm", "mlp": "swiglu", "norm": "rmsnorm", "tied_head": True},
        Transformer(**SIZES, mlp="swiglu", norm="rmsnorm", tied_head=True),
    ),
    "post_norm": (
        {"block": "post_norm", "norm_bias": True, "num_positions": 64, "frozen": ["layers.0.*"]},
        Transformer(
            **SIZES, norm_first=False, norm_bias=True, num_positions=64, frozen=("layers.0.*",)
        ),
    ),
    "seq2seq": (
        {"seq2seq": SEQ2SEQ, "mlp": "geglu", "time_conditioning": True, "hide_padding": True},
        EncoderDecoder(
            **SIZES, conditioning_width=16, mlp="geglu", num_encoder_layers=2, encoder="bert",
            embedding_width=12, projection="tanh", time="additive", positions="learned",
            max_positions=20, ignore_source_padding=True,
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FORMER)
def test_an_architecture_without_a_name_is_the_one_that_it_was(kind: str) -> None:
    changes, expected = FORMER[kind]
    block = {**FLAT, **changes}
    before = dict(block)
    assert stored_model(block, "a checkpoint") == expected
    assert block == before
    objective = "genie" if kind == "seq2seq" else "mdlm"
    plain = to_plain(run_config(objective)) | {"model": block}
    assert stored_config(plain, "a checkpoint").model == expected


def test_a_tied_head_told_how_an_encoder_decoder_began() -> None:
    model = stored_model({**FLAT, "seq2seq": SEQ2SEQ, "tied_head": True}, "a checkpoint")
    assert model.initial_embedding_std == 32**-0.5
    given = {"tied_head": True, "embedding_std": 0.5}
    model = stored_model({**FLAT, "seq2seq": SEQ2SEQ, **given}, "a checkpoint")
    assert model.initial_embedding_std == 0.5


def test_an_unknown_key_of_a_former_architecture_is_still_refused() -> None:
    with pytest.raises(UserError, match=r"model\.widht: unknown key; did you mean"):
        stored_model({**FLAT, "widht": 3}, "a checkpoint")


def test_a_run_of_a_former_version_goes_on_with_its_own_file(tmp_path: Path) -> None:
    config = run_config("mdlm", model={"time_conditioning": False})
    directory = RunDirectory(tmp_path / "run")
    directory.begin(config)
    written = to_plain(config) | {"model": FLAT}
    directory.config.write_text(yaml.safe_dump(written, sort_keys=False))
    assert load(RunConfig, [directory.config], [], read_file) == config
    directory.check(config)
    with pytest.raises(UserError, match=r"model\.block: now the architecture"):
        load(RunConfig, [directory.config])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("model.seq2seq.num_encoder_layers=2", r"model\.seq2seq: .* model\.name=encoder_decoder"),
        ("model.block=pre_norm", r"model\.block: .* model\.name=transformer for pre_norm"),
        ("model.norm_bias=true", r"model\.norm_bias: unknown key; it is one of name transformer"),
    ],
)
def test_keys_of_another_form_are_refused_with_the_new_one(
    root: Path, word: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load(RunConfig, [root / "configs" / "tiny.yaml"], [word], read_file)


def test_a_preset_becomes_another_architecture_by_its_name(root: Path) -> None:
    """What only the former one has is dropped, unless it is given with the name or after it."""
    tiny = [root / "configs" / "tiny.yaml"]
    model = load(RunConfig, tiny, ["model.name=transformer", "model.norm_bias=true"]).model
    assert model == Transformer(
        vocab_size=1024, width=64, num_layers=2, num_heads=4, norm_bias=True
    )
    with pytest.raises(UserError, match=r"model\.time_input: unknown key; it is one of name dit"):
        load(RunConfig, tiny, ["model.name=transformer", "model.time_input=noise"])
    with pytest.raises(UserError, match=r"model\.widht: unknown key; did you mean 'width'"):
        load(RunConfig, tiny, ["model.widht=3", "model.name=transformer"])
