"""From a value for each pair to numbers with intervals."""

from collections.abc import Mapping

import numpy as np

from fsframework.evaluation.results import Difference, Estimate

RESAMPLES = 1000
LEVEL = 0.95

Values = Mapping[str, np.ndarray | float]  # what a benchmark returns, by figure


def bootstrap(values: np.ndarray, clusters: np.ndarray, seed: int = 0) -> tuple[float, float] | None:
    """A 95 % interval of the mean by the percentile bootstrap (Efron, 1979), whole clusters being drawn.

    Pairs with the same source person are not independent, so people are drawn and bring all their pairs. Pairs also
    share target people, which is not accounted for, and with few people such intervals are too narrow.

    Parameters
    ----------
    values:
        (n,) finite.
    clusters:
        (n,) the cluster of each value, any integers.
    seed:
        Of the 1000 resamples.

    Returns
    -------
    Low and high, or None with fewer than two clusters.
    """
    found, member = np.unique(clusters, return_inverse=True)
    count = len(found)
    if count < 2:
        return None
    sums = np.bincount(member, weights=values, minlength=count)
    sizes = np.bincount(member, minlength=count)
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)  # (R, count)
    means = (times @ sums) / (times @ sizes)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def summarize(ways: Mapping[str, Values], clusters: np.ndarray) -> dict[str, dict[str, Estimate]]:
    """Return one benchmark's metrics for all that it measured.

    Means are over the pairs that every way solved, so that nobody gains by failing where it is hard. None stands for
    what cannot be said.

    Parameters
    ----------
    ways:
        By way (the method, the baselines): a value for each pair (n,), NaN where it failed, or one number.
    clusters:
        (n,) the source person of each pair.
    """
    summary: dict[str, dict[str, Estimate]] = {way: {} for way in ways}
    for key in next(iter(ways.values()), {}):
        columns = {way: np.asarray(values[key], dtype=np.float64) for way, values in ways.items()}
        solved = np.logical_and.reduce([np.isfinite(column) for column in columns.values()])  # (n,) or ()
        for way, column in columns.items():
            if column.ndim == 0:
                summary[way][key] = Estimate(float(column) if np.isfinite(column) else None, per_pair=False)
                continue
            low, high = bootstrap(column[solved], clusters[solved]) or (None, None)
            summary[way][key] = Estimate(float(column[solved].mean()) if solved.any() else None, low, high)
    return summary


def differences(ours: Values, theirs: Values, clusters: np.ndarray) -> dict[str, Difference]:
    """Return how far one method's figures are above another's on the same pairs, by the paired bootstrap.

    Differences of pairs are drawn as in `bootstrap`, so what makes a pair hard for both methods cancels. An interval
    without 0 says that the methods differ; with many figures, one in twenty says so by chance.

    Parameters
    ----------
    ours, theirs:
        A value for each pair (n,), NaN where it failed; single numbers are left out.
    clusters:
        (n,) the source person of each pair.

    Returns
    -------
    By metric: the mean over the pairs that both solved, and its 95 % interval.
    """
    found: dict[str, Difference] = {}
    for key, value in ours.items():
        if np.ndim(value) != 1 or np.ndim(theirs[key]) != 1:
            continue
        apart = np.asarray(value, dtype=np.float64) - np.asarray(theirs[key], dtype=np.float64)
        solved = np.isfinite(apart)
        low, high = bootstrap(apart[solved], clusters[solved]) or (None, None)
        mean = float(apart[solved].mean()) if solved.any() else None
        found[key] = Difference(mean, low, high)
    return found


def failed(values: Values, count: int) -> np.ndarray:
    """The pairs (count,) bool in which any of a benchmark's values is missing."""
    arrays = [value for value in values.values() if np.ndim(value) == 1]
    missing: np.ndarray = ~np.logical_and.reduce([np.isfinite(a) for a in arrays] or [np.ones(count, dtype=bool)])
    return missing
