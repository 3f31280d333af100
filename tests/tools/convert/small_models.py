"""Small random models, and checkpoints of them written as training writes them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch

from configs.load import validate
from data_pipeline.tokenizer import load_tokenizer
from model.networks.config import ModelConfig, Seq2SeqConfig
from model.networks.dit import Denoiser
from model.networks.encoder_decoder import Seq2Seq
from pretrain.config import RunConfig
from tools.convert import write
from tools.convert.tensors import of_dict

MODEL: dict[str, Any] = {"vocab_size": 90, "width": 32, "num_layers": 2, "num_heads": 4}
MODEL["conditioning_width"] = 16

AnyNetwork = TypeVar("AnyNetwork", Denoiser, Seq2Seq)


def random_weights(denoiser: AnyNetwork, seed: int = 0) -> AnyNetwork:
    """Every weight moved, so that no branch is closed and no two conversions look alike."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return denoiser.eval()


def run_of(model: ModelConfig, corpus: Path | str = "unknown", **blocks: Any) -> RunConfig:
    plain = {
        "steps": 10,
        "global_batch": 4,
        "objective": {"name": "mdlm"},
        "model": asdict(model),
        **blocks,
        "data": {"corpus": str(corpus), "sequence_length": 32, **blocks.get("data", {})},
    }
    return validate(RunConfig, plain, where="the test's run")


def save_weights(path: Path, network: Denoiser | Seq2Seq, run: RunConfig, shard_bytes: int) -> None:
    """A checkpoint of step 7."""
    values = {n: p.detach() for p, n in network.parameter_names().items()}
    state = write.state_of(run, step=7, tokens_seen=896, facts={"score": 4.25})
    write.write_checkpoint(path, of_dict(values, path.name), state, shard_bytes)


def small_genie(corpus: Path) -> tuple[Seq2Seq, RunConfig]:
    """An untrained encoder-decoder with the corpus's vocabulary, and its run."""
    tokenizer = load_tokenizer(corpus)
    ids = {"vocab_size": tokenizer.vocab_size, "mask_id": tokenizer.mask_id}
    shape = Seq2SeqConfig(num_encoder_layers=2, embedding_width=12, output="mixture")
    network = Seq2Seq(ModelConfig(**MODEL | ids, seq2seq=shape))
    run = run_of(
        network.config,
        corpus,
        objective={"name": "genie", "num_steps": 40},
        data={"packing": "pairs", "source_length": 4, "sequence_length": 6},
    )
    return network, run
