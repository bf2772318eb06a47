"""How sure a figure is: intervals of means and proportions, and paired comparisons of two models on the same items.

scipy does the statistics; here is which one goes with which figure. All draws are seeded: the same items give the same
interval. B resamples, n items.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 2000
SEED = 20261126
# Elements that one block of resamples may hold.
_BLOCK = 4_000_000

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over `n` items with its standard error and interval (95 % unless said otherwise); nan where one item has none."""

    value: float
    stderr: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Difference:
    """First model minus second on the same items: interval, two-sided p, and the test that gave it."""

    value: float
    low: float
    high: float
    p: float
    n: int
    test: str


def is_proportion(values: Floats) -> bool:
    """True when every item is right or wrong."""
    return bool(np.isin(values, (0.0, 1.0)).all())


def mean_figure(values: Floats) -> Figure:
    """Returns the mean of `values` `[n]`.

    Right or wrong items get Wilson's score interval (Wilson 1927, J. Am. Stat. Assoc. 22, 209), which stays inside
    [0, 1] and is honest for few items; others the bootstrap's percentiles (Efron and Tibshirani 1993, ch. 13).
    The standard error is the sample's, sd / sqrt(n), as lm-evaluation-harness gives it.
    """
    n, value = len(values), float(values.mean())
    stderr = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    if is_proportion(values):
        from scipy.stats import binomtest

        interval = binomtest(int(values.sum()), n).proportion_ci(CONFIDENCE, method="wilson")
        return Figure(value, stderr, float(interval.low), float(interval.high), n)
    low, high, _ = bootstrap((values,), _mean, CONFIDENCE)
    return Figure(value, stderr, low, high, n)


def ratio_figure(sums: Floats, weights: Floats) -> Figure:
    """Returns sum(sums) / sum(weights), with documents drawn as wholes: `[n]` nats and tokens of each.

    Tokens of one document are not independent of each other, so they are not what is drawn (cluster bootstrap; Efron and
    Tibshirani 1993, ch. 8).
    """
    low, high, error = bootstrap((sums, weights), ratio, CONFIDENCE)
    return Figure(float(sums.sum() / weights.sum()), error, low, high, len(sums))


def compare_means(first: Floats, second: Floats) -> Difference:
    """Returns mean(first) - mean(second) of two models on the same items `[n]`.

    Right or wrong items: exact McNemar test (McNemar 1947, Psychometrika 12, 153): among items where the models differ,
    a fair coin. Others: sign flips of the paired differences (Fisher's randomisation test). The interval is the paired
    bootstrap's (Koehn 2004, EMNLP).
    """
    if is_proportion(first) and is_proportion(second):
        from scipy.stats import binomtest

        only_first, only_second = int(((first > second)).sum()), int((second > first).sum())
        differing = only_first + only_second
        p = float(binomtest(only_first, differing).pvalue) if differing else 1.0
        test = "McNemar, exact"
    else:
        p, test = sign_flips(first - second), "paired sign flips"
    low, high, _ = bootstrap((first - second,), _mean, CONFIDENCE)
    return Difference(float((first - second).mean()), low, high, p, len(first), test)


def compare_ratios(first: Floats, second: Floats, weights: Floats) -> Difference:
    """Returns (sum(first) - sum(second)) / sum(weights) over the same documents `[n]`, documents drawn as wholes."""
    differences = first - second
    low, high, _ = bootstrap((differences, weights), ratio, CONFIDENCE)
    value = float(differences.sum() / weights.sum())
    return Difference(value, low, high, sign_flips(differences), len(first), "paired sign flips")


def bootstrap(samples: tuple[Floats, ...], statistic: Callable[..., Any], confidence: float) -> tuple[float, float, float]:
    """Returns (low, high, standard error) of `statistic` by percentiles, items of `samples` `[n]` drawn together.

    One item drawn again and again says nothing of other items: all three are nan then.
    """
    if len(samples[0]) < 2:
        return float("nan"), float("nan"), float("nan")
    if all(np.ptp(sample) == 0 for sample in samples):
        value = float(statistic(*samples, axis=-1))
        return value, value, 0.0
    from scipy.stats import bootstrap as resample

    found = resample(
        samples,
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, _BLOCK // len(samples[0])),
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(SEED),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high), float(found.standard_error)


def sign_flips(differences: Floats) -> float:
    """Returns the two-sided p of paired differences `[n]` whose signs would be random if the models were alike."""
    if len(differences) < 2 or not differences.any():
        return 1.0
    from scipy.stats import permutation_test

    found = permutation_test(
        (differences,),
        _mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, _BLOCK // len(differences)),
        rng=np.random.default_rng(SEED),
    )
    return float(found.pvalue)


def _mean(values: Any, axis: int = -1) -> Any:
    return np.mean(values, axis=axis)


def ratio(sums: Any, weights: Any, axis: int = -1) -> Any:
    """Returns sum(sums) / sum(weights) along `axis`."""
    return np.sum(sums, axis=axis) / np.sum(weights, axis=axis)
