"""The model card says what is known and no more, and its snippets run as they stand."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from exports import export_denoiser, export_genie
from small_models import run_of, save_weights, small_genie

from data_pipeline.tokenizer import load_tokenizer
from model.architectures.dit import DiT
from tools.convert.__main__ import main
from tools.convert.card import About, card
from tools.convert.to_hf import to_hf

REPORT = {"largest_difference": 0.0}
FACTS: dict[str, Any] = {"step": 7, "tokens_seen": 896, "score": None, "weights": "raw"}
FACTS["code"] = {}


def metadata(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return found


def run_snippets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    assert len(blocks) == 1
    monkeypatch.chdir(folder)
    exec(compile(blocks[0], "README.md", "exec"), {})


@pytest.mark.slow
def test_snippets_run(tmp_path: Path, corpus: Path, monkeypatch, capsys) -> None:
    whole = export_denoiser(tmp_path / "whole", corpus, vocab_size=1024)
    bare = export_denoiser(tmp_path / "bare")
    save_weights(tmp_path / "ckpt", *small_genie(corpus), 2**20)
    to_hf(tmp_path / "ckpt", tmp_path / "genie")
    bare_genie = export_genie(tmp_path / "bare-genie", "rotary")
    for folder in (whole, bare, tmp_path / "genie", bare_genie):
        capsys.readouterr()
        text = (folder / "README.md").read_text()
        for word in ("HERE", "TODO", "your", str(tmp_path)):
            assert word not in text, word
        run_snippets(folder, monkeypatch)
        if folder in (whole, tmp_path / "genie"):
            assert capsys.readouterr().out.strip()
            assert load_tokenizer(corpus).sha256 in text
        else:
            assert "Tokenizer: unknown; none lies beside the weights." in text


def test_what_is_known_is_said(tmp_path: Path, corpus: Path) -> None:
    export_denoiser(tmp_path, corpus, vocab_size=1024)
    words = ["to-hf", str(tmp_path / "ckpt"), str(tmp_path / "named")]
    words += ["--license", "cc-by-4.0", "--repository", "somebody/small-mdlm"]
    assert main(words) == 0
    text = (tmp_path / "named" / "README.md").read_text()
    assert metadata(text) == {
        "library_name": "transformers",
        "pipeline_tag": "fill-mask",
        "tags": ["palimpsest", "text-diffusion", "masked-diffusion", "mdlm", "custom_code"],
        "license": "cc-by-4.0",
    }
    assert "# small-mdlm\n" in text
    assert 'where = "somebody/small-mdlm"\n' in text
    assert "Of the weights: cc-by-4.0; the Python files beside them: Apache-2.0" in text
    for line in (
        "| steps | 7 of 10 |",
        "| objective | mdlm, schedule loglinear |",
        "| held-out bound | 4.2500 nats per token |",
        "Tokenizer: SentencePiece, 1,024 ids, ",
        f"a corpus that was called `{corpus.name}`, packing `wrap`",
        "Training: ",
    ):
        assert line in text, line


def test_what_is_not_known_is_not_made_up(tmp_path: Path) -> None:
    text = (export_denoiser(tmp_path) / "README.md").read_text()
    assert "license" not in metadata(text)
    assert "Of the weights: not stated" in text
    assert "is not recorded" in text
    model = DiT(vocab_size=90, width=32, num_layers=2, num_heads=4)
    run = run_of(model)
    unmeasured = card(run, FACTS, REPORT, own=True)
    assert "| held-out bound | not measured |" in unmeasured
    converted = card(run, {**FACTS, "step": 0, "tokens_seen": 0}, REPORT, own=True)
    assert (
        "| training | converted weights; how they were trained is not recorded here |" in converted
    )
    assert "Training data: unknown." in converted
    for word in ("steps", "objective", "tokens seen", "global batch"):
        assert f"| {word} |" not in converted
    foreign = card(run, FACTS, REPORT, own=False, about=About(license="mit"))
    assert metadata(foreign) == {
        "tags": ["palimpsest", "text-diffusion", "masked-diffusion", "mdlm"],
        "license": "mit",
    }
    assert "## Use" not in foreign
