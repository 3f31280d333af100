"""Labels of exports: none to learn from is a loss of 0, and what can be none is named."""

from pathlib import Path

import pytest
import torch
from exports import DENOISERS, export_denoiser, export_genie, masked_lm, seq2seq_lm, some_ids
from transformers import AutoModelForSequenceClassification


@pytest.mark.parametrize("name", ["llama", "tied"])
def test_masked_lm(tmp_path: Path, name: str) -> None:
    path = export_denoiser(tmp_path, **DENOISERS[name])
    model = masked_lm(path)
    ids = some_ids()
    loss = model(ids, labels=torch.full_like(ids, -100)).loss
    loss.backward()
    assert loss == 0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
    mask = model.config.mask_token_id
    for label, message in (
        (mask, rf"labels hold {mask}, which is \[MASK\] and never an answer"),
        (100, "labels hold 100, but ids go from 0 to 89; -100 is for no loss"),
        (5000, "labels hold 5000, but ids go"),
        (-1, "labels hold -1, but ids go"),
    ):
        labels = torch.full_like(ids, -100)
        labels[1, 2] = label
        with pytest.raises(ValueError, match=message):
            model(ids, labels=labels)
    with pytest.raises(ValueError, match=r"labels have shape \[3, 4\]"):
        model(ids, labels=ids[:, :4])
    one = torch.full_like(ids, -100)
    one[0, 1] = 7
    log_p = model(ids).logits.log_softmax(-1)
    torch.testing.assert_close(model(ids, labels=one).loss, -log_p[0, 1, 7])
    assert torch.equal(model(ids, labels=one).loss, model(ids, labels=one.int()).loss)


def test_classifier(tmp_path: Path) -> None:
    path = export_denoiser(tmp_path, **DENOISERS["tied"])
    model = masked_lm(path, AutoModelForSequenceClassification, num_labels=3)
    ids = some_ids()
    loss = model(ids, labels=torch.full((3,), -100)).loss
    loss.backward()
    assert loss == 0
    assert not model.classifier.weight.grad.any()
    for label in (3, -1):
        with pytest.raises(ValueError, match=rf"labels hold {label}, but there are 3 classes"):
            model(ids, labels=torch.tensor([0, 1, label]))
    part = model(ids, labels=torch.tensor([0, -100, 2])).loss
    torch.testing.assert_close(part, model(ids[[0, 2]], labels=torch.tensor([0, 2])).loss)


def test_genie(tmp_path: Path) -> None:
    model = seq2seq_lm(export_genie(tmp_path, "rotary", mask_id=3))
    ids = some_ids()
    assert model(ids, labels=torch.full((3, 7), -100)).loss.isfinite()
    labels = some_ids(length=7, seed=2)
    for label, message in (
        (3, r"labels hold 3, which is \[MASK\]"),
        (90, "labels hold 90, but ids go from 0 to 89"),
        (-1, "labels hold -1, but"),
    ):
        labels[0, 0] = label
        with pytest.raises(ValueError, match=message):
            model(ids, labels=labels)
