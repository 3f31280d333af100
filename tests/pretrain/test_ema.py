import pytest
import torch
from torch import Tensor

from pretrain.ema import Ema
from pretrain.optim_config import EmaConfig


class Masters:
    def __init__(self, *masters: Tensor) -> None:
        self.masters = list(masters)
        self.refreshed: list[list[Tensor]] = []

    def refresh(self) -> None:
        self.refreshed.append([master.clone() for master in self.masters])


def test_the_average_follows_its_warm_up_and_then_its_decay() -> None:
    ema = Ema(EmaConfig(decay=0.9), [torch.zeros(1)])
    expected = 0.0
    for step in range(1, 200):
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        ema.update([torch.tensor([float(step)])], step)
    assert float(ema.shadows[0]) == pytest.approx(expected, rel=1e-5)


def test_decay_zero_is_the_weights_themselves() -> None:
    ema = Ema(EmaConfig(decay=0.0), [torch.zeros(3)])
    ema.update([torch.tensor([1.0, 2.0, 3.0])], 5)
    assert ema.shadows[0].tolist() == [1.0, 2.0, 3.0]


def test_applied_gives_the_engine_back_its_own_weights_even_after_an_error() -> None:
    engine = Masters(torch.randn(5), torch.randn(2))
    own = [master.clone() for master in engine.masters]
    ema = Ema(EmaConfig(), [torch.ones(5), torch.ones(2)])
    seen = []

    def fail_inside() -> None:
        with ema.applied(engine):
            seen.extend(master.clone() for master in engine.masters)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_inside()
    assert all(bool((master == 1).all()) for master in seen)
    assert all(torch.equal(a, b) for a, b in zip(engine.masters, own, strict=True))
    assert len(engine.refreshed) == 2
    assert torch.equal(engine.refreshed[0][0], torch.ones(5))
    assert torch.equal(engine.refreshed[1][0], own[0])
