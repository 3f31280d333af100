"""What users ask of any transformers model, asked of both exports."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from exports import (
    DENOISERS,
    PAD,
    export_denoiser,
    export_genie,
    masked_lm,
    seq2seq_lm,
    some_ids,
)
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainingArguments,
)

from tools.convert.from_hf import from_hf


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exports")
    found = {n: export_denoiser(folder / n, **DENOISERS[n]) for n in DENOISERS}
    return found | {n: export_genie(folder / n, n) for n in ("rotary", "drafts")}


def load(paths: dict[str, Path], name: str, **settings: Any) -> Any:
    kind = masked_lm if name in DENOISERS else seq2seq_lm
    return kind(paths[name], **settings)


def asked(model: Any, labels: bool = False) -> dict[str, Tensor]:
    """Inputs for a forward pass of either kind."""
    ids = some_ids()
    if labels:
        return {"input_ids": ids, "labels": ids[:, :7] if model.config.is_encoder_decoder else ids}
    if not model.config.is_encoder_decoder:
        return {"input_ids": ids}
    x = torch.randn(3, 7, 12, generator=torch.Generator().manual_seed(2))
    return {"input_ids": ids, "decoder_inputs_embeds": x, "level": torch.tensor([0.2, 0.5, 1.0])}


ALL = ["llama", "bert", "tied", "rotary", "drafts"]


@torch.no_grad()
@pytest.mark.parametrize("name", ALL)
def test_a_vocabulary_grows_and_shrinks(paths: dict[str, Path], name: str, tmp_path: Path) -> None:
    model = load(paths, name)
    given, old, mask = asked(model), model.config.vocab_size, model.config.mask_token_id
    before = model(**given).logits
    assert model.resize_token_embeddings() is model.get_input_embeddings()
    for num in (old + 3, old + 60):
        table = model.resize_token_embeddings(num, pad_to_multiple_of=64)
        assert table is model.get_input_embeddings()
        assert len(table.weight) == table.num_embeddings
        assert len(table.weight) >= num
        assert len(table.weight) % 128 == 0
        assert model.config.vocab_size == num
        after = model(**given).logits
        assert after.shape[-1] == num
        if name != "rotary":  # whose output is a mean over all that there are
            torch.testing.assert_close(after[..., :old], before)
        assert (after[..., mask] == -torch.inf).all()
        assert after[..., old:].isfinite().all()
    model(**{**given, "input_ids": torch.full((3, 9), num - 1)})
    if model.config.is_encoder_decoder:
        assert model(given["input_ids"], labels=torch.full((3, 7), num - 1)).loss.isfinite()
    else:
        labels = torch.full((3, 9), num - 1)
        assert model(given["input_ids"], labels=labels).loss.isfinite()
        tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
        assert tied == (name in ("bert", "tied"))
    after = model(**given).logits
    model.save_pretrained(tmp_path / "saved")
    again = load({name: tmp_path / "saved"}, name)
    assert torch.equal(again(**given).logits, after)
    found = from_hf(tmp_path / "saved", tmp_path / "back")
    assert (found["length"], found["length_known"]) == (
        7 if name in ("rotary", "drafts") else 32,
        True,
    )
    with pytest.raises(ValueError, match=r"there would be no \[MASK\]"):
        model.resize_token_embeddings(mask)
    with pytest.raises(ValueError, match="pad_to_multiple_of=100 does not divide it"):
        model.resize_token_embeddings(num, pad_to_multiple_of=100)
    model.resize_token_embeddings(old)
    assert model.config.vocab_size == old
    if name != "rotary":
        torch.testing.assert_close(model(**given).logits[..., :old], before)


def test_new_tokens_may_begin_at_random(paths: dict[str, Path]) -> None:
    model = load(paths, "llama")
    rows = model.get_input_embeddings().weight[:90]
    table = model.resize_token_embeddings(95).weight
    torch.testing.assert_close(table[91:95], rows.mean(dim=0).expand(4, -1))
    table = model.resize_token_embeddings(99, mean_resizing=False).weight
    assert table[95:99].std() > 0.5
    model.train()(**asked(model, labels=True)).loss.backward()
    assert model.get_input_embeddings().weight.grad is not None


def gradients(model: Any, given: dict[str, Tensor]) -> list[Tensor]:
    torch.manual_seed(0)
    model.zero_grad()
    model(**given).loss.backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", ALL)
def test_checkpointing_changes_no_gradient(paths: dict[str, Path], name: str) -> None:
    model = load(paths, name).train()
    given = asked(model, labels=True)
    plain = gradients(model, given)
    calls: list[int] = []
    attention = next(m for n, m in model.named_modules() if n.endswith("layers.1.attention.q"))
    attention.register_forward_hook(lambda *_: calls.append(1))
    once = len(gradients(model, given)) and len(calls)
    for reentrant in (False, True):
        calls.clear()
        model.activation_checkpointing_enable({"use_reentrant": reentrant})
        assert model.is_activation_checkpointing
        again = gradients(model, given)
        assert len(calls) == once + 1
        assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    model.activation_checkpointing_disable()
    calls.clear()
    gradients(model, given)
    assert len(calls) == once
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.gradient_checkpointing_enable()
    assert all(torch.equal(a, b) for a, b in zip(plain, gradients(model, given), strict=True))


@pytest.mark.parametrize("name", ["llama", "drafts"])
def test_checkpointing_under_the_trainer(paths: dict[str, Path], name: str, tmp_path: Path) -> None:
    rows = [
        {key: value[i % 3] for key, value in asked(load(paths, name), labels=True).items()}
        for i in range(4)
    ]
    ended = []
    for on in (False, True):
        model = load(paths, name)
        arguments = TrainingArguments(
            output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=2, report_to=[],
            save_strategy="no", disable_tqdm=True, use_cpu=True, gradient_checkpointing=on,
            gradient_accumulation_steps=2, logging_strategy="no",
        )  # fmt: skip
        torch.manual_seed(0)
        Trainer(model=model, args=arguments, train_dataset=rows).train()
        ended.append({n: p.detach().clone() for n, p in model.named_parameters()})
        assert model.is_activation_checkpointing == on
    assert all(torch.equal(value, ended[1][n]) for n, value in ended[0].items())


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "bert", "time"])
def test_hidden_states_of_a_denoiser(paths: dict[str, Path], name: str) -> None:
    model, ids = load(paths, name), some_ids()
    found = model(ids, output_hidden_states=True)
    assert len(found.hidden_states) == 1 + model.config.num_hidden_layers
    assert all(state.shape == (3, 9, 32) for state in found.hidden_states)
    assert torch.equal(found.logits, model(ids).logits)
    assert model(ids).hidden_states is None
    if name != "bert":
        assert torch.equal(found.hidden_states[0], model.get_input_embeddings()(ids))
    bare = masked_lm(paths[name], AutoModel)
    last = bare(ids, output_hidden_states=True)
    assert torch.equal(last.last_hidden_state, last.hidden_states[-1])
    for one, other in zip(last.hidden_states, found.hidden_states, strict=True):
        assert torch.equal(one, other)
    first = next(m for n, m in model.named_modules() if n.endswith("layers.1"))
    seen: list[Tensor] = []
    first.register_forward_hook(lambda module, given, made: seen.append(made[0]))
    assert torch.equal(model(ids, output_hidden_states=True).hidden_states[1], seen[0])
    classifier = masked_lm(paths[name], AutoModelForSequenceClassification)
    classifier.config.output_hidden_states = True
    assert torch.equal(classifier(ids).hidden_states[-1], last.hidden_states[-1])


@torch.no_grad()
@pytest.mark.parametrize("name", ["rotary", "drafts"])
def test_hidden_states_of_an_encoder_decoder(paths: dict[str, Path], name: str) -> None:
    model = load(paths, name)
    for given in (asked(model), asked(model, labels=True)):
        found = model(**given, output_hidden_states=True)
        assert [len(found.encoder_hidden_states), len(found.decoder_hidden_states)] == [3, 3]
        assert all(state.shape == (3, 9, 32) for state in found.encoder_hidden_states)
        assert all(state.shape == (3, 7, 32) for state in found.decoder_hidden_states)
        assert found.encoder_last_hidden_state is found.encoder_hidden_states[-1]
        plain = model(**given)
        assert plain.decoder_hidden_states is None
        assert torch.equal(plain.prediction, found.prediction)
        # What comes last is what the way out reads.
        down = model.denoiser.output.down(found.decoder_hidden_states[-1])
        if name == "drafts":
            assert torch.equal(down, found.prediction)
    model.config.output_hidden_states = True
    assert len(model(**given).decoder_hidden_states) == 3


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "drafts"])
def test_attentions_tuples_and_embeddings(paths: dict[str, Path], name: str) -> None:
    model = load(paths, name)
    with pytest.raises(ValueError, match="output_attentions: attention runs in one fused kernel"):
        model(**asked(model), output_attentions=True)
    for given in (asked(model), asked(model, labels=True)):
        named = model(**given)
        found = model(**given, return_dict=False)
        assert isinstance(found, tuple)
        assert len(found) == len(named.to_tuple())
        assert all(torch.equal(a, b) for a, b in zip(found, named.to_tuple(), strict=True))
    model.config.return_dict = False
    assert isinstance(model(**given), tuple)
    model.config.return_dict = True
    given = asked(model)
    ids = given.pop("input_ids")
    embeds = model.get_input_embeddings()(ids)
    found = model(inputs_embeds=embeds, **given)
    assert torch.equal(found.logits, model(ids, **given).logits)
    with pytest.raises(ValueError, match="give input_ids or inputs_embeds, and not both"):
        model(ids, inputs_embeds=embeds, **given)
    with pytest.raises(ValueError, match="give input_ids or inputs_embeds, and not both"):
        model(**given)


def test_embeddings_carry_gradients_and_need_a_level(paths: dict[str, Path]) -> None:
    model = load(paths, "time")
    embeds = model.get_input_embeddings()(some_ids()).detach().requires_grad_()
    with pytest.raises(ValueError, match="do not say which positions are masked"):
        model(inputs_embeds=embeds)
    model(inputs_embeds=embeds, level=torch.zeros(3), labels=some_ids()).loss.backward()
    assert embeds.grad is not None
    assert embeds.grad.abs().sum() > 0


@torch.no_grad()
@pytest.mark.parametrize("name", ALL)
def test_tables_may_be_put_in_place(paths: dict[str, Path], name: str) -> None:
    model = load(paths, name)
    given, old = asked(model), model.get_input_embeddings()
    before = model(**given).logits
    table = nn.Embedding(*old.weight.shape)
    table.weight.copy_(old.weight.flip(0))
    model.set_input_embeddings(table)
    assert model.get_input_embeddings() is table
    assert not torch.equal(model(**given).logits, before)
    if name in ("bert", "tied"):
        assert model.get_output_embeddings().weight is table.weight
    model.tie_weights()
    assert model.get_input_embeddings() is table
    model.set_input_embeddings(old)
    assert torch.equal(model(**given).logits, before)
    with pytest.raises(ValueError, match=r"embeddings of shape \[7, 32\] in the place of"):
        model.set_input_embeddings(nn.Embedding(7, 32))


@torch.no_grad()
@pytest.mark.parametrize("name", ["tied", "llama", "rotary"])
def test_ways_to_load(paths: dict[str, Path], name: str, tmp_path: Path) -> None:
    model = load(paths, name)
    given = asked(model)
    wanted = model(**given).logits
    for settings in (
        {"device_map": "cpu"},
        {"device_map": "auto", "max_memory": {"cpu": "1GiB"}},
        {"device_map": {"": "cpu"}},
        {"low_cpu_mem_usage": True},
    ):
        assert torch.equal(load(paths, name, **settings)(**given).logits, wanted)
    for key in ("torch_dtype", "dtype"):
        half = load(paths, name, **{key: torch.bfloat16})
        assert half.dtype == half.get_input_embeddings().weight.dtype == torch.bfloat16
        found = half(**given).logits
        assert found.isfinite().sum() == wanted.isfinite().sum()
        assert load(paths, name, **{key: "auto"}).dtype == torch.float32
    model.save_pretrained(tmp_path / "again", max_shard_size="20KB")
    assert torch.equal(load({name: tmp_path / "again"}, name)(**given).logits, wanted)


def test_the_seq2seq_trainer_predicts_by_generating(paths: dict[str, Path], tmp_path: Path) -> None:
    for name in ("rotary", "drafts"):
        model = load(paths, name)
        model.generation_config.sampling_steps = 3
        model.generation_config.eos_token_id = 2
        scored: list[tuple[int, ...]] = []

        def metrics(found: Any, scored: list[tuple[int, ...]] = scored) -> dict[str, float]:
            scored.append(found.predictions.shape)
            return {"right": float((found.predictions == found.label_ids).mean())}

        arguments = Seq2SeqTrainingArguments(
            output_dir=str(tmp_path), predict_with_generate=True, max_steps=1, report_to=[],
            per_device_train_batch_size=2, per_device_eval_batch_size=2, save_strategy="no",
            disable_tqdm=True, use_cpu=True, generation_num_beams=1, logging_strategy="no",
        )  # fmt: skip
        rows = [
            {"input_ids": ids.tolist(), "attention_mask": [1] * 9, "labels": ids[:7].tolist()}
            for ids in some_ids(5)
        ]
        trainer = Seq2SeqTrainer(
            model=model, args=arguments, train_dataset=rows, eval_dataset=rows,
            data_collator=DataCollatorForSeq2Seq(_Padder(), model=model), compute_metrics=metrics,
            processing_class=_Padder(),
        )  # fmt: skip
        trainer.train()
        assert "eval_right" in trainer.evaluate()
        assert "eval_right" in trainer.evaluate(max_length=5)
        assert trainer.predict(rows[:3]).predictions.shape == (3, 7)
        assert scored[0] == (5, 7)


class _Padder:
    """As much of a tokenizer as the collator and the trainer ask for."""

    pad_token_id, padding_side, deprecation_warnings = PAD, "left", {}

    def pad(self, features: Any, **_: Any) -> dict[str, Tensor]:
        return {name: torch.tensor([row[name] for row in features]) for name in features[0]}

    def save_pretrained(self, *_: Any) -> None: ...


def test_automatic_classes_build_from_a_configuration(paths: dict[str, Path]) -> None:
    for name, kind in (("tied", AutoModelForMaskedLM), ("rotary", AutoModelForSeq2SeqLM)):
        model = load(paths, name)
        made = kind.from_config(model.config, trust_remote_code=True).eval()
        made.load_state_dict(model.state_dict())
        given = asked(model)
        with torch.no_grad():
            assert torch.equal(made(**given).logits, model(**given).logits)
