"""peft on exports: every task type that fits, merged, saved and loaded."""

from pathlib import Path
from typing import Any

import pytest
import torch
from exports import DENOISERS, export_denoiser, export_genie, masked_lm, seq2seq_lm, some_ids
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification

TARGETS = ["q", "k", "v", "out"]


def lora(task: str | None, **settings: Any) -> LoraConfig:
    return LoraConfig(
        **{"task_type": task, "target_modules": TARGETS, "init_lora_weights": False, **settings}
    )


def check(model: Any, fresh: Any, given: dict[str, Any], folder: Path) -> None:
    """One step of training; the same after saving, loading and merging."""
    loss = model(**given).loss
    loss.backward()
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                assert p.grad is not None
                p -= 0.1 * p.grad
    model.eval().save_pretrained(folder)
    given = {name: value for name, value in given.items() if name != "labels"} | {
        name: given[name] for name in ("labels",) if model.config.is_encoder_decoder
    }
    with torch.no_grad():
        wanted = model(**given).logits
        again = PeftModel.from_pretrained(fresh, folder).eval()
        assert torch.equal(again(**given).logits, wanted)
        merged = again.merge_and_unload().eval()
        found = merged(**given).logits
        seen = wanted.isfinite()
        torch.testing.assert_close(found[seen], wanted[seen], rtol=1e-4, atol=1e-4)
        merged.save_pretrained(folder / "merged")
        assert type(merged) is type(fresh) or merged is fresh


@pytest.mark.parametrize("task", ["TOKEN_CLS", "FEATURE_EXTRACTION", None])
def test_masked_lm(tmp_path: Path, task: str | None) -> None:
    path = export_denoiser(tmp_path, **DENOISERS["tied"])
    ids = some_ids()
    model = get_peft_model(masked_lm(path), lora(task))
    check(model, masked_lm(path), {"input_ids": ids, "labels": ids}, tmp_path / "saved")
    generated = model.generate(input_ids=torch.full((1, 4), 3), seed=0)
    assert generated.shape == (1, 4)


@pytest.mark.parametrize("targets", ["all-linear", ["q", "tokens"]])
def test_other_targets_and_modules_to_save(tmp_path: Path, targets: Any) -> None:
    path = export_denoiser(tmp_path, **DENOISERS["llama"])
    ids = some_ids()
    settings = lora(None, target_modules=targets, modules_to_save=["head"])
    model = get_peft_model(masked_lm(path), settings)
    check(model, masked_lm(path), {"input_ids": ids, "labels": ids}, tmp_path / "saved")


def test_classifier(tmp_path: Path) -> None:
    path = export_denoiser(tmp_path, **DENOISERS["llama"])
    kind = AutoModelForSequenceClassification
    ids = some_ids()
    model = get_peft_model(masked_lm(path, kind, num_labels=3), lora("SEQ_CLS"))
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert any("classifier.modules_to_save" in name for name in trained)
    fresh = masked_lm(path, kind, num_labels=3)
    given = {"input_ids": ids, "labels": torch.tensor([0, 1, 2])}
    check(model, fresh, given, tmp_path / "saved")


@pytest.mark.parametrize("task", ["SEQ_2_SEQ_LM", None])
def test_genie(tmp_path: Path, task: str | None) -> None:
    path = export_genie(tmp_path, "drafts")
    ids = some_ids()
    model = get_peft_model(seq2seq_lm(path), lora(task)).eval()
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, :7]}
    check(model, seq2seq_lm(path), given, tmp_path / "saved")
    options = {"sampling_steps": 3, "seed": 0}
    sampled = model.generate(input_ids=ids, attention_mask=given["attention_mask"], **options)
    assert sampled.shape == (3, 7)
    again = PeftModel.from_pretrained(seq2seq_lm(path), tmp_path / "saved").eval()
    assert torch.equal(again.generate(input_ids=ids, **options), sampled)
