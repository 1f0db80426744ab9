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


def difference(aurocs: np.ndarray, covariance: np.ndarray, one: int, other: int) -> Difference:
    """The paired DeLong test of two of S scorers; p is 1 for two that never differ."""
    value = float(aurocs[one] - aurocs[other])
    variance = covariance[one, one] + covariance[other, other] - 2 * covariance[one, other]
    error = float(np.sqrt(max(variance, 0.0)))
    half = float(ndtri(0.5 + CONFIDENCE / 2)) * error
    p = float(2 * ndtr(-abs(value) / error)) if error > 0 else float(value == 0)
    return Difference(Estimate(value, value - half, value + half), p)


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
    """A metric of one scorer less that of another with the interval of :func:`paired_lows`."""
    value = float(values[one] - values[other])
    return Estimate(value, float(lows[one][other]), -float(lows[other][one]))


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
    flagged, caught = (_flagged(one[label], other[label], one, other) for label in (0, 1))
    order = np.argsort(flagged, kind="stable")
    envelope = np.maximum.accumulate(caught[order])
    rates = np.concatenate([[0.0], flagged[order], [1.0]])
    best = np.concatenate([[0.0], envelope, [1.0]])
    return float(np.diff(rates) @ (best[1:] + best[:-1]) / 2)


def _flagged(first: np.ndarray, second: np.ndarray, one: Scores, other: Scores) -> np.ndarray:
    """The share of images flagged at each pair of thresholds."""
    cuts = [np.unique(np.concatenate([[-np.inf, np.inf], *scores])) for scores in (one, other)]
    kept = ((first <= cuts[0][:, None])[:, None] & (second <= cuts[1][:, None])[None]).mean(2)
    found: np.ndarray = 1 - kept.ravel()
    return found
