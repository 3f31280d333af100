"""BertForMaskedLM of transformers into the denoiser."""

from pathlib import Path
from typing import Any

import pytest
import torch
from asking import logits_of
from safetensors.torch import load_file, save_file
from small_models import random_weights
from transformers import BertConfig, BertForMaskedLM

from configs.errors import UserError
from model.architectures.encoder_decoder import EncoderDecoder
from model.networks.build import build
from model.query import Query
from tools.convert.format import Options
from tools.convert.from_hf import from_hf

SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 20,
}
MASK = Options(mask_id=4)


def bert(folder: Path, **settings: Any) -> BertForMaskedLM:
    model = random_weights(BertForMaskedLM(BertConfig(**{**SIZES, **settings})))
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("act", ["gelu", "gelu_new"])
def test_logits_are_equal(tmp_path: Path, loaded, ids_of, our_logits, act: str) -> None:
    model = bert(tmp_path / "hf", hidden_act=act)
    assert from_hf(tmp_path / "hf", tmp_path / "in", options=MASK)["equal"]
    denoiser = loaded(tmp_path / "in")
    ids = ids_of(60)
    with torch.no_grad():
        expected = model(ids).logits
    keep = [i for i in range(60) if i != 4]
    found = our_logits(denoiser, ids)
    torch.testing.assert_close(found[..., keep], expected[..., keep], rtol=0, atol=1e-5)
    assert expected.abs().max() > 1


def test_padding_is_hidden_as_bert_hides_it(tmp_path: Path, loaded, ids_of) -> None:
    model = bert(tmp_path / "hf")
    from_hf(tmp_path / "hf", tmp_path / "in", options=MASK)
    denoiser = loaded(tmp_path / "in")
    ids = ids_of(60)
    valid = torch.arange(12) < torch.tensor([[12], [5], [1]])
    with torch.no_grad():
        expected = model(ids, attention_mask=valid.long()).logits[valid]
        found = logits_of(denoiser, ids, torch.zeros(3, 1), valid, valid)
    keep = [i for i in range(60) if i != 4]
    torch.testing.assert_close(found[:, keep], expected[:, keep], rtol=0, atol=1e-5)


def test_names_of_the_first_release(tmp_path: Path, loaded, ids_of, our_logits) -> None:
    """gamma and beta, a pooler and a next-sentence head."""
    bert(tmp_path / "hf")
    from_hf(tmp_path / "hf", tmp_path / "new", options=MASK)
    file = tmp_path / "hf" / "model.safetensors"
    state = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in load_file(file).items()
    }
    state["bert.pooler.dense.weight"] = torch.zeros(32, 32)
    state["bert.pooler.dense.bias"] = torch.zeros(32)
    state["cls.seq_relationship.weight"] = torch.zeros(2, 32)
    state["cls.seq_relationship.bias"] = torch.zeros(2)
    save_file(state, file)
    from_hf(tmp_path / "hf", tmp_path / "old", options=MASK)
    ids = ids_of(60)
    new, old = (our_logits(loaded(tmp_path / name), ids) for name in ("new", "old"))
    assert torch.equal(new, old)


def test_the_tokenizer_says_which_id_is_the_mask(tmp_path: Path, loaded) -> None:
    bert(tmp_path / "hf")
    with pytest.raises(UserError, match=r"does not say which id is \[MASK\]: add --mask-id N"):
        from_hf(tmp_path / "hf", tmp_path / "in")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u2028", "[MASK]", "b"]
    (tmp_path / "hf" / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    from_hf(tmp_path / "hf", tmp_path / "in")
    assert loaded(tmp_path / "in").config.mask == 5


def test_an_untied_head_is_refused(tmp_path: Path) -> None:
    bert(tmp_path / "hf")
    file = tmp_path / "hf" / "model.safetensors"
    state = load_file(file)
    state["cls.predictions.decoder.weight"] = torch.zeros(60, 32)
    save_file(state, file)
    with pytest.raises(UserError, match=r"decoder\.weight is not tied to"):
        from_hf(tmp_path / "hf", tmp_path / "in", options=MASK)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"hidden_act": "relu"}, "hidden_act relu; known are"), ({"is_decoder": True}, "is_decoder")],
    ids=str,
)
def test_other_berts_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    bert(tmp_path / "hf", **settings)
    with pytest.raises(UserError, match=message):
        from_hf(tmp_path / "hf", tmp_path / "in", options=MASK)


def test_an_encoder_of_bert_weights_is_bert(tmp_path: Path, loaded, ids_of) -> None:
    """All of its blocks, or the first of more, under a padding mask."""
    for num_layers in (2, 3):
        model = bert(tmp_path / f"hf{num_layers}", num_hidden_layers=num_layers).bert
        from_hf(tmp_path / f"hf{num_layers}", tmp_path / f"in{num_layers}", options=MASK)
        denoiser = loaded(tmp_path / f"in{num_layers}")
        sources = {name: value for value, name in denoiser.parameter_names().items()}
        config = EncoderDecoder(
            vocab_size=60,
            mask_id=4,
            width=32,
            num_heads=4,
            mlp_width=48,
            num_layers=1,
            num_encoder_layers=2,
            encoder="bert",
            max_positions=20,
        )
        network = build(config)
        for parameter, name in network.parameter_names().items():
            if source := config.name_in_encoder(name):
                parameter.data.copy_(sources[source])
        ids, valid = ids_of(60), torch.arange(12) < torch.tensor([[12], [5], [1]])
        query = Query(
            ids_BL=ids, level_BK=torch.zeros(3, 1), predict_mask_BL=valid, source_BS=ids,
            source_valid_BS=valid,
        )  # fmt: skip
        with torch.no_grad():
            found = network.encode(query).memory_BSD
            states = model(ids, attention_mask=valid.long(), output_hidden_states=True)
        assert found is not None
        expected = states.hidden_states[2]
        torch.testing.assert_close(found[valid], expected[valid], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("size", "mask", "own"), [(50, 4, 4), (50, 55, None), (60, 4, 4)])
def test_rows_beyond_the_tokenizer_are_left_out(
    tmp_path: Path, loaded, ids_of, our_logits, size: int, mask: int, own: int | None
) -> None:
    model = bert(tmp_path / "hf")
    options = Options(mask_id=mask, vocab_size=size)
    assert from_hf(tmp_path / "hf", tmp_path / "in", options=options)["equal"]
    denoiser = loaded(tmp_path / "in")
    assert (denoiser.config.vocab_size, denoiser.config.mask_id) == (size, own)
    ids = ids_of(size)
    ids[:, ::3] = denoiser.config.mask
    with torch.no_grad():
        expected = model(torch.where(ids == denoiser.config.mask, mask, ids)).logits
    keep = [index for index in range(size) if index != own]
    found = our_logits(denoiser, ids)
    torch.testing.assert_close(found[..., keep], expected[..., keep], rtol=0, atol=1e-5)
