"""Which places see which: known masks, and networks that attend by them."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from asking import configured, logits_of, query_of
from torch import Tensor

from model.architectures.dit import DiT
from model.draws import Draws
from model.networks.attention_layouts import FULL, AttentionLayout, Blocks, Cached, Causal, Opening
from model.networks.attention_layouts import dense_mask as mask_of
from model.networks.base import Network
from model.networks.build import build
from model.objectives import training_layout
from model.objectives.mdlm import Mdlm

DRAWS = Draws(seed=0, split="train", batch=4)
CPU = torch.device("cpu")
KINDS: dict[str, dict[str, Any]] = {
    "adaln": {},
    "llama": {"name": "transformer", "num_kv_heads": 1, "qk_norm": True},
    "learned": {"name": "transformer", "norm_first": False, "num_positions": 16},
}


def network(kind: str, **changes: Any) -> Network:
    """Of which no weight is zero, in float64."""
    sizes = {"vocab_size": 11, "width": 16, "num_layers": 2, "num_heads": 2}
    model = build(configured(**{**sizes, **KINDS[kind], **changes})).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def asked(
    model: Network, ids_BL: Tensor, layout: AttentionLayout, segment_BL: Tensor | None = None
) -> Tensor:
    """Logits ``[B, L, R]`` of real ids."""
    query = query_of(ids_BL, torch.zeros(len(ids_BL), 1))
    query = replace(query, layout=layout, segment_BL=segment_BL)
    with torch.no_grad():
        return model(query)["logits"].unflatten(0, ids_BL.shape)[..., :11]


def text(num: int, length: int) -> Tensor:
    return (11 * DRAWS.uniform("text", torch.arange(num), length)).long()


def dense(layout: AttentionLayout, length: int) -> Tensor:
    found = mask_of(layout, length, length, CPU)
    assert found is not None
    return found


# -- masks --------------------------------------------------------------------------------------


def test_the_mask_of_blocks() -> None:
    """The rows that BD3-LM has for four positions in blocks of two."""
    rows = ["11000000"] * 2 + ["00111100"] * 2 + ["00001100"] * 2 + ["00001111"] * 2
    expected = torch.tensor([[int(bit) for bit in row] for row in rows]).bool()
    assert torch.equal(dense(Blocks(size=2), 8), expected)


@pytest.mark.parametrize(("size", "pairs"), [(4, 1_052_672), (16, 1_064_960)])
def test_so_many_pairs_attend_in_blocks(size: int, pairs: int) -> None:
    assert int(dense(Blocks(size=size), 2048).sum()) == pairs == 1024 * size + 1024**2


@pytest.mark.parametrize("step", [1, 5, 9])
def test_later_keys_are_seen_with_the_share_of_the_steps(step: int) -> None:
    found = dense(Opening(draws=DRAWS, step=step, steps=10), 300)
    lower = torch.ones(300, 300, dtype=torch.bool).tril()
    assert found[lower].all()
    share = found[~lower].double().mean().item()
    deviation = (step / 10 * (1 - step / 10) / (~lower).sum().item()) ** 0.5
    assert abs(share - step / 10) < 5 * deviation


def test_an_opening_mask_depends_on_the_step_and_the_seed_alone() -> None:
    layout = Opening(draws=DRAWS, step=3, steps=10)
    one = dense(layout, 40)
    assert torch.equal(one, dense(replace(layout, draws=replace(DRAWS, batch=8)), 40))
    assert not torch.equal(one, dense(replace(layout, step=4), 40))
    assert not torch.equal(one, dense(replace(layout, draws=replace(DRAWS, seed=1)), 40))


def test_attention_is_open_when_its_steps_are_over() -> None:
    model = DiT(vocab_size=11, width=16, num_heads=2, causal_annealing_steps=10)
    assert training_layout(Mdlm(), model, DRAWS, 9, 8) == Opening(draws=DRAWS, step=9, steps=10)
    assert training_layout(Mdlm(), model, DRAWS, 10, 8) == FULL
    assert training_layout(Mdlm(), replace(model, causal_annealing_steps=0), DRAWS, 1, 8) == FULL


# -- networks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_layout_is_of_one_pass(kind: str) -> None:
    model, ids = network(kind), text(2, 8)
    full = asked(model, ids, FULL)
    assert not torch.allclose(asked(model, ids, Causal()), full, atol=1e-3)
    assert torch.equal(asked(model, ids, FULL), full)
    barely_open = Opening(draws=DRAWS, step=1, steps=10**9)
    torch.testing.assert_close(asked(model, ids, barely_open), asked(model, ids, Causal()))


@pytest.mark.parametrize("kind", KINDS)
def test_no_position_reads_what_comes_later(kind: str) -> None:
    model, ids = network(kind), text(1, 8)
    other = ids.clone()
    other[:, 5:] = (other[:, 5:] + 1) % 11
    one, two = (asked(model, x, Causal()) for x in (ids, other))
    torch.testing.assert_close(one[:, :5], two[:, :5])
    assert (one[:, 5:] - two[:, 5:]).abs().amax(dim=-1).min() > 1e-3


def test_causal_weights_stay_causal() -> None:
    model, ids = network("llama"), text(1, 8)
    causal = build(replace(model.config, attention="causal")).double().eval()
    causal.load_state_dict(model.state_dict())
    assert torch.equal(logits_of(causal, ids, torch.zeros(1, 1)), _all(model, ids, Causal()))


def _all(model: Network, ids: Tensor, layout: AttentionLayout) -> Tensor:
    return model(replace(query_of(ids, torch.zeros(1, 1)), layout=layout))["logits"]


@pytest.mark.parametrize("kind", ["adaln", "llama"])
def test_segments_stand_alone(kind: str) -> None:
    """Rotary positions are relative, so a segment is a text of its own."""
    model, ids = network(kind, hide_padding=True), text(2, 9)
    segment = torch.tensor([[1, 1, 1, 1, 2, 2, 2, 2, 2], [4, 4, 4, 4, 4, 4, 4, 4, 4]])
    found = asked(model, ids, FULL, segment)
    torch.testing.assert_close(found[:1, :4], asked(model, ids[:1, :4], FULL))
    torch.testing.assert_close(found[:1, 4:], asked(model, ids[:1, 4:], FULL))
    torch.testing.assert_close(found[1:], asked(model, ids[1:], FULL))


@pytest.mark.parametrize("kind", KINDS)
def test_the_clean_copy_is_read_causally_by_blocks(kind: str) -> None:
    """A noisy block sees what it would see alone behind the clean text before it."""
    model, clean, noisy = network(kind), text(1, 6), text(3, 6)[2:]
    found = asked(model, torch.cat([noisy, clean], dim=1), Blocks(size=2))
    by_block = torch.arange(6) // 2
    for block in range(3):
        here = by_block == block
        joined = torch.cat([clean[:, by_block < block], noisy[:, here]], dim=1)
        mask = dense(Blocks(size=2), 12)[6:, 6:][: joined.shape[1], : joined.shape[1]]
        alone = asked(model, joined, _Given(mask=tuple(map(tuple, mask.tolist()))))
        torch.testing.assert_close(found[:, :6][:, here], alone[:, -2:])


class _Given(AttentionLayout):
    def __init__(self, mask: tuple[tuple[bool, ...], ...]) -> None:
        object.__setattr__(self, "mask", mask)

    def __hash__(self) -> int:
        return hash(vars(self)["mask"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Given) and vars(self) == vars(other)

    def sees_all(self, length: int) -> bool:
        return False

    def rule(self, length: int, device: torch.device) -> Any:
        mask = torch.tensor(vars(self)["mask"])
        return lambda q, k: mask[q, k]


@pytest.mark.parametrize("kind", KINDS)
def test_cached_keys_stand_for_a_whole_pass(kind: str) -> None:
    model, ids = network(kind), text(2, 8)
    whole = asked(model, ids, Causal())
    first = asked(model, ids[:, :5], Cached(causal=True))
    torch.testing.assert_close(first, whole[:, :5])
    for place in (5, 6, 7):
        one = asked(model, ids[:, place : place + 1], Cached(past=place, causal=True))
        torch.testing.assert_close(one[:, 0], whole[:, place])
    again = asked(model, ids[:, 5:], Cached(past=5, keep=False, causal=True))
    torch.testing.assert_close(again, whole[:, 5:])


def test_nothing_is_cached_after_a_pass_of_another_layout() -> None:
    model, ids = network("adaln"), text(1, 8)
    asked(model, ids, Cached())
    asked(model, ids, FULL)
    with pytest.raises(KeyError):
        asked(model, ids, Cached(past=8))
