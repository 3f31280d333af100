"""Small random models, and checkpoints of them written as training writes them."""

from pathlib import Path
from typing import Any, TypeVar

import torch

from configs.build import Plugin
from configs.load import named_plain, validate
from data_pipeline.tokenizer import load_tokenizer
from model.networks.base import Network
from model.networks.build import build
from model.networks.config import ModelConfig
from pretrain.config import RunConfig
from tools.convert import write
from tools.convert.tensors import of_dict

MODEL: dict[str, Any] = {"vocab_size": 90, "width": 32, "num_layers": 2, "num_heads": 4}
M = TypeVar("M", bound=torch.nn.Module)
ARCHITECTURES = Plugin("model.architectures", default="dit")


def configured(**fields: Any) -> Any:
    """A small network's configuration, as the block ``model`` of a file makes it."""
    if fields.get("name") != "transformer":
        fields = {"conditioning_width": 16, **fields}
    return ARCHITECTURES.build({**MODEL, **fields})


def random_weights(model: M, seed: int = 0) -> M:
    """Every weight moved, so that no branch is closed and no two conversions look alike."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def run_of(model: ModelConfig, corpus: Path | str = "unknown", **blocks: Any) -> RunConfig:
    plain = {
        "steps": 10,
        "global_batch": 4,
        "objective": {"name": "mdlm"},
        "model": named_plain(model),
        **blocks,
        "data": {"corpus": str(corpus), "sequence_length": 32, **blocks.get("data", {})},
    }
    return validate(RunConfig, plain, where="the test's run")


def save_weights(path: Path, network: Network, run: RunConfig, shard_bytes: int) -> None:
    """A checkpoint of step 7."""
    values = {n: p.detach() for p, n in network.parameter_names().items()}
    state = write.state_of(run, step=7, tokens_seen=896, facts={"score": 4.25})
    write.write_checkpoint(path, of_dict(values, path.name), state, shard_bytes)


def small_genie(corpus: Path) -> tuple[Network, RunConfig]:
    """An untrained encoder-decoder with the corpus's vocabulary, and its run."""
    tokenizer = load_tokenizer(corpus)
    ids = {"vocab_size": tokenizer.vocab_size, "mask_id": tokenizer.mask_id}
    shape = {"num_encoder_layers": 2, "embedding_width": 12, "output": "mixture"}
    network = build(configured(name="encoder_decoder", **ids, **shape))
    run = run_of(
        network.config,
        corpus,
        objective={"name": "genie", "num_steps": 40},
        data={"packing": "pairs", "source_length": 4, "sequence_length": 6},
    )
    return network, run
