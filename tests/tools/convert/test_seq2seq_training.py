"""The losses of an exported GENIE are the objective's, and it can be trained on."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from genie_exports import (
    END,
    PAD,
    VARIANTS,
    model_of,
    objective_of,
    save,
    some_targets,
    sources,
)
from peft import LoraConfig, get_peft_model
from small_models import save_weights, small_genie
from torch import Tensor
from transformers import (
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
)

from model.draws import Draws
from model.networks.base import Network
from model.objectives.genie import Genie
from tools.convert.to_hf import to_hf


def our_loss(ours: Network, objective: Genie, batch: dict[str, Tensor], draws: Draws) -> Tensor:
    """By the objective, one token after the other."""
    noisy = objective.corrupt(batch, draws, ours.config)
    with torch.no_grad():
        noisy = objective.refine(noisy, ours.ask, draws)
        return ours.ask(noisy, lambda found: objective.losses(found, noisy)["loss"]).mean()


@pytest.mark.parametrize("variant", VARIANTS)
def test_labels_give_the_loss_of_the_objective(
    tmp_path: Path, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While training, of times spread over the batch; of two ranks each has its own."""
    ours, objective = save(tmp_path / "ckpt", variant), objective_of(variant)
    to_hf(tmp_path / "ckpt", tmp_path / "out")
    model = model_of(tmp_path / "out").train()
    ids, valid = sources()
    targets = some_targets()
    batch = {
        "tokens": targets,
        "valid": torch.ones_like(targets, dtype=torch.bool),
        "source": ids,
        "source_valid": valid,
    }
    monkeypatch.setattr(torch, "randint", lambda *_: torch.tensor(5))
    draws = Draws(seed=0, split="train", batch=3)
    wanted = our_loss(ours, objective, batch | {"position": torch.arange(15, 18)}, draws)
    found = model(ids, valid.long(), labels=targets)
    torch.testing.assert_close(found.loss.detach(), wanted)
    assert found.logits.shape == (3, 7, ours.config.num_ids)
    assert found.loss.requires_grad
    assert not found.logits.requires_grad
    monkeypatch.setattr(sys.modules[type(model).__module__], "_rank", lambda: (1, 2))
    wanted = our_loss(ours, objective, batch | {"position": torch.arange(33, 36)}, draws)
    torch.testing.assert_close(model(ids, valid.long(), labels=targets).loss.detach(), wanted)


@pytest.mark.parametrize("variant", VARIANTS)
def test_in_evaluation_the_loss_does_not_depend_on_the_batch(tmp_path: Path, variant: str) -> None:
    ours, objective = save(tmp_path / "ckpt", variant), objective_of(variant)
    to_hf(tmp_path / "ckpt", tmp_path / "out")
    model = model_of(tmp_path / "out")
    model.config.pad_token_id = PAD
    ids, valid = sources()
    targets = some_targets()
    with torch.no_grad():
        together = model(ids, valid.long(), labels=targets).loss
        assert model(ids, valid.long(), labels=targets).loss == together
        alone = [
            model(ids[i : i + 1, :n], labels=targets[i : i + 1]).loss
            for i, n in enumerate(valid.sum(dim=1).tolist())
        ]
    torch.testing.assert_close(torch.stack(alone).mean(), together)
    assert len({round(float(loss), 4) for loss in alone}) == 3
    position = sys.modules[type(model).__module__]._content(
        (ids, valid), (targets, torch.ones_like(targets))
    )
    batch = {
        "tokens": targets,
        "valid": torch.ones_like(targets, dtype=torch.bool),
        "position": position,
        "source": ids,
        "source_valid": valid,
    }
    draws = Draws(seed=0, split="valid", batch=1)
    torch.testing.assert_close(our_loss(ours, objective, batch, draws), together)


def test_ignored_labels_are_padding(tmp_path: Path) -> None:
    save(tmp_path / "ckpt", "modern")
    to_hf(tmp_path / "ckpt", tmp_path / "out")
    model, (ids, valid) = model_of(tmp_path / "out").train(), sources()
    model.config.pad_token_id = PAD
    targets = some_targets()
    losses = []
    for value in (-100, PAD, PAD + 1):
        torch.manual_seed(0)
        labels = targets.masked_fill(torch.arange(7) > 4, value)
        losses.append(model(ids, valid, labels=labels).loss.item())
    assert losses[0] == losses[1] != losses[2]


def test_training_may_follow_inference_mode(tmp_path: Path) -> None:
    save(tmp_path / "ckpt", "modern")
    to_hf(tmp_path / "ckpt", tmp_path / "out")
    model, (ids, valid) = model_of(tmp_path / "out"), sources()
    layers = sys.modules[type(model).__module__.rpartition(".")[0] + ".layers"]
    layers._rotary_table.cache_clear()
    with torch.inference_mode():
        model.generate(ids, valid, sampling_steps=2, seed=0)
    model.train()(ids, valid, labels=ids).loss.backward()


def copies(seed: int, num: int) -> list[dict[str, list[int]]]:
    """Sources of one token four times, whose targets are the same."""
    drawn = torch.randint(4, 20, (num, 1), generator=torch.Generator().manual_seed(seed))
    rows = drawn.expand(-1, 4).tolist()
    return [
        {"input_ids": row, "attention_mask": [1] * 4, "labels": [*row, END, -100]} for row in rows
    ]


@pytest.mark.slow
def test_fine_tuning_with_the_trainer(tmp_path: Path, corpus: Path) -> None:
    """Learning to copy, from what was exported; then saved, loaded and asked again."""
    network, run = small_genie(corpus)
    save_weights(tmp_path / "ckpt", network, run, 2**20)
    to_hf(tmp_path / "ckpt", tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"tokenizer.json", "README.md", "modeling_palimpsest_seq2seq.py"} <= names
    card = (tmp_path / "out" / "README.md").read_text()
    assert "AutoModelForSeq2SeqLM" in card
    assert "| architecture | 2 encoder and 2 decoder layers of width 32, embeddings of 12 |" in card
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["objective"] == {"name": "genie", **asdict(run.objective)}
    model = model_of(tmp_path / "out")
    words = AutoTokenizer.from_pretrained(tmp_path / "out", trust_remote_code=True)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(tmp_path / "trained"),
            max_steps=250,
            learning_rate=5e-3,
            per_device_train_batch_size=32,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            seed=0,
            label_names=["labels"],
        ),
        train_dataset=copies(0, 512),
        eval_dataset=copies(1, 64),
        data_collator=DataCollatorForSeq2Seq(words, model=None),
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.5 * before
    model.save_pretrained(tmp_path / "trained")
    asked = torch.arange(4, 20)[:, None].expand(-1, 4)
    found = [m.eval().generate(asked, seed=0) for m in (model, model_of(tmp_path / "trained"))]
    assert torch.equal(found[0], found[1])
    assert found[0].shape == (16, 6)
    lora = get_peft_model(model, LoraConfig(target_modules=["q", "k", "v", "out"]))
    lora(input_ids=asked, labels=asked).loss.backward()
    trained = [p for p in lora.parameters() if p.requires_grad]
    # Two encoder blocks, and two attentions in each of two decoder blocks; four matrices each.
    assert len(trained) == 2 * 6 * 4
    assert all(p.grad is not None for p in trained)
    # Guessing gives 1 in 16.
    assert (found[0][:, :4] == asked).float().mean() > 0.5
