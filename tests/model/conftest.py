"""What several tests of the model need."""

import pytest
import torch

from model.verification.joint import Joint


@pytest.fixture(scope="session")
def two_tokens() -> Joint:
    return Joint(torch.tensor([[0.4, 0.1], [0.2, 0.3]], dtype=torch.float64))


@pytest.fixture(scope="session")
def three_tokens() -> Joint:
    return Joint.random(vocab=3, length=3)
