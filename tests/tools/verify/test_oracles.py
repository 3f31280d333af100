"""The oracles of `python -m tools.verify` hold here, and each of them can break."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from model import draws
from model.categorical import Categorical
from model.draws import Draws
from model.networks import attention_layouts
from model.networks.attention_layouts import Blocks
from model.objectives import Objective, mdlm, sundae
from model.objectives.autoregressive import Autoregressive
from model.objectives.bd3lm import Bd3lm
from model.objectives.genie import Genie
from model.objectives.mdlm import Mdlm
from model.objectives.udlm import Udlm
from model.processes import gaussian, uniform
from model.processes.gaussian import Gaussian
from model.schedules.cosine import Cosine
from model.schedules.loglinear import LogLinear
from model.verification import oracles
from model.verification.check import Check, judge

Patch = pytest.MonkeyPatch


def by_name() -> dict[str, Check]:
    return {check.name: check for check in oracles.checks(torch.device("cpu"))}


@pytest.mark.parametrize("name", by_name())
def test_the_oracle_holds(name: str) -> None:
    comparisons = by_name()[name].compare()
    assert comparisons
    for comparison in comparisons:
        assert comparison.holds, comparison


def other_noisy(patch: Patch, method: str, change: Callable[[Any], dict[str, Any]]) -> None:
    """Let an objective's corruption come out otherwise."""
    right = getattr(Mdlm, method)

    def wrong(*arguments: Any) -> Any:
        noisy = right(*arguments)
        return dataclasses.replace(noisy, **change(noisy))

    patch.setattr(Mdlm, method, wrong)


def scaled(patch: Patch, owner: Any, name: str, factor: float = 1.0001) -> None:
    right = getattr(owner, name)
    patch.setattr(owner, name, lambda *arguments: right(*arguments) * factor)


def held_out_weight(patch: Patch) -> None:
    other_noisy(patch, "bound_corrupt", lambda noisy: {"weight_BK": noisy.weight_BK * 1.0001})


def everything_counted(patch: Patch) -> None:
    """The EOS too where padding tells the length."""
    patch.setattr(Mdlm, "counted", lambda self, batch, free_BL, model: free_BL)


def visible_padding(patch: Patch) -> None:
    """Whatever was asked for."""
    patch.setattr(Mdlm, "padding", "visible")
    patch.setattr(Mdlm, "__init__", lambda self, **settings: None)


def training_weight(patch: Patch) -> None:
    other_noisy(patch, "corrupt", lambda noisy: {"weight_BK": noisy.weight_BK * 1.0001})


def unmasked_input(patch: Patch) -> None:
    other_noisy(patch, "bound_corrupt", lambda noisy: {"ids_BL": noisy.target_BL})


def a_token_too_few(patch: Patch) -> None:
    """One masked token of each row goes missing from the loss."""

    def change(noisy: Any) -> dict[str, Any]:
        first_BL = noisy.predict_mask_BL.cumsum(dim=1) == 1
        return {
            "predict_mask_BL": noisy.predict_mask_BL
            & ~(first_BL & (noisy.predict_mask_BL.sum(1) > 1)[:, None])
        }

    other_noisy(patch, "bound_corrupt", change)


def inverted_mask(patch: Patch) -> None:
    patch.setattr(
        mdlm,
        "corrupt",
        lambda ids, alpha, uniform, mask: torch.where(uniform >= alpha, ids, mask),
    )


def no_division_by_the_masked(patch: Patch) -> None:
    patch.setattr(mdlm, "bound_weight", lambda alpha, dalpha: -dalpha)


def importance_over_all_times(patch: Patch) -> None:
    """The constant weight of a density that begins elsewhere than the drawn times."""
    right = mdlm.log_uniform
    patch.setattr(mdlm, "log_uniform", lambda u, least, most: right(u, least * 1.01, most))


def weight_of_continuous_time(patch: Patch) -> None:
    patch.setattr(mdlm, "step_weight", lambda alpha_s, alpha_t: (alpha_s - alpha_t) / (1 - alpha_s))


def other_bound_density(patch: Patch, change: Callable[..., Any]) -> None:
    """The integrand of uniform noise, of changed arguments."""
    right = uniform.bound_density
    patch.setattr(uniform, "bound_density", lambda *arguments: right(*change(*arguments)))


def noise_never_hits_the_token(patch: Patch) -> None:
    """Changed tokens only, as in the loss of a masked token."""
    right = uniform.bound_density

    def wrong(p: Any, clean: Any, noisy: Any, alpha: Any) -> Any:
        return right(p, clean, noisy, alpha) * (clean != noisy)

    patch.setattr(uniform, "bound_density", wrong)


