"""GENIE out to transformers and back: the same predictions, losses, samples and weights."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from small_models import MODEL, random_weights, run_of, save_weights, small_genie
from torch import Tensor
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
)

from configs.errors import UserError
from model.config import ModelConfig, Seq2SeqConfig
from model.draws import Draws
from model.gaussian_samplers.ddim import Ddim
from model.gaussian_samplers.ddpm import Ddpm
from model.generate_embeddings import generate_embeddings
from model.network import Whole
from model.objectives.genie import Genie
from model.prediction import Reconstruction
from model.query import Query
from model.seq2seq import Seq2Seq
from pretrain.checkpoint.reader import Reader
from pretrain.checkpoint.weights import load_denoiser
from tools.convert.from_hf import from_hf
from tools.convert.to_hf import RUN_FILE, to_hf

SHAPE: dict[str, Any] = {"num_encoder_layers": 2, "embedding_width": 12, "max_positions": 20}
RELEASE: dict[str, Any] = {"projection": "tanh", "time": "additive", "positions": "learned"}
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "modern": ({"output": "mixture"}, {"mlp": "swiglu", "norm": "rmsnorm"}, {}),
    "release": ({**RELEASE, "ignore_source_padding": True}, {"mlp": "geglu"}, {"prediction": "v"}),
    "bert": ({"encoder": "bert"}, {}, {"schedule": "cosine", "times": "loss_second_moment"}),
    "drafts": ({"self_conditioning": True}, {"mask_id": 3}, {"self_conditioning": 0.5}),
}
PAD, END = 1, 2
LENGTHS = {"source_length": 12, "sequence_length": 7}


def save(path: Path, variant: str, corpus: Path | str = "unknown", **settings: Any) -> Seq2Seq:
    """A checkpoint of a random encoder-decoder."""
    shape, model, objective = VARIANTS[variant]
    seq2seq = Seq2SeqConfig(**SHAPE, **shape)
    network = random_weights(
        Seq2Seq(ModelConfig(**{**MODEL, **model, **settings, "seq2seq": seq2seq}))
    )
    blocks = {
        "objective": {"name": "genie", "num_steps": 40, **objective},
        "data": {"packing": "pairs", **LENGTHS},
    }
    save_weights(path, network, run_of(network.config, corpus, **blocks), 20_000)
    return network


def model_of(path: Path) -> Any:
    return AutoModelForSeq2SeqLM.from_pretrained(path, trust_remote_code=True).eval()


def sources() -> tuple[Tensor, Tensor]:
    """Ids ``[3, 9]`` and their padding mask."""
    ids = torch.randint(4, 90, (3, 9), generator=torch.Generator().manual_seed(1))
    valid = torch.arange(9) < torch.tensor([[9], [6], [3]])
    return ids.masked_fill(~valid, PAD), valid


def objective_of(variant: str) -> Genie:
    return Genie(num_steps=40, **VARIANTS[variant][2])


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_evaluation_is_ours(tmp_path: Path, variant: str) -> None:
    ours = save(tmp_path / "ckpt", variant)
    report = to_hf(tmp_path / "ckpt", tmp_path / "out", shard_bytes=20_000)
    assert report["largest_difference"] == 0
    assert report["logits"] >= 3 * 20 * 89
    model = model_of(tmp_path / "out")
    ids, valid = sources()
    x, draft = torch.randn(2, 3, 7, 12, generator=torch.Generator().manual_seed(2))
    level = torch.tensor([0.2, 0.5, 1.0])
    query = Query(
        ids_BL=torch.zeros(3, 7, dtype=torch.int64),
        level_BK=level[:, None],
        where_BL=torch.ones(3, 7, dtype=torch.bool),
        signal_B1=torch.zeros(3, 1),
        noise_BLE=x,
        draft_BLE=draft,
        source_BS=ids,
        source_valid_BS=valid,
    )
    with torch.no_grad():
        wanted = Whole(ours).predict(query)
        assert isinstance(wanted, Reconstruction)
        found = model(ids, valid.long(), decoder_inputs_embeds=x, level=level, draft=draft)
    assert torch.equal(found.prediction.flatten(0, 1), wanted.output_ME)
    assert torch.equal(found.logits.argmax(-1).flatten(), Whole(ours).round(wanted.output_ME))
    assert (found.logits[..., ours.config.mask] == -torch.inf).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_labels_give_the_loss_of_the_objective(tmp_path: Path, variant: str) -> None:
    ours, objective = save(tmp_path / "ckpt", variant), objective_of(variant)
    to_hf(tmp_path / "ckpt", tmp_path / "out")
    model = model_of(tmp_path / "out")
    ids, valid = sources()
    targets = torch.randint(4, 90, (3, 7), generator=torch.Generator().manual_seed(3))
    batch = {
        "tokens": targets,
        "valid": torch.ones_like(targets, dtype=torch.bool),
        "position": torch.arange(3),
        "source": ids,
        "source_valid": valid,
    }
    noisy = objective.corrupt(batch, Draws(seed=0, split="valid", batch=3), ours.config)
    with torch.no_grad():
        if objective.drafts:
            noisy = objective.with_draft(noisy, Whole(ours).predict(objective.draft_query(noisy)))
        losses = objective.token_losses(Whole(ours).predict(noisy), noisy)
        found = model(ids, valid.long(), labels=targets)
    torch.testing.assert_close(found.loss, losses.mean())
    assert found.logits.shape == (3, 7, ours.config.num_ids)
    model.train()
    torch.manual_seed(0)
    first, second = (model(ids, valid.long(), labels=targets) for _ in range(2))
    assert first.loss != second.loss
    torch.manual_seed(0)
    assert model(ids, valid.long(), labels=targets).loss == first.loss


@pytest.mark.parametrize("variant", VARIANTS)
def test_generate_is_our_sampler(tmp_path: Path, variant: str) -> None:
    ours, objective = save(tmp_path / "ckpt", variant), objective_of(variant)
    to_hf(tmp_path / "ckpt", tmp_path / "out")
    model = model_of(tmp_path / "out")
    ids, valid = sources()
    for name, sampler in (("ddpm", Ddpm(steps=6)), ("ddim", Ddim(steps=6, eta=0.5))):
        options = {"eta": 0.5} if name == "ddim" else {}
        with torch.no_grad():
            wanted = generate_embeddings(
                ids.repeat_interleave(2, dim=0),
                valid.repeat_interleave(2, dim=0),
                torch.arange(6),
                Whole(ours),
                length=7,
                width=12,
                sampler=sampler,
                process=objective.process,
                prediction=objective.prediction,
                self_conditioning=objective.drafts,
                draws=Draws(seed=5, split="sample", batch=6),
            )
        words = {"sampling_steps": 6, "num_return_sequences": 2, "seed": 5, "sampler": name}
        found = model.generate(ids, valid.long(), **words, **options)
        assert torch.equal(found, wanted)
        # After the first PAD or EOS there is padding only.
        model.config.pad_token_id, model.config.eos_token_id = PAD, int(wanted[0, 3])
        ended = model.generate(ids, valid.long(), **words, **options)
        model.config.pad_token_id = model.config.eos_token_id = None
        assert (ended[0, 3:] == PAD).all()
        kept = ended != PAD
        assert torch.equal(ended[kept], wanted[kept])
        assert not (kept[:, 1:] & ~kept[:, :-1]).any()
    torch.manual_seed(3)
    one, other = (model.generate(ids, valid, sampling_steps=3, max_length=4) for _ in range(2))
    assert one.shape == (3, 4)
    assert not torch.equal(one, other)


def test_other_layouts_hold_denoisers_only(tmp_path: Path) -> None:
    save(tmp_path / "ckpt", "modern")
    with pytest.raises(UserError, match="layout mdlm holds denoisers only"):
        to_hf(tmp_path / "ckpt", tmp_path / "out", layout="mdlm")


def test_what_cannot_be_asked_is_said(tmp_path: Path) -> None:
    save(tmp_path / "ckpt", "modern")
    to_hf(tmp_path / "ckpt", tmp_path / "out")
    model, (ids, _) = model_of(tmp_path / "out"), sources()
    with pytest.raises(ValueError, match=r"generate\(\) makes text"):
        model(ids)
    with pytest.raises(ValueError, match=r"set config\.pad_token_id"):
        model(ids, labels=torch.full((3, 4), -100))
    with pytest.raises(TypeError, match="temperature"):
        model.generate(ids, temperature=0.5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("saved_again", [False, True])
def test_there_and_back(tmp_path: Path, variant: str, saved_again: bool) -> None:
    save(tmp_path / "ckpt", variant)
    to_hf(tmp_path / "ckpt", tmp_path / "out")
    if saved_again:
        model_of(tmp_path / "out").save_pretrained(tmp_path / "again")
        assert not (tmp_path / "again" / RUN_FILE).exists()
    from_hf(tmp_path / ("again" if saved_again else "out"), tmp_path / "back", shard_bytes=9_000)
    before, after = Reader(tmp_path / "ckpt"), Reader(tmp_path / "back")
    values = dict(after.whole("master"))
    for name, value in before.whole("master"):
        assert torch.equal(value, values.pop(name))
    assert not values
    for block in ("model", "objective"):
        assert after.state["config"][block] == before.state["config"][block]
    data = after.state["config"]["data"]
    assert {name: data[name] for name in LENGTHS} == LENGTHS
    assert load_denoiser(tmp_path / "back", "ema").config.objective == objective_of(variant)


class Copies(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Sources of one token four times, whose targets are the same."""

    def __init__(self, first: int, num: int) -> None:
        generator = torch.Generator().manual_seed(first)
        self._rows = torch.randint(4, 20, (num, 1), generator=generator).expand(-1, 4).tolist()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        row = self._rows[index]
        return {"input_ids": row, "attention_mask": [1] * 4, "labels": [*row, END, -100]}


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
    assert config["objective"] == asdict(run.objective)
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
        train_dataset=Copies(0, 512),
        eval_dataset=Copies(1, 64),
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
