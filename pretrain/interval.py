"""The 95% interval of a mean over tokens whose documents are the sample.

The number is a ratio of two sums over documents, of nats and of tokens; documents differ in
both, and their losses are skewed. A bootstrap-t holds its 95% best there (Efron & Tibshirani
1993, chapter 12; Hall 1988): the resamples give the distribution of the error over its own
jackknife estimate, here of the logarithm, which keeps the interval positive. Plain percentiles
of resamples miss one time in seven at ten documents. What chance the corruptions add stands in
the documents' losses, and so in the interval.
"""

from dataclasses import dataclass

import numpy as np

LEAST = 10
"""Documents. Below, no method knows how far the next one may lie."""

RESAMPLES = 2000
GROUPS = 1000
"""More documents are taken in so many groups, at random."""

_CHUNK = 250


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Args: bounds: None where there is none; told: what it is, or why there is none."""

    bounds: tuple[float, float] | None
    told: str


def ratio_interval(parts: np.ndarray, *, seed: int, of: str = "documents") -> Interval:
    """The interval of ``parts[:, 0].sum() / parts[:, 1].sum()``, float64 ``[documents, 2]``.

    Args:
        seed: of the resamples; of: what the rows are, in words.
    """
    num = len(parts)
    if num < LEAST:
        return Interval(bounds=None, told=f"none: {num} {of}, and it takes {LEAST}")
    random = np.random.default_rng(seed)
    if num > GROUPS:
        group = random.permutation(num) % GROUPS
        parts = np.stack([np.bincount(group, column, GROUPS) for column in parts.T], axis=1)
    ratio, error = (float(value[0]) for value in _ratios(parts[None]))
    if error <= 1e-12 * ratio:
        return Interval(bounds=(ratio, ratio), told=f"95%, over {num} {of}, all alike")
    scores = []
    for _ in range(0, RESAMPLES, _CHUNK):
        chosen = random.integers(0, len(parts), (_CHUNK, len(parts)))
        ratios, errors = _ratios(parts[chosen])
        with np.errstate(divide="ignore", invalid="ignore"):
            scores.append(np.log(ratios / ratio) * ratios / errors)
    low, high = np.quantile(np.concatenate(scores), [0.025, 0.975], method="nearest")
    # A resample repeats documents and so spreads less than a sample does, the less so the fewer
    # count for much. The factor makes up for it: tests hold the coverage that it gives.
    alike = parts[:, 1].sum() ** 2 / np.square(parts[:, 1]).sum()
    unit = error / ratio * (1 + 2 / alike)
    with np.errstate(over="ignore"):
        bounds = ratio * np.exp(-unit * high), ratio * np.exp(-unit * low)
    if not np.isfinite(bounds).all():
        return Interval(bounds=None, told=f"none: the {num} {of} differ in too few of them")
    return Interval(
        bounds=(float(bounds[0]), float(bounds[1])), told=f"95%, bootstrap-t over {num} {of}"
    )


def _ratios(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ratio of the sums of each sample ``[samples, documents, 2]``, and its jackknife error."""
    num = parts.shape[1]
    sums = parts.sum(axis=1, keepdims=True)
    without = sums - parts
    left_out = without[..., 0] / np.maximum(without[..., 1], 1e-300)
    apart = left_out - left_out.mean(axis=1, keepdims=True)
    error = np.sqrt((num - 1) / num * np.square(apart).sum(axis=1))
    return sums[:, 0, 0] / sums[:, 0, 1], error
