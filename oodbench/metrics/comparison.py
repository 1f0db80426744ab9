"""Whether one scorer ranks the same images better than another: paired tests, and ranks over many pairs of sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from oodbench.metrics.detection import percentiles
from oodbench.metrics.intervals import CONFIDENCE, Estimate, placements

Scores = tuple[np.ndarray, np.ndarray]
"""The scores of the in-dist and of the OOD images."""


def delong_covariance(scores: Sequence[Scores]) -> np.ndarray:
    """Covariance ``(S, S)`` of the AUROCs of S scorers on the same images.

    ``cov(V₁₀)/m + cov(V₀₁)/n`` over the placements of each image among the other class. DeLong, DeLong, Clarke-Pearson,
    Biometrics 1988.
    """
    of_ood, of_in = (
        np.stack(one) for one in zip(*(placements(*one) for one in scores), strict=True)
    )
    return np.atleast_2d(np.cov(of_ood) / of_ood.shape[1] + np.cov(of_in) / of_in.shape[1])


class Difference(NamedTuple):
    """AUROC of one scorer less that of another on the same images, with its interval and two-sided p-value."""

    estimate: Estimate
    p: float


ROUNDING = 1e-6
"""Share of two variances below which the variance of their difference may be rounding."""


def difference(
    aurocs: np.ndarray,
    covariance: np.ndarray,
    one: int,
    other: int,
    sizes: tuple[int, int] | None = None,
) -> Difference:
    """The paired DeLong test of two of S scorers; p is 1 for two that never differ, NaN where there is no variance.

    The variance is that about no difference, ``var + D²·(1/m + 1/n)``, which is that of a score test: of few images the
    spread about their own mean says too little, and of those that all differ alike nothing. What is lost to rounding when
    variances are subtracted is never taken for certainty.

    Parameters
    ----------
    sizes : m and n, the in-dist and the OOD images; without them the variance is DeLong's alone
    """
    value = float(aurocs[one] - aurocs[other])
    both = covariance[one, one] + covariance[other, other]
    variance = float(both - 2 * covariance[one, other])
    if value:
        about_none = value**2 * sum(1 / n for n in sizes) if sizes else 0.0
        variance = max(variance, ROUNDING * float(both)) + about_none
    error = float(np.sqrt(max(variance, 0.0))) if np.isfinite(variance) else float("nan")
    half = float(ndtri(0.5 + CONFIDENCE / 2)) * error
    low, high = (max(value - half, -1.0), min(value + half, 1.0)) if error >= 0 else (error, error)
    return Difference(Estimate(value, low, high), _two_sided(value, error))


def _two_sided(value: float, error: float) -> float:
    """The p-value of a difference; NaN where its error is not known, or is none though there is a difference."""
    if np.isnan(value) or np.isnan(error):
        return float("nan")
    if error == 0:
        return 1.0 if value == 0 else float("nan")
    return float(2 * ndtr(-abs(value) / error))


def paired_lows(replicates: Sequence[np.ndarray]) -> np.ndarray:
    """Lower ends of the paired 95 % bootstrap intervals of a metric's differences, ``(S, S)``: of scorer i less scorer j.

    The upper end of i less j is minus the lower end of j less i. Percentiles over ``(R,)`` replicates a scorer, which are of
    the same resampled images for all S.
    """
    samples = np.stack(replicates)
    one, other = np.triu_indices(len(samples), 1)
    low, high = percentiles(samples[one] - samples[other])
    found = np.zeros((len(samples), len(samples)))
    found[one, other], found[other, one] = low, -high
    return found


def paired_difference(
    values: Sequence[float], lows: Sequence[Sequence[float]], one: int, other: int
) -> Estimate:
    """A metric of one scorer less that of another with the interval of :func:`paired_lows`, which holds it."""
    value = float(values[one] - values[other])
    low, high = float(lows[one][other]), -float(lows[other][one])
    return Estimate(value, min(low, value), max(high, value))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, so that the level bounds the probability of any false rejection. Holm, 1979."""
    order = np.argsort(p_values, kind="stable")
    n = len(order)
    raised = np.minimum(
        np.maximum.accumulate([(n - k) * p_values[i] for k, i in enumerate(order)]), 1.0
    )
    found = np.empty(n)
    found[order] = raised
    return found.tolist()


def average_ranks(table: np.ndarray) -> np.ndarray:
    """Mean rank of each of S scorers over N pairs of sets, 1 for the best; ties share their mean. ``(N, S) -> (S,)``."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(-table, axis=1)).mean(0)


def critical_difference(scorers: int, pairs: int) -> float:
    """Nemenyi's: mean ranks that differ by less are not distinguished at 5 %, ``q·√(k(k + 1)/(6N))``. Demšar, JMLR 2006."""
    from scipy.stats import studentized_range

    q = studentized_range.ppf(CONFIDENCE, scorers, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(scorers * (scorers + 1) / (6 * pairs)))


def rank_correlation(one: Scores, other: Scores) -> float:
    """Spearman's correlation of two scorers over all images of both classes; NaN where one of them is constant."""
    from scipy.stats import rankdata

    a, b = (rankdata(np.concatenate(scores)) for scores in (one, other))
    if a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def oracle_dual_threshold(one: Scores, other: Scores) -> float:
    """Area under the upper envelope of the rates that two thresholds can reach, chosen with the OOD images in sight.

    An image is flagged where either score is above its threshold. For each rate of flagged in-dist images the envelope takes
    the best of all pairs of thresholds, so that the area is never below the AUROC of either score and no detector has it: it
    is not an AUROC. Kamkari et al. (ICML 2024, arXiv:2403.18910) report it for likelihood and local dimension.
    """
    best = _best_caught(one, other)
    found = best >= 0
    rates = np.flatnonzero(found) / (len(best) - 1)
    heights = np.maximum.accumulate(best[found]) / len(one[1])
    return float(np.diff(rates) @ (heights[1:] + heights[:-1]) / 2)


def _best_caught(one: Scores, other: Scores) -> np.ndarray:
    """For each number of flagged in-dist images the most OOD images that two thresholds catch with it; −1 where none has it.

    Each threshold of the first score is met by one walk down the second, over the images that it leaves: O(n) numbers at a
    time and n² steps.
    """
    n_in, first = len(one[0]), np.concatenate(one)
    second = np.concatenate(other)
    order = np.argsort(-second, kind="stable")
    first, second, is_in = first[order], second[order], order < n_in
    ends = np.flatnonzero(np.append(second[1:] != second[:-1], True))
    best = np.full(n_in + 1, -1)
    for cut in np.append(np.unique(first), np.inf):
        left = first <= cut
        flagged, caught = (_walked(left, own, ends) for own in (is_in, ~is_in))
        most = np.full(n_in + 1, -1)
        most[flagged] = caught  # of equal numbers flagged the last one stays, which catches most
        np.maximum(best, most, out=best)
    best[n_in] = len(one[1])
    return best


def _walked(left: np.ndarray, own: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Images of a class above the first threshold, and above it or the second as that falls past each distinct score."""
    above = np.count_nonzero(~left & own)
    return above + np.append(0, np.cumsum(left & own)[ends])