def even_shares(patch: Patch) -> None:
    """The noised share drawn evenly, and weighed as if it were not."""
    right = Udlm._noisy

    def wrong(*arguments: Any) -> Any:
        *rest, level, weight = arguments
        return right(*rest, level.sqrt(), weight)

    patch.setattr(Udlm, "_noisy", staticmethod(wrong))


def one_id_more(patch: Patch) -> None:
    right = uniform.num_ids
    patch.setattr(uniform, "num_ids", lambda model: right(model) + 1)


def unstratified(patch: Patch) -> None:
    patch.setattr(
        Draws, "times", lambda self, position, kind="time": self.uniform(kind, position, 1)
    )


def one_bin(patch: Patch) -> None:
    patch.setattr(draws, "_spread_bins", lambda num: torch.zeros(num, dtype=torch.int64))


@pytest.fixture(autouse=True)
def fresh_schedules() -> Any:
    """Schedules and masks are remembered; a broken one must not be."""
    gaussian.betas.cache_clear()
    gaussian._alpha_bars.cache_clear()
    attention_layouts.dense_mask.cache_clear()
    yield
    gaussian.betas.cache_clear()
    gaussian._alpha_bars.cache_clear()
    attention_layouts.dense_mask.cache_clear()


def capped_beta(patch: Patch) -> None:
    patch.setattr(gaussian, "_MAX_BETA", 0.998)


def shifted_index(patch: Patch) -> None:
    right = Gaussian.abar
    patch.setattr(Gaussian, "abar", lambda self, index: right(self, (index - 1).clamp(min=-1)))


def one_step_coefficients(patch: Patch) -> None:
    """Strides with the coefficients of single steps, as public code takes them."""
    right = gaussian.posterior
    patch.setattr(gaussian, "posterior", lambda a, b: right(a, b.clone().fill_(b[-1])))


def noise_without_the_signals_share(patch: Patch) -> None:
    right = Genie.corrupt

    def wrong(*arguments: Any) -> Any:
        noisy = right(*arguments)
        return dataclasses.replace(noisy, noise_BLE=noisy.eps_BLE)

    patch.setattr(Genie, "corrupt", wrong)


def always_noised_target(patch: Patch) -> None:
    """Index 0 as any other."""
    right = Gaussian.index
    patch.setattr(Gaussian, "index", lambda self, level: right(self, level).clamp(min=1))


def likeliest_ids(patch: Patch) -> None:
    patch.setattr(Draws, "uniform_at", lambda self, kind, x, y: 0.5 + 0.0 * y.double())


def times_of_a_sample(patch: Patch) -> None:
    """One t a sample where blocks have each their own; held out, blocks are one."""
    patch.setattr(Bd3lm, "_num_blocks", lambda self, length: 1)


