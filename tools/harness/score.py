"""Scores of continuations: a bound on -log p(continuation | context), and greedy texts.

The bound is the objective's own (:meth:`model.objectives.Bounded.bound_corrupt`): the continuation
is free, the context and the frame are given, and the loss is averaged over corruptions whose times
are stratified for each text. The logarithm of a likelihood is bounded from below so, by an
unbiased estimate; an exact objective needs one corruption.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from model.draws import Draws
from model.objectives import Bounded
from model.samplers import Job, Sampler
from pretrain.checkpoint.weights import Loaded
from tools.harness.windows import Window

T = TypeVar("T")


def continuation_nats(
    loaded: Loaded, windows: Sequence[Window], *, samples: int, batch: int, seed: int
) -> Tensor:
    """Nats of the free positions of each window given the others: float64 ``[windows]``.

    Args:
        samples: corruptions of each window.
        batch: rows of a forward pass.
    """
    objective, model = loaded.config.objective, loaded.config.model
    assert isinstance(objective, Bounded)
    samples = 1 if objective.scope(padded=False).exact else samples
    draws = Draws(seed=seed, split="valid", batch=samples)
    nats_N = torch.zeros(len(windows), dtype=torch.float64)
    with torch.inference_mode():
        for numbers in _alike(windows):
            numbers = [number for number in numbers if windows[number].num_free]
            rows = [(number, sample) for number in numbers for sample in range(samples)]
            for part in _parts(rows, batch):
                given = _tensors([windows[number] for number, _ in part], loaded.device)
                given["position"] = given["position"] * samples + torch.tensor(
                    [sample for _, sample in part], device=loaded.device
                )
                noisy = objective.bound_corrupt(given, draws, model, loaded.state)
                losses_M = loaded.network.ask(noisy, partial(objective.bound_losses, noisy=noisy))
                row_M = noisy.predict_mask_BL.nonzero()[:, 0].cpu()
                owner_B = torch.tensor([number for number, _ in part])
                nats_N.index_add_(0, owner_B[row_M], losses_M.double().cpu())
    return nats_N / samples


def is_greedy(
    loaded: Loaded, windows: Sequence[Window], sampler: Sampler, *, batch: int, seed: int
) -> list[bool]:
    """Whether the sampler writes the continuation at temperature 0, in a step for each token."""
    found = [not window.num_free for window in windows]
    by_size = defaultdict(list)
    for number, window in enumerate(windows):
        by_size[window.num_free].append(number)
    in_steps = getattr(sampler, "steps", None) is not None
    for size, numbers in by_size.items():
        if not size:
            continue
        greedy = at(sampler, temperature=0.0, **({"steps": size} if in_steps else {}))
        written = write(loaded, [windows[n] for n in numbers], greedy, batch=batch, seed=seed)
        for number, ids in zip(numbers, written, strict=True):
            found[number] = tuple(ids) == windows[number].ids
    return found


def write(
    loaded: Loaded, windows: Sequence[Window], sampler: Sampler, *, batch: int, seed: int
) -> list[list[int]]:
    """The ids of each window with its free positions filled in."""
    draws = Draws(seed=seed, split="sample", batch=1)  # which stratifies nothing here
    found: list[list[int]] = [[] for _ in windows]
    with torch.inference_mode():
        for numbers in _alike(windows):
            for part in _parts(numbers, batch):
                given = _tensors([windows[number] for number in part], loaded.device)
                job = Job(
                    ids_BL=given["tokens"],
                    free_BL=given["free"],
                    position_B=given["position"],
                    draws=draws,
                    objective=loaded.config.objective,
                    model=loaded.config.model,
                    network=loaded.network,
                    state=loaded.state,
                )
                for number, ids in zip(part, sampler.run(job).tolist(), strict=True):
                    found[number] = ids
    return found


def at(sampler: Sampler, **settings: Any) -> Sampler:
    """The sampler with those of the settings that it has."""
    known: Any = sampler
    names = {field.name for field in fields(known)}
    return replace(known, **{name: value for name, value in settings.items() if name in names})


def _alike(windows: Sequence[Window]) -> list[list[int]]:
    """The numbers of the windows, those of one length together."""
    by_length = defaultdict(list)
    for number, window in enumerate(windows):
        by_length[len(window.ids)].append(number)
    return list(by_length.values())


def _parts(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _tensors(windows: Sequence[Window], device: torch.device) -> dict[str, Tensor]:
    """A batch of windows of one length, as an objective reads it."""
    tokens_BL = torch.tensor([window.ids for window in windows], device=device)
    return {
        "tokens": tokens_BL,
        "valid": torch.ones_like(tokens_BL, dtype=torch.bool),
        "free": torch.tensor([window.free for window in windows], device=device),
        "position": torch.tensor([window.number for window in windows], device=device),
    }
