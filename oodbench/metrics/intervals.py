"""Confidence intervals for the ranking metrics."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import bdtrik, expit, logit, ndtri

from oodbench.metrics.ranking import area_under_roc, checked, twice_below

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A value and its interval; ``low`` and ``high`` are NaN where n is too small for one."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def proportion(hits: int, trials: int, confidence: float = CONFIDENCE) -> Estimate:
    """A rate with Wilson's score interval."""
    return Estimate(hits / trials, *wilson(hits / trials, trials, confidence))


def wilson(rate: float, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Both ends of Wilson's score interval of a rate."""
    z2 = float(ndtri(0.5 + confidence / 2)) ** 2
    centre = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    half = np.sqrt(z2 * (rate * (1 - rate) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    ends = float(centre - half), float(centre + half)
    return max(0.0, min(ends[0], rate)), min(1.0, max(ends[1], rate))


def placements(scores_in: np.ndarray, scores_ood: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each OOD image the share of in-dist images below it, and for each in-dist image the share of OOD images below it.

    Ties count one half; both have the AUROC, or one minus it, as their mean. By sorting, as in Sun & Xu 2014.
    """

    def below(of: np.ndarray, among: np.ndarray) -> np.ndarray:
        rising, order = np.sort(among), np.argsort(of)  # a search for rising values is quicker
        found = np.empty(len(of))
        found[order] = twice_below(rising, of[order]) / (2 * len(among))
        return found

    return below(scores_ood, scores_in), below(scores_in, scores_ood)


def delong_variance(scores_in: np.ndarray, scores_ood: np.ndarray) -> float:
    """DeLong's variance of the AUROC from the placements of each image among the other class.

    ``var(V₁₀)/m + var(V₀₁)/n``. DeLong, DeLong, Clarke-Pearson, Biometrics 1988.
    """
    of_ood, of_in = placements(scores_in, scores_ood)
    return float(of_ood.var(ddof=1) / len(of_ood) + of_in.var(ddof=1) / len(of_in))


def hanley_mcneil_variance(value: float, n_in: int, n_ood: int) -> float:
    """The AUROC's variance were both classes exponential: ``A(1 − A)/(m·n) · [1 + (N − 1)·((1 − A)/(2 − A) + A/(1 + A))]``.

    N, the mean of m and n, stands for both of them. Hanley & McNeil, Radiology 1982, in the symmetric form of Newcombe's
    fifth method, Statistics in Medicine 2006.
    """
    shape = (1 - value) / (2 - value) + value / (1 + value)
    return value * (1 - value) / (n_in * n_ood) * (1 + ((n_in + n_ood) / 2 - 1) * shape)


def score_interval(
    value: float, n_in: int, n_ood: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """All AUROCs from which the found one is not too far, ``|A − θ| ≤ z·√var(θ)``, as Wilson's are for a proportion.

    The variance is :func:`hanley_mcneil_variance`. It has a width at 0 and 1 too, and a better detector has a better bound.
    """
    z = float(ndtri(0.5 + confidence / 2))

    def least(found: float) -> float:
        low, high = 0.0, found
        for _ in range(60):
            middle = (low + high) / 2
            too_far = found - middle > z * np.sqrt(hanley_mcneil_variance(middle, n_in, n_ood))
            low, high = (middle, high) if too_far else (low, middle)
        return low

    return least(value), 1 - least(1 - value)


NEAR = 10
"""Images of the smaller class out of order, in effect, below which an AUROC counts as near 0 or 1."""


def is_near_an_end(value: float, smaller: int) -> bool:
    """Whether an AUROC of a smaller class of that size is so near 0 or 1 that its images in order say little of the rest."""
    return smaller * min(value, 1 - value) < NEAR


def wider(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """What lies in either of two intervals or between them."""
    return min(one[0], other[0]), max(one[1], other[1])


def auroc(
    scores_in: np.ndarray, scores_ood: np.ndarray, confidence: float = CONFIDENCE
) -> Estimate:
    """AUROC with DeLong's interval on the logit scale; near 0 and 1 the wider of it and :func:`score_interval`.

    ``logit A ± z·√var/(A·(1 − A))``. Near an end (:func:`is_near_an_end`), and where no image is placed otherwise than
    another, the variance is estimated from too little. With fewer than two images in a class there is no interval (NaN).
    """
    scores_in, scores_ood = checked(scores_in, scores_ood)
    value, sizes = area_under_roc(scores_in, scores_ood), (len(scores_in), len(scores_ood))
    if min(sizes) < 2:
        return Estimate(value, np.nan, np.nan)
    found = _logit_delong(value, delong_variance(scores_in, scores_ood), confidence)
    if is_near_an_end(value, min(sizes)) or found[0] == found[1]:
        found = wider(found, score_interval(value, *sizes, confidence))
    return Estimate(value, *found)


def _logit_delong(value: float, variance: float, confidence: float) -> tuple[float, float]:
    if variance == 0:
        return value, value
    half = float(ndtri(0.5 + confidence / 2)) * np.sqrt(variance) / (value * (1 - value))
    return float(expit(logit(value) - half)), float(expit(logit(value) + half))


def of_average_precision(value: float, ends: np.ndarray, near: bool, smaller: int) -> Estimate:
    """An average precision with the wider of two intervals.

    Replicates tie images with themselves and so lie to one side of the value, as the value does of what it estimates:
    beside the percentiles stands their reflection on the logit scale, ``2·logit v − logit q``. Near 0 and 1 of the AUROC,
    and where all replicates agree, it is Wilson's interval of as many trials as the smaller class has images.

    Parameters
    ----------
    ends : of the bootstrap's percentile interval
    near : whether the AUROC is near 0 or 1
    """
    low, high = float(ends[0]), float(ends[1])
    inside = min(low, value) > 0 and max(high, value) < 1
    if near or low == high or not inside:
        return Estimate(value, *wider((low, high), wilson(value, smaller)))
    centre = 2 * logit(value)
    reflected = float(expit(centre - logit(high))), float(expit(centre - logit(low)))
    return Estimate(value, *wider((low, high), reflected))


def of_rate_at_threshold(
    value: float, ends: np.ndarray, at_ranks: tuple[float, float], negatives: int
) -> Estimate:
    """A false-positive rate with the wider of two intervals: percentiles, and both its errors squared and added.

    The rate has an error of its own (Wilson), and one from its threshold, a quantile of the other class, whose interval
    goes from one of its ranks to another: ``v ± √(d₁² + d₂²)`` with the distances to either end. Zou & Donner, Statistics
    in Medicine 2008.

    Parameters
    ----------
    ends : of the bootstrap's percentile interval
    at_ranks : the rate at either end of the threshold's interval, see :func:`ranks_of_quantile`
    """
    own, cut = wilson(value, negatives), at_ranks
    low = max(0.0, value - float(np.hypot(value - own[0], value - cut[0])))
    high = min(1.0, value + float(np.hypot(own[1] - value, cut[1] - value)))
    return Estimate(value, *wider((low, high), (float(ends[0]), float(ends[1]))))


def ranks_of_quantile(n: int, share: float) -> tuple[int, int]:
    """Ranks among n sorted images between which the threshold that a share of all such images exceeds lies, at 95 %.

    From 0, above all of them, to n + 1, below all: as many images exceed it as a binomial law says.
    """
    low, high = (np.ceil(bdtrik(p, n, share)) for p in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return int(max(low, 0)), int(min(high, n)) + 1
