"""Steps with a gradient that is not finite: skipped, counted, and in the end an error."""

import pytest

from pretrain.nonfinite import NonFiniteError, NonFiniteGuard
from pretrain.train_state import TrainState


def guard_at(step: int) -> tuple[TrainState, NonFiniteGuard]:
    state = TrainState(step=step)
    return state, NonFiniteGuard(state, 3, 8)


def test_skipped_steps_are_counted_in_a_row() -> None:
    state, guard = guard_at(1)
    assert guard.check(False, True) is None
    state.begin_step()
    line = "step 2: the gradient is not finite, skipped (stream positions 8 to 15)"
    assert guard.check(True, True) == line
    assert state.skipped_in_a_row == 1
    state.begin_step()
    assert guard.check(False, True) is None
    assert state.skipped_in_a_row == 0
    for _ in range(2):
        state.begin_step()
        guard.check(True, True)
    state.begin_step()
    with pytest.raises(NonFiniteError, match=r"3 steps in a row \(stream positions 24 to 47"):
        guard.check(True, True)


def test_a_run_does_not_end_with_weights_that_give_no_loss() -> None:
    state, guard = guard_at(1)
    guard.check(True, True)  # as fp16 overflows
    assert not guard.loss_is_lost
    guard.require_loss()
    state.begin_step()
    guard.check(True, False)
    assert guard.loss_is_lost
    with pytest.raises(NonFiniteError, match=r"the loss of step 2 is not finite.*fork_from="):
        guard.require_loss()
    state.begin_step()
    guard.check(False, True)
    guard.require_loss()
