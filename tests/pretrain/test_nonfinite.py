"""What is skipped, what is too much, and what may not be the end of a run."""

import pytest

from pretrain.nonfinite import NonFiniteError, NonFiniteGuard


def test_skipped_steps_are_counted_in_a_row() -> None:
    guard = NonFiniteGuard(3, 8)
    assert guard.check(1, False, True) is None
    said = "step 2: the gradient is not finite, skipped (stream positions 8 to 15)"
    assert guard.check(2, True, True) == said
    assert guard.check(3, False, True) is None
    guard.check(4, True, True)
    guard.check(5, True, True)
    with pytest.raises(NonFiniteError, match="3 steps in a row"):
        guard.check(6, True, True)


def test_a_run_does_not_end_with_weights_that_give_no_loss() -> None:
    guard = NonFiniteGuard(3, 8)
    guard.check(1, True, True)  # as fp16 overflows
    assert not guard.loss_is_lost
    guard.require_loss(1)
    guard.check(2, True, False)
    assert guard.loss_is_lost
    with pytest.raises(NonFiniteError, match=r"the loss of step 2 is not finite.*fork_from="):
        guard.require_loss(2)
    guard.check(3, False, True)
    guard.require_loss(3)
