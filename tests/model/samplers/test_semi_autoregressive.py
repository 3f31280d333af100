"""Texts of any length: the law of a chain through its windows, and where texts end."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asking import Known
from mask_sampling import Asked, counts_of, masks, states
from torch import Tensor

from model.architectures.dit import DiT
from model.architectures.transformer import Transformer
from model.draws import Draws
from model.objectives.mdlm import Mdlm
from model.query import Query
from model.samplers import Job
from model.samplers.ancestral import Ancestral
from model.samplers.semi_autoregressive import SemiAutoregressive
from model.verification.joint import Joint

ChiSquare = Callable[[Tensor, Tensor], float]


def markov(length: int) -> Joint:
    """A stationary chain of two letters, so that every window has the same law."""
    step = torch.tensor([[0.8, 0.2], [0.4, 0.6]], dtype=torch.float64)
    p = torch.tensor([2 / 3, 1 / 3], dtype=torch.float64)
    for _ in range(length - 1):
        p = p[..., None] * step
    return Joint(p)


def job_of(ids_BL: Tensor, logits: Callable[[Query], Tensor], vocab: int, **fields: Any) -> Job:
    return Job(
        ids_BL=ids_BL,
        free_BL=ids_BL == vocab,
        draws=Draws(seed=0, split="sample", batch=len(ids_BL)),
        objective=Mdlm(),
        model=DiT(vocab_size=vocab),
        **{"network": Known(logits), "position_B": torch.arange(len(ids_BL)), **fields},
    )


@pytest.mark.parametrize(("length", "stride"), [(7, 1), (7, 2), (6, 2)])
def test_a_chain_is_sampled_through_windows(
    chi_square: ChiSquare, length: int, stride: int
) -> None:
    """One given token says of those after it all that there is to know."""
    window, whole, asked = markov(3), markov(length), list[Query]()

    def logits(query: Query) -> Tensor:
        missing = window.length - query.ids_BL.shape[1]
        ids_BL = F.pad(query.ids_BL, (0, missing), value=window.mask)
        return window.denoise(ids_BL, query.level_BK, F.pad(query.predict_mask_BL, (0, missing)))

    start, seen = masks(whole, 3000), list[Tensor]()
    start[1::2, 0] = 1
    job = job_of(start, logits, 2, network=Asked(logits, asked), on_step=seen.append)
    sampler = SemiAutoregressive(steps=40, window=3, stride=stride)
    drawn = sampler.run(job)
    law = whole.p.flatten()
    assert chi_square(counts_of(whole, drawn[::2]), law) < 4.5
    law = torch.where(whole.outcomes[:, 0] == 1, law, 0.0)
    assert chi_square(counts_of(whole, drawn[1::2]), law / law.sum()) < 4.5
    num = -(-(length - 3) // stride) + 1
    assert len(seen) == sampler.num_steps(length) == 40 * num
    assert all(query.ids_BL.shape[1] <= 3 for query in asked)
    for before, after in pairwise([start, *seen]):
        assert torch.equal(before[before != 2], after[before != 2])


@pytest.mark.parametrize("window", [3, 5, None])
def test_what_fits_into_a_window_is_sampled_as_ever(three_tokens: Any, window: int | None) -> None:
    start = masks(three_tokens, 50)
    start[:10, 1] = 2
    plain, count = states(three_tokens, start, Ancestral(steps=4))
    found, asked = states(three_tokens, start, SemiAutoregressive(steps=4, window=window))
    assert asked == count
    assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True))


def windows(length: int, **settings: Any) -> list[list[int]]:
    found = SemiAutoregressive(**settings).windows(length)
    return [list(range(length))[window] for window in found]


def test_a_window_moves_by_its_stride_to_the_end() -> None:
    assert windows(4, window=4) == [[0, 1, 2, 3]]
    assert windows(5, window=4) == [[0, 1, 2, 3], [2, 3, 4]]
    assert windows(6, window=4) == [[0, 1, 2, 3], [2, 3, 4, 5]]
    assert windows(6, window=4, stride=4) == [[0, 1, 2, 3], [4, 5]]
    assert windows(5, window=3, stride=1) == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert windows(3, window=1) == [[0], [1], [2]]
    assert windows(3) == [[0, 1, 2]]


def test_the_window_is_that_of_training_unless_it_is_said() -> None:
    assert SemiAutoregressive().trained_on(64).num_steps(128) == 64 * 3
    assert SemiAutoregressive(window=128).trained_on(64).num_steps(128) == 64
    with pytest.raises(ValueError, match="stride must be at most the window of 64, not 65"):
        SemiAutoregressive(stride=65).trained_on(64)
    model = Transformer(vocab_size=7, num_positions=10)
    SemiAutoregressive(window=10).suits(Mdlm(), model)
    with pytest.raises(ValueError, match="window must be at most 10, for which the model has"):
        SemiAutoregressive(window=11).suits(Mdlm(), model)


END = 1


def ending(query: Query) -> Tensor:
    """Every token is the end with probability 0.3."""
    p_MV = torch.tensor([[0.7, 0.3, 0.0, 0.0]]).repeat(int(query.predict_mask_BL.sum()), 1)
    return p_MV.log()


def test_texts_stop_in_the_window_in_which_they_end() -> None:
    start = torch.full((60, 40), 3)
    sampler, seen = SemiAutoregressive(steps=3, window=4, stride=2), list[Tensor]()
    drawn = sampler.run(job_of(start, ending, 3, end=END, on_step=seen.append))
    assert not (drawn == 3).any()
    assert torch.equal(seen[-1], drawn)
    plain = sampler.run(job_of(start, ending, 3))
    for row, free in zip(drawn.tolist(), plain.tolist(), strict=True):
        first = row.index(END)
        assert row[: first + 1] == free[: first + 1]
        assert set(row[first + 4 :]) <= {END}
    assert sampler.num_steps(40) > len(seen)
    assert len(drawn.unique(dim=0)) > 10
    # Each as alone, and given text is kept, behind which alone a text may end.
    kept = torch.tensor([17, 3, 44])
    part = job_of(start[kept], ending, 3, end=END, position_B=kept)
    assert torch.equal(sampler.run(part), drawn[kept])
    start[:, 30] = 0
    drawn = sampler.run(job_of(start, ending, 3, end=END))
    assert torch.equal(drawn[:, :30], plain[:, :30])
    assert (drawn[:, 30] == 0).all()
    assert (drawn[:, 31:33] != END).any(dim=1).double().mean() > 0.6  # 0.91 expected


def test_padding_is_cut_with_the_window() -> None:
    asked = list[Query]()
    valid_BL = torch.arange(8)[None] < torch.tensor([[8], [5]])
    start = torch.full((2, 8), 3)
    job = job_of(start, ending, 3, valid_BL=valid_BL, network=Asked(ending, asked))
    SemiAutoregressive(steps=1, window=4, stride=3).run(job)
    first, last = asked[0], asked[-1]
    assert first.valid_BL is not None
    assert last.valid_BL is not None
    assert torch.equal(first.valid_BL, valid_BL[:, :4])
    assert torch.equal(last.valid_BL, valid_BL[:, 6:8])
