"""Bootstrap confidence intervals, clustered by source person."""

from collections.abc import Mapping

import numpy as np

from fsframework.evaluation.results import Difference, Estimate

RESAMPLES = 1000
LEVEL = 0.95

Values = Mapping[str, np.ndarray | float]  # of a benchmark, by metric


def bootstrap(values: np.ndarray, clusters: np.ndarray, seed: int = 0) -> tuple[float, float] | None:
    """Return a 95 % confidence interval of the mean by the percentile cluster bootstrap (Efron, 1979).

    Pairs with the same source person are not independent. Therefore people are resampled, each with all of their pairs.
    Shared target people are not accounted for. With few people the intervals are too narrow.

    Parameters
    ----------
    values:
        Finite values (n,).
    clusters:
        The cluster of each value (n,), any integers.
    seed:
        Seed of the 1000 resamples.

    Returns
    -------
    The lower and upper bound, or None with fewer than two clusters.
    """
    unique, member = np.unique(clusters, return_inverse=True)
    count = len(unique)
    if count < 2:
        return None
    sums = np.bincount(member, weights=values, minlength=count)
    sizes = np.bincount(member, minlength=count)
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)  # (R, count)
    means = (times @ sums) / (times @ sizes)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def summarize(methods: Mapping[str, Values], clusters: np.ndarray) -> dict[str, dict[str, Estimate]]:
    """Return one benchmark's estimates, by method or baseline and metric.

    Means are over the pairs on which every method succeeded. Otherwise failures on hard pairs would improve a mean. An
    undefined value is None.

    Parameters
    ----------
    methods:
        By method or baseline: a value for each pair (n,), NaN where it failed, or one number for all pairs.
    clusters:
        The source person of each pair (n,).
    """
    summary: dict[str, dict[str, Estimate]] = {name: {} for name in methods}
    for key in next(iter(methods.values()), {}):
        columns = {name: np.asarray(values[key], dtype=np.float64) for name, values in methods.items()}
        solved = np.logical_and.reduce([np.isfinite(column) for column in columns.values()])  # (n,) or ()
        for name, column in columns.items():
            if column.ndim == 0:
                summary[name][key] = Estimate(float(column) if np.isfinite(column) else None, per_pair=False)
                continue
            low, high = bootstrap(column[solved], clusters[solved]) or (None, None)
            summary[name][key] = Estimate(float(column[solved].mean()) if solved.any() else None, low, high)
    return summary


def differences(ours: Values, theirs: Values, clusters: np.ndarray) -> dict[str, Difference]:
    """Return the mean paired differences between two methods by metric, with bootstrap intervals.

    Differences within pairs are resampled as in `bootstrap`, so the difficulty of a pair cancels. A difference is
    significant if its interval excludes 0. Multiple comparisons are not corrected for: one in twenty is significant by
    chance.

    Parameters
    ----------
    ours, theirs:
        A value for each pair (n,) by metric, NaN where it failed. Metrics without values for pairs are omitted.
    clusters:
        The source person of each pair (n,).

    Returns
    -------
    By metric: the mean of `ours` minus `theirs` over the pairs on which both succeeded, and its 95 % interval.
    """
    result: dict[str, Difference] = {}
    for key, value in ours.items():
        if np.ndim(value) != 1 or np.ndim(theirs[key]) != 1:
            continue
        difference = np.asarray(value, dtype=np.float64) - np.asarray(theirs[key], dtype=np.float64)
        solved = np.isfinite(difference)
        low, high = bootstrap(difference[solved], clusters[solved]) or (None, None)
        mean = float(difference[solved].mean()) if solved.any() else None
        result[key] = Difference(mean, low, high)
    return result


def failed(values: Values, count: int) -> np.ndarray:
    """Return a mask (count,) bool of the pairs in which any value of a benchmark is missing."""
    arrays = [value for value in values.values() if np.ndim(value) == 1]
    missing: np.ndarray = ~np.logical_and.reduce([np.isfinite(a) for a in arrays] or [np.ones(count, dtype=bool)])
    return missing
