"""A table that first and last stage share, where the loss reads it on one of them only."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
from torch import Tensor

from model.objectives import LOSS, Noisy
from model.objectives.genie import Genie
from model.prediction import Prediction
from pretrain.config import RunConfig
from pretrain.launch.pool import Pool
from pretrain.trial import run_config
from tools.verify import layouts
from tools.verify.layouts import deviation
from tools.verify.reference_loop import PlainLoop

STEPS = 3


@dataclass(frozen=True, kw_only=True)
class FirstOnly(Genie):
    """A loss of the output alone, which is no mixture of the table's rows."""

    def losses(self, prediction: Prediction, noisy: Noisy) -> Mapping[str, Tensor]:
        assert prediction.vector_ME is not None
        return {LOSS: prediction.vector_ME.float().square().mean(dim=1)}


def config(precision: str) -> RunConfig:
    model = {"output": "vector"}
    found = run_config("genie", model=model, precision=precision)
    return replace(found, objective=FirstOnly(num_steps=50))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stage_whose_table_has_no_gradient_does_not_wait(pool: Pool, precision: str) -> None:
    whole = config(precision)
    split = replace(whole, parallel=replace(whole.parallel, pipeline=2))
    (one,) = pool.run(1, layouts.train, whole, STEPS)
    two = pool.run(2, layouts.train, split, STEPS, timeout_s=60)[0]
    close = 1e-6 if precision == "fp32" else 0.02
    assert deviation(two.losses, one.losses) < close
    assert deviation(two.grad_norms, one.grad_norms) < close
    if precision == "fp32":
        truth = PlainLoop(whole)
        for _ in range(STEPS):
            truth.step()
        assert deviation(two.losses, truth.losses) < 1e-5
        assert deviation(two.grad_norms[:1], truth.grad_norms[:1]) < 1e-6
