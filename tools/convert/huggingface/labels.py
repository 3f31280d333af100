"""Labels: validation, and the mean loss over those that count."""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.networks.config import ModelConfig

IGNORED = -100
"""The label of positions without a loss, as in all of transformers."""


def check_ids(labels_BL: Tensor, model: ModelConfig) -> None:
    """Check that every label is an id that the model can answer, or ``IGNORED``.

    Raises:
        ValueError: one is [MASK], whose probability is 0, or no id at all.
    """
    if torch.compiler.is_compiling():
        return
    outside_BL = (labels_BL < 0) | (labels_BL >= model.vocab_size)
    bad = labels_BL[(outside_BL | (labels_BL == model.mask)) & (labels_BL != IGNORED)]
    if not len(bad):
        return
    if bool((bad == model.mask).any()):
        raise ValueError(
            f"labels hold {model.mask}, which is [MASK] and never an answer: its loss would be "
            f"infinite; put {IGNORED} there"
        )
    raise ValueError(
        f"labels hold {int(bad[0])}, but ids go from 0 to {model.vocab_size - 1}; {IGNORED} is "
        "for no loss, and resize_token_embeddings makes room for tokens that were added"
    )


def check_classes(labels_B: Tensor, num_labels: int) -> None:
    """Check that every label is a class, or ``IGNORED``.

    Raises:
        ValueError: one is neither.
    """
    if torch.compiler.is_compiling():
        return
    outside_B = (labels_B < 0) | (labels_B >= num_labels)
    bad = labels_B[outside_B & (labels_B != IGNORED)]
    if len(bad):
        raise ValueError(
            f"labels hold {int(bad[0])}, but there are {num_labels} classes, from 0 to "
            f"{num_labels - 1}: load the model with num_labels={int(bad.max()) + 1}, or put "
            f"{IGNORED} where no loss is wanted"
        )


def mean_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean -log p over all labels but ``IGNORED``; 0, with gradient 0, where there are none."""
    flat = labels.flatten().long()
    total = F.cross_entropy(
        logits.flatten(0, -2).float(), flat, ignore_index=IGNORED, reduction="sum"
    )
    return total / (flat != IGNORED).sum().clamp(min=1)
