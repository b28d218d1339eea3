"""How far people agree beyond chance."""

import numpy as np


def fleiss_kappa(counts: np.ndarray) -> float | None:
    """Fleiss' kappa (Psychological Bulletin 76, 1971), for any number of raters of each subject.

    1 is perfect agreement, 0 what chance gives, below 0 less than that. With equally many raters everywhere this is
    Fleiss' own formula. Otherwise it is the generalisation that Gwet's irrCAC calls Fleiss' generalized kappa: the
    observed agreement is the mean over subjects with two raters or more of the share of their pairs of raters who
    agree; the agreement by chance comes from the mean over all rated subjects of the shares of the categories. A
    subject counts once, however many rated it. Who rated is not used, so that one rater may rate many subjects.

    Parameters
    ----------
    counts:
        (subjects, categories): how many raters chose each category.

    Returns
    -------
    None where it cannot be said: nobody has two raters, or all choose one and the same category.
    """
    raters = counts.sum(axis=1)  # (subjects,)
    rated, several = raters > 0, raters > 1
    if not several.any():
        return None
    n = raters[several]
    agreeing = (counts[several] * (counts[several] - 1)).sum(axis=1) / (n * (n - 1))  # share of pairs of raters
    shares = (counts[rated] / raters[rated, None]).mean(axis=0)  # (categories,)
    chance = float((shares**2).sum())
    if np.isclose(chance, 1):
        return None
    return (float(agreeing.mean()) - chance) / (1 - chance)
