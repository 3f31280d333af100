"""What every objective must have; the folder is the registry, and each is found by itself."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from configs.build import Plugin
from model.draws import Draws
from model.networks.build import build
from model.objectives import Bounded, Objective, training_layout
from pretrain import trial as trials
from pretrain.trial import OBJECTIVES, NoTrialError, batch, run_config, trial


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_an_objective_has_all_that_generic_code_asks_for(name: str) -> None:
    """Where this fails: say in the class what its trial, its sampler and the others are."""
    cls: Any = OBJECTIVES.resolve(name)
    for wanted in ("summary", "trial", "noise", "sampler"):
        assert wanted in vars(cls), f"{cls.__module__}.{cls.__name__} has no {wanted}"
    assert cls.sampler in Plugin("model.samplers").names()
    config = run_config(name)
    sampler: Any = Plugin("model.samplers").resolve(cls.sampler)
    sampler().suits(config.objective, config.model)


def test_one_without_a_trial_is_told_what_to_add(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Bare(OBJECTIVES.resolve("mdlm")):  # type: ignore[misc]
        """Inherits a trial, which is not its own."""

    class Registry:
        def resolve(self, name: str) -> type:
            return Bare

    monkeypatch.setattr(trials, "OBJECTIVES", Registry())
    with pytest.raises(NoTrialError, match="objective bare has no trial: give the class Bare in"):
        trial("bare")


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_corrupted_batches_have_the_layout_that_other_stages_are_told(name: str) -> None:
    config = run_config(name)
    objective: Objective = config.objective
    draws = Draws(seed=0, split="train", batch=config.global_batch)
    samples = batch(config, draws, range(4))
    length = config.data.sequence_length
    noisy = objective.corrupt(samples, draws, config.model)
    assert noisy.layout == training_layout(objective, config.model, draws, 1, length)
    read = noisy.ids_BL.numel()
    if objective.refines:
        denoiser = build(config.model)
        with torch.no_grad():
            read = objective.refine(noisy, denoiser.ask, draws).ids_BL.numel()
    assert read == objective.expansion * samples["tokens"].numel()
    if isinstance(objective, Bounded):
        bound = objective.bound_corrupt(samples | {"free": samples["valid"]}, draws, config.model)
        assert bound.layout == objective.layout(length)


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_what_is_not_valid_changes_no_loss(name: str) -> None:
    """Padding that is not text: other ids there, the same losses, counts and tokens."""
    config = run_config(name)
    objective: Objective = config.objective
    draws = Draws(seed=0, split="train", batch=config.global_batch)
    samples = batch(config, draws, range(8))
    others = dict(samples)
    others["tokens"] = torch.where(samples["valid"], samples["tokens"], 7)
    first, second = (objective.corrupt(one, draws, config.model) for one in (samples, others))
    for term in objective.terms:
        assert first.count(term) == second.count(term)
    assert (first.predict_mask_BL == second.predict_mask_BL).all()


PACKED = [name for name in OBJECTIVES.names() if not run_config(name).data.has_source]
"""Those whose samples are windows of documents; the others read pairs."""


@pytest.mark.parametrize("name", PACKED)
def test_documents_that_share_a_window_do_not_see_each_other(name: str) -> None:
    """With ``data.document_mask``: the second document's prediction ignores the first's ids."""
    config = run_config(name)
    objective: Objective = config.objective
    draws = Draws(seed=0, split="train", batch=config.global_batch)
    samples = batch(config, draws, range(4))
    length = samples["tokens"].shape[1]
    samples["valid"] = torch.ones_like(samples["valid"])
    samples["segment"] = 1 + (torch.arange(length) >= length // 2).long().expand(4, length)
    denoiser = build(config.model, seed=1)
    for parameter in denoiser.parameters():  # gates that begin at zero would hide it
        torch.nn.init.normal_(parameter, std=0.3)

    def logits_of(ids: torch.Tensor, *, masked: bool) -> torch.Tensor:
        given = {**samples, "tokens": ids}
        if not masked:
            del given["segment"]
        noisy = objective.corrupt(given, draws, config.model)
        # What is seen is compared, not what is asked for.
        outputs = denoiser(noisy)
        second = noisy.predict_mask_BL.nonzero()[:, 1] % length >= length // 2
        return outputs["logits"][second][:, : config.model.vocab_size]

    # An EOS ends the first document, and may start the second.
    changed = samples["tokens"].clone()
    changed[:, : length // 2 - 1] = (changed[:, : length // 2 - 1] + 1) % config.model.vocab_size
    with torch.no_grad():
        same = logits_of(samples["tokens"], masked=True), logits_of(changed, masked=True)
        open_ = logits_of(samples["tokens"], masked=False), logits_of(changed, masked=False)
    torch.testing.assert_close(*same, rtol=0, atol=1e-5)
    assert (open_[0] - open_[1]).abs().max() > 1e-3
