"""Agreement of raters beyond chance."""

import numpy as np


def fleiss_kappa(counts: np.ndarray) -> float | None:
    """Return Fleiss' kappa (Psychological Bulletin 76, 1971) for any number of raters of each subject, or None.

    1 is perfect agreement, 0 the agreement by chance, and negative values are below chance. With equally many raters
    for all subjects this is Fleiss' formula. Otherwise it is the generalisation that Gwet's irrCAC calls Fleiss'
    generalized kappa. Its observed agreement is the mean, over subjects with two raters or more, of the fraction of
    agreeing pairs of raters. Its chance agreement comes from the mean category fractions over all rated subjects. Each
    subject counts once. Raters are anonymous, so one rater may rate many subjects.

    Parameters
    ----------
    counts:
        (subjects, categories): number of raters for each category.

    Returns
    -------
    None if kappa is undefined: no subject has two raters, or all raters choose the same category.
    """
    raters = counts.sum(axis=1)  # (subjects,)
    rated, several = raters > 0, raters > 1
    if not several.any():
        return None
    n = raters[several]
    agreeing = (counts[several] * (counts[several] - 1)).sum(axis=1) / (
        n * (n - 1)
    )  # fraction of agreeing pairs of raters
    shares = (counts[rated] / raters[rated, None]).mean(axis=0)  # (categories,)
    chance = float((shares**2).sum())
    if np.isclose(chance, 1):
        return None
    return (float(agreeing.mean()) - chance) / (1 - chance)