def later_blocks_seen(patch: Patch) -> None:
    """The clean copy is seen whole, so that it tells what is to be predicted."""
    right = Blocks.rule

    def wrong(self: Any, length: int, device: Any) -> Any:
        rule = right(self, length, device)
        return lambda q, k: rule(q, k) | ((q < length // 2) & (k >= length // 2) & (k % 2 == 0))

    patch.setattr(Blocks, "rule", wrong)
    attention_layouts.dense_mask.cache_clear()


def copied_weight(patch: Patch) -> None:
    right = Bd3lm._with_copy
    patch.setattr(
        Bd3lm,
        "_with_copy",
        lambda self, noisy: dataclasses.replace(
            right(self, noisy), weight_BK=right(self, noisy).weight_BK * 1.0001
        ),
    )


def first_token_in_the_loss(patch: Patch) -> None:
    patch.setattr(
        Bd3lm,
        "corrupt",
        lambda self, *arguments: self._with_copy(Mdlm.corrupt(self, *arguments)),
    )


def nothing_replaced(patch: Patch) -> None:
    patch.setattr(uniform, "corrupt", lambda ids_BL, alpha, uniform_BL, model: ids_BL)


def first_view_alone(patch: Patch) -> None:
    patch.setattr(sundae, "stacked", lambda views: views[0])


def first_id_picked(patch: Patch) -> None:
    patch.setattr(Categorical, "pick", lambda self, uniform_M, temperature: (0 * uniform_M).long())


BROKEN: list[tuple[Callable[[Patch], None], str]] = [
    (lambda patch: patch.setattr(draws, "_ROUNDS", 9), "draws: Philox4x32-10"),
    (lambda patch: patch.setattr(draws, "_WEYL", draws._WEYL[::-1]), "draws: Philox4x32-10"),
    (unstratified, "draws: stratified times"),
    (one_bin, "draws: stratified times"),
    (held_out_weight, "mdlm: held out bound"),
    (held_out_weight, "mdlm: uniform predictor"),
    (unmasked_input, "mdlm: held out bound"),
    (a_token_too_few, "mdlm: held out bound"),
    (a_token_too_few, "mdlm: uniform predictor"),
    (lambda patch: scaled(patch, Mdlm, "bound_losses"), "mdlm: held out bound"),
    (lambda patch: scaled(patch, Mdlm, "bound_losses", math.nan), "mdlm: training loss"),
    (everything_counted, "mdlm: texts of any length"),
    (visible_padding, "mdlm: texts of any length"),
    (training_weight, "mdlm: training loss"),
    (training_weight, "mdlm: uniform predictor"),
    (inverted_mask, "mdlm: training loss"),
    (no_division_by_the_masked, "mdlm: training loss"),
    (lambda patch: scaled(patch, LogLinear, "dalpha"), "mdlm: training loss"),
    (lambda patch: scaled(patch, LogLinear, "dalpha"), "mdlm: uniform predictor"),
    (lambda patch: scaled(patch, Cosine, "dalpha"), "mdlm: training loss"),
    (lambda patch: scaled(patch, Cosine, "time"), "mdlm: importance sampling"),
    (importance_over_all_times, "mdlm: importance sampling"),
    (weight_of_continuous_time, "mdlm: discrete time"),
    (times_of_a_sample, "bd3lm: held out bound"),
    (later_blocks_seen, "bd3lm: held out bound"),
    (copied_weight, "bd3lm: held out bound"),
    (later_blocks_seen, "bd3lm: training loss"),
    (copied_weight, "bd3lm: training loss"),
    (first_token_in_the_loss, "bd3lm: training loss"),
    (copied_weight, "bd3lm: uniform predictor"),
    (first_token_in_the_loss, "bd3lm: one block"),
    (capped_beta, "gaussian: golden values"),
    (shifted_index, "gaussian: golden values"),
    (one_step_coefficients, "gaussian: any step"),
    (shifted_index, "genie: information"),
    (noise_without_the_signals_share, "genie: information"),
    (always_noised_target, "genie: known losses"),
    (lambda patch: scaled(patch, Autoregressive, "bound_losses"), "autoregressive: likelihood"),
    (
        lambda patch: patch.setattr(Autoregressive, "counted", Objective.counted),
        "autoregressive: texts of any length",
    ),
    (lambda p: scaled(p, Autoregressive, "bound_losses"), "autoregressive: uniform predictor"),
    (likeliest_ids, "autoregressive: sampler"),
    (lambda patch: scaled(patch, Udlm, "bound_losses"), "udlm: held out bound"),
    (even_shares, "udlm: held out bound"),
    (noise_never_hits_the_token, "udlm: held out bound"),
    (
        lambda patch: patch.setattr(Udlm, "counted", lambda self, batch, free_BL, model: free_BL),
        "udlm: texts of any length",
    ),
    (lambda patch: scaled(patch, LogLinear, "dalpha"), "udlm: training loss"),
    (lambda patch: scaled(patch, Cosine, "dalpha"), "udlm: training loss"),
    (
        lambda patch: other_bound_density(patch, lambda p, x, z, alpha: (p, x, z, alpha * 0.9999)),
        "udlm: integrand",
    ),
    (noise_never_hits_the_token, "udlm: uniform predictor"),
    (one_id_more, "udlm: reverse step"),
    (nothing_replaced, "sundae: corruption"),
    (one_id_more, "sundae: corruption"),
    (nothing_replaced, "sundae: least loss"),
    (first_view_alone, "sundae: uniform predictor"),
    (first_view_alone, "sundae: two views by hand"),
    (first_id_picked, "sundae: two views by hand"),
    (first_id_picked, "sundae: fixed point"),
]


@pytest.mark.parametrize(("breaks", "name"), BROKEN)
def test_the_oracle_finds_what_is_broken(
    monkeypatch: Patch, breaks: Callable[[Patch], None], name: str
) -> None:
    breaks(monkeypatch)
    assert not judge(by_name()[name]).holds


def test_each_oracle_has_been_seen_to_break() -> None:
    assert by_name().keys() == {name for _, name in BROKEN}
