"""The counters of a run: what a checkpoint keeps of them, and what an older one lacks."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

from configs.errors import UserError
from pretrain.checkpoint import contents
from pretrain.train_state import ADDED_LATER, TrainState

STATE = TrainState(
    step=7,
    tokens_seen=3000,
    optimizer_step=6,
    skipped_in_a_row=1,
    elapsed_s=2.5,
    score=4.25,
    owes_validation=True,
    metric_rows=8,
)


def test_every_field_survives_a_checkpoint() -> None:
    saved = json.loads(json.dumps(STATE.state_dict()))
    loaded = TrainState()
    loaded.load_state_dict({**saved, "code": {}, "config": {}})
    assert loaded == STATE
    defaults = TrainState()
    assert all(getattr(STATE, one.name) != getattr(defaults, one.name) for one in fields(STATE))


def test_every_field_is_a_key_of_state_json_with_its_type(tmp_path: Path) -> None:
    assert set(STATE.state_dict()) <= set(contents.StateShape.__annotations__)
    contents.state(STATE.state_dict(), tmp_path)
    with pytest.raises(UserError, match="owes_validation"):
        contents.state({**STATE.state_dict(), "owes_validation": 3}, tmp_path)


def test_fields_that_older_checkpoints_lack_keep_their_defaults(tmp_path: Path) -> None:
    plain = STATE.state_dict()
    for name in ADDED_LATER:
        del plain[name]
    loaded = TrainState()
    loaded.load_state_dict(plain)
    assert (loaded.step, loaded.score, loaded.owes_validation) == (7, None, False)
    del plain["tokens_seen"]
    with pytest.raises(UserError, match="holds no tokens_seen"):
        TrainState().load_state_dict(contents.state(plain, tmp_path))


def test_a_new_step_is_not_validated_yet() -> None:
    state = TrainState(step=7, score=4.25)
    state.begin_step()
    assert (state.step, state.score) == (8, None)
