"""Every problem is said at once, with its key; what was meant is said where it can be guessed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from configs import hints
from configs.build import all_keys
from configs.checks import UNKNOWN, Checked, UnknownError, at_least, checks
from configs.errors import UserError
from configs.load import load, validate
from pretrain.config import RunConfig
from slurm.settings import Settings

TINY = Path(__file__).resolve().parents[2] / "configs" / "tiny.yaml"
GENIE = TINY.parent / "genie" / "demo.yaml"


def problems(*words: str, file: Path = TINY) -> list[str]:
    with pytest.raises(UserError) as caught:
        load(RunConfig, [file], words)
    first, *lines = str(caught.value).splitlines()
    assert first.startswith(f"{len(lines)} problem")
    return sorted(line.removeprefix("  ") for line in lines)


def test_values_of_every_block_are_said_at_once() -> None:
    assert problems("steps=-5", "optim.lr=-1", "global_batch=0") == [
        "global_batch must be at least 1, not 0",
        "optim.lr must be at least 0, not -1.0",
        "steps must be at least 1, not -5",
    ]


def test_several_values_of_one_block_are_said_at_once() -> None:
    words = ["optim.lr=-1", "optim.clip=-2", "optim.betas=[2, 0]", "optim.schedule.warmup=-1"]
    assert problems(*words, "optim.schedule.decay_share=0") == [
        "optim.betas must lie in [0, 1), not [2.0, 0.0]",
        "optim.clip must be at least 0, not -2.0",
        "optim.lr must be at least 0, not -1.0",
        "optim.schedule.decay_share must lie in (0, 1], not 0.0",
        "optim.schedule.warmup must be at least 0, not -1",
    ]


def test_types_values_keys_and_misfits_are_said_together() -> None:
    words = ["steps=x", "optim.lr=-1", "data.sequence_length=2", "model.num_heads=5", "hello=1"]
    found = problems(*words, "parallel={pipeline: 2, zero_stage: 2}")
    assert [line.split()[0].rstrip(":") for line in found] == [
        "data.sequence_length", "hello", "model.width", "optim.lr", "parallel.zero_stage", "steps",
    ]  # fmt: skip


def test_misfits_between_blocks_are_said_beside_wrong_values() -> None:
    words = ["steps=0", "optim.lr=-1", "parallel.tensor=3", "parallel.data=3", "objective=genie"]
    found = problems(*words, "data.packing=pairs", "data.source_length=8")
    assert any("model.num_heads (4) does not divide by parallel.tensor 3" in line for line in found)
    assert any("does not divide by the data-parallel size 3" in line for line in found)
    assert any(line.startswith("objective: it needs an encoder-decoder") for line in found)
    assert len(found) >= 6


def test_a_wrong_value_makes_no_further_problems() -> None:
    assert problems("model.num_heads=0", "parallel.tensor=3", "model.num_kv_heads=2")[0] == (
        "model.num_heads must be at least 1, not 0"
    )
    assert problems("model.width=x") == ["model.width: input should be a valid integer, not 'x'"]
    assert problems("data=3") == [
        "data: expected a block of settings, not 3; its keys are: corpus, demo_dir, "
        "sequence_length, packing, document_mask, reverse_complement, source_length, paragraphs, "
        "train_split, valid_split",
    ]
    assert problems("global_batch=0", "parallel.data=2") == [
        "global_batch must be at least 1, not 0"
    ]


def test_a_plugins_values_are_said_with_the_rest() -> None:
    words = ["objective.t_min=2", "objective.schedule.eps=1", "steps=0"]
    assert (
        problems(*words)
        == [
            "objective.schedule.eps must lie in [0, 1), not 1.0",
            "steps must be at least 1, not 0",
        ]
        or len(problems(*words)) == 3
    )


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("lr=1e-3", "lr: unknown key; did you mean 'optim.lr'?"),
        ("warmup=10", "warmup: unknown key; did you mean 'optim.schedule.warmup'?"),
        ("optim.warmup=10", "optim.warmup: unknown key; did you mean 'optim.schedule.warmup'?"),
        ("model.sequence_length=8", "did you mean 'data.sequence_length'?"),
        ("data.steps=8", "data.steps: unknown key; did you mean 'steps'?"),
        ("t_min=0.1", "t_min: unknown key; did you mean 'objective.t_min'?"),
        ("every=5", "did you mean 'checkpoint.every', 'eval.every' or 'log.every'?"),
        ("sed=1", "sed: unknown key; did you mean 'seed'?"),
        ("seqence_length=8", "did you mean 'data.sequence_length'?"),
        ("optim.LR=1", "optim.LR: unknown key; did you mean 'optim.lr'?"),
        ("batch_size=8", "batch_size: unknown key; did you mean 'global_batch'?"),
        ("learning_rate=1", "learning_rate: unknown key; did you mean 'optim.lr'?"),
        ("model.hidden_size=8", "model.hidden_size: unknown key; did you mean 'model.width'?"),
    ],
)
def test_a_key_in_the_wrong_place_is_found_where_it_belongs(word: str, meant: str) -> None:
    (line,) = problems(word)
    assert meant in line


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("steps=1e3", "not 1000.0; write 1000"),
        ("checkpoint.asynchronous=yes", "not 'yes'; write true"),
        ("compile=off", "not 'off'; write false"),
        ("steps=1:30", "steps: input should be a valid integer, not '1:30'"),
        ("steps=1,000", "not '1,000'; write 1000"),
        ("precision=FP32", "'bf16', 'fp16' or 'fp32', not 'FP32'; write fp32"),
        ("optim.betas=0.9,0.99", "not '0.9,0.99'; write [0.9,0.99]"),
        ("optim.betas=(0.9, 0.99)", "not '(0.9, 0.99)'; write [0.9, 0.99]"),
        ("optim.betas=[0.9]", "optim.betas: needs more values, not [0.9]"),
        ("optim.betas=[0.9, 0.9, 0.9]", "optim.betas: needs 2 values, not [0.9, 0.9, 0.9]"),
        ("optim.schedule=cosine", "not 'cosine'; did you mean optim.schedule.name=cosine?"),
        (
            "wandb=online",
            "wandb: expected a block of settings, not 'online'; did you mean wandb.mo",
        ),
        ("optim.betas.0=0.9", "optim.betas: input should be a valid"),
        ("optim.lr.x=1", "optim.lr: input should be a valid number, not {'x': 1}"),
        ("optim.betas=[.nan, 0.9]", "optim.betas.0: must be finite"),
        ("optim.lr=.nan", "optim.lr: must be finite"),
        ("watchdog_s=.inf", "watchdog_s: must be finite"),
        ("optim.lr=1e999", "optim.lr: must be finite"),
        ("ema.decay=-.inf", "ema.decay: must be finite"),
        ("steps=9223372036854775808", "steps: must fit into 64 bits"),
        ("seed=-9223372036854775809", "seed: must fit into 64 bits"),
        ("steps=9223372036854775807", "more than 64 bits can count"),
        ("model.num_layers=1000000000000000000", "model.num_layers must be at most 10,000"),
        ("model.width=4611686018427387904", "model.width must be at most"),
        ("model.vocab_size=9223372036854775807", "model.vocab_size must be at most"),
        ("model.mlp_width=0", "model.mlp_width must be at least 1"),
        ("model.rotary_base=0", "model.rotary_base must be above 0"),
        ("model.embedding_std=-1", "model.embedding_std must be at least 0"),
        ("global_batch=1000000000000000000", "global_batch must be at most"),
        ("data.sequence_length=1000000000000000000", "data.sequence_length must be at most"),
        ("parallel.data=1000000000000000000", "parallel.data must be at most"),
        ("profile_step=0", "profile_step must be at least 1"),
    ],
)
def test_a_value_is_refused_with_its_key(word: str, message: str) -> None:
    assert any(message in line for line in problems(word)), problems(word)


def test_no_table_is_larger_than_any_machine() -> None:
    """One of losses is made for each of these steps when a run begins."""
    assert problems("objective.num_steps=99999999999", file=GENIE) == [
        "objective.num_steps must be at most 100,000, not 99999999999"
    ]


def test_what_others_call_a_key_is_a_key_of_ours() -> None:
    known = set(all_keys(RunConfig, {}))
    assert set(hints._ELSEWHERE.values()) <= known
    assert not set(hints._ELSEWHERE) & {key.rpartition(".")[2] for key in known}


def test_settings_of_a_cluster_are_said_at_once() -> None:
    data = {"nodes": 0, "min_nodes": 3, "ranks_per_node": 2, "time": "soon", "heartbeat_s": -1.0}
    with pytest.raises(UserError) as caught:
        validate(Settings, data, "gpu.yaml")
    text = str(caught.value)
    assert text.startswith("3 problems in gpu.yaml:")
    assert "\n  nodes must be at least 1, not 0" in text
    assert "\n  heartbeat_s must be above 0" in text
    assert "\n  time: 'soon' is no duration" in text


@dataclass(frozen=True, kw_only=True)
class Sizes(Checked):
    width: int = 4
    parts: int = 2
    limit: int | None = None

    def _check_values(self) -> Iterator[str]:
        yield from at_least(self, 1, "width", "parts", "limit")

    def _check_division(self) -> Iterator[str]:
        if self.width % self.parts:
            yield f"parts {self.parts} do not divide width {self.width}"


def test_constructing_stops_at_the_first_check_that_finds_something() -> None:
    with pytest.raises(ValueError, match=r"^parts must be at least 1, not 0\nlimit must be"):
        Sizes(parts=0, limit=0)
    with pytest.raises(ValueError, match=r"^parts 3 do not divide width 4$"):
        Sizes(parts=3)
    assert [check.__name__ for check in checks(Sizes())] == ["_check_values", "_check_division"]


def test_nothing_can_be_done_with_an_unknown_value() -> None:
    uses = (
        lambda: UNKNOWN < 1, lambda: UNKNOWN >= 1, lambda: UNKNOWN == 1, lambda: not UNKNOWN,
        lambda: 5 % UNKNOWN, lambda: UNKNOWN + 1, lambda: UNKNOWN.width, lambda: f"{UNKNOWN}",
        lambda: list(UNKNOWN), lambda: UNKNOWN[0], lambda: UNKNOWN in (1, 2), lambda: int(UNKNOWN),
    )  # fmt: skip
    for use in uses:
        with pytest.raises(UnknownError):
            use()
