"""Tensor and sequence parallelism against one process: log p, every gradient, every draw."""

import itertools
from typing import Any

import pytest
import torch
from asking import configured
from torch import Tensor

from model.draws import Draws
from model.networks.base import Network
from model.networks.build import build
from model.networks.config import ModelConfig
from model.networks.initialize import initial_value
from model.query import Query
from pretrain.launch.local import World
from pretrain.launch.pool import Pool
from pretrain.parallel.config import ParallelConfig
from pretrain.parallel.mesh import Mesh
from pretrain.parallel.network import local_denoiser
from pretrain.parallel.ranges import FlatRange
from pretrain.parallel.shards import places
from tools.verify.layouts import assemble

LENGTH, BATCH = 8, 3
DRAWS = Draws(seed=0, split="test", batch=BATCH)


PLAIN = {"hide_padding": True, "tied_head": True}
QWEN = {
    "name": "transformer",
    "mlp": "swiglu",
    "norm": "rmsnorm",
    "qk_norm": True,
    "qkv_bias": True,
}
BERT = {
    "name": "transformer",
    "norm_first": False,
    "norm_bias": True,
    "qkv_bias": True,
    "attention_bias": True,
    "num_positions": 9,
    "gelu": "erf",
    "head_bias": True,
}


def config(**settings: Any) -> ModelConfig:
    base = {"vocab_size": 90, "width": 32, "num_layers": 2, "num_heads": 4}
    if "name" not in settings:
        base["time_conditioning"] = True
    return configured(**{**base, **settings})


def perturb(denoiser: Network, tensor_rank: int) -> None:
    """Weights away from the zeros at which most gradients vanish, the same under any layout."""
    for parameter, place in places(denoiser, tensor_rank).items():
        noise = initial_value(f"noise.{place.name}.q.weight", torch.Size(place.shape), 1, 1.0)
        with torch.no_grad():
            parameter.add_(denoiser.factory.part(parameter, noise), alpha=0.3)


def given(model: ModelConfig, per_token: bool) -> Query:
    position = torch.arange(BATCH)
    ids = (DRAWS.uniform("ids", position, LENGTH) * model.vocab_size).long()
    level = DRAWS.uniform("level", position, LENGTH if per_token else 1).float()
    where = DRAWS.uniform("where", position, LENGTH) < 0.6
    valid = torch.arange(LENGTH) < torch.tensor([[8], [5], [3]])
    return Query(ids_BL=ids, level_BK=level, predict_mask_BL=where, valid_BL=valid)


def answers(denoiser: Network, inputs: Query, tensor_rank: int) -> dict[str, Any]:
    """log p of every target, draws, and the gradients of the sum of log p, in pieces."""
    row, column = inputs.predict_mask_BL.nonzero(as_tuple=True)
    logits = denoiser.prediction(denoiser(inputs)).logits
    assert logits is not None
    log_prob = logits.log_prob(inputs.ids_BL[inputs.predict_mask_BL])
    (log_prob * torch.linspace(-1, 1, len(log_prob))).sum().backward()
    gradients = []
    for parameter, place in places(denoiser, tensor_rank).items():
        assert parameter.grad is not None, place.name
        gradients.append((place.part, parameter.grad.flatten()))
    return {
        "log_prob": log_prob.detach(),
        "drawn": logits.sample(DRAWS, "token", row, column, 1.0),
        "greedy": logits.sample(DRAWS, "token", row, column, 0.0),
        "gradients": gradients,
    }


Case = tuple[bool, bool]
"""Whether the sequence is parallel, too, and whether every token has a level of its own."""


def sharded(world: World, model: ModelConfig, cases: list[Case]) -> list[dict[str, Any]]:
    """A rank's answers in each case."""
    mesh = Mesh(world, tensor=world.size)
    found = []
    for sequence, per_token in cases:
        layout = ParallelConfig(tensor=world.size, sequence_parallel=sequence, recompute_every=2)
        denoiser = local_denoiser(model, layout, LENGTH, mesh, seed=0)
        perturb(denoiser, mesh.tensor_rank)
        found.append(answers(denoiser, given(model, per_token), mesh.tensor_rank))
    mesh.close()
    return found


