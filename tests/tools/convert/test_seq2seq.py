"""GENIE out to transformers and back: the same predictions, losses, samples and weights."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
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
from model.draws import Draws
from model.networks.config import ModelConfig, Seq2SeqConfig
from model.networks.encoder_decoder import Seq2Seq
from model.objectives.genie import Genie
from model.prediction import Prediction
from model.processes.gaussian import Gaussian, Parameterisation, target, to_x0
from model.query import Query
from model.samplers import Job
from model.samplers.ddim import Ddim
from model.samplers.ddpm import Ddpm
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
    "plain": ({}, {}, {}),
    "drafts": ({"self_conditioning": True}, {"mask_id": 3}, {"self_conditioning": 0.5}),
}
PAD, END = 1, 2
LENGTHS = {"source_length": 9, "sequence_length": 7}


def save(path: Path, variant: str, objective: dict[str, Any] | None = None) -> Seq2Seq:
    """A checkpoint of a random encoder-decoder."""
    shape, model, noising = VARIANTS[variant]
    seq2seq = Seq2SeqConfig(**SHAPE, **shape)
    network = random_weights(Seq2Seq(ModelConfig(**{**MODEL, **model, "seq2seq": seq2seq})))
    blocks = {
        "objective": {"name": "genie", "num_steps": 40, **noising, **(objective or {})},
        "data": {"packing": "pairs", **LENGTHS},
    }
    save_weights(path, network, run_of(network.config, **blocks), 20_000)
    return network


def model_of(path: Path) -> Any:
    return AutoModelForSeq2SeqLM.from_pretrained(path, trust_remote_code=True).eval()


def sources() -> tuple[Tensor, Tensor]:
    """Ids ``[3, 9]`` and their padding mask."""
    ids = torch.randint(4, 90, (3, 9), generator=torch.Generator().manual_seed(1))
    valid = torch.arange(9) < torch.tensor([[9], [6], [3]])
    return ids.masked_fill(~valid, PAD), valid


def some_targets() -> Tensor:
    """Ids ``[3, 7]``."""
    return torch.randint(4, 90, (3, 7), generator=torch.Generator().manual_seed(3))


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
    x, self_cond = torch.randn(2, 3, 7, 12, generator=torch.Generator().manual_seed(2))
    level = torch.tensor([0.2, 0.5, 1.0])
    query = Query(
        ids_BL=torch.zeros(3, 7, dtype=torch.int64),
        level_BK=level[:, None],
        predict_mask_BL=torch.ones(3, 7, dtype=torch.bool),
        signal_BK=torch.zeros(3, 1),
        noise_BLE=x,
        self_cond_BLE=self_cond,
        source_BS=ids,
        source_valid_BS=valid,
    )
    with torch.no_grad():
        wanted_ME = ours(query)["vector_ME"]
        self_cond = self_cond if objective_of(variant).refines else None
        found = model(ids, valid.long(), decoder_inputs_embeds=x, level=level, self_cond=self_cond)
        again = model(
            ids, valid.long(), decoder_inputs_embeds=x, level=level[:, None], self_cond=self_cond
        )
    assert torch.equal(found.prediction.flatten(0, 1), wanted_ME)
    assert torch.equal(again.prediction, found.prediction)
    objective = objective_of(variant)
    abar = objective.process.abar(objective.process.index(level.double())).float()[:, None, None]
    x0 = to_x0(objective.prediction, found.prediction, x, abar)
    assert torch.equal(found.logits.argmax(-1), ours.output.round(x0.flatten(0, 1)).view(3, 7))
    assert (found.logits[..., ours.config.mask] == -torch.inf).all()


class Perfect:
    """In the place of a network: what it should say."""

    def __init__(self, output_ME: Tensor) -> None:
        self.found = Prediction(vector_ME=output_ME)

    def __call__(self, query: Query) -> Prediction:
        return self.found


@pytest.mark.parametrize("kind", ["x0", "eps", "v"])
def test_logits_are_of_the_clean_embeddings(tmp_path: Path, kind: Parameterisation) -> None:
    ours = save(tmp_path / "ckpt", "plain", objective={"prediction": kind})
    to_hf(tmp_path / "ckpt", tmp_path / "out")
    model = model_of(tmp_path / "out")
    # Rows far apart, of one length: each is its own likeliest.
    table = torch.randn(128, 12, generator=torch.Generator().manual_seed(4))
    ours.embedding.weight.data.copy_(8 * F.normalize(table, dim=1))
    with torch.no_grad():
        model.denoiser.embedding.weight.copy_(ours.embedding.weight)
        model.denoiser.output.head.bias.zero_()
    ids = some_targets()
    x0 = ours.embedding.weight.detach()[ids]
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(5))
    level = torch.tensor([0.25, 0.5, 0.75])
    process = Gaussian(schedule="sqrt", num_steps=40)
    abar = process.abar(process.index(level.double())).float()[:, None, None]
    model._predict = Perfect(target(kind, x0, eps, abar).flatten(0, 1))
    noisy = abar.sqrt() * x0 + (1 - abar).sqrt() * eps
    found = model(sources()[0], decoder_inputs_embeds=noisy, level=level)
    assert torch.equal(found.logits.argmax(-1), ids)


def our_loss(ours: Seq2Seq, objective: Genie, batch: dict[str, Tensor], draws: Draws) -> Tensor:
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


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_of_sources_changes_nothing(tmp_path: Path, variant: str) -> None:
    """With ``ignore_source_padding`` it is seen, and always as much as in training."""
    save(tmp_path / "ckpt", variant)
    to_hf(tmp_path / "ckpt", tmp_path / "out")
    model, (ids, valid) = model_of(tmp_path / "out"), sources()
    model.config.pad_token_id = PAD
    x = torch.randn(3, 7, 12, generator=torch.Generator().manual_seed(2))
    asked = {"decoder_inputs_embeds": x, "level": torch.tensor([0.2, 0.5, 1.0])}
    with torch.no_grad():
        together = model(ids, valid, **asked).prediction
        for i, n in enumerate(valid.sum(dim=1).tolist()):
            alone = model(
                ids[i : i + 1, :n], **{name: value[i : i + 1] for name, value in asked.items()}
            )
            torch.testing.assert_close(alone.prediction[0], together[i], rtol=0, atol=2e-5)
        bare = model(ids, **asked).prediction
    assert not torch.allclose(bare[2], together[2], atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    save(tmp_path / "ckpt", "drafts")
    to_hf(tmp_path / "ckpt", tmp_path / "out")
    whole, (ids, valid) = model_of(tmp_path / "out"), sources()
    half = AutoModelForSeq2SeqLM.from_pretrained(
        tmp_path / "out", trust_remote_code=True, dtype=dtype
    ).eval()
    assert half.denoiser.embedding.weight.dtype == dtype
    with torch.no_grad():
        losses = [float(m(ids, valid, labels=ids % 80 + 4).loss) for m in (half, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
    found = half.generate(ids, valid, sampling_steps=3, seed=0)
    assert found.shape == (3, 7)
    assert (found < 90).all()
    assert (found != half.config.mask_token_id).all()


def test_training_may_follow_inference_mode(tmp_path: Path) -> None:
    save(tmp_path / "ckpt", "modern")
    to_hf(tmp_path / "ckpt", tmp_path / "out")
    model, (ids, valid) = model_of(tmp_path / "out"), sources()
    layers = sys.modules[type(model).__module__.rpartition(".")[0] + ".layers"]
    layers._rotary_table.cache_clear()
    with torch.inference_mode():
        model.generate(ids, valid, sampling_steps=2, seed=0)
    model.train()(ids, valid, labels=ids).loss.backward()


@pytest.mark.parametrize("variant", VARIANTS)
def test_generate_is_our_sampler(tmp_path: Path, variant: str) -> None:
    ours, objective = save(tmp_path / "ckpt", variant), objective_of(variant)
    to_hf(tmp_path / "ckpt", tmp_path / "out")
    model = model_of(tmp_path / "out")
    ids, valid = sources()
    for name, sampler in (("ddpm", Ddpm(steps=6)), ("ddim", Ddim(steps=6, eta=0.5))):
        options = {"eta": 0.5} if name == "ddim" else {}
        with torch.no_grad():
            wanted = sampler.run(
                Job(
                    ids_BL=torch.zeros(6, 7, dtype=torch.int64),
                    free_BL=torch.ones(6, 7, dtype=torch.bool),
                    position_B=torch.arange(6),
                    draws=Draws(seed=5, split="sample", batch=6),
                    objective=objective,
                    model=ours.config,
                    network=ours,
                    source_BS=ids.repeat_interleave(2, dim=0),
                    source_valid_BS=valid.repeat_interleave(2, dim=0),
                )
            )
        words = {"sampling_steps": 6, "num_return_sequences": 2, "seed": 5, "sampler": name}
        found = model.generate(ids, valid.long(), **words, **options)
        assert torch.equal(found, wanted)
        # After the first PAD or EOS there is padding only. The configuration's own would also
        # stand in the places of the source that hold no text.
        pad, end = int(wanted[1, 5]), int(wanted[0, 3])
        settings = model.generation_config
        settings.pad_token_id, settings.eos_token_id = pad, end
        ended = model.generate(ids, valid.long(), **words, **options)
        settings.pad_token_id = settings.eos_token_id = None
        for row, given in zip(ended.tolist(), wanted.tolist(), strict=True):
            place = min(given.index(x) if x in given else 7 for x in (pad, end))
            assert row == given[:place] + [pad] * (7 - place)
        assert int(ended[0, 3]) == pad
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
    x = torch.zeros(3, 7, 12)
    with pytest.raises(ValueError, match="draft goes with"):
        model(ids, decoder_inputs_embeds=x, level=torch.ones(3), self_cond=x)
    with pytest.raises(ValueError, match=r"level has shape \[1\]; give one for each of 3"):
        model(ids, decoder_inputs_embeds=x, level=torch.ones(1))
    with pytest.raises(TypeError, match="knows no temperature; ddpm has variance, clamp_below"):
        model.generate(ids, temperature=0.5)
    with pytest.raises(ValueError, match="there is no sampler dpm; choose ddim or ddpm"):
        model.generate(ids, sampler="dpm")
    for words in ({"max_length": 0}, {"sampling_steps": 0}, {"num_return_sequences": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            model.generate(ids, **words)
    with pytest.raises(ValueError, match=r"with 90 ids there would be no \[MASK\], which is id 90"):
        model.resize_token_embeddings(90)


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
