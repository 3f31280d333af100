"""The sums of an objective's losses: over all positions, and by level of noise."""

from collections.abc import Mapping

import pytest
import torch
from masking import some_tokens
from torch import Tensor

from model.objectives import LEVEL_BUCKETS, Noisy, sum_losses
from model.objectives.mdlm import Mdlm
from model.prediction import Prediction


class Given(Mdlm):
    """An objective of these losses."""

    given: Tensor

    def __init__(self, losses: Tensor) -> None:
        super().__init__()
        object.__setattr__(self, "given", losses)

    def losses(self, prediction: Prediction, noisy: Noisy) -> Mapping[str, Tensor]:
        return {"loss": self.given}


@pytest.mark.parametrize("per_token", [False, True])
def test_losses_by_level_add_up_to_the_whole(per_token: bool) -> None:
    rows, length = 40, 6
    generator = torch.Generator().manual_seed(0)
    level = torch.rand(rows, length if per_token else 1, generator=generator)
    level[0], level[1] = 0.0, 1.0
    valid = torch.rand(rows, length, generator=generator) < 0.8
    over = valid & (torch.rand(rows, length, generator=generator) < 0.9)
    where = over & (torch.rand(rows, length, generator=generator) < 0.5)
    tokens = some_tokens(rows, length)
    noisy = Noisy(
        ids_BL=tokens,
        level_BK=level,
        predict_mask_BL=where,
        valid_BL=valid,
        position_B=torch.arange(rows),
        target_BL=tokens,
        weight_BK=level,
        over_BL=over,
    )
    losses = torch.rand(int(where.sum()), generator=generator).requires_grad_()
    sums = sum_losses(Given(losses), Prediction(), noisy)
    torch.testing.assert_close(sums.terms["loss"], losses.sum())
    torch.testing.assert_close(sums.level_loss.sum(), losses.sum().detach())
    assert sums.level_count.sum() == noisy.count() == over.sum()
    loss_BL = torch.zeros(rows, length).masked_scatter(where, losses.detach())
    level_BL = level.expand(rows, length)
    for bucket in range(LEVEL_BUCKETS):
        low, high = bucket / LEVEL_BUCKETS, (bucket + 1) / LEVEL_BUCKETS
        inside = (level_BL >= low) & ((level_BL < high) | (bucket == LEVEL_BUCKETS - 1))
        torch.testing.assert_close(sums.level_loss[bucket], loss_BL[inside].sum())
        assert sums.level_count[bucket] == (inside & over).sum()
    assert sums.terms["loss"].requires_grad
    assert not sums.level_loss.requires_grad
    sums.terms["loss"].backward()
    assert (losses.grad == 1).all()