def close_pieces(pieces: list[tuple[FlatRange, Tensor]]) -> dict[str, Tensor]:
    """Whole gradients; the replicas of a replicated parameter's may differ by rounding only."""
    first: dict[Any, Tensor] = {}
    for shards, value in pieces:
        same = first.setdefault(shards, value)
        torch.testing.assert_close(value, same, rtol=1e-4, atol=1e-5)
    return assemble(list(first.items()))


@pytest.mark.parametrize(
    ("size", "heads", "groups"), [(3, 6, 2), (3, 6, 3), (4, 8, 2), (2, 4, 1), (2, 6, 3)]
)
def test_shared_heads_under_sizes_that_do_not_divide_them(
    pool: Pool, size: int, heads: int, groups: int
) -> None:
    settings = {"num_heads": heads, "num_kv_heads": groups, "head_size": 4, "mlp_width": 96}
    model = config(**settings, vocab_size=300, qkv_bias=True, qk_norm=True)
    compare(pool, size, model, [(False, False)])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"tied_head": True, "hide_padding": True},
        {"mlp": "swiglu", "mlp_width": 64, "norm": "rmsnorm"},
        {"num_kv_heads": 2, "qk_norm": True, "qkv_bias": True, "head_size": 4},
        {**PLAIN, **QWEN, "num_kv_heads": 1},
        {**PLAIN, **BERT},
    ],
    ids=["plain", "tied", "llama", "grouped", "qwen", "bert"],
)
@pytest.mark.parametrize("size", [2, 4])
def test_shards_answer_like_the_whole(pool: Pool, size: int, settings: dict[str, Any]) -> None:
    """With the sequence parallel, too, or not; with a level for each token, or one for all."""
    compare(pool, size, config(**settings), list(itertools.product([False, True], repeat=2)))


def compare(pool: Pool, size: int, model: ModelConfig, cases: list[Case]) -> None:
    ranks = pool.run(size, sharded, model, cases)
    for number, (_, per_token) in enumerate(cases):
        whole = build(model)
        perturb(whole, 0)
        truth = answers(whole, given(model, per_token), 0)
        assert_alike([found[number] for found in ranks], truth)


def assert_alike(found: list[dict[str, Any]], truth: dict[str, Any]) -> None:
    """The ranks' answers are those of one process."""
    for one in found:
        torch.testing.assert_close(one["log_prob"], truth["log_prob"], rtol=1e-5, atol=2e-5)
        assert torch.equal(one["drawn"], truth["drawn"])
        assert torch.equal(one["greedy"], truth["greedy"])
    gradients = close_pieces([piece for one in found for piece in one["gradients"]])
    expected = assemble(truth["gradients"])
    assert gradients.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(gradients[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_a_sharded_weight_is_part_of_the_one_drawn_by_name(pool: Pool) -> None:
    model = config()
    whole = {name: p for p, name in build(model).parameter_names().items()}
    pieces = [piece for part in pool.run(4, initial, model) for piece in part]
    assert {shards.name for shards, _ in pieces} == whole.keys()
    for name, value in assemble(pieces).items():
        assert torch.equal(value, whole[name])
    split = {shards.name for shards, _ in pieces if shards.sizes != shards.shape}
    assert "layers.0.tokens.weight" in split
    assert "layers.3.head.bias" in split
    assert "layers.1.mlp.down.weight" in split
    assert "layers.1.mlp.down.bias" not in split


def initial(world: World, model: ModelConfig) -> list[tuple[FlatRange, Tensor]]:
    mesh = Mesh(world, tensor=world.size)
    denoiser = local_denoiser(model, ParallelConfig(tensor=world.size), LENGTH, mesh, seed=0)
    found = places(denoiser, mesh.tensor_rank)
    mesh.close()
    return [(place.part, p.detach().flatten()) for p, place in found.items()]
