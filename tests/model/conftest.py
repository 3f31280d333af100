"""What several tests of the model need."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model.verification.joint import Joint


@pytest.fixture(scope="session")
def two_tokens() -> Joint:
    return Joint(torch.tensor([[0.4, 0.1], [0.2, 0.3]], dtype=torch.float64))


@pytest.fixture(scope="session")
def three_tokens() -> Joint:
    return Joint.random(vocab=3, length=3)


@pytest.fixture(scope="session")
def chi_square() -> Callable[[Tensor, Tensor], float]:
    """Pearson's statistic in standard deviations above its mean: about 0, well below 5.

    Cells of which fewer than five draws are expected are taken together.
    """

    def statistic(counts: Tensor, probability: Tensor) -> float:
        expected = probability.double() * counts.sum()
        assert not counts[expected == 0].any()
        rare = expected < 5
        counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
        expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
        degrees = (expected > 0).sum().item() - 1
        terms = ((counts - expected) ** 2 / expected)[expected > 0]
        return float((terms.sum() - degrees) / (2 * degrees) ** 0.5)

    return statistic
