"""transformers' pipelines read an export as they read other models."""

from pathlib import Path

import pytest
import torch
from exports import export_denoiser
from transformers import AutoTokenizer, pipeline


def test_pipelines(tmp_path: Path, corpus: Path) -> None:
    path = export_denoiser(tmp_path, corpus, vocab_size=1024, tied_head=True)
    settings = {"model": str(path), "trust_remote_code": True, "device": "cpu"}
    fill = pipeline("fill-mask", **settings)
    text = f"The {fill.tokenizer.mask_token} statement"
    (first, *rest) = fill(text)
    assert len(rest) == 4
    ids = fill.tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        at = ids[0] == fill.tokenizer.mask_token_id
        likeliest = fill.model(ids).logits[0, at].softmax(-1).max()
    assert first["score"] == pytest.approx(float(likeliest), abs=1e-6)
    assert [len(one) for one in fill([text, f"A longer text, {text}"], batch_size=2)] == [5, 5]
    own = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
    assert pipeline("fill-mask", tokenizer=own, **settings)(text)[0] == first
    assert own.mask_token_id not in own(text)["input_ids"]
    fill.model.save_pretrained(tmp_path / "again")
    own.save_pretrained(tmp_path / "again")
    again = pipeline("fill-mask", **{**settings, "model": str(tmp_path / "again")})
    assert again(text)[0] == first
    classify = pipeline("text-classification", **settings)
    alone = [classify(t)[0]["score"] for t in ("a text", "another, longer text")]
    together = classify(["a text", "another, longer text"], batch_size=2)
    assert [one["score"] for one in together] == pytest.approx(alone, abs=1e-5)
    assert len(pipeline("feature-extraction", **settings)("a text")[0][0]) == 32
