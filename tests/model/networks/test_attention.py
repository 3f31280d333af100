import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from model.draws import Draws
from model.networks.attention import attention, block_mask
from model.networks.attention_layouts import AttentionLayout, Blocks, Causal, Full, Opening


def heads(num: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(num)
    return [
        torch.randn(3, 6, 2, 4, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for _ in range(3)
    ]


def explicit(q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None) -> Tensor:
    scores = torch.einsum("bihe,bjhe->bhij", q, k) / q.shape[-1] ** 0.5
    if valid is not None:
        scores = scores.masked_fill(~valid[:, None, None, :], -torch.inf)
    return torch.einsum("bhij,bjhe->bihe", scores.softmax(-1), v)


def test_fewer_key_heads_are_shared_by_consecutive_queries() -> None:
    q, k, v = heads(4)
    q4 = torch.cat([q, 2 * q], dim=2)
    for valid in (None, VALID):
        out = attention(q4, k, v, valid)
        shared = [x.repeat_interleave(2, dim=2) for x in (k, v)]
        torch.testing.assert_close(out, explicit(q4, *shared, valid), rtol=1e-12, atol=1e-12)


LAYOUTS = (
    Full(),
    Causal(),
    Opening(draws=Draws(seed=0, split="train", batch=1), step=3, steps=7),
    Blocks(size=2),
)


@pytest.mark.parametrize("keys", ["all", "padded", "segments"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: type(layout).__name__)
def test_what_a_query_may_see(layout: AttentionLayout, keys: str) -> None:
    q, k, v = heads(5)
    keys_BS = {"all": None, "padded": VALID, "segments": SEGMENTS}[keys]
    out = attention(q, k, v, keys_BS, layout)
    place = torch.arange(6)
    rule = layout.rule(6, place.device)
    seen = torch.ones(3, 6, 6, dtype=torch.bool)
    if rule is not None:
        seen &= rule(place[:, None], place[None, :])
    if keys_BS is not None:
        seen &= keys_BS[:, None, :] > 0
    if keys == "segments":
        seen &= SEGMENTS[:, :, None] == SEGMENTS[:, None, :]
    scores = torch.einsum("bihe,bjhe->bhij", q, k) / q.shape[-1] ** 0.5
    scores = scores.masked_fill(~seen[:, None], -torch.inf).softmax(-1).nan_to_num()
    expected = torch.einsum("bhij,bjhe->bihe", scores, v)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("keys", ["all", "padded", "segments"])
@pytest.mark.parametrize("layout", LAYOUTS[1:], ids=lambda layout: type(layout).__name__)
def test_flex_attention_sees_the_same(layout: AttentionLayout, keys: str) -> None:
    """Uncompiled, as a CPU has it; on a GPU the same mask is compiled."""
    keys_BS = {"all": None, "padded": VALID, "segments": SEGMENTS}[keys]
    q, k, v = (x.float().detach() for x in heads(6))
    expected = attention(q, k, v, keys_BS, layout)
    mask = block_mask(layout, keys_BS, 6, q.device)
    found = flex_attention(*(x.transpose(1, 2) for x in (q, k, v)), block_mask=mask)
    torch.testing.assert_close(found.transpose(1, 2), expected, rtol=1e-5, atol=1e-6)


VALID = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 0, 1, 0, 0], [0, 0, 0, 0, 0, 1]], dtype=torch.bool)
SEGMENTS = torch.tensor([[1, 1, 2, 2, 2, 3], [1, 2, 1, 0, 0, 1], [0, 1, 1, 1, 1, 1]]).int()


@pytest.mark.parametrize("valid", [None, VALID], ids=["all", "padded"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)],
    ids=str,
)
def test_attention_is_a_softmax_average(
    valid: Tensor | None, dtype: torch.dtype, tolerance: float
) -> None:
    q, k, v = heads(1, dtype)
    out = attention(q, k, v, valid)
    assert (out.shape, out.dtype) == (q.shape, dtype)
    expected = explicit(q.double(), k.double(), v.double(), valid)
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("valid", [None, VALID], ids=["all", "padded"])
def test_gradients_are_those_of_the_softmax_average(valid: Tensor | None) -> None:
    inputs = heads(2)
    probe = torch.linspace(-1, 1, inputs[0].numel(), dtype=torch.float64).view_as(inputs[0])
    found = torch.autograd.grad((attention(*inputs, valid) * probe).sum(), inputs)
    expected = torch.autograd.grad((explicit(*inputs, valid) * probe).sum(), inputs)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_a_sample_without_valid_keys_gives_zeros_and_finite_gradients(dtype: torch.dtype) -> None:
    valid = VALID.clone()
    valid[1] = False
    inputs = heads(3, dtype)
    out = attention(*inputs, valid)
    assert (out[1] == 0).all()
    assert out[0].abs().min() > 0
    grads = torch.autograd.grad(out.square().sum(), inputs)
    for grad in grads:
        assert grad.isfinite().all()
        assert (grad[1] == 0).all()
    assert grads[0][0].abs().max() > 0
