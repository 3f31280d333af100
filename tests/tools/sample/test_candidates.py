"""Candidates that nothing but the seed decides."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import random_weights, small_genie

from data_pipeline.tokenizer import load_tokenizer
from model.networks.build import build
from model.samplers.ddpm import Ddpm
from pretrain.checkpoint.weights import Loaded
from tools.sample.candidates import Candidates, draw_candidates


@pytest.mark.parametrize("sees_padding", [False, True])
def test_sources_of_any_length_share_a_batch(corpus: Path, sees_padding: bool) -> None:
    """A model that sees the padding of sources gets as much of it as in training."""
    network, run = small_genie(corpus)
    changed: Any = {"ignore_source_padding": sees_padding}
    run = replace(run, model=replace(network.config, **changed))
    loaded = Loaded(
        denoiser=random_weights(build(run.model)),
        config=run,
        checkpoint=Path("none"),
        step=0,
        tokens_seen=0,
        device=torch.device("cpu"),
    )
    tokenizer = load_tokenizer(corpus)
    sources = [[5, 6, 7, 8], [9], [10, 11]]

    def drawn(batch: int) -> Candidates:
        return draw_candidates(
            loaded, tokenizer, sources, num=2, sampler=Ddpm(steps=4), seed=3, batch=batch
        )

    assert drawn(1) == drawn(6)
    assert drawn(1).evaluations == 4
