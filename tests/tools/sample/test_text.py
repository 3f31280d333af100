"""Texts longer than those of training, and where they end."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_models import configured, random_weights, run_of

from data_pipeline.tokenizer import load_tokenizer
from model.networks.build import build
from model.samplers.semi_autoregressive import SemiAutoregressive
from pretrain.checkpoint.weights import Loaded
from tools.sample.text import Samples, sample


@pytest.mark.parametrize("packing", ["pad", "wrap"])
def test_a_model_that_ends_its_texts_is_asked_no_longer(corpus: Path, packing: str) -> None:
    tokenizer = load_tokenizer(corpus)
    denoiser = random_weights(build(configured(vocab_size=1024)))
    with torch.no_grad():  # so that texts of a few tokens end
        dict(denoiser.named_parameters())["layers.3.head.bias"][tokenizer.eos_id] += 9.0
    run = run_of(denoiser.config, corpus, data={"packing": packing})
    loaded = Loaded(
        denoiser=denoiser,
        config=replace(run, objective=replace(run.objective, padding="masked")),
        checkpoint=Path("none"),
        step=0,
        tokens_seen=0,
        device=torch.device("cpu"),
    )

    def drawn(batch: int) -> Samples:
        return sample(
            loaded,
            tokenizer,
            prompt="The assert",
            num=4,
            length=60,
            sampler=SemiAutoregressive(steps=3, window=12),
            seed=3,
            batch=batch,
        )

    assert drawn(1).texts == drawn(4).texts
    lengths = [len(ids) for ids in drawn(4).ids]  # without the frame, or the EOS and what follows
    assert lengths == [58] * 4 if packing == "wrap" else max(lengths) < 58
    assert drawn(4).texts == [tokenizer.decode(ids) for ids in drawn(4).ids]
    (most,) = set(drawn(4).evaluations)
    windows = SemiAutoregressive(steps=1, window=12).num_steps(60)
    assert (most < 2 * windows) == (packing == "pad")
